//! The header of a qcow2 image.

use std::ops::Range;

use zerocopy::{FromBytes, IntoBytes};

use super::extension::{self, Extension, Walk};
use super::raw::{LEN, MAGIC, RawHeader, V2_LEN, V3_LEN};
use super::{corrupt, layout, unsupported};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::transfer::{fetch, length};
use crate::storage::{Storage, read};

/// The header of a qcow2 image: QEMU `docs/interop/qcow2.txt`.
///
/// Reading it checks everything that keyslots depend on, and the place of every table that the
/// header names. Tables themselves are not read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Qcow2Header {
    pub(super) raw: RawHeader,
    extensions: Vec<Extension>,
    crypto: Option<Range<u64>>,
    backing_file: Option<Vec<u8>>,
    backing_format: Option<Vec<u8>>,
    data_file: Option<Vec<u8>>,
    /// Start of the image, with all that was parsed
    pub(super) bytes: Vec<u8>,
}

/// Encryption of the guest's data in a qcow2 image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Qcow2Encryption {
    /// Not encrypted by qcow2. The guest may encrypt its disk itself.
    None,
    /// The old format's own AES-CBC, which has no keyslots
    Aes,
    /// A LUKS1 header in the image
    Luks,
}

/// Compression of a qcow2 image's compressed clusters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Qcow2Compression {
    /// zlib's deflate
    Zlib,
    /// zstd
    Zstd,
}

