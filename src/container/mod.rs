//! Location of an image's bytes: a file, a range or partition of one, or two files.
//!
//! A `Container` names the storage with the header, the storage with the payload, and the locks. In
//! an encrypted qcow2 image, the header is a window of the file. In one that is not encrypted, an image
//! can be a part of the guest's disk.
//! Everything above works on these storages and does not depend on their kind.

#[cfg(feature = "file")]
mod file;
#[cfg(feature = "file")]
mod one_file;
mod partition;
mod probe;
mod qcow2;
#[cfg(feature = "file")]
mod raw;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

#[cfg(feature = "file")]
pub(crate) use file::open_locked;
pub(crate) use partition::Part;
pub use partition::{Outside, Partition, PartitionTable, PartitionType, TableKind};
pub(crate) use probe::explain;
#[doc(hidden)]
pub use probe::{image_format, is_luks_at, is_luks1};
#[cfg(feature = "file")]
pub(crate) use qcow2::DiskFiles;
#[cfg(feature = "file")]
pub(crate) use qcow2::NewQcow2;
pub(crate) use qcow2::{DiskOptions, Qcow2Map, open_files};
pub use qcow2::{
    Gate, Purpose, Qcow2Compression, Qcow2Disk, Qcow2Encryption, Qcow2Header, Qcow2Options,
    Reference, Referenced,
};
#[cfg(feature = "file")]
pub use raw::RawImage;

use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::storage::{Lease, Sharing, Storage, Window};
use crate::volume::Crypt;

/// Format of the file that contains an image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DiskFormat {
    /// The file begins with the LUKS header. QEMU calls this format `luks`.
    Raw,
    /// A qcow2 image that contains a LUKS header
    Qcow2,
}

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
    /// Offset and length of the image in the file or guest's disk, if it is a part of one
    part: Option<(u64, Option<u64>)>,
    /// The header of a qcow2 image, which is in `payload`
    qcow2: Option<Arc<Qcow2Header>>,
    /// The clusters of that image, while a volume uses them
    clusters: Arc<Mutex<Weak<Qcow2Map>>>,
    /// The guest's disk that the image is a part of
    disk: Option<Qcow2Disk>,
}

/// Place of an image in a file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Located<'a> {
    pub part: &'a Part,
    pub format: Option<DiskFormat>,
    pub disk: DiskOptions<'a>,
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
            qcow2: None,
            clusters: Arc::default(),
            disk: None,
        }
    }

    /// Finds the image in a file: the whole file, the part of it that `part` names, or, if the file is a
    /// qcow2 image, that part of the guest's disk.
    pub fn locate(whole: Arc<dyn Storage>, at: &Located<'_>) -> Result<Self> {
        let Located { part, format, disk: options } = *at;
        let is_read_only = options.is_read_only;
        let qcow2 = match (part, format) {
            (Part::Whole, _) | (_, Some(DiskFormat::Raw)) => None,
            _ => Qcow2Header::read_if_qcow2(whole.as_ref())?,
        };
        if let Some(header) = qcow2 {
            let disk = Qcow2Disk::open(whole, header, options)?;
            let container = Self::part_of(Arc::clone(disk.storage()), part)?;
            return Ok(Self { disk: Some(disk), is_read_only, ..container });
        }
        let container = Self { is_read_only, ..Self::part_of(whole, part)? };
        container.in_format(format)
    }

    /// Restricts an image to the part that `part` names, if it names one.
    pub fn part_of(whole: Arc<dyn Storage>, part: &Part) -> Result<Self> {
        let Some(window) = part.of(&whole)? else { return Ok(Self::storage(whole)) };
        let part = Some((window.offset(), window.fixed_len()));
        Ok(Self { part, ..Self::storage(Arc::new(window)) })
    }

    /// Finds the LUKS header in a file of this format, by default the format that the file begins
    /// with.
    pub fn in_format(self, format: Option<DiskFormat>) -> Result<Self> {
        let qcow2 = match format {
            Some(DiskFormat::Raw) => return Ok(self),
            Some(DiskFormat::Qcow2) => Qcow2Header::read(self.payload.as_ref()).map(Some),
            None => Qcow2Header::read_if_qcow2(self.payload.as_ref()),
        };
        let Some(qcow2) = qcow2.map_err(|error| self.named(error))? else { return Ok(self) };
        let area = qcow2.luks_area().map_err(|error| self.named(error))?;
        let len = Some(area.end - area.start);
        let window = Window::new(Arc::clone(&self.payload), area.start, len)
            .map_err(|e| self.named(Error::io("find the LUKS header", e)))?;
        Ok(Self { header: Arc::new(window), qcow2: Some(Arc::new(qcow2)), ..self })
    }

    /// Whether the image is in a local file, which has locks.
    #[cfg_attr(not(feature = "file"), expect(clippy::unused_self, reason = "there are no files"))]
    pub fn is_file(&self) -> bool {
        #[cfg(feature = "file")]
        return self.files.image.is_some();
        #[cfg(not(feature = "file"))]
        false
    }

    /// The header of a qcow2 image.
    pub fn qcow2(&self) -> Option<&Qcow2Header> {
        self.qcow2.as_deref()
    }

    /// The guest's disk that the image is a part of.
    pub fn disk(&self) -> Option<&Qcow2Disk> {
        self.disk.as_ref()
    }

    /// The clusters of an encrypted qcow2 image. All volumes of the image share one map, because its
    /// tables are cached.
    pub fn clusters(&self, crypt: Crypt, options: DiskOptions<'_>) -> Result<Arc<Qcow2Map>> {
        let mut clusters = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(map) = clusters.upgrade() {
            return Ok(map);
        }
        let image = Arc::clone(&self.payload);
        let header = Qcow2Header::read(image.as_ref())?;
        let files = open_files(image.as_ref(), &header, options.gate)?;
        let map = Qcow2Map::open(image, header, files, Some(crypt))?;
        let map = Arc::new(if options.is_unordered { map.unordered() } else { map });
        *clusters = Arc::downgrade(&map);
        Ok(map)
    }

    /// Checks that keyslots can be changed as far as the file's format is concerned.
    pub fn check_amendable(&self) -> Result<()> {
        self.qcow2.as_ref().map_or(Ok(()), |qcow2| qcow2.check_amendable())
    }

    /// Checks that the locked file still has its LUKS header where it was found.
    pub fn check_unchanged(&self) -> Result<()> {
        self.check_amendable()?;
        if let Some(disk) = &self.disk {
            disk.refresh()?;
        }
        self.qcow2.as_ref().map_or(Ok(()), |qcow2| qcow2.check_unchanged(self.payload.as_ref()))
    }

    /// Offset in the payload's storage, and bytes, that must be written there before any keyslot. The
    /// file must be locked.
    pub fn preparation(&self) -> Result<Option<(u64, [u8; 8])>> {
        if let Some(disk) = &self.disk {
            disk.may_write()?;
        }
        let storage = self.payload.as_ref();
        self.qcow2.as_ref().map_or(Ok(None), |qcow2| qcow2.features_to_clear(storage))
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
        let header = read(storage).and_then(|header| match (&self.qcow2, &header) {
            (Some(_), Header::Luks2(_)) => {
                let text = "LUKS version 2 is not supported in qcow2 images";
                Err(Error::new(ErrorKind::Unsupported, text))
            }
            _ => Ok(header),
        });
        header.map_err(|error| self.named(explain(error, storage)))
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
