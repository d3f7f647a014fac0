//! Buffers whose length comes from a header.

use std::io;
use std::ops::Range;

use super::Storage;

/// Allocates `len` zeros.
///
/// A header is hostile input. Where `vec!` would abort the process, this returns
/// [`io::ErrorKind::OutOfMemory`].
pub(crate) fn zeroed(len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// Reads `len` bytes from `offset` on. A failed allocation is an error.
pub(crate) fn read(storage: &dyn Storage, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = zeroed(len)?;
    storage.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Splits a range into pieces of at most `most` bytes: the offset and length of each.
pub(crate) fn pieces(range: Range<u64>, most: usize) -> impl Iterator<Item = (u64, usize)> {
    let mut at = range.start;
    std::iter::from_fn(move || {
        let left = range.end.saturating_sub(at);
        let len = usize::try_from(left).map_or(most, |left| left.min(most));
        let piece = (at, len);
        at += len as u64;
        (len > 0).then_some(piece)
    })
}

/// Fails if `len` bytes cannot be allocated, before a later allocation would abort the process.
/// Tests with twice the length, because several allocations need more than one.
pub(crate) fn check_room(len: usize) -> io::Result<()> {
    let room = Vec::<u8>::new().try_reserve_exact(len.saturating_mul(2));
    room.map_err(|_| io::ErrorKind::OutOfMemory.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_range() {
        assert_eq!(pieces(5..15, 4).collect::<Vec<_>>(), [(5, 4), (9, 4), (13, 2)]);
        assert_eq!(pieces(0..8, 4).collect::<Vec<_>>(), [(0, 4), (4, 4)]);
        assert_eq!(pieces(u64::MAX - 1..u64::MAX, 4).collect::<Vec<_>>(), [(u64::MAX - 1, 1)]);
        assert_eq!(pieces(7..7, 4).count(), 0);
        assert_eq!(pieces(Range { start: 9, end: 7 }, 4).count(), 0);
    }

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(zeroed(3).unwrap(), [0; 3]);
        check_room(3).unwrap();
        for error in [zeroed(usize::MAX / 2).unwrap_err(), check_room(usize::MAX).unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        }
    }
}
