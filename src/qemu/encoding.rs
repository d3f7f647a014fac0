//! Encodings of a secret object: base64, and AES-256-CBC under another secret.

use aes::Aes256;
use cbc::Decryptor;
use cipher::{Array, BlockModeDecrypt, KeyIvInit};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::SecretBytes;

/// Decodes base64 as QEMU does (`GLib`'s decoder after a check of the alphabet). Passphrases of
/// existing images depend on its quirks: newlines are skipped, a last group of less than four
/// characters is dropped, and `=` is a zero in the middle of the text.
pub(super) fn decode_base64(text: &[u8]) -> Result<SecretBytes> {
    if text.contains(&0) {
        return Err(invalid("Base64 data contains embedded NUL characters"));
    }
    let mut bytes = SecretBytes::zeroed(text.len() / 4 * 3)?;
    let mut filled = 0;
    let mut group = [0_u8; 4];
    let mut count = 0;
    let mut bits = 0_u32;
    for &char in text.iter().filter(|char| **char != b'\n') {
        let value = if char == b'=' { Some(0) } else { value_of(char) };
        bits = bits << 6 | value.ok_or_else(|| invalid(INVALID_CHARACTERS))?;
        group[count] = char;
        count += 1;
        if count < 4 {
            continue;
        }
        let out = &mut bytes.as_mut_slice()[filled..filled + 3];
        out.copy_from_slice(&bits.to_be_bytes()[1..]);
        // Padded from the end: `x==x` has its third byte, and not its second.
        filled += 1;
        if group[2] != b'=' {
            filled += 1;
        } else if group[3] != b'=' {
            out[1] = out[2];
        }
        if group[3] != b'=' {
            filled += 1;
        }
        (count, bits) = (0, 0);
    }
    bytes.truncate(filled);
    Ok(bytes)
}

const INVALID_CHARACTERS: &str = "Base64 data contains invalid characters";

/// The six bits of a character, without a branch or a table that depends on it.
fn value_of(char: u8) -> Option<u32> {
    let char = i32::from(char);
    // All ones where `first <= char <= last`, else zero.
    let within =
        |first: u8, last: u8| ((i32::from(first) - 1 - char) & (char - i32::from(last) - 1)) >> 31;
    let value = -1
        + (within(b'A', b'Z') & (char - 64))
        + (within(b'a', b'z') & (char - 70))
        + (within(b'0', b'9') & (char + 5))
        + (within(b'+', b'+') & 63)
        + (within(b'/', b'/') & 64);
    u32::try_from(value).ok()
}

/// Decrypts a secret with QEMU's `keyid` and `iv`: AES-256-CBC with PKCS7 padding.
///
/// As in QEMU only the last byte of the padding counts, and it may be zero.
pub(super) fn decrypt(key: &[u8], iv: &[u8], mut bytes: SecretBytes) -> Result<SecretBytes> {
    let (blocks, rest) = Array::slice_as_chunks_mut(bytes.as_mut_slice());
    if !rest.is_empty() {
        return Err(invalid(format!(
            "Length {} must be a multiple of block size {BLOCK}",
            bytes.len()
        )));
    }
    Decryptor::<Aes256>::new_from_slices(key, iv)
        .map_err(|_| invalid("Key should be 32 bytes in length"))?
        .decrypt_blocks(blocks);
    // For an empty buffer, QEMU reads the byte before it.
    let padding = usize::from(*bytes.as_slice().last().unwrap_or(&0));
    if padding > BLOCK || bytes.is_empty() {
        return Err(invalid(format!(
            "Incorrect number of padding bytes ({padding}) found on decrypted data"
        )));
    }
    bytes.truncate(bytes.len() - padding);
    Ok(bytes)
}

const BLOCK: usize = 16;

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_qemu_decodes_it() {
        for (text, bytes) in [
            ("aHVudGVyMg==", &b"hunter2"[..]),
            ("aHVudGVyMg==\n", b"hunter2"),
            ("aHVu\n\ndGVyMg==", b"hunter2"),
            ("aHVudGVyMg=\n=", b"hunter2"),
            ("aHVudGVyMh==", b"hunter2"),
            ("aHVudGVyMg==Zz=", b"hunter2"),
            ("aHVudGU=cjI=", b"hunter2"),
            ("aHVudGVyMg=", b"hunter"),
            ("aHVudGVyMg", b"hunter"),
            ("YQ", b""),
            ("", b""),
            ("+/+/", b"\xfb\xff\xbf"),
            ("=BCD", b"\x00\x10\x83"),
            ("AB=D", b"\x00\x03"),
            ("A=CD", b"\x00\x00\x83"),
            ("==CD", b"\x00\x00\x83"),
            ("A===", b"\x00"),
            ("====", b"\x00"),
            ("AAAA=", b"\x00\x00\x00"),
            ("AB==CD==", b"\x00\x08"),
            ("ABC=D===", b"\x00\x10\x0c"),
            ("AB=\nDABCD", b"\x00\x03\x00\x10\x83"),
        ] {
            let decoded = decode_base64(text.as_bytes()).unwrap();
            assert_eq!(decoded.as_slice(), bytes, "{text:?}");
        }
    }

    #[test]
    fn not_base64() {
        for text in ["!", "YQ==\r\n", "Y Q==", "YWJj\t", "YQ-_", "\u{e9}", "@[`{", "/:.,"] {
            let error = decode_base64(text.as_bytes()).unwrap_err();
            assert_eq!(error.message(), INVALID_CHARACTERS, "{text:?}");
        }
        let error = decode_base64(b"YQ==\0").unwrap_err();
        assert_eq!(error.message(), "Base64 data contains embedded NUL characters");
    }
}
