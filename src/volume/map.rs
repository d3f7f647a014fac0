//! The mapping from bytes of a volume to bytes of the storage below it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use crate::crypto::CipherSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Identity, Storage};

/// Locations of a volume's bytes: the segments of a LUKS header, or the clusters of a disk image
/// format.
///
/// A [`Volume`](super::Volume) looks up each location when it accesses it. A map may therefore read
/// its tables on demand, and may change while the volume is in use: [`allocate`](Self::allocate)
/// gives a place of its own to a range that has none. A range that has one keeps it.
pub trait Map: Debug + Send + Sync {
    /// Length of the volume in bytes.
    fn len(&self) -> u64;

    /// Whether the length is 0.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The storage with the volume's own bytes.
    fn storage(&self) -> &Arc<dyn Storage>;

    /// The encryptions in use. [`Place::Data::crypt`] is an index into this list. Empty if nothing is
    /// encrypted.
    fn crypts(&self) -> &[Crypt];

    /// The storage with the bytes of [`Place::Below`], such as a backing file.
    fn below(&self) -> Option<&Arc<dyn Storage>> {
        None
    }

    /// Length in bytes of the smallest extent that can be a hole, a power of two. By default there are
    /// no holes.
    fn hole_len(&self) -> Option<u64> {
        None
    }

    /// Number of bytes beyond the end of the storage that read as zeros. By default 511: the rest of a
    /// sector.
    fn padding(&self) -> u64 {
        511
    }

    /// The origin of [`Extent::lock`]. Volumes whose maps have the same identity are serialised on
    /// the same bytes.
    fn identity(&self) -> io::Result<Identity>;

    /// The extent that contains byte `at` of the volume. `at` is less than the length.
    fn extent(&self, at: u64) -> Result<Extent>;

    /// Prepares for writing, and fails if the map refuses writes. Called before every write.
    fn may_write(&self) -> Result<()> {
        Ok(())
    }

    /// Gives a place of their own to those of the `len` bytes from `at` on that have none: holes,
    /// bytes of the storage below, and [shared](Extent::is_shared) extents. More than these bytes may be
    /// allocated, for example whole clusters.
    ///
    /// Before a new extent becomes visible, the map calls `fill` with it and with the place that the
    /// same bytes had before. `fill` writes all of the new extent. Calls from several threads are
    /// serialised.
    fn allocate(&self, at: u64, len: u64, fill: &mut Fill<'_>) -> Result<()>;

    /// Restores the bytes of a [packed](Place::Packed) extent. `out` has the extent's length.
    fn unpack(&self, offset: u64, len: u64, out: &mut [u8]) -> Result<()> {
        let _ = out;
        let text = format!("the {len} bytes at byte {offset} cannot be unpacked");
        Err(Error::new(ErrorKind::Unsupported, text))
    }

    /// Makes all writes and allocations so far durable: the storage's bytes, and the tables that say
    /// where they are.
    fn sync(&self) -> io::Result<()>;
}

/// Callback that writes a whole new extent, whose bytes had this place before.
pub type Fill<'a> = dyn FnMut(&Extent, Place) -> Result<()> + 'a;

/// A cipher, and the number of its key.
#[derive(Clone, Debug)]
pub struct Crypt {
    /// Name for errors, for example `segment 1`
    pub name: String,
    /// Number of the key in the [`Keyring`](super::Keyring): in LUKS2 the number of its digest, in
    /// LUKS1 0
    pub key: u32,
    /// The cipher
    pub encryption: CipherSpec,
    /// Size in bytes of an encrypted sector: 512, 1024, 2048 or 4096
    pub sector_size: usize,
}

/// A contiguous range of the volume. Its length is a multiple of the sector size.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// First byte in the volume
    pub start: u64,
    /// Length in bytes, not 0
    pub len: u64,
    /// First byte to lock, counted from the start of the map's [identity](Map::identity)
    pub lock: u64,
    /// Whether something else, such as a snapshot, uses the same bytes of the storage. Before a write,
    /// the extent must be [allocated](Map::allocate).
    pub is_shared: bool,
    /// Location of the bytes
    pub place: Place,
}

/// Location of the bytes of an [`Extent`].
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// Not stored: the bytes are zeros.
    Hole,
    /// In the storage [below](Map::below), at the same offset as in the volume. Beyond its end the
    /// bytes are zeros.
    Below,
    /// Stored in another form, such as compressed, from which only the map can
    /// [restore](Map::unpack) the whole extent. Before a write, the extent must be
    /// [allocated](Map::allocate).
    Packed {
        /// First byte in the storage
        offset: u64,
        /// Length in the storage in bytes
        len: u64,
    },
    /// Stored without encryption.
    Plain {
        /// First byte in the storage
        offset: u64,
    },
    /// Encrypted in the storage.
    Data {
        /// First byte in the storage
        offset: u64,
        /// Sector number of the first sector's initialisation vector, in units of 512 bytes. It
        /// wraps around to 0 after the last 64-bit number.
        iv_sector: u64,
        /// Index into the map's [`crypts`](Map::crypts)
        crypt: usize,
    },
}
