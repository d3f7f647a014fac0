//! A storage in memory that can fail, and that is as careless about threads as a disk is.

use std::io;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use keyslot::Result;
use keyslot::storage::sharing::Sharing;
use keyslot::storage::{Identity, Lease, Storage, no_holes, write_zeros};

/// Bytes of which each can be read while it is written: an access that overlaps another may see,
/// and leave, any mixture of the two.
#[derive(Debug)]
pub struct Disk {
    bytes: Vec<AtomicU8>,
    /// So many reads, writes and syncs until one fails
    fault: AtomicUsize,
}

impl Disk {
    pub fn new(bytes: &[u8]) -> Self {
        let bytes = bytes.iter().map(|&byte| AtomicU8::new(byte)).collect();
        Self { bytes, fault: AtomicUsize::new(NEVER) }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    /// Operation number `count` from now on fails, and no other.
    pub fn set_fault(&self, count: usize) {
        self.fault.store(count, Ordering::Relaxed);
    }

    fn operation(&self) -> io::Result<()> {
        let is_armed = self.fault.load(Ordering::Relaxed) != NEVER;
        if is_armed && self.fault.fetch_sub(1, Ordering::Relaxed) == 0 {
            return Err(io::Error::other("as was asked for"));
        }
        Ok(())
    }

    fn range(&self, offset: u64, len: usize) -> io::Result<&[AtomicU8]> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = self.bytes.get(start..start.saturating_add(len));
        range.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// The counter comes here by itself when the fault has happened.
const NEVER: usize = usize::MAX;

impl Storage for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.operation()?;
        let range = self.range(offset, buf.len())?;
        for (to, from) in buf.iter_mut().zip(range) {
            *to = from.load(Ordering::Relaxed);
        }
        Ok(())
    }

    /// One that fails writes the first half of its sectors, those of 4096 bytes whole.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let result = self.operation();
        let buf = if result.is_ok() { buf } else { &buf[..buf.len() / 8192 * 4096] };
        for (to, from) in self.range(offset, buf.len())?.iter().zip(buf) {
            to.store(*from, Ordering::Relaxed);
        }
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operation()
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
