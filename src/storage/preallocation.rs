//! The length of a file, and the allocation of space for it.

use std::fs::File;
use std::io;
use std::ops::Range;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc;

use super::{FileStorage, Storage, write_zeros};

/// Allocation of space for a new or growing file (QEMU's `preallocation`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Preallocation {
    /// No allocation: the file is sparse.
    #[default]
    Off,
    /// Reserve the space in the file system.
    Falloc,
    /// Write zeros.
    Full,
}

impl FileStorage {
    /// Sets the length in bytes, and allocates space for the bytes that are added. If that fails, the
    /// file gets its former length back. Nothing is synced.
    pub fn set_len(&self, len: u64, space: Preallocation) -> io::Result<()> {
        let before = self.len()?;
        self.file.set_len(len)?;
        let allocated = match space {
            Preallocation::Off => Ok(()),
            Preallocation::Falloc => reserve(&self.file, before..len),
            Preallocation::Full => write_zeros(self, before, len.saturating_sub(before)),
        };
        if allocated.is_err() {
            // The first error is the one to report.
            let _ = self.file.set_len(before);
        }
        allocated
    }
}

fn reserve(file: &File, range: Range<u64>) -> io::Result<()> {
    let (Ok(start), Ok(end)) =
        (libc::off_t::try_from(range.start), libc::off_t::try_from(range.end))
    else {
        return Err(io::ErrorKind::FileTooLarge.into());
    };
    if start >= end {
        return Ok(());
    }
    loop {
        match fallocate(file, FallocateFlags::empty(), start, end - start) {
            Err(Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}
