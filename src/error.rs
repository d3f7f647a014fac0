//! One error type with a small, stable kind, and the context a person needs.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong, in one line, with the file and the value that caused it.
///
/// [`fmt::Display`] prints the file (where one is known) and the message, never the
/// [source](StdError::source). No error ever contains a secret.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    path: Option<PathBuf>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kind of an [`Error`]: what a caller can decide on.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// The header moved on since the amendment was planned. Nothing was written.
    Changed,
    /// The header is damaged, or was made to do harm.
    Corrupt,
    /// What was read back is not what was written: the medium or the memory is faulty, or another
    /// program wrote it.
    Differs,
    /// The file to be created exists.
    Exists,
    /// Somebody else has the image open, or holds its lock.
    InUse,
    /// An option or argument is missing, malformed or out of range.
    InvalidInput,
    /// The operating system refused to open, read, write or sync.
    Io,
    /// A number in the header is above what this caller allows, a PBKDF2 iteration count say.
    Limit,
    /// All keyslots are in use.
    NoFreeKeyslot,
    /// There is no LUKS header.
    NotLuks,
    /// Memory could not be had.
    OutOfMemory,
    /// The change would destroy data, and nobody insisted.
    Refused,
    /// A valid image that needs what this crate does not have.
    Unsupported,
    /// No keyslot opens with the secret.
    WrongSecret,
}

impl Error {
    /// What a caller can decide on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without the file's name.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file that the error is about, where there is one.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What to do about it, where that can be said.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// An error of your own [`Storage`](crate::storage::Storage), or of your own use of a kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            path: None,
            source: None,
        }))
    }

    /// An error of the operating system: `what` is what could not be done, in the infinitive
    /// ("read 512 bytes at offset 0").
    pub fn io(what: impl fmt::Display, source: io::Error) -> Self {
        let kind = match source.kind() {
            io::ErrorKind::OutOfMemory => ErrorKind::OutOfMemory,
            io::ErrorKind::AlreadyExists => ErrorKind::Exists,
            io::ErrorKind::ResourceBusy => ErrorKind::InUse,
            _ => ErrorKind::Io,
        };
        Self::new(kind, format!("cannot {what}")).with_source(source)
    }

    /// The same error with the file it is about, unless one is named already.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// The same error with a name for what it is about, if there is one: that of a
    /// [`Storage`](crate::storage::Storage), say. A path that the error has already stays.
    #[must_use]
    pub(crate) fn with_name(self, name: Option<&Path>) -> Self {
        match name {
            Some(name) => self.with_path(name),
            None => self,
        }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The same error with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// The same error with `more` added to its message.
    #[must_use]
    pub(crate) fn and(mut self, more: impl fmt::Display) -> Self {
        self.0.message = format!("{}; {more}", self.0.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.0.path {
            write!(f, "{}: ", path.display())?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("path", &self.0.path)
            .field("message", &self.0.message)
            .field("hint", &self.0.hint)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
