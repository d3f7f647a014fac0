//! A long image of which only the start is in memory.

use std::io;

use keyslot::storage::{ReadOnlyBytes, Storage};

use super::watched::{Watch, Watched};

/// An image of `len` bytes that begins with these and goes on with zeros. It cannot be written.
pub type Disk<'a> = Watched<Start<'a>>;

#[derive(Debug)]
pub struct Start<'a> {
    pub start: ReadOnlyBytes<&'a [u8]>,
    pub len: u64,
}

pub fn disk(start: &[u8], len: u64) -> Disk<'_> {
    Watched(Start { start: ReadOnlyBytes(start), len })
}

impl Watch for Start<'_> {
    fn below(&self) -> &dyn Storage {
        &self.start
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.len)
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.checked_add(buf.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buf.fill(0);
        let start = self.start.0;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(start.len());
        let len = buf.len().min(start.len() - from);
        buf[..len].copy_from_slice(&start[from..from + len]);
        Ok(())
    }
}
