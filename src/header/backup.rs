//! The bytes of a header and of the areas of its keyslots, as a backup contains them.
//!
//! They are the start of an image, in the format of cryptsetup's `luksHeaderBackup`:
//!
//! - LUKS1: to the end of the last area, rounded up to 4096 bytes, but not into the payload;
//! - LUKS2: both copies of the header and the whole region for the areas of keyslots.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::{Header, STEADY_READS, read_steady};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::{ReadOnlyBytes, SharedBytes, Storage, pieces, read, zeroed};

/// A consistent snapshot of a header and the areas of its keyslots.
pub struct Backup {
    header: Header,
    bytes: SharedBytes,
    path: Option<PathBuf>,
}

impl Backup {
    /// Reads a backup from the start of an image, or from a backup file.
    ///
    /// Other programs may be writing. The bytes are therefore read until two reads agree, and the header
    /// is parsed from the bytes of the last read.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        for _ in 0..STEADY_READS {
            let found = Header::read_start(storage, false)?;
            let end = found.end_within(storage)?;
            let mut bytes = zeroed(usize::try_from(end).unwrap_or(usize::MAX)).map_err(failed)?;
            read_steady(storage, &mut bytes).map_err(failed)?;
            let start = ReadOnlyBytes(bytes);
            if let Ok(header) = Header::read_start(&start, false)
                && header.is_same(&found)
            {
                return Ok(Self { header, bytes: start.0.into(), path: None });
            }
        }
        Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing")))
    }

    /// Header in the backup.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Bytes of the backup, from the first byte of the image.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub(super) fn content(&self) -> Content<'_> {
        Content::Backup(&self.bytes)
    }

    /// Path of the file that the backup was read from, if any.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    #[cfg(feature = "file")]
    pub(crate) fn with_path(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// Adds the name of the backup's file to an error.
    pub(super) fn named(&self, error: Error) -> Error {
        error.with_name(self.path())
    }
}

/// Shows the header alone, because the areas may have 128 MiB.
impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup")
            .field("header", &self.header)
            .field("len", &self.bytes.len())
            .field("path", &self.path)
            .finish()
    }
}

impl Header {
    /// Whether a storage of this length is a backup of the header. A backup contains all areas of
    /// keyslots and ends before the payload.
    pub fn is_backup(&self, storage_len: u64) -> bool {
        let areas = self.end().is_ok_and(|end| end <= storage_len);
        areas && !self.is_detached() && storage_len <= self.payload_offset()
    }

    /// Length in bytes of a backup of this header.
    pub(crate) fn end(&self) -> Result<u64> {
        let end = match self {
            Self::Luks1(header) => header.end(),
            Self::Luks2(header) => header.end(),
        };
        if end <= LONGEST {
            return Ok(end);
        }
        let text = format!("the areas of keyslots end at byte {end}, the limit is {LONGEST}");
        Err(Error::new(ErrorKind::Unsupported, text))
    }

    /// Length in bytes of a backup of this header. Fails if the image is shorter.
    fn end_within(&self, storage: &dyn Storage) -> Result<u64> {
        let (end, len) = (self.end()?, storage.len().map_err(failed)?);
        if end <= len {
            return Ok(end);
        }
        let text = format!("the areas of keyslots end at byte {end}, the file at byte {len}");
        Err(Error::new(ErrorKind::Corrupt, text).with_hint("the file is truncated"))
    }
}

/// An image's header as it was read, with a digest of the bytes that a backup would contain.
#[derive(Debug)]
pub(crate) struct Present {
    header: Header,
    digest: [u8; 32],
}

impl Present {
    /// Reads the header and the areas of its keyslots until two reads agree.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let read = || -> Result<Self> {
            let header = Header::read_start(storage, false)?;
            let digest = digest(storage, header.end_within(storage)?)?;
            Ok(Self { header, digest })
        };
        let mut before = read()?;
        for _ in 0..STEADY_READS {
            let now = read()?;
            if now.is_same(&before) {
                return Ok(now);
            }
            before = now;
        }
        Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing")))
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Whether two readings found the same bytes.
    pub fn is_same(&self, other: &Self) -> bool {
        self.digest == other.digest && self.header.is_same(&other.header)
    }
}

/// SHA-256 of the first `end` bytes.
pub(crate) fn digest(storage: &dyn Storage, end: u64) -> Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut bytes = zeroed(PIECE).map_err(failed)?;
    for (at, len) in pieces(0..end, PIECE) {
        storage.read_exact_at(&mut bytes[..len], at).map_err(failed)?;
        hash.update(&bytes[..len]);
    }
    Ok(hash.finalize().into())
}

fn failed(error: io::Error) -> Error {
    Error::failed(Operation::Read, "the header and the areas of its keyslots", error)
}

/// A header of either format, and the bytes behind it.
#[derive(Debug)]
pub(super) struct Snapshot<'a, H> {
    pub header: &'a H,
    pub content: Content<'a>,
}

/// The bytes of a header and of the areas of its keyslots.
#[derive(Clone, Copy, Debug)]
pub(super) enum Content<'a> {
    /// In a backup
    Backup(&'a SharedBytes),
    /// In an image, where they are read when they are asked for
    Image(&'a dyn Storage),
}

impl<H> Snapshot<'_, H> {
    /// Bytes of an area. Empty for an area outside a backup.
    pub fn range(&self, range: &Range<u64>) -> Result<SharedBytes> {
        let at = |byte| usize::try_from(byte).unwrap_or(usize::MAX);
        let (start, end) = (at(range.start), at(range.end));
        match self.content {
            Content::Backup(bytes) => {
                Ok(bytes.slice(start..end).unwrap_or_else(|| Vec::new().into()))
            }
            Content::Image(storage) => {
                let len = end.saturating_sub(start);
                Ok(read(storage, range.start, len).map_err(failed)?.into())
            }
        }
    }
}

/// Bytes that are hashed at once
const PIECE: usize = 1 << 20;

/// Length of the longest LUKS2 header: two copies of 4 MiB and 128 MiB of areas. LUKS1 headers are far
/// shorter, unless their area offsets are malicious.
const LONGEST: u64 = (2 * 4 + 128) << 20;
