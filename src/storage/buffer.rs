//! Buffers whose length comes from a header.

use std::io;

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
    fn memory_that_is_not_there_is_an_error() {
        assert_eq!(zeroed(3).unwrap(), [0; 3]);
        check_room(3).unwrap();
        for error in [zeroed(usize::MAX / 2).unwrap_err(), check_room(usize::MAX).unwrap_err()] {
            assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        }
    }
}
