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

/// A volume as a storage, for functions that take one: another image inside it, for example.
#[derive(Clone, Debug)]
pub struct VolumeStorage(Arc<Volume>);

impl From<Arc<Volume>> for VolumeStorage {
    fn from(volume: Arc<Volume>) -> Self {
        Self(volume)
    }
}

impl From<Volume> for VolumeStorage {
    fn from(volume: Volume) -> Self {
        Self(Arc::new(volume))
    }
}

impl Storage for VolumeStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_exact_at(buf, offset).map_err(into_io)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset).map_err(into_io)
    }

    /// Reports the holes of the volume's map. An encrypted hole of the file decrypts to noise, so
    /// it is data. The range ends with its extent, because a caller may need only its beginning.
    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        self.0.first_data(self.0.len(), offset).map_err(into_io)
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.write_zeros_at(offset, len).map_err(into_io)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.reserve(offset, len).map_err(into_io)?;
        for range in self.0.stored(offset, len) {
            self.0.map.storage().reserve(range.start, range.end - range.start)?;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync().map_err(into_io)
    }

    fn evict(&self, offset: u64, len: u64) {
        for range in self.0.stored(offset, len) {
            self.0.map.storage().evict(range.start, range.end - range.start);
        }
    }

    fn name(&self) -> Option<&Path> {
        self.0.map.storage().name()
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(Identity::of_value(&*self.0))
    }

    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        Arc::clone(self.0.map.storage()).lease(sharing, wait)
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
