//! Where the bytes of an image are: a file, a range or a partition of one, or two files.
//!
//! A `Container` says which storage has the header and which has the payload, and what is locked.
//! Everything above works on these storages and does not ask how they came about.

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

/// Where an image's header is, and where its payload. They are the same storage unless the header
/// is detached.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    header: Arc<dyn Storage>,
    payload: Arc<dyn Storage>,
    is_detached: bool,
    /// Whether the payload was opened for reading alone
    is_read_only: bool,
    #[cfg(feature = "file")]
    files: file::Files,
    /// The name for errors, if it is not that of the header's storage
    name: Option<PathBuf>,
    /// Offset and length of the image in the file, if it is a part of it
    part: Option<(u64, Option<u64>)>,
}

impl Container {
    /// An image on one storage, which the caller keeps others from.
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

    /// An image in a part of this one, if `part` names one.
    pub fn part_of(whole: Arc<dyn Storage>, part: &Part) -> Result<Self> {
        let Some(window) = part.of(&whole)? else { return Ok(Self::storage(whole)) };
        let part = Some((window.offset(), window.fixed_len()));
        Ok(Self { part, ..Self::storage(Arc::new(window)) })
    }

    /// An image whose header is on another storage than its `payload`.
    pub fn detached(header: Arc<dyn Storage>, payload: Self) -> Self {
        Self { header, is_detached: true, ..payload }
    }

    /// The same with another name for errors, if there is one.
    pub fn with_name(self, name: Option<PathBuf>) -> Self {
        Self { name: name.or(self.name), ..self }
    }

    /// Reads the header. What the storage holds in place of one is in the error.
    pub fn read_header(&self) -> Result<Header> {
        self.read_header_by(Header::read)
    }

    /// Reads the header of an image that is to be repaired: one whose magic is erased, too.
    pub fn read_header_to_repair(&self) -> Result<Header> {
        self.read_header_by(Header::read_to_repair)
    }

    fn read_header_by(&self, read: fn(&dyn Storage) -> Result<Header>) -> Result<Header> {
        let storage = self.header.as_ref();
        read(storage).map_err(|error| self.named(explain(error, storage)))
    }

    /// The storage with the header and the areas of its keyslots.
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

    /// Offset and length in bytes of the part of the file that the image is. `None` if it is all of
    /// the file; a length of `None` is to the end of the file.
    pub fn part(&self) -> Option<(u64, Option<u64>)> {
        self.part
    }

    /// Whether the payload was opened for reading alone.
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

    /// The error with the name of the header's storage, if it has one and the error has none.
    pub fn named(&self, error: Error) -> Error {
        error.with_name(self.name.as_deref().or(self.header.name()))
    }
}
