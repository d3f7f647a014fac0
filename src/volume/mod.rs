//! The decrypted data of an image, readable and writable at any byte.
//!
//! A [`Volume`] decrypts reads and encrypts writes. Whole sectors go straight between the caller's
//! buffer and the storage. Where an access covers only part of a sector, the rest of that sector is
//! kept.

mod compare;
mod copy;
mod keyring;
mod map;
mod part;
mod range_lock;
mod segments;
mod side;
mod storage;
mod stored;
mod write;

pub use copy::CopyOptions;
pub use keyring::Keyring;
pub use map::{Crypt, Extent, Fill, Map, Place};
pub use side::Side;
pub use storage::VolumeStorage;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use part::{Located, Part, Plain};
use range_lock::RangeLock;
use segments::SegmentMap;
use stored::Stored;

use crate::crypto::SectorCipher;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::Segment;
use crate::storage::Storage;

/// The data of an unlocked image.
///
/// Its length never changes. All methods take `&self`: one
/// volume serves many threads. Within a segment, overlapping accesses are serialised if one of them
/// writes, so no read sees half a write and no write undoes another. This also holds across all
/// volumes of one file in this process. Other programs are kept out by the sharing mode of the
/// image: [`Sharing::WriteAlone`](crate::Sharing::WriteAlone) admits readers but no second writer,
/// which is what a virtual machine's disk needs. [`Sharing::WriteData`](crate::Sharing::WriteData)
/// admits other writers, and two programs that write one sector at once corrupt it.
///
/// The volume keeps the storage open and locked after the image is dropped. The image's keyslots
/// can be amended while the volume is in use.
///
/// ```
/// use keyslot::{Image, OpenOptions, Passphrase, Sharing};
///
/// # fn main() -> keyslot::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let path = directory.path().join("image.luks");
/// # std::fs::copy("testdata/luks1_qemu.img", &path).expect("a copy");
/// // Others may read the image, but none may write it, as for the disk of a QEMU guest.
/// let image = OpenOptions::new().sharing(Sharing::WriteAlone).open(&path)?;
/// let volume = image.volume(&image.unlock(&Passphrase::new(b"hunter0")?)?)?;
///
/// let mut bytes = [0; 6];
/// volume.read_exact_at(&mut bytes, 4093)?;
/// assert_eq!(bytes[..3], [0xa5; 3]);
///
/// volume.write_all_at(b"a word across two sectors", 500)?;
/// volume.sync()?;
/// assert_eq!(volume.len(), 65536);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Volume {
    map: Arc<dyn Map>,
    range_lock: Arc<RangeLock>,
    /// One for each of the map's [crypts](Map::crypts)
    ciphers: Vec<SectorCipher>,
    len: u64,
    writable: bool,
}

impl Volume {
    /// Creates a volume from segments of a storage, one after the other.
    ///
    /// Volumes of the same [identity](Storage::identity) are serialised against each other.
    /// [`ErrorKind::InvalidInput`] if a segment's key is missing or does not fit its cipher.
    pub fn new(
        storage: Arc<dyn Storage>,
        segments: Vec<Segment>,
        keys: &Keyring<'_>,
    ) -> Result<Self> {
        Self::over(Arc::new(SegmentMap::new(storage, segments)?), keys)
    }

    /// Creates a volume whose bytes are where `map` says.
    pub fn over(map: Arc<dyn Map>, keys: &Keyring<'_>) -> Result<Self> {
        let cipher = |Crypt { name, key, encryption, sector_size }: &Crypt| {
            let Some(key) = keys.get(*key) else {
                let text = format!("{name}: the key of digest {key} is missing");
                let hint = "also unlock a keyslot of that digest";
                return Err(Error::new(ErrorKind::InvalidInput, text).with_hint(hint));
            };
            let cipher = encryption.sector_cipher(key.as_bytes());
            cipher.and_then(|cipher| cipher.with_sector_size(*sector_size)).map_err(|error| {
                let text = format!("{name}: {}", error.message());
                Error::new(error.kind(), text)
            })
        };
        let ciphers = map.crypts().iter().map(cipher).collect::<Result<_>>()?;
        let identity = map.identity().map_err(|e| Error::io("identify the storage", e))?;
        let (range_lock, len) = (RangeLock::of(identity.storage()), map.len());
        Ok(Self { map, range_lock, ciphers, len, writable: true })
    }

