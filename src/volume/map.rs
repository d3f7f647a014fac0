//! Where the bytes of a volume are in the storage below it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use crate::crypto::CipherSpec;
use crate::error::Result;
use crate::storage::{Identity, Storage};

/// The places of a volume's bytes: the segments of a LUKS header, or the clusters of a disk image format.
///
/// A [`Volume`](super::Volume) looks each place up when it accesses it, so a map may read its tables
/// when they are needed, and may change while the volume is in use: [`allocate`](Self::allocate) turns
/// holes into data, and nothing turns data into holes or moves it.
pub trait Map: Debug + Send + Sync {
    /// Length of the volume in bytes.
    fn len(&self) -> u64;

    /// Whether the volume has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage that has the encrypted bytes.
    fn storage(&self) -> &Arc<dyn Storage>;

    /// How the places are encrypted. [`Place::Data::crypt`] is an index into these.
    fn crypts(&self) -> &[Crypt];

    /// What [`Extent::lock`] counts from: volumes whose maps have the same identity take turns on the
    /// same bytes.
    fn identity(&self) -> io::Result<Identity>;

    /// The extent that has byte `at` of the volume, which is less than its length.
    fn extent(&self, at: u64) -> Result<Extent>;

    /// Makes data of the holes among `len` bytes from `at` on. A hole may grow into data as a whole.
    ///
    /// Before the map shows a new extent to anybody, it calls `fill` with it, which writes encrypted zeros
    /// to its place: the volume must read as before. Calls of several threads come one after the other.
    fn allocate(&self, at: u64, len: u64, fill: &mut Fill<'_>) -> Result<()>;
}

/// Writes encrypted zeros to all of an extent.
pub type Fill<'a> = dyn FnMut(&Extent) -> Result<()> + 'a;

/// A cipher, and the number of its key.
#[derive(Clone, Debug)]
pub struct Crypt {
    /// The name for errors, for example `segment 1`
    pub name: String,
    /// Number of the key in the [`Keyring`](super::Keyring): of LUKS2 the number of its digest, of LUKS1 0
    pub key: u32,
    /// The cipher
    pub encryption: CipherSpec,
    /// Bytes that are encrypted as a unit: 512, 1024, 2048 or 4096
    pub sector_size: usize,
}

/// A range of the volume that is in one place. Its length is a multiple of the sector size.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// First byte in the volume
    pub start: u64,
    /// Length in bytes, not 0
    pub len: u64,
    /// First byte to lock, counted from the start of the map's [identity](Map::identity)
    pub lock: u64,
    /// Where the bytes are
    pub place: Place,
}

/// Where the bytes of an [`Extent`] are.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Nowhere: they are zeros.
    Hole,
    /// In the storage, encrypted.
    Data {
        /// First byte in the storage
        offset: u64,
        /// Sector number of the first sector's initialisation vector. It counts units of 512 bytes,
        /// and goes on from 0 after the last number of 64 bits.
        iv_sector: u64,
        /// Index into the map's [`crypts`](Map::crypts)
        crypt: usize,
    },
}
