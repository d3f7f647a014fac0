//! Options for opening an image: its place, the access to it, and the sharing with other programs.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Image;
use crate::container::{
    Container, DiskFormat, DiskOptions, Gate, Located, Part, Qcow2Disk, Qcow2Header,
};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::storage::{Sharing, Storage};
use crate::unlock::Limits;

/// Options for opening an image. The default reads the header and takes no lock.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub(super) sharing: Sharing,
    pub(super) write: bool,
    pub(super) wait: Option<Duration>,
    pub(super) erased: bool,
    pub(super) limits: Limits,
    /// Name for errors, instead of the storage's own
    name: Option<PathBuf>,
    #[cfg(feature = "file")]
    pub(super) file: super::file::FileOptions,
    pub(super) part: Part,
    pub(super) format: Option<DiskFormat>,
    gate: Option<Arc<dyn Gate>>,
    unordered: bool,
}

impl OpenOptions {
    /// Creates options that read the header and take no lock.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the use of the image, and the uses that other programs may make of it at the same time.
    #[must_use]
    pub fn sharing(mut self, sharing: Sharing) -> Self {
        self.sharing = sharing;
        self
    }

    /// Also opens the image for writing, so that it can be amended. Until then it is shared for reading.
    #[must_use]
    pub fn write(mut self, write: bool) -> Self {
        self.write = write;
        self
    }

    /// Sets how long opening and every amendment wait for other programs to close the image.
    #[must_use]
    pub fn wait(mut self, wait: Option<Duration>) -> Self {
        self.wait = wait;
        self
    }

    /// Accepts a LUKS2 header that is valid except for its erased magic, so that it can be
    /// [repaired](Image::repair). By default it is an error
    /// ([`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt)).
    #[must_use]
    pub fn erased(mut self, erased: bool) -> Self {
        self.erased = erased;
        self
    }

    /// Sets limits on the work that the header may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Selects a range of the file as the image: from byte `offset`, `len` bytes or to the end. Locks
    /// apply to the whole file.
    #[must_use]
    pub fn range(mut self, offset: u64, len: Option<u64>) -> Self {
        self.part = Part::Range { offset, len };
        self
    }

    /// Selects a partition of the file as the image, by its number in the partition table (GPT or
    /// MBR). Locks apply to the whole file.
    #[must_use]
    pub fn partition(mut self, number: u32) -> Self {
        self.part = Part::Partition(number);
        self
    }

    /// Sets the format of the file that contains the image. By default the format is detected: a file
    /// that begins with qcow2's magic is a qcow2 image.
    #[must_use]
    pub fn format(mut self, format: DiskFormat) -> Self {
        self.format = Some(format);
        self
    }