    /// Makes the volume refuse writes.
    pub(crate) fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the volume can be written: not if its image was opened for reading.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Fills `buf` from byte `offset` on.
    ///
    /// Fails past the end without reading, with [`io::ErrorKind::UnexpectedEof`] as the source.
    /// After any other error the contents of `buf` are unspecified and may include ciphertext.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        let result =
            self.within(Operation::Read, offset, len).and_then(|()| self.read(buf, offset));
        self.named(result)
    }

    /// Writes all of `buf` at byte `offset`.
    ///
    /// Fails past the end without writing, with [`io::ErrorKind::UnexpectedEof`] as the source.
    /// After any other error any of the sectors may have been written. The bytes around `buf` in
    /// its first and last sector keep their values, unless a sector is larger than the 512 bytes
    /// that a [`Storage`] writes whole and the storage failed in the middle of it.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.named(self.write(Plain::Bytes(buf), offset))
    }

    /// Writes `len` zeros at byte `offset`. They are encrypted like any other bytes, so the errors
    /// are those of [`write_all_at`](Self::write_all_at).
    pub fn write_zeros_at(&self, offset: u64, len: u64) -> Result<()> {
        self.named(self.write(Plain::Zeros(len), offset))
    }

    /// Reads whole sectors into `buf`, starting at sector `first_sector`, in units of 512 bytes.
    /// Like [`read_exact_at`](Self::read_exact_at), but refuses ranges that are not aligned to the
    /// sectors of their segment.
    pub fn read_sectors(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        let result = self.aligned(Operation::Read, first_sector, buf.len() as u64);
        self.named(result.and_then(|offset| self.read(buf, offset)))
    }

    /// Writes whole sectors, starting at sector `first_sector`, in units of 512 bytes. Like
    /// [`write_all_at`](Self::write_all_at), but without a copy, and refuses ranges that are not
    /// aligned to the sectors of their segment.
    ///
    /// `buf` is encrypted in place. **Afterwards it may hold ciphertext**, unless the arguments were at
    /// fault.
    pub fn write_sectors(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        self.named(self.write_in_place(first_sector, buf))
    }

    /// Makes all writes so far durable.
    pub fn sync(&self) -> Result<()> {
        let failed = |error| Error::failed(Operation::Sync, "the volume", error);
        self.named(self.map.sync().map_err(failed))
    }

    /// Reads a range that is known to be within the volume.
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let mut rest = buf;
        for part in self.parts(offset, rest.len() as u64) {
            let part = part?;
            let (now, later) = rest.split_at_mut(part.buf_len());
            part.read(now)?;
            rest = later;
        }
        Ok(())
    }

    /// The parts of a range within the volume, each in one extent.
    fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Result<Part<'_>>> {
        let (mut offset, mut left) = (offset, len);
        std::iter::from_fn(move || {
            if left == 0 {
                return None;
            }
            let part = self.part(offset, left);
            let done = part.as_ref().map_or(left, |part| part.len);
            (offset, left) = (offset + done, left - done);
            Some(part)
        })
    }

    /// The longest part of the `len` bytes from `offset` on that lies in one extent.
    fn part(&self, offset: u64, len: u64) -> Result<Part<'_>> {
        let extent = self.map.extent(offset)?;
        let at = offset.saturating_sub(extent.start);
        let len = len.min(extent.len.saturating_sub(at));
        if len == 0 || offset < extent.start {
            let Extent { start, len, .. } = extent;
            let text = format!(
                "the map has no extent for byte {offset}, only for {len} bytes at byte {start}"
            );
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        self.part_of(extent, at, len)
    }

    /// The `len` bytes from byte `at` of an extent on, which are within it.
    fn part_of(&self, extent: Extent, at: u64, len: u64) -> Result<Part<'_>> {
        let stored = |offset, iv_sector, cipher| {
            let (storage, padding) = (self.map.storage().as_ref(), self.map.padding());
            Located::Stored(Stored { storage, offset, iv_sector, cipher, padding })
        };
        let place = match extent.place {
            Place::Hole => Located::Hole,
            Place::Below => {
                self.map.below().map_or(Located::Hole, |below| Located::Below(below.as_ref()))
            }
            Place::Packed { offset, len } => Located::Packed(self.map.as_ref(), offset, len),
            Place::Plain { offset } => stored(offset, 0, None),
            Place::Data { offset, iv_sector, crypt } => {
                stored(offset, iv_sector, Some(self.cipher(crypt)?))
            }
        };
        let sector_size = match &place {
            Located::Stored(place) => place.sector_size(),
            _ => self.longest_sector(),
        };
        Ok(Part { range_lock: &self.range_lock, extent, place, sector_size, at, len })
    }

    fn cipher(&self, crypt: usize) -> Result<&SectorCipher> {
        self.ciphers.get(crypt).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("an extent has the unknown cipher {crypt}"))
        })
    }

    /// The storage ranges behind a range of the volume, rounded out to sectors. Empty if the range
    /// is not within the volume.
    fn stored(&self, offset: u64, len: u64) -> impl Iterator<Item = Range<u64>> {
        let len = if self.within(Operation::Read, offset, len).is_ok() { len } else { 0 };
        self.parts(offset, len).filter_map(|part| part.ok()?.stored())
    }

    /// The next range from `offset` on that is not a hole. `None` if there is no more data.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        self.data_before(self.len, offset)
    }

    /// The next data from `offset` on, up to the end of its first extent. No extent behind byte `limit`
    /// is looked up.
    fn first_data(&self, limit: u64, offset: u64) -> Result<Option<Range<u64>>> {
        let mut at = offset;
        while at < limit {
            let part = self.part(at, limit - at)?;
            if let Some(data) = part.data()? {
                return Ok(Some(data));
            }
            at += part.len;
        }
        Ok(None)
    }

    /// Like [`next_data`](Self::next_data), of the bytes before `limit`. No extent behind it is looked
    /// up.
    fn data_before(&self, limit: u64, offset: u64) -> Result<Option<Range<u64>>> {
        let Some(mut found) = self.first_data(limit, offset)? else { return Ok(None) };
        while found.end < limit {
            match self.part(found.end, limit - found.end)?.data()? {
                Some(data) if data.start == found.end => found.end = data.end,
                _ => break,
            }
        }
        Ok(Some(found))
    }

    fn within(&self, operation: Operation, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len);
        if end.is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let what =
            format!("{len} bytes at byte {offset} of the volume, which has {} bytes", self.len);
        Err(Error::failed(operation, what, io::ErrorKind::UnexpectedEof.into()))
    }

    /// The byte at which a sector begins, if the `len` bytes from there are whole sectors of the
    /// volume.
    fn aligned(&self, operation: Operation, first_sector: u64, len: u64) -> Result<u64> {
        let offset = first_sector.saturating_mul(SectorCipher::SECTOR_SIZE as u64);
        self.within(operation, offset, len)?;
        for part in self.parts(offset, len) {
            let part = part?;
            if !part.is_aligned() {
                let verb = operation.name();
                let text = format!(
                    "cannot {verb} {len} bytes from sector {first_sector} on: they are not whole \
                     sectors of {} bytes",
                    part.sector_size
                );
                return Err(Error::new(ErrorKind::InvalidInput, text).with_operation(operation));
            }
        }
        Ok(offset)
    }

    /// Length of a sector in a hole, which may become data under any of the ciphers.
    fn longest_sector(&self) -> usize {
        self.ciphers.iter().map(SectorCipher::sector_size).max().unwrap_or(1)
    }

    /// Adds the file's name to an error.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with_name(self.map.storage().name()))
    }
}
