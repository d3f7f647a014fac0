//! Where bytes are: a file, or whatever a caller has.
//!
//! [`Storage`] is positional, synchronous and `&self`, so that one opened image can serve many
//! threads. [`FileStorage`] is the one over `pread` and `pwrite`, [`MmapStorage`] the one over `mmap`;
//! [`sharing`] is what an opened file lets others do with it meanwhile.

mod buffer;
mod device;
mod file;
mod holder;
mod lease;
mod mmap;
mod new_file;
mod ofd;
mod patience;
mod permission;
pub mod sharing;

pub(crate) use buffer::{check_room, zeroed};
pub(crate) use file::FileId;
pub use file::{Access, FileStorage, Version};
pub use mmap::MmapStorage;
pub use new_file::{NewFile, Place, Preallocation};

use std::fmt::Debug;
use std::io;
use std::ops::Range;
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

    /// The next range from `offset` on that may hold anything but zeros: between such ranges there
    /// are holes. `None` if there is no more. The default knows of no holes.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.len()?;
        Ok((offset < len).then_some(offset..len))
    }

    /// Writes `len` zeros at `offset`, as a hole if it can be one. The default writes them.
    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        write_zeros(self, offset, len)
    }

    /// Makes sure that a later write to this range does not fail for want of room, as far as that can
    /// be had. What is in it does not change. The default does nothing.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Ok(())
    }

    /// Makes all writes so far durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks that the next read of this range comes from the medium, not from a cache. It is a
    /// hint: the default does nothing.
    fn evict(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}

fn write_zeros(storage: &(impl Storage + ?Sized), offset: u64, len: u64) -> io::Result<()> {
    let zeros = vec![0; usize::try_from(len).map_or(ZEROS, |len| len.min(ZEROS))];
    let (mut at, mut left) = (offset, len);
    while left > 0 {
        let now = usize::try_from(left).map_or(ZEROS, |left| left.min(ZEROS));
        storage.write_all_at(&zeros[..now], at)?;
        (at, left) = (at + now as u64, left - now as u64);
    }
    Ok(())
}

/// As many zeros as are written at once
const ZEROS: usize = 1 << 20;

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
}
