//! An unlocked image: what is in it, at any byte.
//!
//! A [`Volume`] decrypts what is read and encrypts what is written. Whole sectors go straight
//! between the caller's buffer and the storage; of sectors that a read or a write only touches,
//! the rest is kept.

mod copy;
mod part;
mod range_lock;
mod side;
mod storage;

pub use copy::CopyOptions;
pub use side::Side;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use part::{Part, Plain};
use range_lock::RangeLock;

use crate::crypto::SectorCipher;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::Segment;
use crate::secret::VolumeKey;
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
    storage: Arc<dyn Storage>,
    range_lock: Arc<RangeLock>,
    /// Bytes from the start of what the range lock is for to the start of the storage
    base: u64,
    extents: Vec<Extent>,
    /// One for each cipher and sector size that occurs
    ciphers: Vec<SectorCipher>,
    len: u64,
    writable: bool,
}

/// A segment's place in the volume.
#[derive(Debug)]
struct Extent {
    start: u64,
    segment: Segment,
    cipher: usize,
}

impl Volume {
    /// The volume that is in these segments of a storage, one after the other.
    ///
    /// Volumes of the same storage take turns, as its [identity](Storage::identity) says which it is.
    pub fn new(storage: Arc<dyn Storage>, segments: Vec<Segment>, key: &VolumeKey) -> Result<Self> {
        let mut len = 0_u64;
        let mut extents = Vec::with_capacity(segments.len());
        let mut ciphers = Vec::<SectorCipher>::new();
        for (index, segment) in segments.into_iter().enumerate() {
            segment.check(index)?;
            let named = |error: Error| {
                let text = format!("segment {index}: {}", error.message());
                Error::new(error.kind(), text)
            };
            let start = len;
            len = start.checked_add(segment.len).ok_or_else(|| {
                let text = format!("segment {index} takes the volume beyond 2^64 bytes");
                Error::new(ErrorKind::InvalidInput, text)
            })?;
            let cipher = cipher(&mut ciphers, &segment, key).map_err(named)?;
            extents.push(Extent { start, segment, cipher });
        }
        let identity = storage.identity().map_err(|e| Error::io("identify the storage", e))?;
        let (range_lock, base) = (RangeLock::of(identity.storage()), identity.offset());
        Ok(Self { storage, range_lock, base, extents, ciphers, len, writable: true })
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

    /// What it is made of.
    pub fn segments(&self) -> impl ExactSizeIterator<Item = &Segment> {
        self.extents.iter().map(|extent| &extent.segment)
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
            let mut rest = &mut buf[..];
            for part in self.parts(offset, rest.len() as u64) {
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
        self.named(self.storage.sync_data().map_err(failed))
    }

    fn write(&self, verb: &str, data: Plain<'_>, offset: u64) -> Result<()> {
        self.may_write()?;
        self.within(verb, offset, data.len())?;
        let mut rest = data;
        for part in self.parts(offset, data.len()) {
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
            let (now, later) = rest.split_at_mut(part.buf_len());
            part.read(now)?;
            rest = later;
        }
        Ok(())
    }

    /// The parts of a range within the volume, each in one segment.
    fn parts(&self, offset: u64, len: u64) -> impl Iterator<Item = Part<'_>> {
        let first = self.extents.partition_point(|it| it.start + it.segment.len <= offset);
        let mut left = len;
        let extents = self.extents[first..].iter().filter(|it| it.segment.len > 0);
        extents.map_while(move |Extent { start, segment, cipher }| {
            let at = offset.max(*start) - start;
            let here = left.min(segment.len.saturating_sub(at));
            let part = Part {
                storage: self.storage.as_ref(),
                range_lock: &self.range_lock,
                base: self.base,
                cipher: &self.ciphers[*cipher],
                segment,
                start: *start,
                at,
                len: here,
            };
            let is_over = left == 0;
            left -= here;
            (!is_over).then_some(part)
        })
    }

    /// The ranges of the storage that a range of the volume is in, rounded out to sectors; none, if
    /// it is not in the volume.
    fn stored(&self, offset: u64, len: u64) -> impl Iterator<Item = Range<u64>> {
        let len = if self.within("find", offset, len).is_ok() { len } else { 0 };
        self.parts(offset, len).map(|part| part.sectors())
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
        match self.parts(offset, len).find(|part| !part.is_aligned()) {
            None => Ok(offset),
            Some(Part { segment, .. }) => {
                let text = format!(
                    "cannot {verb} {len} bytes from sector {first_sector} on: they are not whole \
                     sectors of {} bytes",
                    segment.sector_size
                );
                Err(Error::new(ErrorKind::InvalidInput, text))
            }
        }
    }

    /// The result, with the file's name if it is an error.
    fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| error.with_name(self.storage.name()))
    }
}

/// The index of the segment's cipher, made unless it is there.
fn cipher(ciphers: &mut Vec<SectorCipher>, segment: &Segment, key: &VolumeKey) -> Result<usize> {
    let (spec, sector_size) = (&segment.encryption, segment.sector_size);
    let is_it = |it: &SectorCipher| it.spec() == spec && it.sector_size() == sector_size;
    if let Some(index) = ciphers.iter().position(is_it) {
        return Ok(index);
    }
    ciphers.push(spec.sector_cipher(key.as_bytes())?.with_sector_size(sector_size)?);
    Ok(ciphers.len() - 1)
}