    /// Opens the files that a qcow2 image names, such as its backing file, through this gate. By
    /// default an image that needs another file for its data is refused. Keyslots of an encrypted
    /// qcow2 image need no other file.
    #[must_use]
    pub fn gate(mut self, gate: Arc<dyn Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// Writes the data of a qcow2 image without syncs between dependent changes, which is faster. For a
    /// new image that nothing uses before it is complete and synced: a crash may damage it.
    #[must_use]
    pub fn unordered(mut self, unordered: bool) -> Self {
        self.unordered = unordered;
        self
    }

    /// Sets the name for errors, instead of the storage's own. A file's own name is its path.
    #[must_use]
    pub fn name(mut self, name: impl Into<PathBuf>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Opens an image on caller-supplied storage. The caller must exclude other users of it, because no
    /// lock is taken before an amendment [leases](Storage::lease) the storage.
    ///
    /// As with a file, the image is read-only unless [`sharing`](Self::sharing) or
    /// [`write`](Self::write) says otherwise.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use keyslot::storage::ReadOnlyBytes;
    /// use keyslot::{Limits, OpenOptions, Passphrase};
    ///
    /// # fn main() -> keyslot::Result<()> {
    /// let bytes = std::fs::read("testdata/luks1_qemu.img").expect("an image");
    /// let options = OpenOptions::new().limits(Limits::default()).name("disk 7");
    /// let image = options.open_storage(Arc::new(ReadOnlyBytes(bytes)))?;
    /// let unlocked = image.unlock(&Passphrase::new(b"hunter0")?)?;
    /// let mut start = [0; 512];
    /// image.volume(&unlocked)?.read_exact_at(&mut start, 0)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_storage(&self, storage: Arc<dyn Storage>) -> Result<Image> {
        let container = Container::locate(storage, &self.located());
        self.open_container(container.map_err(|error| error.with_name(self.name.as_deref()))?)
    }

    /// Opens the guest's disk in a qcow2 image that is not encrypted, on caller-supplied storage. The
    /// caller must exclude other users of it. The disk is read-only unless
    /// [`sharing`](Self::sharing) says otherwise.
    ///
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) if the image is encrypted, or needs a
    /// file that the [gate](Self::gate) does not open.
    pub fn open_disk_storage(&self, storage: Arc<dyn Storage>) -> Result<Qcow2Disk> {
        if self.sharing == Sharing::WriteData {
            return Err(one_writer().with_name(self.name.as_deref()));
        }
        self.locked_disk(storage)
    }

    /// Opens the guest's disk in an image that is locked as the options say. Without a lock, it is
    /// read-only.
    pub(super) fn locked_disk(&self, storage: Arc<dyn Storage>) -> Result<Qcow2Disk> {
        let is_read_only = !self.sharing.writes();
        let options = DiskOptions { is_read_only, ..self.disk_options() };
        let disk = Qcow2Header::read(storage.as_ref())
            .and_then(|header| Qcow2Disk::open(storage, header, options));
        disk.map_err(|error| error.with_name(self.name.as_deref()))
    }

    /// Opens an image with a detached header on two caller-supplied storages, as
    /// [`open_storage`](Self::open_storage) does on one. A [range](Self::range) or
    /// [partition](Self::partition) applies to the payload.
    pub fn open_storages(
        &self,
        header: Arc<dyn Storage>,
        payload: Arc<dyn Storage>,
    ) -> Result<Image> {
        let payload = Container::part_of(payload, &self.part);
        let payload = payload.map_err(|error| error.with_name(self.name.as_deref()))?;
        self.open_container(Container::detached(header, payload))
    }
}

impl OpenOptions {
    /// Place of the image in its file.
    pub(super) fn located(&self) -> Located<'_> {
        Located { part: &self.part, format: self.format, disk: self.disk_options() }
    }

    /// How the disk in a qcow2 image is opened.
    pub(super) fn disk_options(&self) -> DiskOptions<'_> {
        // A qcow2 image has one writer at a time.
        let is_held = self.sharing.writes();
        let (is_read_only, is_unordered) = (!(self.write || is_held), self.unordered);
        DiskOptions { gate: self.gate.as_deref(), is_read_only, is_unordered, is_held }
    }

    /// Reads the header from an open container.
    pub(super) fn open_container(&self, container: Container) -> Result<Image> {
        let options = Self { write: self.write || self.sharing.writes(), ..self.clone() };
        let container = container.with_name(self.name.clone());
        let header = options.read_header(&container)?;
        Ok(Image { container, header, options, tried: Mutex::default() })
    }

    /// Reads the header. Accepts an erased magic if [`erased`](Self::erased) is set.
    pub(super) fn read_header(&self, container: &Container) -> Result<Header> {
        if self.erased { container.read_header_to_repair() } else { container.read_header() }
    }
}

/// The error for data of a qcow2 image on a storage without QEMU's locks.
pub(super) fn one_writer() -> Error {
    let text = "the data of a qcow2 image cannot have several writers";
    Error::new(ErrorKind::Unsupported, text).with_hint("open it with Sharing::WriteAlone")
}
