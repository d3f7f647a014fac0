//! Where bytes are: a file, or whatever a caller has.
//!
//! [`Storage`] is positional, synchronous and `&self`, so that one opened image can serve many
//! threads. [`FileStorage`] is the one over `pread` and `pwrite`; [`sharing`] is what an opened
//! file lets others do with it meanwhile.

mod file;
mod holder;
mod permission;
pub mod sharing;

pub use file::{Access, FileStorage};

use std::fmt::Debug;
use std::io;

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

    /// Writes all of `buf` at `offset`. After an error any part of it may have been written.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes all writes so far durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Asks that the next read of this range comes from the medium, not from a cache. It is a
    /// hint: the default does nothing.
    fn evict(&self, offset: u64, len: u64) {
        let _ = (offset, len);
    }
}
