//! A storage below another one that looks at what is done, counts it, or lets it fail.

use std::fmt::Debug;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyslot::Result;
use keyslot::storage::sharing::Sharing;
use keyslot::storage::{Identity, Lease, Storage};

/// What is done before an access reaches the storage below, or in its place.
#[allow(clippy::len_without_is_empty, reason = "a storage has that")]
pub trait Watch: Debug + Send + Sync {
    fn below(&self) -> &dyn Storage;

    fn len(&self) -> io::Result<u64> {
        self.below().len()
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.below().read_exact_at(buf, offset)
    }

    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.below().write_all_at(buf, offset)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.below().reserve(offset, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.below().sync_data()
    }
}

/// A storage that is watched. It has no holes and no locks.
#[derive(Debug)]
pub struct Watched<T>(pub T);

impl<T> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Watch> Storage for Watched<T> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write(buf, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        keyslot::storage::no_holes(self, offset)
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        keyslot::storage::write_zeros(self, offset, len)
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.0.reserve(offset, len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync()
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