impl Qcow2Header {
    /// Reads and checks the header. Nothing beyond the first cluster is read.
    ///
    /// Fails with [`ErrorKind::Corrupt`] if a field contradicts another or the file's length, and
    /// with [`ErrorKind::Unsupported`] for an unknown version or incompatible feature.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let (bytes, file_len) = start(storage)?;
        Self::read_from(storage, bytes, file_len)
    }

    /// Reads and checks the header if the storage begins with qcow2's magic. `None` if it does not.
    pub(crate) fn read_if_qcow2(storage: &dyn Storage) -> Result<Option<Self>> {
        let (bytes, file_len) = start(storage)?;
        if !bytes.starts_with(&MAGIC) {
            return Ok(None);
        }
        Self::read_from(storage, bytes, file_len).map(Some)
    }

    fn read_from(storage: &dyn Storage, mut bytes: Vec<u8>, file_len: u64) -> Result<Self> {
        for _ in 0..STEADY_READS {
            // QEMU rewrites the header as a whole, and a reader without a lock may meet half of it.
            let again = fetch(storage, 0, bytes.len())?;
            if again != bytes {
                bytes = again;
                continue;
            }
            let raw = fixed(&bytes)?;
            let (start, end) = extension_area(&raw)?;
            let name_end = backing_name(&raw)?.map_or(0, |name| name.end);
            if bytes.len() < name_end && name_end as u64 <= file_len {
                bytes = more(storage, name_end)?;
                continue;
            }
            match extension::walk(&bytes, start, end)? {
                Walk::Done(extensions) => return Self::parse(raw, extensions, bytes, file_len),
                Walk::Needs(len) if len as u64 > file_len => {
                    let text = format!("the qcow2 header ends beyond byte {file_len}");
                    return Err(corrupt(text).with_hint("the image is truncated"));
                }
                Walk::Needs(_) => {
                    // Every extension ends before `end`, which is at most 2 MiB.
                    bytes =
                        more(storage, usize::try_from(file_len).map_or(end, |len| len.min(end)))?;
                }
            }
        }
        Err(Error::new(ErrorKind::Changed, "the qcow2 header keeps changing"))
    }

    fn parse(
        raw: RawHeader,
        extensions: Vec<Extension>,
        bytes: Vec<u8>,
        file_len: u64,
    ) -> Result<Self> {
        let data = |kind| {
            let it = extensions.iter().find(|it| it.kind == kind)?;
            bytes.get(it.offset..it.offset + it.len)
        };
        let owned = |kind| data(kind).map(<[u8]>::to_vec);
        let backing_file = backing_file(&raw, &bytes, file_len)?;
        let crypto = layout::crypto_area(&raw, &extensions, data(extension::CRYPTO))?;
        let (backing_format, data_file) =
            (owned(extension::BACKING_FORMAT), owned(extension::DATA_FILE));
        layout::check(&raw, crypto.as_ref(), file_len)?;
        Ok(Self { raw, extensions, crypto, backing_file, backing_format, data_file, bytes })
    }

    /// Format version: 2 (QEMU's `compat=0.10`) or 3 (`compat=1.1`).
    pub fn version(&self) -> u32 {
        self.raw.version.get()
    }

    /// Size of a cluster in bytes, a power of two from 512 to 2 MiB.
    pub fn cluster_size(&self) -> u64 {
        1 << self.raw.cluster_bits.get()
    }

    /// Length of the guest's disk in bytes.
    pub fn virtual_size(&self) -> u64 {
        self.raw.size.get()
    }

    /// Encryption of the guest's data.
    pub fn encryption(&self) -> Qcow2Encryption {
        match self.raw.crypt_method.get() {
            0 => Qcow2Encryption::None,
            1 => Qcow2Encryption::Aes,
            _ => Qcow2Encryption::Luks,
        }
    }

    /// Bytes of the file that hold the LUKS header and its keyslots. `None` without LUKS encryption.
    pub fn crypto_area(&self) -> Option<Range<u64>> {
        self.crypto.clone()
    }

    /// Name of the backing file as stored, which may be relative to the image or a `json:`
    /// specification. It is not opened.
    pub fn backing_file(&self) -> Option<&[u8]> {
        self.backing_file.as_deref()
    }

    /// Format of the backing file, if the image names it.
    pub fn backing_format(&self) -> Option<&[u8]> {
        self.backing_format.as_deref()
    }

    /// Whether the guest's data is in another file.
    pub fn has_data_file(&self) -> bool {
        self.has(layout::DATA_FILE)
    }

    /// Name of the external data file, if the image names it. It is not opened.
    pub fn data_file(&self) -> Option<&[u8]> {
        self.data_file.as_deref()
    }

    /// Whether the external data file can be read as a raw image.
    pub fn is_data_file_raw(&self) -> bool {
        self.raw.autoclear_features.get() & layout::DATA_FILE_RAW != 0
    }

    /// Whether the image was not closed properly, so that its reference counts may be wrong.
    pub fn is_dirty(&self) -> bool {
        self.has(layout::DIRTY)
    }

    /// Whether QEMU found the metadata inconsistent. It then refuses to write the image.
    pub fn is_corrupt(&self) -> bool {
        self.has(layout::CORRUPT)
    }

    /// Whether L2 entries describe subclusters.
    pub fn has_extended_l2(&self) -> bool {
        self.has(layout::EXTENDED_L2)
    }

    /// Whether reference counts are updated lazily.
    pub fn has_lazy_refcounts(&self) -> bool {
        self.raw.compatible_features.get() & 1 != 0
    }

    /// Whether the image has persistent bitmaps of changed blocks.
    pub fn has_bitmaps(&self) -> bool {
        self.extensions.iter().any(|it| it.kind == extension::BITMAPS)
    }

    /// Bits of a reference count: 1, 2, 4, 8, 16, 32 or 64.
    pub fn refcount_bits(&self) -> u32 {
        1 << self.raw.refcount_order.get()
    }

    /// Compression of compressed clusters.
    pub fn compression(&self) -> Qcow2Compression {
        match self.raw.compression_type {
            0 => Qcow2Compression::Zlib,
            _ => Qcow2Compression::Zstd,
        }
    }

    /// Number of internal snapshots.
    pub fn snapshots(&self) -> u32 {
        self.raw.nb_snapshots.get()
    }

    /// Whether `other` is a later header of the same disk, so that offsets in the disk keep their
    /// meaning. The tables may have moved.
    pub(crate) fn is_same_disk(&self, other: &Self) -> bool {
        let of = |header: &Self| {
            let raw = &header.raw;
            let incompatible = raw.incompatible_features.get() & !(layout::DIRTY | layout::CORRUPT);
            let kind = (raw.version, raw.cluster_bits, raw.refcount_order, incompatible);
            (kind, raw.size, raw.crypt_method)
        };
        of(self) == of(other)
            && self.crypto == other.crypto
            && self.backing_file == other.backing_file
            && self.data_file == other.data_file
    }

    fn has(&self, feature: u64) -> bool {
        self.raw.incompatible_features.get() & feature != 0
    }
}

