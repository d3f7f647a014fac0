//! A header and the areas of its keyslots as bytes: what a backup has in it.
//!
//! It is the start of an image, as cryptsetup's `luksHeaderBackup` writes it:
//!
//! - LUKS1: to the end of the last area, rounded up to 4096 bytes, but not into the payload;
//! - LUKS2: both copies of the header and all that areas of keyslots can be in.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::{Header, STEADY_READS, read_steady};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::{ReadOnlyBytes, Storage, zeroed};

/// A header and the areas of its keyslots, all of one moment.
pub struct Backup {
    header: Header,
    bytes: Vec<u8>,
    path: Option<PathBuf>,
}

impl Backup {
    /// Reads it from the start of an image, or from a file that has no more than that.
    ///
    /// Whoever writes meanwhile: it is read until two reads agree, and its header is that of the
    /// bytes that were read last.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let failed = |error| {
            Error::failed(Operation::Read, "the header and the areas of its keyslots", error)
        };
        for _ in 0..STEADY_READS {
            let found = Header::read_start(storage, false)?;
            let (end, len) = (found.end()?, storage.len().map_err(failed)?);
            if end > len {
                let text =
                    format!("the areas of keyslots end at byte {end}, the file at byte {len}");
                return Err(Error::new(ErrorKind::Corrupt, text).with_hint("the file is truncated"));
            }
            let mut bytes = zeroed(usize::try_from(end).unwrap_or(usize::MAX)).map_err(failed)?;
            read_steady(storage, &mut bytes).map_err(failed)?;
            let start = ReadOnlyBytes(bytes);
            if let Ok(header) = Header::read_start(&start, false)
                && header.is_same(&found)
            {
                return Ok(Self { header, bytes: start.0, path: None });
            }
        }
        Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing")))
    }

    /// The header in it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// All of it, from the first byte of the image on.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The file that it is from, if it is from one.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    pub(crate) fn with_path(self, path: &Path) -> Self {
        Self { path: Some(path.to_owned()), ..self }
    }

    /// The same error with the name of its file.
    pub(super) fn named(&self, error: Error) -> Error {
        error.with_name(self.path())
    }
}

/// The header alone: of the areas there may be 128 MiB.
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
    /// Where what a backup has in it ends, in bytes from the start.
    fn end(&self) -> Result<u64> {
        let end = match self {
            Self::Luks1(header) => header.end(),
            Self::Luks2(header) => header.end(),
        };
        if end <= LONGEST {
            return Ok(end);
        }
        let text = format!("the areas of keyslots end at byte {end}, {LONGEST} is the limit");
        Err(Error::new(ErrorKind::Unsupported, text))
    }
}

/// A header of either format, and the bytes that it was read from.
#[derive(Debug)]
pub(super) struct Snapshot<'a, H> {
    pub header: &'a H,
    pub bytes: &'a [u8],
}

impl<'a, H> Snapshot<'a, H> {
    /// The bytes of an area; none, if it is not among them.
    pub fn range(&self, range: &Range<u64>) -> &'a [u8] {
        let at = |byte| usize::try_from(byte).unwrap_or(usize::MAX);
        self.bytes.get(at(range.start)..at(range.end)).unwrap_or_default()
    }
}

/// The end of the longest LUKS2 header: two copies of 4 MiB and 128 MiB of areas. That of LUKS1 is
/// shorter by far, unless somebody moved its areas out of reach.
const LONGEST: u64 = (2 * 4 + 128) << 20;
