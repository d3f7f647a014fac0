//! Temporary names, for files on file systems that need one before a file is complete.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

#[cfg(target_env = "gnu")]
use nix::errno::Errno;
#[cfg(target_env = "gnu")]
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::crypto::random;

/// The path of a file that has a temporary name. Removed on drop, unless the file was renamed.
#[derive(Debug)]
pub(super) struct Temporary(pub PathBuf);

impl Temporary {
    /// Renames the file to this name, if no file has it.
    pub fn link(&self, path: &Path) -> io::Result<()> {
        // Not every file system has hard links, so a rename is tried first.
        #[cfg(target_env = "gnu")]
        match renameat2(AT_FDCWD, &self.0, AT_FDCWD, path, RenameFlags::RENAME_NOREPLACE) {
            Err(Errno::EINVAL | Errno::ENOSYS) => {}
            result => return Ok(result?),
        }
        std::fs::hard_link(&self.0, path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Calls `make` with temporary names until it succeeds or fails for another reason than an existing
/// file.
pub(super) fn with_temporary_name<T>(
    mut make: impl FnMut(&OsStr) -> io::Result<T>,
) -> io::Result<T> {
    for _ in 0..NAMES {
        let mut letters = [0; 6];
        random::fill(&mut letters).map_err(io::Error::other)?;
        let letters = letters.map(|byte| char::from(b'a' + byte % 26));
        let name = OsString::from(format!("{PREFIX}{}", String::from_iter(letters)));
        match make(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => return result,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

const PREFIX: &str = ".keyslot-";
/// Temporary names to try
const NAMES: usize = 100;