/// The first bytes of the image, and its length.
fn start(storage: &dyn Storage) -> Result<(Vec<u8>, u64)> {
    let file_len = length(storage)?;
    let len = usize::try_from(file_len).map_or(START, |len| len.min(START));
    let bytes = read(storage, 0, len);
    let bytes = bytes.map_err(|e| Error::failed(Operation::Read, "the header", e))?;
    Ok((bytes, file_len))
}

/// The first `len` bytes of the image, if more are needed.
fn more(storage: &dyn Storage, len: usize) -> Result<Vec<u8>> {
    read(storage, 0, len).map_err(|e| Error::failed(Operation::Read, "the qcow2 header", e))
}

/// Parses the fixed fields, and checks those that everything else depends on.
fn fixed(bytes: &[u8]) -> Result<RawHeader> {
    let short = || corrupt("qcow2 header too short").with_hint("the image is truncated");
    if !bytes.starts_with(&MAGIC) {
        return Err(Error::new(ErrorKind::NotLuks, "Image is not in qcow2 format"));
    }
    let mut fields = [0; LEN];
    let start = bytes.get(..V2_LEN).ok_or_else(short)?;
    fields[..V2_LEN].copy_from_slice(start);
    let mut raw = RawHeader::read_from_bytes(&fields[..]).map_err(|_| short())?;
    match raw.version.get() {
        2 => {
            raw.refcount_order = 4.into();
            raw.header_length = 72.into();
        }
        3 => {
            let known = bytes.get(..V3_LEN).ok_or_else(short)?;
            raw.as_mut_bytes()[..V3_LEN].copy_from_slice(known);
            let len = raw.header_length.get() as usize;
            if len < V3_LEN {
                return Err(corrupt("qcow2 header too short").with_hint(format!("{len} bytes")));
            }
            if len >= LEN {
                let all = bytes.get(..LEN).ok_or_else(short)?;
                raw.as_mut_bytes().copy_from_slice(all);
            }
        }
        version => return Err(unsupported(format!("Unsupported qcow2 version {version}"))),
    }
    layout::check_fixed(&raw)?;
    Ok(raw)
}

/// Where header extensions begin, and where they end at the latest.
fn extension_area(raw: &RawHeader) -> Result<(usize, usize)> {
    let cluster = 1_u64 << raw.cluster_bits.get();
    let start = u64::from(raw.header_length.get());
    let end = match raw.backing_file_offset.get() {
        0 => cluster,
        offset if offset > cluster => return Err(corrupt("Invalid backing file offset")),
        offset => offset,
    };
    // Both are at most 2 MiB.
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    Ok((index(start), index(end)))
}

/// The place of the backing file's name in the first cluster.
fn backing_name(raw: &RawHeader) -> Result<Option<Range<usize>>> {
    let (offset, len) = (raw.backing_file_offset.get(), u64::from(raw.backing_file_size.get()));
    if offset == 0 {
        return Ok(None);
    }
    let cluster = 1_u64 << raw.cluster_bits.get();
    if len > (cluster - offset).min(LONGEST_NAME) {
        return Err(corrupt("Backing file name too long").with_hint(format!("{len} bytes")));
    }
    let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    Ok(Some(index(offset)..index(offset + len)))
}

fn backing_file(raw: &RawHeader, start: &[u8], file_len: u64) -> Result<Option<Vec<u8>>> {
    let Some(name) = backing_name(raw)? else { return Ok(None) };
    match start.get(name) {
        Some(name) => Ok(Some(name.to_vec())),
        None => Err(corrupt(format!("the backing file's name ends beyond byte {file_len}"))),
    }
}

/// Bytes read at first, which hold the header of almost every image
const START: usize = 4096;
/// QEMU's limit in bytes
const LONGEST_NAME: u64 = 1023;
/// Attempts to read a header that does not change
const STEADY_READS: usize = 16;
