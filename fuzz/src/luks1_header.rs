//! A header of any bytes: refused, or within the bounds that everything above relies on.
//!
//! The input is the start of an image. Bytes 592 to 600 are, if they are there, the image's length
//! in little endian; what is not in the input is zeros. If there is more, key material is read and
//! written too, which takes a hundred times as long.

use std::fmt::Write as _;

use keyslot::Limits;
use keyslot::Passphrase;
use keyslot::crypto::CipherSpec;
use keyslot::crypto::KdfAlg;
use keyslot::header::luks1;
use keyslot::header::{Header, Leftover, Scheme, Sealed, SlotChange, Step};
use keyslot::unlock::opens;

use super::disk::{Disk, disk};

const HEADER_SIZE: usize = 592;
const LUKS1: &[u8] = b"LUKS\xba\xbe\0\x01";

pub fn check(data: &[u8]) {
    let len = match data.get(HEADER_SIZE..HEADER_SIZE + 8) {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("eight bytes")),
        None => 1 << 40,
    };
    let disk = disk(data, len);
    let parsed = luks1::Luks1Header::parse(data, Some(len));
    let read = Header::read(&disk);
    // What else there may be is told apart by `Header::read` alone.
    if data.len() >= HEADER_SIZE && len >= HEADER_SIZE as u64 && data.starts_with(LUKS1) {
        assert_eq!(message(&parsed), message(&read));
    } else if !data.starts_with(LUKS1) {
        assert!(!matches!(read, Ok(Header::Luks1(_))));
    }
    if let Ok(header) = parsed {
        assert_eq!(header.as_bytes(), &data[..HEADER_SIZE]);
        says_what_is_written(&header, data);
        has_bounds(&header, len);
        if data.len() > HEADER_SIZE + 8 {
            let header = Header::Luks1(header);
            changes_nothing_else(&header, len);
            reads_material(&header, &disk);
        }
    }
}

fn message<T>(result: &keyslot::Result<T>) -> Option<&str> {
    result.as_ref().err().map(keyslot::Error::message)
}

/// The parsed values are those of the bytes, written again just as they were.
fn says_what_is_written(header: &luks1::Luks1Header, data: &[u8]) {
    let text =
        |field: &[u8]| -> Vec<u8> { field.iter().copied().take_while(|&byte| byte != 0).collect() };
    assert_eq!(
        header.check_supported().is_ok(),
        header.cipher().is_some() && header.hash().is_some()
    );
    if let Some(cipher) = header.cipher() {
        assert_eq!(text(&data[8..40]), cipher.cipher_name().as_bytes());
        assert_eq!(text(&data[40..72]).to_ascii_lowercase(), cipher.cipher_mode().as_bytes());
        let again = CipherSpec::new(
            cipher.cipher(),
            cipher.mode(),
            cipher.ivgen(),
            cipher.ivgen_hash(),
            cipher.key_size(),
        );
        assert!(again.is_ok(), "{cipher:?}");
    }
    if let (Some(hash), Some(digest)) = (header.hash(), header.digest()) {
        assert_eq!(text(&data[72..104]).to_ascii_lowercase(), hash.name().as_bytes());
        assert_eq!((digest.value, digest.salt), (&data[112..132], &data[132..164]));
        assert!(digest.iterations > 0);
    }
    assert_eq!(data[108..112], u32::try_from(header.key_size()).expect("small").to_be_bytes());
    let uuid = header.uuid();
    assert!(uuid.chars().count() <= 40 && !uuid.contains(char::is_control));
    let mut debug = String::new();
    write!(debug, "{header:?}").expect("a String");
    assert!(debug.len() < 2000);
}

