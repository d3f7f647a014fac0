//! Opening a file, by its path or by a descriptor that is already open.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::libc;

use super::direct::{Direct, flags};
use super::{Access, FileStorage, identity};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::patience::Patience;
use crate::storage::{Identity, file_lease};

/// A file to open.
#[derive(Clone, Copy, Debug)]
pub(crate) enum FileRef<'a> {
    Path(&'a Path),
    /// A file that the caller has opened, or that another process has passed on
    Descriptor(&'a File),
}

impl FileRef<'_> {
    /// Identity of the file's bytes.
    pub(super) fn identity(self) -> io::Result<Identity> {
        let metadata = match self {
            Self::Path(path) => fs::metadata(path),
            Self::Descriptor(file) => file.metadata(),
        };
        metadata.map(|metadata| identity(&metadata))
    }

    /// Whether both are the same file or device.
    pub fn is_same_file(self, other: Self) -> io::Result<bool> {
        Ok(self.identity()?.is_same_storage(&other.identity()?))
    }

    /// The path, or the name that the system has for the descriptor's file.
    pub fn name(self) -> PathBuf {
        match self {
            Self::Path(path) => path.to_owned(),
            Self::Descriptor(file) => {
                let node = node(file);
                fs::read_link(&node).unwrap_or(node)
            }
        }
    }
}

impl FileStorage {
    /// Opens an existing file without a lock. [`open_shared`](Self::open_shared) opens and locks.
    ///
    /// Anything but a regular file or a block device is refused ([`ErrorKind::InvalidInput`]). The
    /// check comes before the open where the system allows it, because opening a FIFO can hang and
    /// opening some character devices has side effects.
    ///
    /// A file under another program's lease (a Samba server's oplock, an NFS server's delegation)
    /// is opened once the lease is returned. The system asks the holder for it, and revokes it
    /// after `/proc/sys/fs/lease-break-time` seconds.
    pub fn open(path: impl AsRef<Path>, access: Access) -> Result<Self> {
        Self::open_within(FileRef::Path(path.as_ref()), access, false, None)
    }

    /// Like [`open`](Self::open), but waits for a lease no longer than `patience`, if that is
    /// limited, and opens with `O_DIRECT` if `is_direct`.
    pub(in crate::storage) fn open_within(
        file: FileRef<'_>,
        access: Access,
        is_direct: bool,
        patience: Option<&mut Patience>,
    ) -> Result<Self> {
        let mut unlimited = Patience::new(Some(file_lease::break_time()));
        let patience = patience.unwrap_or(&mut unlimited);
        let opened = match file {
            FileRef::Path(path) => Self::open_path(path, access, is_direct, patience),
            FileRef::Descriptor(file) => Self::open_again(file, access, is_direct, patience),
        };
        opened.map_err(|error| error.with_path(file.name()))
    }

    fn open_path(
        path: &Path,
        access: Access,
        is_direct: bool,
        patience: &mut Patience,
    ) -> Result<Self> {
        check_type(&fs::metadata(path).map_err(|error| failed(access, error))?)?;
        let file = open_node(path, path, access, is_direct, patience)?
            .map_err(|error| failed_to_open(access, is_direct, error))?;
        Self::opened(file, path.to_owned(), access, is_direct)
    }

    /// Opens the file of a descriptor again, so that its locks are not shared with the processes that
    /// have the descriptor. If that is impossible, uses the descriptor as it is.
    fn open_again(
        file: &File,
        access: Access,
        is_direct: bool,
        patience: &mut Patience,
    ) -> Result<Self> {
        let io = |error| failed(access, error);
        check_type(&file.metadata().map_err(io)?)?;
        let flags = flags(file).map_err(io)?;
        let mode = flags & OFlag::O_ACCMODE;
        let refused = |text| Err(Error::new(ErrorKind::InvalidInput, text));
        if mode == OFlag::O_WRONLY {
            return refused("the descriptor is open for writing only");
        }
        if access == Access::ReadWrite && mode == OFlag::O_RDONLY {
            return refused("the descriptor is open for reading only");
        }
        let is_direct = is_direct || flags.contains(OFlag::O_DIRECT);
        let (node, name) = (node(file), FileRef::Descriptor(file).name());
        let error = match open_node(&node, &name, access, is_direct, patience)? {
            Ok(own) => {
                let mut own = Self::opened(own, name, access, is_direct)?;
                own.is_at_a_path = false;
                return Ok(own);
            }
            Err(error) => failed_to_open(access, is_direct, error),
        };
        if flags.intersects(OFlag::O_APPEND | OFlag::O_PATH)
            || is_direct && !flags.contains(OFlag::O_DIRECT)
        {
            return Err(error);
        }
        let mut own = Self::opened(file.try_clone().map_err(io)?, name, access, is_direct)?;
        own.is_at_a_path = false;
        own.borrower = Some(process::id());
        Ok(own)
    }

