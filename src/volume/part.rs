//! The part of an access that is in one segment, and where bytes become sectors.

use std::io;

use zeroize::Zeroizing;

use super::RangeLock;
use crate::crypto::SectorCipher;
use crate::error::{Error, Result};
use crate::header::Segment;
use crate::storage::Storage;

/// A range of bytes, not empty, within one segment.
pub(super) struct Part<'a> {
    pub storage: &'a dyn Storage,
    pub range_lock: &'a RangeLock,
    pub cipher: &'a SectorCipher,
    pub segment: &'a Segment,
    /// Where the segment begins in the volume
    pub start: u64,
    /// Where the part begins in the segment
    pub at: u64,
    pub len: usize,
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

    /// Writes `buf`, which is as long as the part.
    pub fn write(&self, buf: &[u8]) -> Result<()> {
        let _exclusive = self.range_lock.exclusive(self.locked());
        let (head, rest) = buf.split_at(self.head());
        let (middle, tail) = rest.split_at(rest.len() - rest.len() % self.sector_size());

        // Both are read before anything is written, so that what cannot be read changes nothing.
        let head = self.merge(self.at, head)?;
        let tail = self.merge(self.at + (buf.len() - tail.len()) as u64, tail)?;
        let whole = |sector: &Option<Sector>| sector.as_ref().map_or(0, |_| self.sector_size());
        let len = whole(&head) + middle.len() + whole(&tail);

        // What is written is gathered here, encrypted: the caller's bytes stay as they are.
        let mut scratch = vec![0; len.min(SCRATCH)];
        let mut at = self.locked().start - self.segment.offset;
        let mut filled = 0;
        for plaintext in [bytes(head.as_ref()), middle, bytes(tail.as_ref())] {
            let mut rest = plaintext;
            while !rest.is_empty() {
                let free = &mut scratch[filled..];
                let (now, later) = rest.split_at(rest.len().min(free.len()));
                let first = self.segment.iv_sector(at + filled as u64);
                self.cipher.encrypt_to(first, now, &mut free[..now.len()]);
                filled += now.len();
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

    /// Whether it is whole sectors.
    pub fn is_aligned(&self) -> bool {
        self.within_sector(self.at) == 0 && self.len.is_multiple_of(self.sector_size())
    }

    /// The sectors it touches, as bytes of the storage: volumes that share a lock may divide the
    /// same storage differently.
    fn locked(&self) -> std::ops::Range<u64> {
        let sector_size = self.sector_size() as u64;
        let end = (self.at + self.len as u64).next_multiple_of(sector_size);
        self.segment.offset + self.at - self.at % sector_size..self.segment.offset + end
    }

    /// Length of what comes before the first sector that begins in the part.
    fn head(&self) -> usize {
        match self.within_sector(self.at) {
            0 => 0,
            skipped => (self.sector_size() - skipped).min(self.len),
        }
    }

    /// The sector around byte `at` of the segment with `plaintext` put there, if there is any.
    fn merge(&self, at: u64, plaintext: &[u8]) -> Result<Option<Sector>> {
        if plaintext.is_empty() {
            return Ok(None);
        }
        let mut sector = self.read_sector(at)?;
        sector[self.within_sector(at)..][..plaintext.len()].copy_from_slice(plaintext);
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
            .map_err(|error| self.failed("read", buf.len(), at, error))?;
        self.cipher.decrypt(self.segment.iv_sector(at), buf);
        Ok(())
    }

    fn write_encrypted(&self, at: u64, ciphertext: &[u8]) -> Result<()> {
        self.storage
            .write_all_at(ciphertext, self.segment.offset + at)
            .map_err(|error| self.failed("write", ciphertext.len(), at, error))
    }

    fn failed(&self, verb: &str, len: usize, at: u64, error: io::Error) -> Error {
        let (volume, storage) = (self.start + at, self.segment.offset + at);
        let place = format_args!("byte {volume} of the volume (byte {storage} of the image)");
        Error::io(format_args!("{verb} {len} bytes at {place}"), error)
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

fn bytes(sector: Option<&Sector>) -> &[u8] {
    sector.map_or(&[], |sector| sector.as_slice())
}

/// Decrypted, so wiped when it is dropped; not moved about meanwhile.
type Sector = Zeroizing<Vec<u8>>;

/// How much is encrypted between two writes to the storage; a multiple of every sector size.
const SCRATCH: usize = 256 * 1024;
