//! Images in local files.

use std::path::{Path, PathBuf};

use super::{Image, OpenOptions};
use crate::container::{Container, Part, RawImage};
use crate::error::Result;
use crate::storage::sharing::Claim;
use crate::storage::{Access, FileStorage};

impl Image {
    /// Opens an image to read its header.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        OpenOptions::new().open(path)
    }

    /// The file with the header, if it is detached.
    pub fn header_file(&self) -> Option<&FileStorage> {
        self.container.header_file().map(AsRef::as_ref)
    }

    /// The image's file, if it is in one. If the header is detached, that is the file of the payload.
    pub fn file(&self) -> Option<&FileStorage> {
        self.container.file().map(AsRef::as_ref)
    }
}

impl OpenOptions {
    /// Lets a block device be amended that is mounted or mapped, and a file that a loop device is
    /// attached to. Without it, that is refused ([`ErrorKind::InUse`](crate::ErrorKind::InUse)).
    #[must_use]
    pub fn busy_device(mut self, busy_device: bool) -> Self {
        self.busy_device = busy_device;
        self
    }

    /// Reads the header from this file: it is detached. The image's own file has the payload alone,
    /// and its path is what [`open`](Self::open) takes.
    #[must_use]
    pub fn header(mut self, header: impl Into<PathBuf>) -> Self {
        self.header = Some(header.into());
        self
    }

    /// The detached header is a range of its file: from byte `offset` on, `len` bytes or to the end.
    /// The locks are on the whole file.
    #[must_use]
    pub fn header_range(mut self, offset: u64, len: Option<u64>) -> Self {
        self.header_part = Part::Range { offset, len };
        self
    }

    /// Opens an image: first the lock, then the header.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        self.open_container(self.container(path, self.access())?)
    }
    /// Opens a file, or the part of one that these options name, without reading a header.
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
            None => Container::open(path, &self.part, access, self.claim()),
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
