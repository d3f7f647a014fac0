//! Copies between raw bytes and volumes, with any unit for holes and any number of threads, some
//! with a storage that fails, and zeros written to the target: the target begins with the source,
//! and the rest of it is as it was.

use std::num::NonZero;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use keyslot::crypto::CipherSpec;
use keyslot::header::Segment;
use keyslot::secret::SecretBytes;
use keyslot::storage::Storage;
use keyslot::volume::{CopyOptions, Keyring, Side};
use keyslot::{ErrorKind, Volume, VolumeKey};

use super::memory::{Memory, memory};

/// Two images, and how one is copied to the other.
#[derive(Arbitrary, Debug)]
pub struct Run {
    source: Image,
    target: Image,
    data: Vec<Stretch>,
    /// More bytes of the target, or of the source where it is odd
    more: u16,
    threads: u8,
    unit: u32,
    target_is_zero: bool,
    fault: Option<u8>,
    zeros: Option<(u64, u64)>,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Image {
    Raw,
    Volume { cipher: u8, power: u8, split: u8 },
}

/// So many bytes of one kind
#[derive(Arbitrary, Debug)]
struct Stretch {
    byte: u8,
    len: u16,
    /// In units of 64
    is_long: bool,
}

pub fn check(run: &Run) {
    let mut plain = Vec::new();
    for stretch in run.data.iter().take(MOST_STRETCHES) {
        let len = usize::from(stretch.len) * if stretch.is_long { 64 } else { 1 };
        plain.resize((plain.len() + len).min(MOST_BYTES), stretch.byte);
    }
    // A raw source may end in the middle of a sector; its rest is zeros.
    if !matches!(run.source, Image::Raw) {
        plain.truncate(plain.len() / SECTOR * SECTOR);
    }
    let padded = plain.len().next_multiple_of(SECTOR);
    let more = usize::from(run.more) / 2 * SECTOR;
    let target_len =
        if run.more.is_multiple_of(2) { padded + more } else { padded.saturating_sub(more) };

    let source = Opened::new(run.source, plain.len(), 0x11);
    source.write(&plain);
    let filler = if run.target_is_zero && matches!(run.target, Image::Raw) { 0 } else { 0x22 };
    let target = Opened::new(run.target, target_len, filler);
    let mut expected = target.plain();
    let before = target.memory.bytes();

    let threads = NonZero::new(usize::from(run.threads & 3) + 1).expect("one at least");
    let options = CopyOptions::new()
        .threads(threads)
        .sparse(run.unit as usize & 0xffff)
        .target_is_zero(run.target_is_zero && filler == 0);
    target.memory.set_fault(run.fault);
    let result = options.copy(source.side(), target.side(), &|_| {});
    target.memory.set_fault(None);
    if target_len < padded {
        assert_eq!(result.expect_err("it does not fit").kind(), ErrorKind::InvalidInput);
        assert!(target.memory.bytes() == before);
        return;
    }
    if let Err(error) = result {
        assert!(run.fault.is_some() && error.kind() == ErrorKind::Io, "{error:?}");
        return;
    }
    plain.resize(padded, 0);
    expected[..padded].copy_from_slice(&plain);
    assert!(target.plain() == expected);
    options.compare(source.side(), target.side(), &|_| {}).expect("they are the same");

    if let (Some((offset, len)), Some(volume)) = (run.zeros, &target.volume) {
        let end = offset.checked_add(len).filter(|&end| end <= volume.len());
        let before = target.memory.bytes();
        let result = volume.write_zeros_at(offset, len);
        assert_eq!(result.is_ok(), end.is_some());
        if let Some(end) = end {
            expected[bytes(offset)..bytes(end)].fill(0);
            assert!(target.plain() == expected);
        } else {
            assert!(target.memory.bytes() == before);
        }
    }
}

/// An image in memory.
struct Opened {
    memory: Memory,
    volume: Option<Volume>,
}

impl Opened {
    /// So many bytes, all of which are `filler`.
    fn new(image: Image, len: usize, filler: u8) -> Self {
        let Image::Volume { cipher, power, split } = image else {
            return Self { memory: memory(vec![filler; len]), volume: None };
        };
        let (name, mode) = CIPHERS[usize::from(cipher) % CIPHERS.len()];
        let encryption = CipherSpec::parse(name, mode, 32).expect("a cipher");
        // Sectors that divide both segments.
        let first = len / SECTOR * usize::from(split) / 256 * SECTOR;
        let fits =
            |size: &usize| first.is_multiple_of(*size) && (len - first).is_multiple_of(*size);
        let size = Some(SECTOR << (power & 3)).filter(fits).unwrap_or(SECTOR);
        let mut at = SECTOR;
        let segments = [first, len - first].map(|len| {
            let (offset, encryption) = (at as u64, encryption.clone());
            at += len + SECTOR;
            Segment { offset, len: len as u64, iv_tweak: 7, sector_size: size, encryption, key: 0 }
        });
        let memory = memory(vec![0; at]);
        let volume =
            Volume::new(Arc::new(memory.clone()), segments.to_vec(), &Keyring::single(&KEY));
        let volume = volume.expect("valid segments");
        volume.write_all_at(&vec![filler; len], 0).expect("it is within");
        Self { memory, volume: Some(volume) }
    }

    fn side(&self) -> Side<'_> {
        match &self.volume {
            Some(volume) => Side::volume(volume),
            None => Side::raw(&self.memory).expect("a length"),
        }
    }

    fn write(&self, plain: &[u8]) {
        match &self.volume {
            Some(volume) => volume.write_all_at(plain, 0).expect("it is within"),
            None => self.memory.write_all_at(plain, 0).expect("it is within"),
        }
    }

    /// The decrypted payload.
    fn plain(&self) -> Vec<u8> {
        let Some(volume) = &self.volume else { return self.memory.bytes() };
        let mut plain = vec![0; bytes(volume.len())];
        volume.read_exact_at(&mut plain, 0).expect("it is within");
        plain
    }
}

fn bytes(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

static KEY: LazyLock<VolumeKey> = LazyLock::new(|| {
    SecretBytes::from_slice(b"a key that is of exactly 32 byte").expect("memory").into()
});
const CIPHERS: [(&str, &str); 3] =
    [("aes", "xts-plain64"), ("aes", "cbc-essiv:sha256"), ("twofish", "xts-plain")];
const SECTOR: usize = 512;
const MOST_STRETCHES: usize = 6;
/// Three pieces of a copy, not whole
const MOST_BYTES: usize = 2 * CopyOptions::PIECE + 12_345;
