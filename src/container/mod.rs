//! Location of an image's bytes: a file, a range or partition of one, or two files.
//!
//! A `Container` names the storage with the header, the storage with the payload, and the locks.
//! Everything above works on these storages and does not depend on their kind.

#[cfg(feature = "file")]
mod file;
mod partition;
mod probe;
#[cfg(feature = "file")]
mod raw;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use partition::Part;
pub use partition::{Outside, Partition, PartitionTable, PartitionType, TableKind};
pub(crate) use probe::explain;
#[doc(hidden)]
pub use probe::{image_format, is_luks_at};
#[cfg(feature = "file")]
pub use raw::RawImage;

use crate::error::{Error, Result};
use crate::header::Header;
use crate::storage::{Lease, Sharing, Storage};

/// Location of an image's header and payload. Both are in one storage unless the header is
/// detached.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    header: Arc<dyn Storage>,
    payload: Arc<dyn Storage>,
    is_detached: bool,
    /// Whether the payload was opened read-only
    is_read_only: bool,
    #[cfg(feature = "file")]
    files: file::Files,
    /// Name for errors, if it differs from that of the header's storage
    name: Option<PathBuf>,
    /// Offset and length of the image in the file, if it is a part of one
    part: Option<(u64, Option<u64>)>,
}

impl Container {
    /// An image on one storage. The caller must exclude other users of it.
    pub fn storage(storage: Arc<dyn Storage>) -> Self {
        let (header, payload) = (Arc::clone(&storage), storage);
        Self {
            header,
            payload,
            is_detached: false,
            is_read_only: false,
            #[cfg(feature = "file")]
            files: file::Files::default(),
            name: None,
            part: None,
        }
    }

    /// Restricts an image to the part that `part` names, if it names one.
    pub fn part_of(whole: Arc<dyn Storage>, part: &Part) -> Result<Self> {
        let Some(window) = part.of(&whole)? else { return Ok(Self::storage(whole)) };
        let part = Some((window.offset(), window.fixed_len()));
        Ok(Self { part, ..Self::storage(Arc::new(window)) })
    }

    /// Combines a detached header with the container of its `payload`.
    pub fn detached(header: Arc<dyn Storage>, payload: Self) -> Self {
        Self { header, is_detached: true, ..payload }
    }

    /// Replaces the name for errors, if `name` is given.
    pub fn with_name(self, name: Option<PathBuf>) -> Self {
        Self { name: name.or(self.name), ..self }
    }

    /// Reads the header. If there is none, the error says what the storage contains.
    pub fn read_header(&self) -> Result<Header> {
        self.read_header_by(Header::read)
    }

    /// Reads the header of an image to be repaired, whose magic may be erased.
    pub fn read_header_to_repair(&self) -> Result<Header> {
        self.read_header_by(Header::read_to_repair)
    }

    fn read_header_by(&self, read: fn(&dyn Storage) -> Result<Header>) -> Result<Header> {
        let storage = self.header.as_ref();
        read(storage).map_err(|error| self.named(explain(error, storage)))
    }

    /// The storage with the header and the keyslot areas.
    pub fn header(&self) -> &Arc<dyn Storage> {
        &self.header
    }

    /// The storage with the payload.
    pub fn payload(&self) -> &Arc<dyn Storage> {
        &self.payload
    }

    /// Whether the header is in a storage of its own.
    pub fn is_detached(&self) -> bool {
        self.is_detached
    }

    /// Offset and length in bytes of the image within its file. `None` if it is the whole file; a
    /// length of `None` extends to the end of the file.
    pub fn part(&self) -> Option<(u64, Option<u64>)> {
        self.part
    }

    /// Whether the payload was opened read-only.
    pub fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    /// Locks every storage of the image, the header's first.
    pub fn lease(&self, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        let lease = Arc::clone(&self.header).lease(sharing, wait)?;
        let failed = |e: io::Error| self.named(Error::io("identify the storage", e));
        let header = self.header.identity().map_err(failed)?;
        if self.payload.identity().map_err(failed)?.is_same_storage(&header) {
            return Ok(lease);
        }
        Ok(lease.and(Arc::clone(&self.payload).lease(sharing, wait)?))
    }

    /// Adds the name of the header's storage to an error that has no name.
    pub fn named(&self, error: Error) -> Error {
        error.with_name(self.name.as_deref().or(self.header.name()))
    }
}
