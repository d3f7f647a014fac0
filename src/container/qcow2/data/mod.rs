//! The guest's data of a qcow2 image: a [`Map`] of its clusters.
//!
//! The engine is our own, because the published one, imago, issues no syncs between reference counts,
//! L2 and L1 tables, so its writes cannot keep the crash promise. `docs/qcow2.md` has the order of
//! writes.
//!
//! Reads and writes of the data itself are the [`Volume`](crate::volume::Volume)'s. The map finds the
//! place of each byte and allocates clusters.

mod allocate;
mod audit;
mod cache;
mod entry;
mod geometry;
mod grow;
mod packed;
mod refcount;
mod tables;
mod writer;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::{Qcow2Encryption, Qcow2Header, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Identity, Storage};
use crate::volume::{Crypt, Extent, Fill, Map, Place};

pub(super) use entry::COPIED;
#[cfg(feature = "file")]
pub(super) use refcount::set_count;

use geometry::Geometry;
use packed::Unpacked;
use tables::{Found, Run, Tables};
use writer::Writer;

/// The clusters of a qcow2 image.
///
/// The tables are read on demand and cached, so no other program may write the image meanwhile, and a
/// process must not have two maps of an image that it writes.
#[derive(Debug)]
pub(crate) struct Qcow2Map {
    /// The image, with all tables
    image: Arc<dyn Storage>,
    /// The storage with the clusters: the image, or an external data file
    data: Arc<dyn Storage>,
    below: Option<Arc<dyn Storage>>,
    crypts: Vec<Crypt>,
    identity: Identity,
    geometry: Geometry,
    /// Locked after `writer`, and never during the writes of guest data
    tables: Mutex<Tables>,
    /// The compressed cluster that was read last
    unpacked: Mutex<Unpacked>,
    /// State for writes, from the first write on
    writer: Mutex<Option<Writer>>,
    /// Whether `writer` is there, for a look without the lock
    is_writing: AtomicBool,
    /// Signalled when an allocation has ended
    done: Condvar,
    /// Whether a crash must leave a consistent image
    is_ordered: bool,
    /// Whether no other program can write the image while the map is open
    is_held: bool,
}

/// Storages of the files that an image names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    /// Contents of the backing file; without it, bytes that are not in the image are zeros
    pub below: Option<Arc<dyn Storage>>,
    /// The external data file
    pub data: Option<Arc<dyn Storage>>,
}

