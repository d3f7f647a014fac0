//! Files and block devices.
//!
//! Every access uses the one descriptor that lives as long as the [`FileStorage`]. The locks
//! ([`sharing`](super::sharing)) belong to its open file description, and closing the last
//! descriptor of that description releases them.

mod direct;
mod open;

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Seek, SeekFrom};
use std::mem;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::libc;
use nix::unistd::{Whence, lseek64};

use self::direct::Direct;
pub(crate) use self::open::FileRef;
use super::sharing::Held;
use super::{Identity, Lease, Sharing, Storage, write_zeros};
use crate::error::Result;

/// A regular file or a block device, read and written at offsets.
pub struct FileStorage {
    pub(super) file: File,
    pub(super) held: Mutex<Held>,
    path: PathBuf,
    access: Access,
    is_block_device: bool,
    /// Whether it was opened by a path, to which the same file has to stay
    is_at_a_path: bool,
    /// The process that opened it, if the open file description is another user's too
    borrower: Option<u32>,
    /// `None` if the page cache is used
    direct: Option<Direct>,
}

/// Access mode of an opened file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Access {
    /// Reading only: writes fail.
    ReadOnly,
    /// Reading and writing.
    ReadWrite,
}

impl FileStorage {
    /// The path it was opened by, or the name that the system has for a descriptor's file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The access mode it was opened with.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Whether it is a block device, which cannot grow or shrink.
    pub fn is_block_device(&self) -> bool {
        self.is_block_device
    }

    /// Bytes allocated on the file system; less than the length if the file is sparse.
    pub fn actual_size(&self) -> io::Result<u64> {
        // POSIX leaves the unit of st_blocks open; on Linux it is 512 (stat(2)).
        self.file.metadata().map(|metadata| metadata.blocks().saturating_mul(512))
    }

    /// Whether `path` leads to this file or device, possibly under another name.
    pub fn is_file(&self, path: impl AsRef<Path>) -> io::Result<bool> {
        Ok(self.identity()?.is_same_storage(&identity(&fs::metadata(path)?)))
    }

    /// Whether `file` is this file or device.
    pub(crate) fn is_same_file(&self, file: FileRef<'_>) -> io::Result<bool> {
        Ok(self.identity()?.is_same_storage(&file.identity()?))
    }

    /// Whether its path still leads to this file, that is, the file was not replaced. A file that was
    /// opened by a descriptor cannot be replaced.
    pub(crate) fn is_at_its_path(&self) -> io::Result<bool> {
        if self.is_at_a_path { self.is_file(&self.path) } else { Ok(true) }
    }

    /// Whether accesses bypass the page cache (`O_DIRECT`).
    pub fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Length and modification time. Equal values mean that the file was not written.
    pub fn version(&self) -> io::Result<Version> {
        let metadata = self.file.metadata()?;
        Ok(Version { len: metadata.len(), mtime: (metadata.mtime(), metadata.mtime_nsec()) })
    }
}

/// Identifies the file or device itself, independent of the path or node that opened it.
fn identity(metadata: &Metadata) -> Identity {
    if metadata.file_type().is_block_device() {
        // Inode number 0 is never used by a file.
        Identity::of_file(metadata.rdev(), 0)
    } else {
        Identity::of_file(metadata.dev(), metadata.ino())
    }
}

/// State of a file's contents at some time, as far as the system reports it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Version {
    len: u64,
    mtime: (i64, i64),
}

