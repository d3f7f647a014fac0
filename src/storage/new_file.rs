//! A file that has no name until it is complete.
//!
//! A process that dies before then leaves nothing behind: a file without a name disappears with its
//! descriptor (`O_TMPFILE`, open(2)). If the file system does not support such files, or `/proc` is
//! not mounted and so cannot name one, the file gets a temporary name in the same directory:
//! `.keyslot-` and six letters. A process that is killed leaves that file behind.
//!
//! An existing file is replaced by an atomic rename once the new one is durable. Just before that
//! rename the new file gets a temporary name, because a file can only be linked to a name that does
//! not exist. The replaced file's owner and mode are kept, except for mode bits that a
//! [private](Place::private) file, or one [no wider than](Place::no_wider_than) another, may not
//! have. Other hard links, access lists and extended attributes are not kept, unless the file itself
//! is ([`Place::keep_file`]).
//!
//! The kernel follows symbolic links, and refuses some of them (`fs.protected_symlinks`, proc(5)).

mod temporary;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, renameat};
use nix::libc;
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use self::temporary::{Temporary, with_temporary_name};
use super::replaced::{Replaced, is_forbidden};
use super::sharing::Sharing;
use super::{Access, FileStorage, Preallocation};
use crate::error::{Error, ErrorKind, Operation, Result};

/// Destination of a file to be created. Every reason to refuse it is reported here, before any
/// work.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Synced once the file has its name
    directory: File,
    replaced: Option<Replaced>,
    /// Mode bits that the file may have
    allowed: u32,
    /// The only group that may have more permissions than others
    group: Option<u32>,
    /// Whether an existing file is kept where a rename would be noticed
    keep_file: bool,
}

/// A file being made. Dropping it without publishing leaves nothing behind.
#[derive(Debug)]
pub struct NewFile {
    place: Place,
    storage: Arc<FileStorage>,
    space: Preallocation,
    /// Whether the file cannot have the replaced file's owner and mode
    is_foreign: bool,
    /// Set if the file system does not support files without a name
    temporary: Option<Temporary>,
}

impl Place {
    /// Checks that a file of this name can be created.
    ///
    /// [`ErrorKind::Exists`] if the file exists and must not be replaced, [`ErrorKind::InUse`] if
    /// it may be replaced but another program has it open.
    pub fn new(path: impl AsRef<Path>, overwrite: bool) -> Result<Self> {
        let path = path.as_ref();
        Self::check(path, overwrite).map_err(|error| error.with_path(path))
    }

