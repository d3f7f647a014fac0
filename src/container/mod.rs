//! Where the bytes of an image are: a file, a range or a partition of one, or two files.
//!
//! A `Container` says which storage has the header and which has the payload, and what is locked.
//! Everything above works on these storages and does not ask how they came about.

mod partition;
mod probe;
mod raw;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use partition::Part;
pub use partition::{Outside, Partition, PartitionTable, PartitionType, TableKind};
pub(crate) use probe::explain;
pub use probe::{image_format, is_luks_at};
pub use raw::RawImage;

use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::storage::sharing::{Claim, Sharing};
use crate::storage::{Access, FileStorage, Lease, Storage};

/// Where an image's header is, and where its payload. They are the same storage unless the header
/// is detached.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    header: Arc<dyn Storage>,
    payload: Arc<dyn Storage>,
    is_detached: bool,
    /// The file that was opened as the image, if it is in one
    file: Option<Arc<FileStorage>>,
    /// The file with the header, if that is detached
    header_file: Option<Arc<FileStorage>>,
    /// Offset and length of the image in the file, if it is a part of it
    part: Option<(u64, Option<u64>)>,
}

impl Container {
    /// An image on one storage, which the caller keeps others from.
    pub fn storage(storage: Arc<dyn Storage>) -> Self {
        let (header, payload) = (Arc::clone(&storage), storage);
        let is_detached = false;
        Self { header, payload, is_detached, file: None, header_file: None, part: None }
    }

    /// An image whose header is on another storage than its payload. The caller keeps others from both.
    pub fn storages(header: Arc<dyn Storage>, payload: Arc<dyn Storage>) -> Self {
        Self { header, is_detached: true, ..Self::storage(payload) }
    }

    /// An image in a file or a part of it, held with `claim` until the container is dropped.
    pub fn open(path: &Path, part: &Part, access: Access, claim: Claim) -> Result<Self> {
        Self::open_file(path, part, access, claim).map(|(container, _)| container)
    }

    /// The same, and the file.
    fn open_file(
        path: &Path,
        part: &Part,
        access: Access,
        claim: Claim,
    ) -> Result<(Self, Arc<FileStorage>)> {
        let file = Arc::new(FileStorage::open_claimed(path, access, claim)?);
        let whole: Arc<dyn Storage> = Arc::<FileStorage>::clone(&file);
        let window = part.of(&whole).map_err(|error| error.with_path(path))?;
        let part = window.as_ref().map(|window| (window.offset(), window.fixed_len()));
        let storage: Arc<dyn Storage> = match window {
            Some(window) => Arc::new(window),
            None => whole,
        };
        let container = Self { file: Some(Arc::clone(&file)), part, ..Self::storage(storage) };
        Ok((container, file))
    }

    /// An image whose header is in another file. Both are held until the container is dropped: an
    /// amendment excludes everybody from both, and whoever reads or writes the payload excludes
    /// amendments of the header.
    pub fn open_detached(
        (header, header_part): (&Path, &Part),
        (path, part): (&Path, &Part),
        access: Access,
        claim: Claim,
    ) -> Result<Self> {
        let (access, header_access, header_sharing) = match claim.sharing {
            Sharing::Amend => (access, access, Sharing::Amend),
            Sharing::None => (Access::ReadOnly, access, Sharing::None),
            _ => (access, Access::ReadOnly, Sharing::ReadData),
        };
        let header_claim = Claim { sharing: header_sharing, ..claim };
        let (header, file) = Self::open_file(header, header_part, header_access, header_claim)?;
        if file.is_file(path).unwrap_or(false) {
            let text = "the header and the image are the same file";
            return Err(Error::new(ErrorKind::InvalidInput, text).with_path(path));
        }
        let payload = match Self::open(path, part, access, claim) {
            // Keyslots are changed in the header alone.
            Err(error)
                if claim.sharing == Sharing::Amend
                    && error.kind() == ErrorKind::PermissionDenied =>
            {
                Self::open(path, part, Access::ReadOnly, claim)?
            }
            payload => payload?,
        };
        let header = header.payload;
        Ok(Self { header, is_detached: true, header_file: Some(file), ..payload })
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

    /// The file with the header, if that is detached.
    pub fn header_file(&self) -> Option<&Arc<FileStorage>> {
        self.header_file.as_ref()
    }

    /// Whether the payload's file was opened for reading alone.
    pub fn is_read_only(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.access() == Access::ReadOnly)
    }

    /// The file that was opened as the image.
    pub fn file(&self) -> Option<&Arc<FileStorage>> {
        self.file.as_ref()
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
        error.with_name(self.header.name())
    }
}
