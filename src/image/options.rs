//! How an image is opened: where it is, what for, and what others may do with it meanwhile.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::Image;
use crate::container::{Container, Part};
use crate::error::Result;
use crate::header::Header;
use crate::storage::{Sharing, Storage};
use crate::unlock::Limits;

/// How an image is opened. The default reads the header and keeps nobody from anything.
#[derive(Clone, Debug, Default)]
pub struct OpenOptions {
    pub(super) sharing: Sharing,
    pub(super) write: bool,
    pub(super) wait: Option<Duration>,
    #[cfg(feature = "file")]
    pub(super) busy_device: bool,
    pub(super) erased: bool,
    pub(super) limits: Limits,
    /// The name for errors, in place of the storage's own
    name: Option<PathBuf>,
    #[cfg(feature = "file")]
    pub(super) header: Option<PathBuf>,
    #[cfg(feature = "file")]
    pub(super) header_part: Part,
    pub(super) part: Part,
}

impl OpenOptions {
    /// Reads the header, takes no lock.
    pub fn new() -> Self {
        Self::default()
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

    /// The name for errors, in place of the one that the storage has. A file is named by its path.
    #[must_use]
    pub fn name(mut self, name: impl Into<PathBuf>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Opens an image on a storage of the caller's, who must exclude other users of it: no lock is
    /// taken before an amendment, which [leases](Storage::lease) the storage.
    ///
    /// As a file, it is opened for reading unless the [sharing](Self::sharing) or
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
        let container = Container::part_of(storage, &self.part);
        self.open_container(container.map_err(|error| error.with_name(self.name.as_deref()))?)
    }

    /// Opens an image whose header is detached, on two storages of the caller's: `open_storage` says
    /// with which rights. The [range](Self::range) or [partition](Self::partition) is one of the
    /// payload.
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
    /// Reads the header of an image whose storages are open.
    pub(super) fn open_container(&self, container: Container) -> Result<Image> {
        let options = Self { write: self.write || self.sharing.writes(), ..self.clone() };
        let container = container.with_name(self.name.clone());
        let header = options.read_header(&container)?;
        Ok(Image { container, header, options, tried: Mutex::default() })
    }

    /// Reads the header, one whose magic is erased if that is admitted.
    pub(super) fn read_header(&self, container: &Container) -> Result<Header> {
        if self.erased { container.read_header_to_repair() } else { container.read_header() }
    }
}
