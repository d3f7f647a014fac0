//! Storages in memory.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::Sharing;
use super::{Identity, Lease, Storage, no_holes, write_zeros};
use crate::error::Result;

/// A storage of fixed length in memory, without locks, name or durability.
///
/// ```
/// use keyslot::storage::{MemoryStorage, Storage};
///
/// let storage = MemoryStorage::new(vec![0; 512]);
/// storage.write_all_at(b"LUKS", 0)?;
/// assert_eq!(storage.to_vec()[..4], *b"LUKS");
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct MemoryStorage(RwLock<Vec<u8>>);

impl MemoryStorage {
    /// Creates a storage of these bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(RwLock::new(bytes))
    }

    /// Copies the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the bytes without a copy.
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

fn range(bytes: &[u8], offset: u64, len: usize) -> io::Result<Range<usize>> {
    let start = usize::try_from(offset).ok();
    let end = start.and_then(|start| start.checked_add(len)).filter(|&end| end <= bytes.len());
    match (start, end) {
        (Some(start), Some(end)) => Ok(start..end),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

impl Storage for MemoryStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        buf.copy_from_slice(&bytes[range(&bytes, offset, buf.len())?]);
        Ok(())
    }

    /// Fails past the end with [`io::ErrorKind::UnexpectedEof`], without writing.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let range = range(&bytes, offset, buf.len())?;
        bytes[range].copy_from_slice(buf);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        no_holes(self, offset)
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        write_zeros(self, offset, len)
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn evict(&self, _: u64, _: u64) {}

    fn name(&self) -> Option<&Path> {
        None
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_value(self))
    }

    fn lease(self: Arc<Self>, _: Sharing, _: Option<Duration>) -> Result<Lease> {
        Ok(Lease::none())
    }
}

/// A storage of read-only bytes. Writes fail with [`io::ErrorKind::ReadOnlyFilesystem`].
pub struct ReadOnlyBytes<T>(pub T);

impl<T: AsRef<[u8]> + Send + Sync> Storage for ReadOnlyBytes<T> {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.as_ref().len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let bytes = self.0.as_ref();
        buf.copy_from_slice(&bytes[range(bytes, offset, buf.len())?]);
        Ok(())
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        no_holes(self, offset)
    }

    fn write_zeros_at(&self, _: u64, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn reserve(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn evict(&self, _: u64, _: u64) {}

    fn name(&self) -> Option<&Path> {
        None
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_value(self))
    }

    fn lease(self: Arc<Self>, _: Sharing, _: Option<Duration>) -> Result<Lease> {
        Ok(Lease::none())
    }
}

/// Shows only the length: the bytes may hold key material.
impl<T: AsRef<[u8]>> std::fmt::Debug for ReadOnlyBytes<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReadOnlyBytes").field("len", &self.0.as_ref().len()).finish()
    }
}

/// Shows only the length: the bytes may hold key material.
impl std::fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let len = self.0.read().unwrap_or_else(PoisonError::into_inner).len();
        f.debug_struct("MemoryStorage").field("len", &len).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_past_the_end_changes_nothing() {
        let storage = MemoryStorage::new(vec![7; 10]);
        for (offset, len) in [(3, 8), (10, 1), (u64::MAX, 1), (u64::MAX, 0), (11, 0)] {
            let error = storage.write_all_at(&vec![1; len], offset).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {len}");
            assert!(storage.read_exact_at(&mut vec![0; len], offset).is_err());
        }
        assert_eq!(storage.into_vec(), [7; 10]);
    }
}
