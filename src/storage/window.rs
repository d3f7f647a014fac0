//! A range of another storage: a partition of a disk image, or an image at an offset.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Sharing;
use super::{Identity, Lease, Storage};
use crate::error::Result;

/// A range of another storage, used as a storage itself.
///
/// Its first byte is byte `offset` of the storage below. With a fixed length, no access goes beyond
/// that length. Without one, the window ends and grows with the storage below. A lease covers the
/// whole storage below, because that is where the locks are.
#[derive(Clone, Debug)]
pub struct Window {
    below: Arc<dyn Storage>,
    offset: u64,
    len: Option<u64>,
}

impl Window {
    /// Creates a window of `len` bytes from byte `offset` on, or to the end if `len` is `None`.
    ///
    /// [`io::ErrorKind::UnexpectedEof`] if the storage ends before the window does.
    pub fn new(below: Arc<dyn Storage>, offset: u64, len: Option<u64>) -> io::Result<Self> {
        match below.len()?.checked_sub(offset) {
            Some(rest) if len.unwrap_or(0) <= rest => Ok(Self { below, offset, len }),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Offset of the window in the storage below, in bytes.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Length in bytes, if it is fixed.
    pub fn fixed_len(&self) -> Option<u64> {
        self.len
    }

    /// The storage below the window.
    pub fn below(&self) -> &Arc<dyn Storage> {
        &self.below
    }

    /// The offset in the storage below, if the access is within the window.
    fn within(&self, offset: u64, len: u64) -> io::Result<u64> {
        match offset.checked_add(len) {
            Some(end) if self.len.is_none_or(|len| end <= len) => {
                self.offset.checked_add(offset).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Storage for Window {
    fn len(&self) -> io::Result<u64> {
        match self.len {
            Some(len) => Ok(len),
            None => Ok(self.below.len()?.saturating_sub(self.offset)),
        }
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.below.read_exact_at(buf, self.within(offset, buf.len() as u64)?)
    }

    /// Fails past the end of a window with a fixed length, with [`io::ErrorKind::UnexpectedEof`],
    /// without writing.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.below.write_all_at(buf, self.within(offset, buf.len() as u64)?)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let Ok(below) = self.within(offset, 1) else { return Ok(None) };
        let Some(data) = self.below.next_data(below)? else { return Ok(None) };
        let end = self.len.map_or(data.end, |len| data.end.min(self.offset + len));
        Ok((data.start < end).then(|| data.start - self.offset..end - self.offset))
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below.write_zeros_at(self.within(offset, len)?, len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below.reserve(self.within(offset, len)?, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.below.sync_data()
    }

    fn evict(&self, offset: u64, len: u64) {
        if let Ok(below) = self.within(offset, len) {
            self.below.evict(below, len);
        }
    }

    fn name(&self) -> Option<&Path> {
        self.below.name()
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.below.identity()?.at(self.offset))
    }

    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        Arc::clone(&self.below).lease(sharing, wait)
    }
}

#[cfg(test)]
mod tests {
    use super::super::MemoryStorage;
    use super::*;

    fn window(offset: u64, len: Option<u64>) -> io::Result<(Arc<MemoryStorage>, Window)> {
        let below = Arc::new(MemoryStorage::new((0..100).collect()));
        let storage: Arc<dyn Storage> = Arc::<MemoryStorage>::clone(&below);
        Window::new(storage, offset, len).map(|window| (below, window))
    }

    #[test]
    fn nothing_outside_of_the_window_is_reached() {
        let (below, window) = window(10, Some(20)).unwrap();
        assert_eq!(window.len().unwrap(), 20);
        let mut read = [0; 20];
        window.read_exact_at(&mut read, 0).unwrap();
        assert!(read.iter().copied().eq(10..30));
        for (offset, len) in [(0, 21), (20, 1), (19, 2), (u64::MAX, 1), (u64::MAX - 5, 10)] {
            assert!(window.read_exact_at(&mut vec![0; len], offset).is_err(), "{offset} {len}");
            assert!(window.write_all_at(&vec![0; len], offset).is_err(), "{offset} {len}");
            assert!(window.write_zeros_at(offset, len as u64).is_err(), "{offset} {len}");
        }
        window.write_zeros_at(0, 20).unwrap();
        let bytes = below.to_vec();
        assert!(bytes[..10].iter().copied().eq(0..10) && bytes[30..].iter().copied().eq(30..100));
        assert_eq!(bytes[10..30], [0; 20]);
    }

    #[test]
    fn a_window_ends_within_the_storage() {
        for (offset, len, fits) in [
            (0, Some(100), true),
            (100, None, true),
            (100, Some(0), true),
            (101, None, false),
            (1, Some(100), false),
            (u64::MAX, Some(u64::MAX), false),
        ] {
            assert_eq!(window(offset, len).is_ok(), fits, "{offset} {len:?}");
        }
        assert_eq!(window(40, None).unwrap().1.len().unwrap(), 60);
    }

    #[test]
    fn data_ends_where_the_window_does() {
        let (_, window) = window(10, Some(20)).unwrap();
        assert_eq!(window.next_data(5).unwrap(), Some(5..20));
        assert_eq!(window.next_data(20).unwrap(), None);
        assert_eq!(window.next_data(u64::MAX).unwrap(), None);
    }

    #[test]
    fn windows_of_one_storage_are_known_to_be() {
        let (below, one) = window(10, Some(20)).unwrap();
        let inner = Window::new(Arc::new(one.clone()), 5, None).unwrap();
        let (identity, whole) = (inner.identity().unwrap(), below.identity().unwrap());
        assert!(identity.is_same_storage(&whole));
        assert_eq!((identity.offset(), whole.offset()), (15, 0));
    }
}