    fn check(path: &Path, overwrite: bool) -> Result<Self> {
        // The kernel follows a link where its rules allow that (`fs.protected_symlinks`).
        let metadata = match path.metadata() {
            Ok(metadata) => metadata,
            Err(error) if !path.is_symlink() => return Self::vacant(path, error),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(invalid("the file exists, as a symbolic link without a target"));
            }
            Err(error) => return Err(Error::io("follow the symbolic link", error)),
        };
        if !metadata.is_file() {
            return Err(invalid(
                "the file exists, but is not a regular file and cannot be replaced",
            ));
        }
        if !overwrite {
            return Err(Error::new(ErrorKind::Exists, "the file exists"));
        }
        let file = FileStorage::open_shared(path, Access::ReadWrite, Sharing::Amend, None)?;
        let failed = |e| Error::io("inspect the file", e);
        let metadata = file.file.metadata().map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        if !file.is_file(&path).map_err(failed)? {
            return Err(taken());
        }
        let replaced = Some(Replaced { file, metadata });
        Ok(Self { replaced, ..Self::at(path)? })
    }

    /// A destination that does not exist yet, as `error` reports.
    fn vacant(path: &Path, error: io::Error) -> Result<Self> {
        let cannot = match path.as_os_str().as_bytes() {
            [] => Some(Errno::ENOENT.into()),
            [.., b'/'] => Some(Errno::EISDIR.into()),
            _ if error.kind() == io::ErrorKind::InvalidFilename => Some(error),
            _ => None,
        };
        if let Some(error) = cannot {
            return Err(Error::failed(Operation::Create, "a file of this name", error));
        }
        Self::at(path.into())
    }

    fn at(path: PathBuf) -> Result<Self> {
        let directory = open_parent(&path)?;
        Ok(Self { path, directory, replaced: None, allowed: 0o777, group: None, keep_file: false })
    }

    /// Treats an existing file as qemu-img does, which writes into it. Its mode stays. If a rename would
    /// be noticed, the complete contents are copied into the file: it has other names, is open in
    /// another process, is a mount point, or belongs to a user whose files cannot be replaced. An
    /// interruption of that copy leaves the file incomplete.
    #[must_use]
    pub fn keep_file(self, keep_file: bool) -> Self {
        Self { keep_file, ..self }
    }

    /// Restricts the file to its owner (mode 0600).
    #[must_use]
    pub fn private(self) -> Self {
        Self { allowed: self.allowed & 0o600, ..self }
    }

    /// Grants no access that `source` does not grant, except by an existing file that is
    /// [kept](Self::keep_file).
    pub fn no_wider_than(self, source: &FileStorage) -> Result<Self> {
        if self.keep_file && self.replaced.is_some() {
            return Ok(self);
        }
        let failed = |e| Error::io("inspect the file", e).with_path(source.path());
        let metadata = source.file.metadata().map_err(failed)?;
        let allowed = self.allowed & metadata.mode();
        Ok(Self { allowed, group: Some(metadata.gid()), ..self })
    }

    /// Creates the file with `len` bytes of zeros and allocates `space` as requested.
    pub fn create(self, len: u64, space: Preallocation) -> Result<NewFile> {
        let path = self.path.clone();
        self.try_create(len, space).map_err(|error| error.with_path(path))
    }

    fn try_create(self, len: u64, space: Preallocation) -> Result<NewFile> {
        let (file, temporary) = self.open()?;
        let lent = self.replaced.as_ref().map_or(Ok(()), |it| it.lend(&file, self.allowed));
        let is_foreign = lent.is_err();
        if is_foreign && self.keep_file {
            let failed = |e| Error::io("set the mode of the new file", e);
            file.set_permissions(Permissions::from_mode(0o600)).map_err(failed)?;
        } else {
            lent?;
        }
        self.keep_group_out(&file)?;
        let failed = |e| {
            Error::io(format_args!("allocate {len} bytes"), e).with_operation(Operation::Reserve)
        };
        let storage = Arc::new(FileStorage::from_file(file, self.path.clone()));
        storage.set_len(len, space).map_err(failed)?;
        Ok(NewFile { place: self, storage, space, is_foreign, temporary })
    }

    /// Removes permissions from the group that others do not have, unless it is the allowed group.
    fn keep_group_out(&self, file: &File) -> Result<()> {
        let failed = |e| Error::io("set the mode of the new file", e);
        let metadata = file.metadata().map_err(failed)?;
        if self.group.is_none_or(|group| group == metadata.gid()) {
            return Ok(());
        }
        let everybodys = (self.allowed & 0o7) << 3;
        let mode = metadata.mode() & (0o707 | everybodys);
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)
    }

    /// Opens a file without a name, or failing that one with a temporary name.
    fn open(&self) -> Result<(File, Option<Temporary>)> {
        let directory = parent(&self.path);
        let failed = |e| Error::failed(Operation::Create, in_directory(directory), e);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.mode(0o666 & self.allowed);
        if Path::new("/proc/self/fd").is_dir() {
            let here = format!("/proc/self/fd/{}", self.directory.as_raw_fd());
            match options.clone().custom_flags(libc::O_TMPFILE).open(here) {
                Err(e) if NO_TMPFILE.iter().any(|errno| e.raw_os_error() == Some(*errno)) => {}
                file => return Ok((file.map_err(failed)?, None)),
            }
        }
        let (file, path) = with_temporary_name(|name| {
            let path = directory.join(name);
            Ok((options.create_new(true).open(&path)?, path))
        })
        .map_err(failed)?;
        Ok((file, Some(Temporary(path))))
    }
}

