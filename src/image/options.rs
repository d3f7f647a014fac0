//! How an image is opened: where it is, what for, and what others may do with it meanwhile.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use super::Image;
use crate::container::{Container, Part, RawImage};
use crate::error::Result;
use crate::header::Header;
use crate::storage::Access;
use crate::storage::sharing::{Claim, Sharing};
use crate::unlock::Limits;

/// How an image is opened. The default reads the header and keeps nobody from anything.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(super) sharing: Sharing,
    pub(super) write: bool,
    pub(super) wait: Option<Duration>,
    pub(super) busy_device: bool,
    pub(super) erased: bool,
    pub(super) limits: Limits,
    pub(super) header: Option<PathBuf>,
    pub(super) header_part: Part,
    pub(super) part: Part,
}

impl OpenOptions {
    /// Reads the header, takes no lock.
    pub fn new() -> Self {
        let (sharing, limits) = (Sharing::None, Limits::default());
        let (header, header_part, part) = (None, Part::Whole, Part::Whole);
        let (write, wait, busy_device, erased) = (false, None, false, false);
        Self { sharing, write, wait, busy_device, erased, limits, header, header_part, part }
    }

    /// What the image is opened for, and what others may do with it meanwhile.
    #[must_use]
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Opens for writing as well, to amend an image that is shared for reading until then.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// How long to wait for others to be gone, in opening and in every amendment.
    #[must_use]
    pub fn wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// Lets a block device be amended that is mounted or mapped. Without it, that is refused
    /// ([`ErrorKind::InUse`](crate::ErrorKind::InUse)).
    #[must_use]
    pub fn busy_device(mut self, busy_device: bool) -> Self {
        self.busy_device = busy_device;
        self
    }

    /// Opens an image whose LUKS2 header lacks nothing but its magic, to [repair](Image::repair)
    /// it. Without it, that is an error ([`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt)).
    #[must_use]
    pub fn erased(mut self, erased: bool) -> Self {
        self.erased = erased;
        self
    }

    /// How much work the header may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
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

    /// The image is a range of the file: from byte `offset` on, `len` bytes or to the end. The locks
    /// are on the whole file.
    #[must_use]
    pub fn range(mut self, offset: u64, len: Option<u64>) -> Self {
        self.part = Part::Range { offset, len };
        self
    }

    /// The image is a partition of the file, by its number in the partition table (GPT or MBR).
    /// The locks are on the whole file.
    #[must_use]
    pub fn partition(mut self, number: u32) -> Self {
        self.part = Part::Partition(number);
        self
    }

    /// Opens an image: first the lock, then the header.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Image> {
        let path = path.as_ref();
        let options = Self { write: self.write || self.sharing.writes(), ..self.clone() };
        let access = if options.write { Access::ReadWrite } else { Access::ReadOnly };
        let container = options.container(path, access)?;
        let header = options.read_header(&container)?;
        Ok(Image { container, header, options, tried: Mutex::default() })
    }
}

impl OpenOptions {
    /// Opens a file, or the part of one that these options name, without reading a header.
    pub fn open_raw(&self, path: impl AsRef<Path>) -> Result<RawImage> {
        let is_written = self.write || self.sharing.writes();
        let access = if is_written { Access::ReadWrite } else { Access::ReadOnly };
        RawImage::open(path.as_ref(), &self.part, access, self.claim())
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

    /// Reads the header, one whose magic is erased if that is admitted.
    pub(super) fn read_header(&self, container: &Container) -> Result<Header> {
        if self.erased { container.read_header_to_repair() } else { container.read_header() }
    }

    fn claim(&self) -> Claim {
        let Self { sharing, wait, busy_device, .. } = *self;
        Claim { sharing, wait, busy_device }
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}
