//! Images in local files.

use std::path::{Path, PathBuf};

use super::{Image, OpenOptions};
use crate::container::{Container, Part, RawImage};
use crate::error::Result;
use crate::storage::sharing::Claim;
use crate::storage::{Access, FileStorage};

impl Image {
    /// Opens an image read-only and without a lock.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// File that holds the header, if the header is detached.
    pub fn header_file(&self) -> Option<&FileStorage> {
        self.container.header_file().map(AsRef::as_ref)
    }

    /// File that holds the image, if it is in a file. If the header is detached, this is the payload's
    /// file.
    pub fn file(&self) -> Option<&FileStorage> {
        self.container.file().map(AsRef::as_ref)
    }
}

impl OpenOptions {
    /// Permits amending a block device that is mounted or mapped, and a file with a loop device
    /// attached. By default they are refused with [`ErrorKind::InUse`](crate::ErrorKind::InUse).
    #[must_use]
    pub fn busy_device(mut self, busy_device: bool) -> Self {
        self.busy_device = busy_device;
        self
    }

    /// Reads a detached header from this file. The path given to [`open`](Self::open) is then that of the
    /// payload's file.
    #[must_use]
    pub fn header(mut self, header: impl Into<PathBuf>) -> Self {
        self.header = Some(header.into());
        self
    }

    /// Selects a range of the detached header's file: from byte `offset`, `len` bytes or to the end.
    /// Locks apply to the whole file.
    #[must_use]
    pub fn header_range(mut self, offset: u64, len: Option<u64>) -> Self {
        self.header_part = Part::Range { offset, len };
        self
    }

    /// Locks the file as [`sharing`](Self::sharing) says, then reads the header.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        self.open_container(self.container(path, self.access())?)
    }

    /// Opens a file, or the part of it that these options select, without reading a header.
    pub fn open_raw(&self, path: impl AsRef<Path>) -> Result<RawImage> {
        RawImage::open(path.as_ref(), &self.part, self.access(), self.claim())
    }

    /// Opens and locks the files of an image.
    pub(super) fn container(&self, path: &Path, access: Access) -> Result<Container> {
        match &self.header {
            Some(header) => {
                let header = (header.as_path(), &self.header_part);
                Container::open_detached(header, (path, &self.part), access, self.claim())
            }
            None => Container::open(path, &self.part, self.format, access, self.claim()),
        }
    }

    fn access(&self) -> Access {
        if self.write || self.sharing.writes() { Access::ReadWrite } else { Access::ReadOnly }
    }

    fn claim(&self) -> Claim {
        let Self { sharing, wait, busy_device, .. } = *self;
        Claim { sharing, wait, busy_device }
    }
}