impl NewFile {
    /// The contents. No other process can open the file yet.
    pub fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }

    /// The name the file will have.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Makes the file durable, then gives it its name, also durably.
    pub fn publish(self) -> Result<()> {
        let path = self.place.path.clone();
        self.try_publish().map_err(|error| error.with_path(path))
    }

    fn try_publish(self) -> Result<()> {
        let Self { place, storage, space, is_foreign, temporary } = self;
        // sync_all, not sync_data: owner and mode were changed too.
        storage.file.sync_all().map_err(|e| Error::failed(Operation::Sync, "the new file", e))?;
        if let Some(Replaced { file, .. }) = &place.replaced
            && !file.is_at_its_path().map_err(|e| {
                Error::io("check that the path still leads to the file to be replaced", e)
            })?
        {
            return Err(taken());
        }
        if let Some(replaced) = place.replaced.as_ref().filter(|_| place.keep_file)
            && (is_foreign || replaced.is_shared())
        {
            return replaced.fill(&storage, space);
        }
        let named = match (temporary, &place.replaced) {
            (None, None) => place.link(&storage.file, place.file_name()),
            (None, Some(_)) => place.replace(&storage.file),
            (Some(file), None) => file.link(&place.path),
            (Some(file), Some(_)) => std::fs::rename(&file.0, &place.path),
        };
        if let (Err(error), Some(replaced), true) = (&named, &place.replaced, place.keep_file)
            && is_forbidden(error)
        {
            return replaced.fill(&storage, space);
        }
        named.map_err(|e| {
            Error::io("link the new file to its name", e).with_operation(Operation::Create)
        })?;
        match place.directory.sync_all() {
            // The file system cannot sync a directory.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
            result => result.map_err(|e| {
                Error::failed(Operation::Sync, "the directory", e)
                    .and("the image is complete, but its name may be lost in a crash")
            }),
        }
    }
}

impl Place {
    fn file_name(&self) -> &OsStr {
        self.path.file_name().unwrap_or_default()
    }

    /// Links a file without a name to this name.
    fn link(&self, file: &File, name: &OsStr) -> io::Result<()> {
        let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
        let follow = AtFlags::AT_SYMLINK_FOLLOW;
        Ok(linkat(AT_FDCWD, nameless.as_str(), &self.directory, name, follow)?)
    }

    /// Replaces another file by a file without a name.
    fn replace(&self, file: &File) -> io::Result<()> {
        let directory = &self.directory;
        let name = with_temporary_name(|name| self.link(file, name).map(|()| name.to_owned()))?;
        let renamed = renameat(directory, name.as_os_str(), directory, self.file_name());
        if renamed.is_err() {
            let _ = unlinkat(directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        Ok(renamed?)
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn in_directory(directory: &Path) -> String {
    format!("a file in {}", directory.display())
}

fn open_parent(path: &Path) -> Result<File> {
    let directory = parent(path);
    let failed = |e| Error::failed(Operation::Create, in_directory(directory), e);
    let file = File::open(directory).map_err(failed)?;
    match file.metadata() {
        Ok(metadata) if !metadata.is_dir() => Err(failed(io::ErrorKind::NotADirectory.into())),
        _ => Ok(file),
    }
}

fn taken() -> Error {
    let text = "the file to be replaced was itself replaced by another program";
    Error::new(ErrorKind::Changed, text)
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Errors that mean files without a name are not supported: by the file system (`EOPNOTSUPP`), or
/// by a kernel that does not know the flag and sees a directory opened for writing (open(2)).
const NO_TMPFILE: [i32; 3] = [Errno::EOPNOTSUPP as i32, Errno::EISDIR as i32, Errno::ENOENT as i32];
