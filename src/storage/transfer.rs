//! Access to a storage, with errors that name the operation and the place.

use super::{Storage, buffer};
use crate::error::{Error, Operation, Result};

/// Length in bytes.
pub(crate) fn length(storage: &(impl Storage + ?Sized)) -> Result<u64> {
    storage.len().map_err(|error| Error::failed(Operation::Read, "the length", error))
}

/// Reads `len` bytes at `offset`.
pub(crate) fn fetch(storage: &dyn Storage, offset: u64, len: usize) -> Result<Vec<u8>> {
    buffer::read(storage, offset, len)
        .map_err(|error| Error::failed_at(Operation::Read, len as u64, offset, error))
}

/// Reads `len` bytes at `offset` from the medium, to compare them with what was written.
pub(crate) fn fetch_back(storage: &dyn Storage, offset: u64, len: usize) -> Result<Vec<u8>> {
    storage.evict(offset, len as u64);
    buffer::read(storage, offset, len).map_err(|error| {
        let object = format_args!("back {len} bytes at byte {offset}");
        Error::failed(Operation::Read, object, error).with_offset(offset)
    })
}

/// Writes `bytes` at `offset`.
pub(crate) fn put(storage: &dyn Storage, bytes: &[u8], offset: u64) -> Result<()> {
    let failed = |error| Error::failed_at(Operation::Write, bytes.len() as u64, offset, error);
    storage.write_all_at(bytes, offset).map_err(failed)
}

/// Reserves space for a later write of `len` bytes at `offset`.
pub(crate) fn reserve(storage: &dyn Storage, offset: u64, len: u64) -> Result<()> {
    let failed = |error| Error::failed_at(Operation::Reserve, len, offset, error);
    storage.reserve(offset, len).map_err(failed)
}

/// Makes all previous writes durable.
pub(crate) fn sync(storage: &dyn Storage) -> Result<()> {
    storage.sync_data().map_err(|error| Error::io("sync", error).with_operation(Operation::Sync))
}
