//! The file that a new one replaces: by a rename or, where that would be noticed, by copying the new
//! contents into it.

use std::fs::{File, Metadata, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};

use nix::libc;
use zeroize::Zeroizing;

use super::{FileStorage, Preallocation, Storage, holder};
use crate::error::{Error, Operation, Result};

/// The file to be replaced.
#[derive(Debug)]
pub(super) struct Replaced {
    /// Locked exclusively until the new file has taken its name
    pub file: FileStorage,
    pub metadata: Metadata,
}

impl Replaced {
    /// Sets the replaced file's owner and mode, limited to `allowed`. Independent of the current user
    /// and umask.
    pub fn lend(&self, file: &File, allowed: u32) -> Result<()> {
        let failed = |e| Error::io("set the owner and mode of the new file", e);
        let ours = file.metadata().map_err(failed)?;
        let metadata = &self.metadata;
        if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
            fchown(file, Some(metadata.uid()), Some(metadata.gid())).map_err(failed)?;
        }
        let mode = Permissions::from_mode(metadata.permissions().mode() & allowed);
        file.set_permissions(mode).map_err(failed)
    }

    /// Whether a rename would be noticed: the file has other names, or another descriptor, of any
    /// process that this one may inspect.
    pub fn is_shared(&self) -> bool {
        let links = self.file.file.metadata().map(|metadata| metadata.nlink());
        links.is_ok_and(|links| links > 1) || holder::is_open_elsewhere(&self.file.file)
    }

    /// Copies the contents of `new`, holes included, and makes them durable.
    pub fn fill(&self, new: &FileStorage, space: Preallocation) -> Result<()> {
        self.copy(new, space).map_err(|e| {
            Error::failed(Operation::Write, "the existing file", e)
                .and("it may have been written only in part")
        })
    }

    fn copy(&self, new: &FileStorage, space: Preallocation) -> io::Result<()> {
        let len = new.len()?;
        self.file.set_len(0, Preallocation::Off)?;
        self.file.set_len(len, space)?;
        let mut buffer = Zeroizing::new(vec![0; PIECE]);
        let mut at = 0;
        while let Some(data) = new.next_data(at)? {
            at = data.start;
            while at < data.end {
                let size = usize::try_from(data.end - at).map_or(PIECE, |it| it.min(PIECE));
                new.read_exact_at(&mut buffer[..size], at)?;
                self.file.write_all_at(&buffer[..size], at)?;
                at += size as u64;
            }
        }
        self.file.file.sync_all()
    }
}

/// Whether a rename failed because of what the existing file is: a mount point, another user's file in
/// a sticky directory, a name in a directory that may not be written.
pub(super) fn is_forbidden(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| [libc::EACCES, libc::EBUSY, libc::EPERM, libc::EXDEV].contains(&code))
}

/// Bytes copied at a time
const PIECE: usize = 1 << 20;
