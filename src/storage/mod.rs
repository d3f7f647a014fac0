//! Access to bytes: a file, or any storage that a caller implements.
//!
//! [`Storage`] is positional and synchronous and takes `&self`, so one opened image can serve many
//! threads. [`MemoryStorage`] keeps its bytes in memory, [`Window`] is a range of another storage.
//! The feature `file` adds `FileStorage`, over `pread` and `pwrite`, and `MmapStorage`, over
//! `mmap`. [`Sharing`] states how other programs may use an opened file.

mod buffer;
mod identity;
mod lease;
mod memory;
mod permission;
#[cfg(feature = "file")]
mod preallocation;
mod shared;
pub(crate) mod transfer;
mod window;

#[cfg(feature = "file")]
mod device;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "file")]
mod file_lease;
#[cfg(feature = "file")]
mod holder;
#[cfg(feature = "file")]
mod loop_device;
#[cfg(feature = "file")]
mod mmap;
#[cfg(feature = "file")]
mod new_file;
#[cfg(feature = "file")]
mod ofd;
#[cfg(feature = "file")]
mod patience;
#[cfg(feature = "file")]
mod replaced;
#[cfg(feature = "file")]
pub mod sharing;

pub(crate) use buffer::{check_room, pieces, read, zeroed};
#[cfg(feature = "file")]
pub(crate) use file::FileRef;
#[cfg(feature = "file")]
pub use file::{Access, FileStorage, Version};
pub use identity::Identity;
pub(crate) use identity::StorageId;
pub use lease::{Lease, Leased};
pub use memory::{MemoryStorage, ReadOnlyBytes};
#[cfg(feature = "file")]
pub use mmap::MmapStorage;
#[cfg(feature = "file")]
pub use new_file::{NewFile, Place};
pub use permission::{Permissions, Sharing};
#[cfg(feature = "file")]
pub use preallocation::Preallocation;
pub use shared::SharedBytes;
pub use window::Window;

use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;

/// Random access to the bytes of an image.
///
/// Offsets and lengths are in bytes. A write is durable once a [`sync_data`](Storage::sync_data)
/// that began after it has returned `Ok`.
///
/// Only [`is_empty`](Storage::is_empty) has a default implementation, so a wrapper that does not
/// forward a method does not compile. A storage without holes, locks or a name uses [`no_holes`],
/// [`write_zeros`], [`Identity::of_value`] and [`Lease::none`].
pub trait Storage: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the length is 0.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `buf` from `offset` on. Fails with [`io::ErrorKind::UnexpectedEof`] past the end.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`. After an error any of its 512-byte sectors may have been
    /// written, but none in part.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// The next range from `offset` on that may hold nonzero bytes. Holes lie between such ranges.
    /// `None` if there is no more data.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>>;

    /// Writes `len` zeros at `offset`, as a hole if the storage supports holes.
    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Reserves space for later writes to this range, as far as the storage can, so that they do
    /// not fail on a full medium. The bytes in the range do not change.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes all previous writes durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Requests that the next read of this range comes from the medium instead of a cache. A hint
    /// only.
    fn evict(&self, offset: u64, len: u64);

    /// Name for errors: a file's path. `None` if the storage has no name.
    fn name(&self) -> Option<&Path>;

    /// Identity of the bytes, however they are reached. Volumes over the same bytes are serialised.
    fn identity(&self) -> io::Result<Identity>;

    /// Locks the storage as `sharing` says until the lease is dropped, waiting for other users no
    /// longer than `wait`. Returns [`Lease::none`] if the storage has no locks.
    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease>;
}

/// Implements [`next_data`](Storage::next_data) for a storage without holes.
pub fn no_holes(storage: &(impl Storage + ?Sized), offset: u64) -> io::Result<Option<Range<u64>>> {
    let len = storage.len()?;
    Ok((offset < len).then_some(offset..len))
}

/// Implements [`write_zeros_at`](Storage::write_zeros_at) for a storage without holes, by writing
/// zeros piece by piece.
pub fn write_zeros(storage: &(impl Storage + ?Sized), offset: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(len).map_or(ZEROS, |len| len.min(ZEROS))];
    pieces(offset..offset.saturating_add(len), ZEROS)
        .try_for_each(|(at, len)| storage.write_all_at(&zeros[..len], at))
}

/// Zeros written at once, in bytes
const ZEROS: usize = 1 << 20;

/// A shared storage.
impl<T: Storage + ?Sized> Storage for Arc<T> {
    fn len(&self) -> io::Result<u64> {
        (**self).len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        (**self).read_exact_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        (**self).write_all_at(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        (**self).next_data(offset)
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).write_zeros_at(offset, len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        (**self).reserve(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        (**self).sync_data()
    }

    fn evict(&self, offset: u64, len: u64) {
        (**self).evict(offset, len);
    }

    fn name(&self) -> Option<&Path> {
        (**self).name()
    }

    fn identity(&self) -> io::Result<Identity> {
        (**self).identity()
    }

    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        Self::clone(&self).lease(sharing, wait)
    }
}
