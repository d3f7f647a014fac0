//! The guest's disk in a qcow2 image that is not encrypted.

use std::sync::Arc;

use super::data::Qcow2Map;
use super::gate::{Gate, open_files};
use super::{Qcow2Encryption, Qcow2Header, unsupported};
use crate::error::Result;
use crate::storage::Storage;
use crate::volume::{Keyring, Volume, VolumeStorage};

/// The guest's disk in a qcow2 image that is not encrypted, as a storage.
///
/// The guest may have encrypted partitions on it. The disk of an encrypted image is that image's
/// [`Volume`]. The image stays open and locked until this is dropped.
///
/// Opened by [`OpenOptions::open_disk`](crate::OpenOptions::open_disk) and
/// [`OpenOptions::open_disk_storage`](crate::OpenOptions::open_disk_storage).
#[derive(Clone, Debug)]
pub struct Qcow2Disk {
    header: Arc<Qcow2Header>,
    map: Arc<Qcow2Map>,
    storage: Arc<dyn Storage>,
}

/// How the disk in a qcow2 image is opened.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskOptions<'a> {
    /// Opens the files that the image names
    pub gate: Option<&'a dyn Gate>,
    pub is_read_only: bool,
    /// Whether the image may be damaged after a crash
    pub is_unordered: bool,
    /// Whether the image is locked against other writers as long as it is open
    pub is_held: bool,
}

impl Qcow2Disk {
    pub(crate) fn open(
        image: Arc<dyn Storage>,
        header: Qcow2Header,
        options: DiskOptions<'_>,
    ) -> Result<Self> {
        if header.encryption() != Qcow2Encryption::None {
            let text = "the qcow2 image is encrypted, so its partitions are not readable";
            return Err(unsupported(text));
        }
        let files = open_files(image.as_ref(), &header, options.gate)?;
        let map = Qcow2Map::open(image, header.clone(), files, None)?;
        let map = if options.is_unordered { map.unordered() } else { map };
        let map = Arc::new(if options.is_held { map.held() } else { map });
        let clusters: Arc<Qcow2Map> = Arc::clone(&map);
        let volume = Volume::over(clusters, &Keyring::default())?;
        let volume = if options.is_read_only { volume.read_only() } else { volume };
        let storage = Arc::new(VolumeStorage::from(volume));
        Ok(Self { header: Arc::new(header), map, storage })
    }

    /// The image's header, as it was when the disk was opened.
    pub fn header(&self) -> &Qcow2Header {
        &self.header
    }

    /// The bytes of the disk.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    /// Reads the tables again, after the image was locked.
    pub(crate) fn refresh(&self) -> Result<()> {
        self.map.refresh()
    }

    /// Prepares the locked image for writing, or refuses to.
    pub(crate) fn may_write(&self) -> Result<()> {
        crate::volume::Map::may_write(self.map.as_ref())
    }
}
