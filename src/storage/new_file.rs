//! A file that has no name until it is complete.
//!
//! Whatever ends the process before leaves nothing behind: a file without a name is gone with its
//! descriptor (`O_TMPFILE`, open(2)). Where the file system has no such files, or `/proc` is not
//! there to name one by, it has a temporary name meanwhile: `.keyslot-` and six letters, in the same
//! directory.
//!
//! An existing file stays what it was until its successor is complete and durable, and then has its
//! name taken over at once. (For the moment of that the successor has a temporary name too: a file
//! can be linked to a new name only.) A replaced file's owner and mode are kept; other hard links,
//! access lists and extended attributes are not.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, fallocate};
use nix::libc;
use nix::unistd::linkat;
use tempfile::{Builder, NamedTempFile, TempPath};

use super::sharing::Sharing;
use super::{Access, FileStorage, Storage};
use crate::error::{Error, ErrorKind, Result};

/// What is done for the space of a new file (QEMU's `preallocation`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Preallocation {
    /// Nothing: the file is sparse.
    #[default]
    Off,
    /// The file system reserves it.
    Falloc,
    /// It is written with zeros.
    Full,
}

/// Where a file will be. What stands against it is found before there is anything to lose.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
    /// Synced when the file has its name
    directory: File,
    replaced: Option<Replaced>,
}

/// The file that is replaced.
#[derive(Debug)]
struct Replaced {
    /// Locked against everybody else, until its successor has its name
    _file: FileStorage,
    metadata: Metadata,
}

/// A file in the making. If it is dropped, there was none.
#[derive(Debug)]
pub struct NewFile {
    place: Place,
    storage: Arc<FileStorage>,
    /// Where there are no files without a name
    temporary: Option<TempPath>,
}

impl Place {
    /// A file of this name, to be made.
    ///
    /// [`ErrorKind::Exists`] if there is one and it may not be replaced, [`ErrorKind::InUse`] if it
    /// may, but somebody has it open.
    pub fn new(path: impl AsRef<Path>, overwrite: bool) -> Result<Self> {
        let path = path.as_ref();
        Self::check(path, overwrite).map_err(|error| error.with_path(path))
    }

    fn check(path: &Path, overwrite: bool) -> Result<Self> {
        let exists = || Error::new(ErrorKind::Exists, "the file exists");
        let Ok(path) = path.canonicalize() else {
            return match path.is_symlink() {
                true if overwrite => Err(invalid("a symbolic link to a file that is not there")),
                true => Err(exists()),
                false => {
                    let directory = open_parent(path)?;
                    Ok(Self { path: path.into(), directory, replaced: None })
                }
            };
        };
        if !overwrite {
            return Err(exists());
        }
        let metadata = path.metadata().map_err(|e| Error::io("look at the file", e))?;
        if !metadata.is_file() {
            return Err(invalid("not a regular file, it cannot be replaced"));
        }
        let file = FileStorage::open_shared(&path, Access::ReadWrite, Sharing::Amend, None)?;
        let replaced = Some(Replaced { _file: file, metadata });
        Ok(Self { directory: open_parent(&path)?, path, replaced })
    }

    /// Makes the file, `len` bytes of holes with as much space as is asked for.
    pub fn create(self, len: u64, space: Preallocation) -> Result<NewFile> {
        let path = self.path.clone();
        self.try_create(len, space).map_err(|error| error.with_path(path))
    }

    fn try_create(self, len: u64, space: Preallocation) -> Result<NewFile> {
        let (file, temporary) = self.open()?;
        if let Some(Replaced { metadata, .. }) = &self.replaced {
            as_before(&file, metadata)?;
        }
        let failed = |e| Error::io(format_args!("allocate {len} bytes"), e);
        file.set_len(len).map_err(failed)?;
        match space {
            Preallocation::Off => {}
            Preallocation::Falloc if len == 0 => {}
            Preallocation::Falloc => {
                let len = i64::try_from(len).map_err(|_| invalid("image size is too large"))?;
                fallocate(&file, FallocateFlags::empty(), 0, len).map_err(|e| failed(e.into()))?;
            }
            Preallocation::Full => write_zeros(&file, len).map_err(failed)?,
        }
        let storage = Arc::new(FileStorage::from_file(file, self.path.clone()));
        Ok(NewFile { place: self, storage, temporary })
    }

