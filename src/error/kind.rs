//! The data a caller decides by: the kind of an error, and the operation that failed.

use std::io;

/// The kind of an [`Error`](super::Error).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// The user or a signal ended the operation early.
    Cancelled,
    /// The header changed since the amendment was planned. Nothing was written.
    Changed,
    /// The header is damaged or malicious.
    Corrupt,
    /// The bytes read back differ from those written: the medium or the memory is faulty, or
    /// another program wrote in between.
    Differs,
    /// The file to be created already exists.
    Exists,
    /// Another process has the image open, or holds its lock.
    InUse,
    /// An option or argument is missing, malformed or out of range.
    InvalidInput,
    /// The operating system failed to open, read, write or sync, for a reason that has no kind of
    /// its own. [`raw_os_error`](super::Error::raw_os_error) returns its number.
    Io,
    /// A number in the header exceeds the caller's limits, such as an iteration count.
    Limit,
    /// All keyslots are in use, or the header has no room for another.
    NoFreeKeyslot,
    /// The device is full, or a quota is exhausted.
    NoSpace,
    /// The file or directory does not exist.
    NotFound,
    /// The image has no LUKS header.
    NotLuks,
    /// Memory could not be allocated.
    OutOfMemory,
    /// The system does not permit the operation: permissions, or a read-only file system.
    PermissionDenied,
    /// The change would destroy data, and no override allowed it.
    Refused,
    /// The image is valid but needs a feature that this crate does not have.
    Unsupported,
    /// No keyslot opens with the secret.
    WrongSecret,
}

impl ErrorKind {
    /// The name in the command's JSON: `wrong-secret`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cancelled => "cancelled",
            Self::Changed => "changed",
            Self::Corrupt => "corrupt",
            Self::Differs => "differs",
            Self::Exists => "exists",
            Self::InUse => "in-use",
            Self::InvalidInput => "invalid-input",
            Self::Io => "io",
            Self::Limit => "limit",
            Self::NoFreeKeyslot => "no-free-keyslot",
            Self::NoSpace => "no-space",
            Self::NotFound => "not-found",
            Self::NotLuks => "not-luks",
            Self::OutOfMemory => "out-of-memory",
            Self::PermissionDenied => "permission-denied",
            Self::Refused => "refused",
            Self::Unsupported => "unsupported",
            Self::WrongSecret => "wrong-secret",
        }
    }

    /// The kind of an error of the system.
    pub(crate) fn of_system(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AlreadyExists => Self::Exists,
            io::ErrorKind::Interrupted => Self::Cancelled,
            io::ErrorKind::NotFound => Self::NotFound,
            io::ErrorKind::OutOfMemory => Self::OutOfMemory,
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::PermissionDenied
            }
            io::ErrorKind::QuotaExceeded | io::ErrorKind::StorageFull => Self::NoSpace,
            io::ErrorKind::ResourceBusy => Self::InUse,
            _ => Self::Io,
        }
    }
}

/// The operation that failed with an [`Error`](super::Error).
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Operation {
    /// Creating a file.
    Create,
    /// Deriving a keyslot's key, or calibrating its KDF.
    Derive,
    /// Taking a lock.
    Lock,
    /// Opening a file.
    Open,
    /// Reading bytes, or a length.
    Read,
    /// Reserving space for a later write.
    Reserve,
    /// Changing the length of a file.
    Resize,
    /// Making writes durable.
    Sync,
    /// Writing bytes.
    Write,
}

impl Operation {
    /// The verb used in messages, for example `read`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Derive => "derive",
            Self::Lock => "lock",
            Self::Open => "open",
            Self::Read => "read",
            Self::Reserve => "reserve",
            Self::Resize => "resize",
            Self::Sync => "sync",
            Self::Write => "write",
        }
    }
}
