//! A volume as a storage.

use std::error::Error as _;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Volume;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::{Identity, Lease, Sharing, Storage};

/// A volume is itself a storage.
impl Storage for Volume {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        Self::read_exact_at(self, buf, offset).map_err(into_io)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        Self::write_all_at(self, buf, offset).map_err(into_io)
    }

    /// Reports the holes of the volume's map. An encrypted hole of the file decrypts to noise, so
    /// it is data.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        Self::next_data(self, offset).map_err(into_io)
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        Self::write_zeros_at(self, offset, len).map_err(into_io)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        for range in self.stored(offset, len) {
            self.map.storage().reserve(range.start, range.end - range.start)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync().map_err(into_io)
    }

    fn evict(&self, offset: u64, len: u64) {
        for range in self.stored(offset, len) {
            self.map.storage().evict(range.start, range.end - range.start);
        }
    }

    fn name(&self) -> Option<&Path> {
        self.map.storage().name()
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_value(self))
    }

    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        Arc::clone(self.map.storage()).lease(sharing, wait)
    }
}

/// The error with the kind of its cause.
fn into_io(error: Error) -> io::Error {
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>());
    let kind = match error.kind() {
        ErrorKind::InvalidInput => io::ErrorKind::InvalidInput,
        _ => cause.map_or(io::ErrorKind::Other, io::Error::kind),
    };
    io::Error::new(kind, error)
}