impl Qcow2Map {
    /// Opens the clusters of an image, whose header was read from `image`. `crypt` is the cipher of
    /// its LUKS header.
    pub fn open(
        image: Arc<dyn Storage>,
        header: Qcow2Header,
        files: Files,
        crypt: Option<Crypt>,
    ) -> Result<Self> {
        match (header.encryption(), &crypt) {
            (Qcow2Encryption::None, None) | (Qcow2Encryption::Luks, Some(_)) => {}
            (Qcow2Encryption::Aes, _) => {
                return Err(unsupported("the qcow2 image has the legacy AES encryption"));
            }
            (_, crypt) => {
                let verb = if crypt.is_some() { "is not" } else { "is" };
                let text = format!("the qcow2 image {verb} encrypted");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        }
        let data = match (header.has_data_file(), files.data) {
            (true, Some(data)) => data,
            (true, None) => return Err(unsupported("the external data file is missing")),
            (false, _) => Arc::clone(&image),
        };
        let tables = Tables::load(image.as_ref(), header)?;
        let identity = data.identity().map_err(|e| Error::io("identify the storage", e))?;
        let geometry = tables.geometry;
        Ok(Self {
            image,
            data,
            below: files.below,
            crypts: crypt.into_iter().collect(),
            identity,
            geometry,
            tables: Mutex::new(tables),
            unpacked: Mutex::default(),
            writer: Mutex::default(),
            is_writing: AtomicBool::default(),
            done: Condvar::new(),
            is_ordered: true,
            is_held: false,
        })
    }

    /// Writes without syncs between dependent changes, for an image that no program opens before it is
    /// complete and synced. After a crash the image may be damaged.
    #[must_use]
    pub fn unordered(self) -> Self {
        Self { is_ordered: false, ..self }
    }

    /// Keeps the state of writes across a [refresh](Self::refresh), for an image that is locked against
    /// other writers as long as the map is open.
    #[must_use]
    pub fn held(self) -> Self {
        Self { is_held: true, ..self }
    }

    /// Reads the header and the tables again, after the image was locked.
    ///
    /// Fails with [`ErrorKind::Changed`] if the disk has another length, or its data is elsewhere.
    pub fn refresh(&self) -> Result<()> {
        // Volumes of this process may be writing.
        let is_busy = |writer: &mut Option<Writer>| {
            writer.as_ref().is_some_and(|writer| !writer.busy.is_empty())
        };
        let writer = self.done.wait_while(lock(&self.writer), is_busy);
        let mut writer = writer.unwrap_or_else(PoisonError::into_inner);
        let mut tables = self.tables();
        // A writer of this process may have moved the refcount table until now.
        let header = Qcow2Header::read(self.image.as_ref())?;
        if !tables.header.is_same_disk(&header) {
            let text = "the qcow2 header changed since it was read";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        if self.is_held && writer.is_some() {
            return Ok(());
        }
        *tables = Tables::load(self.image.as_ref(), header)?;
        *lock(&self.unpacked) = None;
        if let Some(writer) = writer.as_mut() {
            writer.make_stale();
        }
        self.is_writing.store(false, Ordering::Release);
        Ok(())
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    fn extent_of(&self, run: Run) -> Extent {
        let Run { start, len, found } = run;
        let (place, host, is_shared) = match found {
            Found::Unallocated if self.below.is_some() => (Place::Below, 0, false),
            Found::Unallocated | Found::Zeros => (Place::Hole, 0, false),
            Found::Data { host, is_copied } => (self.place(host), host, !is_copied),
            Found::Packed { offset, len } => (Place::Packed { offset, len }, offset, true),
        };
        Extent { start, len, lock: self.identity.offset().saturating_add(host), is_shared, place }
    }

    /// The place of bytes at `host`. Sectors are numbered by their position in the file.
    fn place(&self, host: u64) -> Place {
        if self.crypts.is_empty() {
            return Place::Plain { offset: host };
        }
        Place::Data { offset: host, iv_sector: host / 512, crypt: 0 }
    }
}

impl Map for Qcow2Map {
    fn len(&self) -> u64 {
        self.geometry.len
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        &self.data
    }

    fn crypts(&self) -> &[Crypt] {
        &self.crypts
    }

    fn below(&self) -> Option<&Arc<dyn Storage>> {
        self.below.as_ref()
    }

    fn hole_len(&self) -> Option<u64> {
        Some(self.geometry.cluster())
    }

    /// The file may end within its last cluster, as QEMU leaves it.
    fn padding(&self) -> u64 {
        self.geometry.cluster() - 1
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.identity)
    }

    fn extent(&self, at: u64) -> Result<Extent> {
        let run = self.tables().run(self.image.as_ref(), self.data.as_ref(), at)?;
        Ok(self.extent_of(run))
    }

    fn may_write(&self) -> Result<()> {
        if self.is_writing.load(Ordering::Acquire) {
            return Ok(());
        }
        self.started(&mut lock(&self.writer)).map(drop)
    }

    fn allocate(&self, at: u64, len: u64, fill: &mut Fill<'_>) -> Result<()> {
        self.allocate_range(&(at..at.saturating_add(len)), fill)
    }

    fn unpack(&self, offset: u64, len: u64, out: &mut [u8]) -> Result<()> {
        self.unpack_cluster(offset, len, out)
    }

    /// Also releases the clusters that are not in use any more.
    fn sync(&self) -> io::Result<()> {
        let mut releases = Vec::new();
        if let Some(writer) = lock(&self.writer).as_mut() {
            writer.check().map_err(io::Error::other)?;
            releases = std::mem::take(&mut writer.releases);
        }
        let synced = self.image.sync_data();
        let synced =
            if self.geometry.has_data_file { synced.and(self.data.sync_data()) } else { synced };
        if let Some(writer) = lock(&self.writer).as_mut() {
            writer.has_failed |= synced.is_err();
            if synced.is_ok() && !writer.is_stale {
                writer.release(&releases);
            }
        }
        synced
    }
}

/// A poisoned lock still guards valid data: tables change by single assignments, and clusters that a
/// panic leaves out are counted and not used.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
