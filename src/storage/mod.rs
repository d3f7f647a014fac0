//! Where bytes are: a file, or whatever a caller has.
//!
//! [`Storage`] is positional, synchronous and `&self`, so that one opened image can serve many
//! threads. [`FileStorage`] is the one over `pread` and `pwrite`, [`MmapStorage`] the one over `mmap`;
//! [`sharing`] is what an opened file lets others do with it meanwhile.

mod file;
mod holder;
mod mmap;
mod permission;
pub mod sharing;

pub use file::{Access, FileStorage};
pub use mmap::MmapStorage;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

/// The bytes of an image.
///
/// Offsets and lengths are in bytes. A write is durable when a [`sync_data`](Storage::sync_data)
/// that began after it has returned `Ok`, and not before.
pub trait Storage: Debug + Send + Sync {
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether there is not a single byte.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Fills `buf` from `offset` on; [`io::ErrorKind::UnexpectedEof`] past the end.
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`. After an error any of its sectors (512
    /// bytes) may have been written, but none in part.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all writes so far durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks that the next read of this range comes from the medium, not from a cache. It is a
    /// hint: the default does nothing.
    fn evict(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

/// A handle on a storage is that storage.
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

    fn sync_data(&self) -> io::Result<()> {
        (**self).sync_data()
    }

    fn evict(&self, offset: u64, len: u64) {
        (**self).evict(offset, len);
    }
}
