//! Buffers whose length a header asks for.

use std::io;

use super::Storage;

/// Zeros, as many as `len`.
///
/// A header is hostile input: where `vec!` would abort the process for want of memory, this is an
/// [`io::ErrorKind::OutOfMemory`].
pub(crate) fn zeroed(len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    bytes.resize(len, 0);
    Ok(bytes)
}

/// The `len` bytes from `offset` on. Memory that cannot be had is an error.
pub(crate) fn read(storage: &dyn Storage, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = zeroed(len)?;
    storage.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

/// Fails where `len` bytes cannot be allocated, before allocations that would abort the process. Asks for
/// twice as many: several allocations take more than one.
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
