//! The part of an access that is in one segment, and where bytes become sectors.

use std::io;
use std::ops::Range;

use zeroize::Zeroizing;

use super::RangeLock;
use crate::crypto::SectorCipher;
use crate::error::{Error, Operation, Result};
use crate::header::Segment;
use crate::storage::Storage;

/// A range of bytes, not empty, within one segment.
pub(super) struct Part<'a> {
    pub storage: &'a dyn Storage,
    pub range_lock: &'a RangeLock,
    /// Bytes from the start of what the range lock is for to the start of the storage
    pub base: u64,
    pub cipher: &'a SectorCipher,
    pub segment: &'a Segment,
    /// Where the segment begins in the volume
    pub start: u64,
    /// Where the part begins in the segment
    pub at: u64,
    pub len: u64,
}

/// Bytes to be written.
#[derive(Clone, Copy)]
pub(super) enum Plain<'a> {
    Bytes(&'a [u8]),
    /// So many zeros
    Zeros(u64),
}

impl Part<'_> {
    /// Fills `buf`, which is as long as the part.
    pub fn read(&self, buf: &mut [u8]) -> Result<()> {
        let _shared = self.range_lock.shared(self.locked());
        let (head, rest) = buf.split_at_mut(self.head());
        let (middle, tail) = rest.split_at_mut(rest.len() - rest.len() % self.sector_size());

        let mut at = self.at;
        if !head.is_empty() {
            let sector = self.read_sector(at)?;
            head.copy_from_slice(&sector[self.within_sector(at)..][..head.len()]);
            at += head.len() as u64;
        }
        if !middle.is_empty() {
            self.read_sectors(at, middle)?;
            at += middle.len() as u64;
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&self.read_sector(at)?[..tail.len()]);
        }
        Ok(())
    }

    /// Writes `data`, which is as long as the part: to others at once, however long it is.
    pub fn write(&self, data: Plain<'_>) -> Result<()> {
        let _exclusive = self.range_lock.exclusive(self.locked());
        let (head, rest) = data.split_at(self.head() as u64);
        let (middle, tail) = rest.split_at(rest.len() - rest.len() % self.sector_size() as u64);

        // Both are read before anything is written, so that what cannot be read changes nothing.
        let head = self.merge(self.at, head)?;
        let tail = self.merge(self.at + self.len - tail.len(), tail)?;
        let (head, tail) = (bytes(head.as_ref()), bytes(tail.as_ref()));
        let len = (head.len() + tail.len()) as u64 + middle.len();

        // What is written is gathered here, encrypted: the caller's bytes stay as they are.
        let mut scratch = vec![0; usize::try_from(len).map_or(SCRATCH, |len| len.min(SCRATCH))];
        let mut at = self.sectors().start - self.segment.offset;
        let mut filled = 0;
        for plaintext in [Plain::Bytes(head), middle, Plain::Bytes(tail)] {
            let mut rest = plaintext;
            while rest.len() > 0 {
                let (now, later) = rest.split_at((scratch.len() - filled) as u64);
                let first = self.segment.iv_sector(at + filled as u64);
                filled += now.encrypt_to(self.cipher, first, &mut scratch[filled..]);
                rest = later;
                if filled == scratch.len() {
                    self.write_encrypted(at, &scratch)?;
                    at += filled as u64;
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            self.write_encrypted(at, &scratch[..filled])?;
        }
        Ok(())
    }

    /// Writes `buf`, which is as long as the part and [aligned](Self::is_aligned), and encrypts it
    /// where it is.
    pub fn write_in_place(&self, buf: &mut [u8]) -> Result<()> {
        let _exclusive = self.range_lock.exclusive(self.locked());
        self.cipher.encrypt(self.segment.iv_sector(self.at), buf);
        self.write_encrypted(self.at, buf)
    }

    /// Length of the part of a buffer that it is of.
    pub fn buf_len(&self) -> usize {
        usize::try_from(self.len).expect("it is no longer than the buffer")
    }

    /// Whether it is whole sectors.
    pub fn is_aligned(&self) -> bool {
        self.within_sector(self.at) == 0 && self.len.is_multiple_of(self.sector_size() as u64)
    }

    /// The range to lock: volumes that share a lock may divide the same bytes differently.
    fn locked(&self) -> Range<u64> {
        let Range { start, end } = self.sectors();
        self.base.saturating_add(start)..self.base.saturating_add(end)
    }

    /// The sectors it touches, as bytes of the storage.
    pub fn sectors(&self) -> Range<u64> {
        let sector_size = self.sector_size() as u64;
        let end = (self.at + self.len).next_multiple_of(sector_size);
        self.segment.offset + self.at - self.at % sector_size..self.segment.offset + end
    }

    /// Length of what comes before the first sector that begins in the part.
    fn head(&self) -> usize {
        match self.within_sector(self.at) {
            0 => 0,
            skipped => {
                let whole = self.sector_size() - skipped;
                usize::try_from(self.len).map_or(whole, |len| whole.min(len))
            }
        }
    }

    /// The sector around byte `at` of the segment with `plaintext` put there, if there is any.
    fn merge(&self, at: u64, plaintext: Plain<'_>) -> Result<Option<Sector>> {
        if plaintext.len() == 0 {
            return Ok(None);
        }
        let mut sector = self.read_sector(at)?;
        plaintext.copy_to(&mut sector[self.within_sector(at)..]);
        Ok(Some(sector))
    }

    /// The sector around byte `at` of the segment.
    fn read_sector(&self, at: u64) -> Result<Sector> {
        let mut sector = Sector::new(vec![0; self.sector_size()]);
        let start = at - self.within_sector(at) as u64;
        self.read_sectors(start, &mut sector)?;
        Ok(sector)
    }

    fn read_sectors(&self, at: u64, buf: &mut [u8]) -> Result<()> {
        read_padded(self.storage, buf, self.segment.offset + at)
            .map_err(|error| self.failed(Operation::Read, buf.len(), at, error))?;
        self.cipher.decrypt(self.segment.iv_sector(at), buf);
        Ok(())
    }

    fn write_encrypted(&self, at: u64, ciphertext: &[u8]) -> Result<()> {
        self.storage
            .write_all_at(ciphertext, self.segment.offset + at)
            .map_err(|error| self.failed(Operation::Write, ciphertext.len(), at, error))
    }

    fn failed(&self, operation: Operation, len: usize, at: u64, error: io::Error) -> Error {
        let (volume, storage) = (self.start + at, self.segment.offset + at);
        let object = format_args!(
            "{len} bytes at byte {volume} of the volume (byte {storage} of the image)"
        );
        Error::failed(operation, object, error).with_offset(storage)
    }

    fn sector_size(&self) -> usize {
        self.cipher.sector_size()
    }

    fn within_sector(&self, at: u64) -> usize {
        // Sectors have at most 4096 bytes.
        #[expect(clippy::cast_possible_truncation, reason = "less than the sector size")]
        let within = (at % self.sector_size() as u64) as usize;
        within
    }
}

impl Plain<'_> {
    pub fn len(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) => len,
        }
    }

    /// The first `len` bytes, or all if there are not so many, and the rest.
    pub fn split_at(self, len: u64) -> (Self, Self) {
        match self {
            Self::Bytes(bytes) => {
                let len = usize::try_from(len).map_or(bytes.len(), |len| len.min(bytes.len()));
                let (now, later) = bytes.split_at(len);
                (Self::Bytes(now), Self::Bytes(later))
            }
            Self::Zeros(all) => (Self::Zeros(all.min(len)), Self::Zeros(all.saturating_sub(len))),
        }
    }

    /// Copies it to the beginning of `out`, which has room for it.
    fn copy_to(self, out: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => out[..bytes.len()].copy_from_slice(bytes),
            Self::Zeros(len) => beginning(out, len).fill(0),
        }
    }

    /// Encrypts it to the beginning of `out`, which has room for it, and says how long it is.
    fn encrypt_to(self, cipher: &SectorCipher, first: u64, out: &mut [u8]) -> usize {
        match self {
            Self::Bytes(bytes) => {
                cipher.encrypt_to(first, bytes, &mut out[..bytes.len()]);
                bytes.len()
            }
            Self::Zeros(len) => {
                let out = beginning(out, len);
                out.fill(0);
                cipher.encrypt(first, out);
                out.len()
            }
        }
    }
}

/// Reads whole sectors of 512 bytes. Where the storage ends in the middle of one, the rest of it
/// reads as zeros, as with QEMU.
fn read_padded(storage: &dyn Storage, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let error = match storage.read_exact_at(buf, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => error,
        result => return result,
    };
    let len = storage.len()?;
    let there = len.checked_sub(offset).and_then(|there| usize::try_from(there).ok());
    let Some((there, missing)) = there.map(|there| buf.split_at_mut(there.min(buf.len()))) else {
        return Err(error);
    };
    if missing.len() >= SectorCipher::SECTOR_SIZE {
        return Err(error);
    }
    storage.read_exact_at(there, offset)?;
    missing.fill(0);
    Ok(())
}

fn beginning(out: &mut [u8], len: u64) -> &mut [u8] {
    let len = usize::try_from(len).expect("there is room for it");
    &mut out[..len]
}

fn bytes(sector: Option<&Sector>) -> &[u8] {
    sector.map_or(&[], |sector| sector.as_slice())
}

/// Decrypted, so wiped when it is dropped; not moved about meanwhile.
type Sector = Zeroizing<Vec<u8>>;

/// How much is encrypted between two writes to the storage; a multiple of every sector size.
const SCRATCH: usize = 256 * 1024;