    /// A file without a name, or with a temporary one.
    fn open(&self) -> Result<(File, Option<TempPath>)> {
        let directory = parent(&self.path);
        let failed = |e| Error::io(format_args!("create a file in {}", directory.display()), e);
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if Path::new("/proc/self/fd").is_dir() {
            match options.clone().custom_flags(libc::O_TMPFILE).open(directory) {
                Err(e) if NO_TMPFILE.iter().any(|errno| e.raw_os_error() == Some(*errno)) => {}
                file => return Ok((file.map_err(failed)?, None)),
            }
        }
        // Opened here, so that the error is the system's: tempfile's would name a name that means
        // nothing to anybody.
        let open = |path: &Path| options.create_new(true).open(path);
        let file = Builder::new().prefix(PREFIX).make_in(directory, open).map_err(failed)?;
        let (file, path) = file.into_parts();
        Ok((file, Some(path)))
    }
}

/// Owner and mode of its predecessor, whoever runs this and under whatever umask.
fn as_before(file: &File, metadata: &Metadata) -> Result<()> {
    let failed = |e| Error::io("give the new file its predecessor's owner and mode", e);
    let ours = file.metadata().map_err(failed)?;
    if (ours.uid(), ours.gid()) != (metadata.uid(), metadata.gid()) {
        fchown(file, Some(metadata.uid()), Some(metadata.gid())).map_err(failed)?;
    }
    let mode = Permissions::from_mode(metadata.permissions().mode() & 0o777);
    file.set_permissions(mode).map_err(failed)
}

fn write_zeros(file: &File, to: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = 0;
    while at < to {
        let now = usize::try_from(to - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(&zeros[..now], at)?;
        at += now as u64;
    }
    Ok(())
}

impl NewFile {
    /// What is in it. Nobody else can open it yet.
    pub fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }

    /// The name that it will have.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// Makes the file durable, and then gives it its name, durably too.
    pub fn publish(self) -> Result<()> {
        let path = self.place.path.clone();
        self.try_publish().map_err(|error| error.with_path(path))
    }

    fn try_publish(self) -> Result<()> {
        let Self { place: Place { path, directory, replaced }, storage, temporary } = self;
        storage.sync_data().map_err(|e| Error::io("sync the new file", e))?;
        let failed = |e| Error::io("give the new file its name", e);
        let nameless = format!("/proc/self/fd/{}", storage.file.as_raw_fd());
        let link = |name: &Path| {
            let follow = AtFlags::AT_SYMLINK_FOLLOW;
            linkat(AT_FDCWD, nameless.as_str(), AT_FDCWD, name, follow).map_err(io::Error::from)
        };
        match (temporary, &replaced) {
            (None, None) => link(&path).map_err(failed)?,
            (None, Some(_)) => {
                let named = Builder::new().prefix(PREFIX).make_in(parent(&path), link);
                let named: NamedTempFile<()> = named.map_err(failed)?;
                named.persist(&path).map_err(|e| failed(e.error))?;
            }
            (Some(temporary), None) => {
                temporary.persist_noclobber(&path).map_err(|e| failed(e.error))?;
            }
            (Some(temporary), Some(_)) => {
                temporary.persist(&path).map_err(|e| failed(e.error))?;
            }
        }
        directory.sync_all().map_err(|e| {
            Error::io("sync the directory", e).and("the image is complete, its name may be lost")
        })
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_parent(path: &Path) -> Result<File> {
    let directory = parent(path);
    let what = || format!("create a file in {}", directory.display());
    let file = File::open(directory).map_err(|e| Error::io(what(), e))?;
    match file.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            Err(Error::io(what(), io::ErrorKind::NotADirectory.into()))
        }
        _ => Ok(file),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

const PREFIX: &str = ".keyslot-";

/// What says that there are no files without a name: the file system (`EOPNOTSUPP`), or a kernel that
/// does not know the flag and sees a directory opened for writing (open(2)).
const NO_TMPFILE: [i32; 3] = [Errno::EOPNOTSUPP as i32, Errno::EISDIR as i32, Errno::ENOENT as i32];
