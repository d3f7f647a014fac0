//! Images in local files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Image, OpenOptions};
use crate::container::{Container, Part, Qcow2Disk, RawImage, open_locked};
use crate::error::Result;
use crate::storage::sharing::Claim;
use crate::storage::{Access, FileRef, FileStorage};

/// The options that apply to files alone.
#[derive(Clone, Debug, Default)]
pub(super) struct FileOptions {
    busy_device: bool,
    direct: bool,
    /// File with the detached header
    header: Option<PathBuf>,
    header_part: Part,
}

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
        self.file.busy_device = busy_device;
        self
    }

    /// Bypasses the page cache (`O_DIRECT`) to read and write the file. By default it is used.
    ///
    /// Accesses that are aligned to the blocks of the device are fastest: offset, length and address
    /// of the buffer. Others are copied, and a write of a part of a block reads that block first. A
    /// detached header is read and written through the page cache. Opening fails with
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) on a file system without `O_DIRECT`.
    #[must_use]
    pub fn direct(mut self, direct: bool) -> Self {
        self.file.direct = direct;
        self
    }

    /// Reads a detached header from this file. The path given to [`open`](Self::open) is then that of the
    /// payload's file.
    #[must_use]
    pub fn header(mut self, header: impl Into<PathBuf>) -> Self {
        self.file.header = Some(header.into());
        self
    }

    /// Selects a range of the detached header's file: from byte `offset`, `len` bytes or to the end.
    /// Locks apply to the whole file.
    #[must_use]
    pub fn header_range(mut self, offset: u64, len: Option<u64>) -> Self {
        self.file.header_part = Part::Range { offset, len };
        self
    }

    /// Locks the file as [`sharing`](Self::sharing) says, then reads the header.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Image> {
        let file = FileRef::Path(path.as_ref());
        self.open_container(self.container(file, self.access())?)
    }

    /// Opens an image in a file that is already open, such as one whose descriptor another process
    /// has passed on. Otherwise like [`open`](Self::open).
    ///
    /// The locks that keep other programs out belong to an open file description, which a passed
    /// descriptor shares with the process that it came from. The file is therefore opened again,
    /// through `/proc/self/fd`. `file` is not needed after that, and the locks that its description
    /// has count as another program's. If the system does not permit the file to be opened again,
    /// the descriptor is used as it is. The locks then keep out other programs, but not those that
    /// share the description, and replace any locks that these have taken.
    ///
    /// Fails with [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if these options write
    /// and the descriptor is open for reading only. A descriptor with `O_DIRECT` sets
    /// [`direct`](Self::direct).
    ///
    /// ```
    /// use std::fs::File;
    ///
    /// use keyslot::{OpenOptions, Sharing};
    ///
    /// # fn main() -> keyslot::Result<()> {
    /// let passed = File::open("testdata/luks1_qemu.img").expect("a file");
    /// let image = OpenOptions::new().sharing(Sharing::ReadData).open_file(&passed)?;
    /// println!("{} keyslots", image.keyslots().len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_file(&self, file: &File) -> Result<Image> {
        let file = FileRef::Descriptor(file);
        self.open_container(self.container(file, self.access())?)
    }

    /// Opens a file, or the part of it that these options select, without reading a header.
    pub fn open_raw(&self, path: impl AsRef<Path>) -> Result<RawImage> {
        RawImage::open(path.as_ref(), &self.part, self.access(), self.claim())
    }

    /// Opens and locks a qcow2 image that is not encrypted, for the guest's disk in it.
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the image is encrypted, or needs a
    /// file that the [gate](Self::gate) does not open.
    ///
    /// ```no_run
    /// use keyslot::container::PartitionTable;
    /// use keyslot::{OpenOptions, Sharing};
    ///
    /// # fn main() -> keyslot::Result<()> {
    /// let disk = OpenOptions::new().sharing(Sharing::ReadData).open_disk("guest.qcow2")?;
    /// let table = PartitionTable::read(disk.storage().as_ref())?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_disk(&self, path: impl AsRef<Path>) -> Result<Qcow2Disk> {
        let path = path.as_ref();
        let file = open_locked(FileRef::Path(path), self.format, self.access(), self.claim())?;
        self.locked_disk(Arc::new(file)).map_err(|error| error.with_path(path))
    }

    /// Opens and locks the files of an image.
    pub(super) fn container(&self, file: FileRef<'_>, access: Access) -> Result<Container> {
        match &self.file.header {
            Some(header) => {
                let header = (header.as_path(), &self.file.header_part);
                Container::open_detached(header, (file, &self.part), access, self.claim())
            }
            None => Container::open(file, &self.located(), access, self.claim()),
        }
    }

    fn access(&self) -> Access {
        if self.write || self.sharing.writes() { Access::ReadWrite } else { Access::ReadOnly }
    }

    fn claim(&self) -> Claim {
        let Self { sharing, wait, file: FileOptions { busy_device, direct, .. }, .. } = *self;
        Claim { sharing, wait, busy_device, direct }
    }
}