impl Storage for FileStorage {
    fn len(&self) -> io::Result<u64> {
        if self.is_block_device {
            // stat(2) reports 0 for a device. Nothing else uses the descriptor's position.
            return (&self.file).seek(SeekFrom::End(0));
        }
        self.file.metadata().map(|metadata| metadata.len())
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match &self.direct {
            Some(direct) => direct.read_exact_at(&self.file, buf, offset),
            None => self.file.read_exact_at(buf, offset),
        }
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        match &self.direct {
            Some(direct) => direct.write_all_at(&self.file, buf, offset, || self.len()),
            None => self.file.write_all_at(buf, offset),
        }
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let len = self.len()?;
        let rest = (offset < len).then_some(offset..len);
        let Ok(from) = libc::off64_t::try_from(offset) else { return Ok(rest) };
        // Moves the descriptor's position, which nothing else uses.
        let data = match lseek64(&self.file, from, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(None),
            // The file system or device does not report holes.
            Err(_) => return Ok(rest),
        };
        let hole = lseek64(&self.file, data, Whence::SeekHole)?;
        Ok(Some(data.cast_unsigned()..hole.cast_unsigned()))
    }

    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        if let (Ok(start), Ok(count @ 1..)) = (libc::off_t::try_from(offset), len.try_into()) {
            let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let end = offset.saturating_add(len);
            // Punching a hole does not extend a file.
            if end <= self.len()? && fallocate(&self.file, punch, start, count).is_ok() {
                return Ok(());
            }
        }
        write_zeros(self, offset, len)
    }

    /// Allocates blocks for the holes of the range. File systems without support are left as they
    /// are.
    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        let (Ok(start), Ok(count @ 1..)) = (libc::off_t::try_from(offset), len.try_into()) else {
            return Ok(());
        };
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, start, count) {
            Err(full @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => Err(full.into()),
            _ => Ok(()),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Drops the range from the page cache, as far as it is [synced](Storage::sync_data).
    fn evict(&self, offset: u64, len: u64) {
        // The kernel keeps pages that are only partly in the range, so round outwards, to the
        // largest page size of the usual systems.
        const PAGE: u64 = 64 * 1024;
        let start = offset - offset % PAGE;
        let Some(end) = offset.checked_add(len).and_then(|end| end.checked_next_multiple_of(PAGE))
        else {
            return;
        };
        // To posix_fadvise a length of 0 means "to the end".
        if let (1.., Ok(start), Ok(len)) =
            (len, libc::off_t::try_from(start), libc::off_t::try_from(end - start))
        {
            let advice = PosixFadviseAdvice::POSIX_FADV_DONTNEED;
            let _ = posix_fadvise(&self.file, start, len, advice); // a hint
        }
    }

    fn name(&self) -> Option<&Path> {
        Some(&self.path)
    }

    fn identity(&self) -> io::Result<Identity> {
        self.file.metadata().map(|metadata| identity(&metadata))
    }

    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        self.upgrade(sharing, wait).map(Lease::new)
    }
}

/// Releases locks that closing the file would not release, because the open file description is
/// another user's too.
impl Drop for FileStorage {
    fn drop(&mut self) {
        if self.borrower == Some(process::id()) {
            let held = self.held.get_mut().unwrap_or_else(PoisonError::into_inner);
            let taken = mem::take(&mut held.taken);
            self.give_back(taken, Sharing::None);
        }
    }
}

impl fmt::Debug for FileStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStorage")
            .field("path", &self.path)
            .field("is_block_device", &self.is_block_device)
            .field("sharing", &self.sharing())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_was_written() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let storage = FileStorage::open(file.path(), Access::ReadWrite).unwrap();
        assert!(storage.is_empty().unwrap());

        storage.write_all_at(b"keyslot", 4096).unwrap();
        storage.sync_data().unwrap();
        storage.evict(4096, 7);
        storage.evict(0, 0);
        storage.evict(u64::MAX, u64::MAX);

        let mut buf = [0; 8];
        storage.read_exact_at(&mut buf, 4095).unwrap();
        assert_eq!(&buf, b"\0keyslot");
        assert_eq!(storage.len().unwrap(), 4103);
        assert!(storage.actual_size().unwrap() < 1 << 20);
        assert!(!storage.is_block_device());
        assert_eq!(storage.path(), file.path());

        let err = storage.read_exact_at(&mut buf, 4096).unwrap_err();
        assert_eq!(err.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn read_only_does_not_write() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let storage = FileStorage::open(file.path(), Access::ReadOnly).unwrap();
        assert!(storage.write_all_at(b"x", 0).is_err());
        assert!(storage.is_empty().unwrap());
    }
}
