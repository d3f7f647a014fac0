//! The part of an access that lies in one extent, and the conversion between bytes and sectors.

use std::ops::Range;

use zeroize::Zeroizing;

use super::stored::{Stored, read_below};
use super::{Extent, Map, RangeLock};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::{Storage, zeroed};

/// A nonempty byte range within one extent.
pub(super) struct Part<'a> {
    pub range_lock: &'a RangeLock,
    pub extent: Extent,
    /// Location of the extent
    pub place: Located<'a>,
    /// Length of a sector; of an extent that is not stored, of the longest that it may get
    pub sector_size: usize,
    /// Offset of the part in the extent
    pub at: u64,
    pub len: u64,
}

/// Location of an extent.
pub(super) enum Located<'a> {
    /// Not stored: zeros
    Hole,
    /// At the same place of the storage below
    Below(&'a dyn Storage),
    /// In the storage, in a form that the map understands: first byte and length there
    Packed(&'a dyn Map, u64, u64),
    /// In the storage
    Stored(Stored<'a>),
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
        let place = match &self.place {
            Located::Stored(place) => place,
            Located::Below(below) => return read_below(*below, buf, self.extent.start + self.at),
            Located::Packed(map, offset, len) => return self.unpack(*map, (*offset, *len), buf),
            Located::Hole => {
                buf.fill(0);
                return Ok(());
            }
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

    /// Fills `buf` from a packed extent.
    fn unpack(&self, map: &dyn Map, (offset, len): (u64, u64), buf: &mut [u8]) -> Result<()> {
        if self.len == self.extent.len {
            return map.unpack(offset, len, buf);
        }
        let all = usize::try_from(self.extent.len).unwrap_or(usize::MAX);
        let all = zeroed(all).map_err(|e| Error::io("allocate a buffer", e))?;
        let mut all = Zeroizing::new(all);
        map.unpack(offset, len, &mut all)?;
        let at = usize::try_from(self.at).unwrap_or(usize::MAX);
        buf.copy_from_slice(&all[at..][..buf.len()]);
        Ok(())
    }

    /// Writes `data`, which has the length of the part. The write is atomic for other threads.
    ///
    /// Zeros in a hole are a no-op. Other data needs an allocated extent.
    pub fn write(&self, data: Plain<'_>) -> Result<()> {
        if let (Located::Hole, Plain::Zeros(_)) = (&self.place, data) {
            return Ok(());
        }
        let place = self.own_place()?;
        let _exclusive = self.range_lock.exclusive(self.locked());
        if place.cipher.is_none() {
            return place.write_plain(self.extent.start, self.at, data);
        }
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
                let out = &mut scratch[filled..];
                filled += now.encrypt_to(place, at + filled as u64, out);
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
        let place = self.own_place()?;
        let _exclusive = self.range_lock.exclusive(self.locked());
        place.encrypt(self.at, buf);
        place.write(self.extent.start, self.at, buf)
    }

    /// Whether the part must be allocated before `data` is written; `None` stands for any bytes.
    pub fn must_allocate(&self, data: Option<Plain<'_>>) -> bool {
        match &self.place {
            Located::Stored(_) => self.extent.is_shared,
            Located::Below(_) | Located::Packed(..) => true,
            Located::Hole => !matches!(data, Some(Plain::Zeros(_))),
        }
    }

    /// The place to write to. An error if the map did not allocate one before a write.
    fn own_place(&self) -> Result<&Stored<'_>> {
        match &self.place {
            Located::Stored(place) if !self.extent.is_shared => Ok(place),
            _ => {
                let at = self.extent.start + self.at;
                let text =
                    format!("cannot write {} bytes at byte {at} of the volume: no room", self.len);
                Err(Error::new(ErrorKind::NoSpace, text).with_operation(Operation::Write))
            }
        }
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

    /// The storage range of the part, rounded out to sectors. `None` if it is not in the storage.
    pub fn stored(&self) -> Option<Range<u64>> {
        let Located::Stored(place) = &self.place else { return None };
        let Range { start, end } = self.sectors();
        Some(place.offset + start..place.offset + end)
    }

    /// The first range of the part, as bytes of the volume, that may hold nonzero bytes.
    pub fn data(&self) -> Result<Option<Range<u64>>> {
        let start = self.extent.start + self.at;
        let all = start..start + self.len;
        let Located::Below(below) = &self.place else {
            return Ok((!matches!(self.place, Located::Hole)).then_some(all));
        };
        let data = below.next_data(all.start).map_err(|e| {
            let what = format_args!("find data from byte {start} on in the backing file");
            Error::io(what, e).with_operation(Operation::Read).with_name(below.name())
        })?;
        let data = data.map(|data| data.start.max(all.start)..data.end.min(all.end));
        Ok(data.filter(|data| !data.is_empty()))
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
    fn merge(&self, place: &Stored<'_>, at: u64, plaintext: Plain<'_>) -> Result<Option<Sector>> {
        if plaintext.len() == 0 {
            return Ok(None);
        }
        let mut sector = self.read_sector(place, at)?;
        plaintext.copy_to(&mut sector[self.within_sector(at)..]);
        Ok(Some(sector))
    }

    /// Reads the sector around byte `at` of the extent.
    fn read_sector(&self, place: &Stored<'_>, at: u64) -> Result<Sector> {
        let mut sector = Sector::new(vec![0; self.sector_size]);
        place.read(self.extent.start, at - self.within_sector(at) as u64, &mut sector)?;
        Ok(sector)
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

    /// The part of data that begins at byte `start` which lies in `range`.
    pub fn slice(self, start: u64, range: &Range<u64>) -> Self {
        let (_, rest) = self.split_at(range.start - start);
        rest.split_at(range.end - range.start).0
    }

    /// Copies the data to the start of `out`, which is large enough.
    fn copy_to(self, out: &mut [u8]) {
        match self {
            Self::Bytes(bytes) => out[..bytes.len()].copy_from_slice(bytes),
            Self::Zeros(len) => beginning(out, len).fill(0),
        }
    }

    /// Encrypts the data, as the bytes at `at` of `place`, to the start of `out`, which is large
    /// enough. Returns its length.
    fn encrypt_to(self, place: &Stored<'_>, at: u64, out: &mut [u8]) -> usize {
        match (self, place.cipher) {
            (Self::Bytes(bytes), Some(cipher)) => {
                cipher.encrypt_to(place.iv_sector(at), bytes, &mut out[..bytes.len()]);
                bytes.len()
            }
            (Self::Bytes(bytes), None) => {
                out[..bytes.len()].copy_from_slice(bytes);
                bytes.len()
            }
            (Self::Zeros(len), _) => {
                let out = beginning(out, len);
                out.fill(0);
                place.encrypt(at, out);
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
