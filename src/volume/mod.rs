//! An unlocked image: what is in it, at any byte.
//!
//! A [`Volume`] decrypts what is read and encrypts what is written. Whole sectors go straight
//! between the caller's buffer and the storage; of sectors that a read or a write only touches,
//! the rest is kept.

mod copy;
mod encrypted;
mod keyring;
mod map;
mod part;
mod range_lock;
mod segments;
mod side;
mod storage;

pub use copy::CopyOptions;
pub use keyring::Keyring;
pub use map::{Crypt, Extent, Fill, Map, Place};
pub use side::Side;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use encrypted::Encrypted;
use part::{Part, Plain};
use range_lock::RangeLock;
use segments::SegmentMap;

use crate::crypto::SectorCipher;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::Segment;
use crate::storage::Storage;

/// The data of an unlocked image.
///
/// It is as long as its segments together and does not grow. All of it is `&self`: one volume
/// serves many threads. Of two accesses that overlap within a segment, one of which writes, one
/// comes after the other, so nobody reads half a write and no write undoes another. That holds for
/// all volumes of one file in this process too. Other programs are kept out by how the image was
/// opened: [`Sharing::WriteAlone`](crate::Sharing::WriteAlone) admits readers and no second writer,
/// which is what a virtual machine's disk needs.
/// [`Sharing::WriteData`](crate::Sharing::WriteData) admits other writers, and two programs that
/// write one sector at once corrupt it.
///
/// The volume keeps the storage, and with it the locks on its file, when the image is dropped. The
/// image's keyslots can be amended meanwhile.
///
/// ```
/// use keyslot::{Image, OpenOptions, Passphrase, Sharing};
///
/// # fn main() -> keyslot::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let path = directory.path().join("image.luks");
/// # std::fs::copy("testdata/luks1_qemu.img", &path).expect("a copy");
/// // Others may read it meanwhile, and none may write: what QEMU does for a guest's disk.
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
    /// The volume in these segments of a storage, one after the other.
    ///
    /// Volumes of the same storage take turns, as its [identity](Storage::identity) says which it is.
    /// [`ErrorKind::InvalidInput`] if a segment's key is missing or does not fit its cipher.
    pub fn new(
        storage: Arc<dyn Storage>,
        segments: Vec<Segment>,
        keys: &Keyring<'_>,
    ) -> Result<Self> {
        Self::over(Arc::new(SegmentMap::new(storage, segments)?), keys)
    }

    /// The volume whose bytes are where `map` says.
    pub fn over(map: Arc<dyn Map>, keys: &Keyring<'_>) -> Result<Self> {
        let cipher = |Crypt { name, key, encryption, sector_size }: &Crypt| {
            let Some(key) = keys.get(*key) else {
                let text = format!("{name}: the key of digest {key} is missing");
                let hint = "unlock a keyslot of that digest, too";
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

    /// The same, that refuses to write.
    pub(crate) fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is not a single byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it can be written: not if its image was opened for reading.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Fills `buf` from byte `offset` on.
    ///
    /// Past the end it fails, with an [`io::ErrorKind::UnexpectedEof`] as its source, and reads
    /// nothing. After another error `buf` may hold anything, also what is encrypted still.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> Result<()> {
        let len = buf.len() as u64;
        let result = self.within("read", offset, len).and_then(|()| self.read(buf, offset));
        self.named(result)
    }

    /// Writes all of `buf` at byte `offset`.
    ///
    /// Past the end it fails, with an [`io::ErrorKind::UnexpectedEof`] as its source, and writes
    /// nothing. After another error any of the sectors may have been written; the bytes around
    /// `buf` in its first and last sector are what they were, unless a sector has more than the 512
    /// bytes that a [`Storage`] writes whole and the storage failed in the middle of it.
    pub fn write_all_at(&self, buf: &[u8], offset: u64) -> Result<()> {
        self.named(self.write("write", Plain::Bytes(buf), offset))
    }

    /// Writes `len` zeros at byte `offset`, encrypted like any other bytes: as
    /// [`write_all_at`](Self::write_all_at) with as many.
    pub fn write_zeros_at(&self, offset: u64, len: u64) -> Result<()> {
        self.named(self.write("write zeros to", Plain::Zeros(len), offset))
    }

    /// Fills `buf` with whole sectors, from the one with the number `first_sector` on, in units of
    /// 512 bytes: as [`read_exact_at`](Self::read_exact_at), but what is not aligned to the sectors
    /// of its segment is refused.
    pub fn read_sectors(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        let result = self.aligned("read", first_sector, buf.len() as u64);
        self.named(result.and_then(|offset| self.read(buf, offset)))
    }

    /// Writes whole sectors, from the one with the number `first_sector` on, in units of 512
    /// bytes: as [`write_all_at`](Self::write_all_at), but without a copy, and what is not aligned
    /// to the sectors of its segment is refused.
    ///
    /// `buf` is encrypted in place. **It holds ciphertext afterwards**, and after an error
    /// ciphertext up to some sector, unless that error was in the arguments.
    pub fn write_sectors(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        let result =
            self.may_write().and_then(|()| self.aligned("write", first_sector, buf.len() as u64));
        self.named(result.and_then(|offset| {
            self.allocate(offset, buf.len() as u64)?;
            let mut rest = &mut buf[..];
            for part in self.parts(offset, rest.len() as u64) {
                let part = part?;
                let (now, later) = rest.split_at_mut(part.buf_len());
                part.write_in_place(now)?;
                rest = later;
            }
            Ok(())
        }))
    }

    /// Makes all writes so far durable.
    pub fn sync(&self) -> Result<()> {
        let failed = |error| Error::failed(Operation::Sync, "the volume", error);
        self.named(self.map.storage().sync_data().map_err(failed))
    }

    fn write(&self, verb: &str, data: Plain<'_>, offset: u64) -> Result<()> {
        self.may_write()?;
        self.within(verb, offset, data.len())?;
        if let Plain::Bytes(bytes) = data {
            self.allocate(offset, bytes.len() as u64)?;
        }
        let mut rest = data;
        for part in self.parts(offset, data.len()) {
            let part = part?;
            let (now, later) = rest.split_at(part.len);
            part.write(now)?;
            rest = later;
        }
        Ok(())
    }

    /// What is within the volume.
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

    /// As many of the `len` bytes from `offset` on as are in one extent.
    fn part(&self, offset: u64, len: u64) -> Result<Part<'_>> {
        let extent = self.map.extent(offset)?;
        let at = offset.saturating_sub(extent.start);
        let len = len.min(extent.len.saturating_sub(at));
        if len == 0 || offset < extent.start {
            let Extent { start, len, .. } = extent;
            let text = format!("no extent for byte {offset}: {len} bytes at byte {start} of it");
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        let storage = self.map.storage().as_ref();
        let place = match extent.place {
            Place::Hole => None,
            Place::Data { offset, iv_sector, crypt } => {
                Some(Encrypted { storage, offset, iv_sector, cipher: self.cipher(crypt)? })
            }
        };
        Ok(Part { range_lock: &self.range_lock, extent, place, at, len })
    }

    fn cipher(&self, crypt: usize) -> Result<&SectorCipher> {
        self.ciphers.get(crypt).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, format!("an extent has the unknown cipher {crypt}"))
        })
    }

    /// Makes data of the holes in a range that is about to be written.
    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        let mut hole = false;
        for part in self.parts(offset, len) {
            hole |= part?.place.is_none();
        }
        if !hole {
            return Ok(());
        }
        self.map.allocate(offset, len, &mut |extent: &Extent| {
            let Place::Data { offset, iv_sector, crypt } = extent.place else { return Ok(()) };
            let storage = self.map.storage().as_ref();
            Encrypted { storage, offset, iv_sector, cipher: self.cipher(crypt)? }.fill(extent)
        })
    }

    /// The ranges of the storage that a range of the volume is in, rounded out to sectors; none, if
    /// it is not in the volume.
    fn stored(&self, offset: u64, len: u64) -> impl Iterator<Item = Range<u64>> {
        let len = if self.within("find", offset, len).is_ok() { len } else { 0 };
        self.parts(offset, len).filter_map(|part| part.ok()?.stored())
    }

    /// The next range from `offset` on that is in no hole; `None` if there is no more.
    pub fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let mut found: Option<Range<u64>> = None;
        let mut at = offset;
        while at < self.len {
            let part = self.part(at, self.len - at)?;
            let end = at + part.len;
            match (&mut found, part.place) {
                (None, Some(_)) => found = Some(at..end),
                (Some(range), Some(_)) => range.end = end,
                (Some(_), None) => break,
                (None, None) => {}
            }
            at = end;
        }
        Ok(found)
    }

    fn may_write(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        let text = "cannot write the volume: the image is not open for writing data";
        Err(Error::new(ErrorKind::InvalidInput, text))
    }

    fn within(&self, verb: &str, offset: u64, len: u64) -> Result<()> {
        let end = offset.checked_add(len);
        if end.is_some_and(|end| end <= self.len) {
            return Ok(());
        }
        let what = format!(
            "{verb} {len} bytes at byte {offset} of the volume, which has {} bytes",
            self.len
        );
        Err(Error::io(what, io::ErrorKind::UnexpectedEof.into()))
    }

    /// The byte that a sector begins at, if `len` bytes from it are whole sectors of the volume.
    fn aligned(&self, verb: &str, first_sector: u64, len: u64) -> Result<u64> {
        let offset = first_sector.saturating_mul(SectorCipher::SECTOR_SIZE as u64);
        self.within(verb, offset, len)?;
        for part in self.parts(offset, len) {
            let part = part?;
            if !part.is_aligned() {
                let text = format!(
                    "cannot {verb} {len} bytes from sector {first_sector} on: they are not whole \
                     sectors of {} bytes",
                    part.sector_size()
                );
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        }
        Ok(offset)
    }

    /// The result, with the file's name if it is an error.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with_name(self.map.storage().name()))
    }
}
