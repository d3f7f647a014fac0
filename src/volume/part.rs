//! The part of an access that lies in one extent, and the conversion between bytes and sectors.

use std::ops::Range;

use zeroize::Zeroizing;

use super::encrypted::Encrypted;
use super::{Extent, RangeLock};
use crate::crypto::SectorCipher;
use crate::error::{Error, ErrorKind, Operation, Result};

/// A nonempty byte range within one extent.
pub(super) struct Part<'a> {
    pub range_lock: &'a RangeLock,
    pub extent: Extent,
    /// Location of the extent; `None` for a hole
    pub place: Option<Encrypted<'a>>,
    /// Length of a sector; in a hole, of the longest that it may become
    pub sector_size: usize,
    /// Offset of the part in the extent
    pub at: u64,
    pub len: u64,
}

/// Plaintext to write.
#[derive(Clone, Copy)]
pub(super) enum Plain<'a> {
    Bytes(&'a [u8]),
    /// This many zeros
    Zeros(u64),
}

impl Part<'_> {
    /// Fills `buf`, which has the length of the part.
    pub fn read(&self, buf: &mut [u8]) -> Result<()> {
        let Some(place) = &self.place else {
            buf.fill(0);
            return Ok(());
        };
        let _shared = self.range_lock.shared(self.locked());
        let (head, rest) = buf.split_at_mut(self.head());
        let (middle, tail) = rest.split_at_mut(rest.len() - rest.len() % self.sector_size);

        let mut at = self.at;
        if !head.is_empty() {
            let sector = self.read_sector(place, at)?;
            head.copy_from_slice(&sector[self.within_sector(at)..][..head.len()]);
            at += head.len() as u64;
        }
        if !middle.is_empty() {
            place.read(self.extent.start, at, middle)?;
            at += middle.len() as u64;
        }
        if !tail.is_empty() {
            tail.copy_from_slice(&self.read_sector(place, at)?[..tail.len()]);
        }
        Ok(())
    }

    /// Writes `data`, which has the length of the part. The write is atomic for other threads.
    ///
    /// Zeros in a hole are a no-op. Other data needs an allocated extent.
    pub fn write(&self, data: Plain<'_>) -> Result<()> {
        let Some(place) = &self.place else {
            return if let Plain::Zeros(_) = data { Ok(()) } else { Err(self.hole()) };
        };
        let _exclusive = self.range_lock.exclusive(self.locked());
        let (head, rest) = data.split_at(self.head() as u64);
        let (middle, tail) = rest.split_at(rest.len() - rest.len() % self.sector_size as u64);

        // Read both partial sectors before writing anything, so that a read error changes nothing.
        let head = self.merge(place, self.at, head)?;
        let tail = self.merge(place, self.at + self.len - tail.len(), tail)?;
        let (head, tail) = (bytes(head.as_ref()), bytes(tail.as_ref()));
        let len = (head.len() + tail.len()) as u64 + middle.len();

        // Gathers the ciphertext, because the caller's bytes must not change.
        let mut scratch = vec![0; usize::try_from(len).map_or(SCRATCH, |len| len.min(SCRATCH))];
        let mut at = self.sectors().start;
        let mut filled = 0;
        for plaintext in [Plain::Bytes(head), middle, Plain::Bytes(tail)] {
            let mut rest = plaintext;
            while rest.len() > 0 {
                let (now, later) = rest.split_at((scratch.len() - filled) as u64);
                let first = place.iv_sector(at + filled as u64);
                filled += now.encrypt_to(place.cipher, first, &mut scratch[filled..]);
                rest = later;
                if filled == scratch.len() {
                    place.write(self.extent.start, at, &scratch)?;
                    at += filled as u64;
                    filled = 0;
                }
            }
        }
        if filled > 0 {
            place.write(self.extent.start, at, &scratch[..filled])?;
        }
        Ok(())
    }

    /// Encrypts and writes `buf`, which has the length of the part and is
    /// [aligned](Self::is_aligned).
    pub fn write_in_place(&self, buf: &mut [u8]) -> Result<()> {
        let Some(place) = &self.place else { return Err(self.hole()) };
        let _exclusive = self.range_lock.exclusive(self.locked());
        place.cipher.encrypt(place.iv_sector(self.at), buf);
        place.write(self.extent.start, self.at, buf)
    }

    /// Length of the part, which comes from a buffer and so fits `usize`.
    pub fn buf_len(&self) -> usize {
        usize::try_from(self.len).expect("it is no longer than the buffer")
    }

    /// Whether the part consists of whole sectors.
    pub fn is_aligned(&self) -> bool {
        self.within_sector(self.at) == 0 && self.len.is_multiple_of(self.sector_size as u64)
    }

    /// The range to lock. Other volumes with the same lock may split the same bytes into other
    /// extents.
    fn locked(&self) -> Range<u64> {
        let Range { start, end } = self.sectors();
        self.extent.lock.saturating_add(start)..self.extent.lock.saturating_add(end)
    }

    /// The storage range of the part, rounded out to sectors. `None` for a hole.
    pub fn stored(&self) -> Option<Range<u64>> {
        let (offset, sectors) = (self.place.as_ref()?.offset, self.sectors());
        Some(offset + sectors.start..offset + sectors.end)
    }

    /// The sectors that the part touches, as bytes of the extent.
    fn sectors(&self) -> Range<u64> {
        let sector_size = self.sector_size as u64;
        let end = (self.at + self.len).next_multiple_of(sector_size);
        self.at - self.at % sector_size..end
    }

    /// Number of bytes before the first sector boundary in the part.
    fn head(&self) -> usize {
        match self.within_sector(self.at) {
            0 => 0,
            skipped => {
                let whole = self.sector_size - skipped;
                usize::try_from(self.len).map_or(whole, |len| whole.min(len))
            }
        }
    }

    /// The sector around byte `at` of the extent, with `plaintext` merged in. `None` if `plaintext`
    /// is empty.
    fn merge(
        &self,
        place: &Encrypted<'_>,
        at: u64,
        plaintext: Plain<'_>,
    ) -> Result<Option<Sector>> {
        if plaintext.len() == 0 {
            return Ok(None);
        }
        let mut sector = self.read_sector(place, at)?;
        plaintext.copy_to(&mut sector[self.within_sector(at)..]);
        Ok(Some(sector))
    }

    /// Reads the sector around byte `at` of the extent.
    fn read_sector(&self, place: &Encrypted<'_>, at: u64) -> Result<Sector> {
        let mut sector = Sector::new(vec![0; self.sector_size]);
        place.read(self.extent.start, at - self.within_sector(at) as u64, &mut sector)?;
        Ok(sector)
    }

    /// The error for a map that did not allocate a range before a write.
    fn hole(&self) -> Error {
        let at = self.extent.start + self.at;
        let text = format!("cannot write {} bytes at byte {at} of the volume: no room", self.len);
        Error::new(ErrorKind::NoSpace, text).with_operation(Operation::Write)
    }

    fn within_sector(&self, at: u64) -> usize {
        // Sectors have at most 4096 bytes.
        #[expect(clippy::cast_possible_truncation, reason = "less than the sector size")]
        let within = (at % self.sector_size as u64) as usize;
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

    /// Splits after `len` bytes, or at the end if there are fewer.
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

    /// Copies the data to the start of `out`, which is large enough.
    fn copy_to(self, out: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => out[..bytes.len()].copy_from_slice(bytes),
            Self::Zeros(len) => beginning(out, len).fill(0),
        }
    }

    /// Encrypts the data to the start of `out`, which is large enough, and returns its length.
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

fn beginning(out: &mut [u8], len: u64) -> &mut [u8] {
    let len = usize::try_from(len).expect("there is room for it");
    &mut out[..len]
}

fn bytes(sector: Option<&Sector>) -> &[u8] {
    sector.map_or(&[], |sector| sector.as_slice())
}

/// A decrypted sector, wiped on drop. It is never moved, because a move would leave a copy.
type Sector = Zeroizing<Vec<u8>>;

/// Bytes encrypted between two writes to the storage, a multiple of every sector size.
const SCRATCH: usize = 256 * 1024;