/// No area reaches into the header, another area, the payload or beyond the image.
fn has_bounds(header: &luks1::Luks1Header, len: u64) {
    let payload = header.payload_offset();
    let limit = if payload == 0 { len } else { payload.min(len) };
    let keyslots: Vec<_> = header.keyslots().collect();
    let damaged = header.damaged().count();
    assert_eq!(keyslots.len(), if header.check_supported().is_ok() { 8 - damaged } else { 0 });
    for (i, keyslot) in keyslots.iter().enumerate() {
        let area = keyslot.area;
        assert!(area.offset >= HEADER_SIZE as u64);
        assert!(area.offset + area.len as u64 <= limit);
        assert!(area.len >= keyslot.encryption.key_size() * keyslot.stripes as usize);
        for other in &keyslots[i + 1..] {
            let (first, second) = if area.offset < other.area.offset {
                (area, other.area)
            } else {
                (other.area, area)
            };
            assert!(first.offset + first.len as u64 <= second.offset);
        }
        let KdfAlg::Pbkdf2 { iterations, .. } = keyslot.kdf.alg else { continue };
        assert!(iterations > 0 || !keyslot.active);
    }
    for leftover in header.leftovers() {
        let active = |i: usize| header.entries().nth(i).expect("eight entries").active;
        assert!(match leftover {
            Leftover::Wipe { keyslot } => !active(keyslot),
            Leftover::Replace { keyslot, staging } => !active(keyslot) && active(staging),
            Leftover::Twins { keyslot, staging } | Leftover::Staging { keyslot, staging } =>
                keyslot != staging && active(keyslot) && active(staging),
            _ => true,
        });
    }
}

/// A change of the last keyslot writes in its area and its entry, and leaves a valid header.
fn changes_nothing_else(header: &Header, len: u64) {
    let Some(keyslot) = header.keyslot(7) else { return };
    let area = keyslot.area;
    let change = if keyslot.active {
        SlotChange::Deactivate { keyslot: 7 }
    } else {
        let material = vec![0; area.len].into();
        let (encryption, hash) = (keyslot.encryption.clone(), keyslot.af_hash);
        let kdf = KdfAlg::Pbkdf2 { hash, iterations: 1 };
        let scheme = Scheme { kdf, encryption, af_hash: hash };
        SlotChange::Activate {
            keyslot: 7,
            sealed: Sealed { scheme, salt: [1; 32], key_size: keyslot.key_size, material },
        }
    };
    let (stages, after) = header.lower(&[change]).expect("it starts from its state");
    let Header::Luks1(before) = header else { return };
    let mut bytes = before.as_bytes().to_vec();
    for step in stages.iter().flat_map(|stage| &stage.steps) {
        let Step::Write { offset, bytes: written } = step else { continue };
        let at = usize::try_from(*offset).expect("it is below the payload");
        if at < HEADER_SIZE {
            bytes[at..at + written.len()].copy_from_slice(written);
        } else {
            assert_eq!((*offset, written.len()), (area.offset, area.len));
        }
    }
    let entry = 208 + 7 * 48;
    assert_eq!(bytes[..entry], before.as_bytes()[..entry]);
    assert_eq!(bytes[entry + 40..], before.as_bytes()[entry + 40..]);
    let Header::Luks1(after) = after else { return };
    assert_eq!(bytes, after.as_bytes());
    luks1::Luks1Header::parse(&bytes, Some(len)).expect("valid before, valid after");
}

fn reads_material(header: &Header, disk: &Disk<'_>) {
    let wrong = Passphrase::new(b"wrong").expect("memory");
    let limits = Limits::NONE.with_iterations(4);
    if let Some(keyslot) = header.keyslots().find(|keyslot| keyslot.active) {
        // Any answer but a panic; no digest of 20 bytes is hit by accident.
        assert!(!matches!(opens(disk, &keyslot, &wrong, limits), Ok(Some(_))));
    }
    let Some(area) = header.keyslot(0).map(|keyslot| keyslot.area) else { return };
    let from = usize::try_from(area.offset).unwrap_or(usize::MAX).min(disk.start.0.len());
    let to = from.saturating_add(area.len).min(disk.start.0.len());
    let blank = disk.start.0[from..to].iter().all(|&byte| byte == 0);
    assert_eq!(header.is_blank(0, disk).expect("it lies in the image"), blank);
}