    fn opened(file: File, path: PathBuf, access: Access, is_direct: bool) -> Result<Self> {
        let metadata = file.metadata().map_err(|error| failed(access, error))?;
        check_type(&metadata)?;
        let direct = is_direct.then(|| Direct::probe(&file)).transpose();
        let direct = direct.map_err(|error| failed(access, error))?;
        let mut storage = Self::from_file(file, path);
        storage.access = access;
        storage.is_block_device = metadata.file_type().is_block_device();
        storage.direct = direct;
        Ok(storage)
    }

    /// Wraps a file that is already open for reading and writing.
    pub(in crate::storage) fn from_file(file: File, path: PathBuf) -> Self {
        Self {
            file,
            held: Mutex::default(),
            path,
            access: Access::ReadWrite,
            is_block_device: false,
            is_at_a_path: true,
            borrower: None,
            direct: None,
        }
    }

    /// A path that leads to the opened file as long as it is open.
    pub(in crate::storage) fn node(&self) -> PathBuf {
        if self.is_at_a_path { self.path.clone() } else { node(&self.file) }
    }
}

/// Opens a file. The outer error is that of a lease that is not returned in time.
fn open_node(
    node: &Path,
    name: &Path,
    access: Access,
    is_direct: bool,
    patience: &mut Patience,
) -> Result<io::Result<File>> {
    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::ReadWrite);
    // std adds O_CLOEXEC. O_NONBLOCK keeps this from hanging if the path has become a FIFO since.
    let direct = if is_direct { libc::O_DIRECT } else { 0 };
    options.custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY | direct);
    loop {
        match options.open(node) {
            // The holder has been asked to return its lease.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !patience.pause() {
                    return Err(file_lease::in_use(name));
                }
            }
            file => return Ok(file),
        }
    }
}

/// A path that leads to the descriptor's file.
fn node(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

fn failed(access: Access, error: io::Error) -> Error {
    let what = match access {
        Access::ReadOnly => "it for reading",
        Access::ReadWrite => "it for writing",
    };
    Error::failed(Operation::Open, what, error)
}

fn failed_to_open(access: Access, is_direct: bool, error: io::Error) -> Error {
    if is_direct && error.raw_os_error() == Some(Errno::EINVAL as i32) {
        let text = "cannot open it with O_DIRECT: its file system does not support it";
        return Error::new(ErrorKind::Unsupported, text)
            .with_operation(Operation::Open)
            .with_source(error);
    }
    failed(access, error)
}

/// Refuses file types without bytes at offsets.
fn check_type(metadata: &Metadata) -> Result<()> {
    let kind = metadata.file_type();
    let message = if kind.is_file() || kind.is_block_device() {
        return Ok(());
    } else if kind.is_dir() {
        "is a directory"
    } else if kind.is_fifo() {
        "is a FIFO"
    } else if kind.is_socket() {
        "is a socket"
    } else if kind.is_char_device() {
        "is a character device"
    } else {
        "is neither a regular file nor a block device"
    };
    Err(Error::new(ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_has_no_offsets() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();

        for (path, expected) in [
            (dir.path(), "is a directory"),
            (&fifo, "is a FIFO"),
            (&socket, "is a socket"),
            (Path::new("/dev/null"), "is a character device"),
        ] {
            for access in [Access::ReadOnly, Access::ReadWrite] {
                let err = FileStorage::open(path, access).unwrap_err();
                assert_eq!(err.kind(), ErrorKind::InvalidInput);
                assert_eq!(err.message(), expected);
                assert_eq!(err.path(), Some(path));
            }
        }
    }

    #[test]
    fn names_the_file_that_is_not_there() {
        let err = FileStorage::open("/nonexistent/disk.img", Access::ReadOnly).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::NotFound);
        assert_eq!(err.to_string(), "/nonexistent/disk.img: cannot open it for reading");
    }
}
