//! One error type: a small, stable kind, its context as data, and one line for a person.

mod kind;

use std::any::Any;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::kind::{ErrorKind, Operation};

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure: its kind, where it happened, and one line that says so.
///
/// Decide by [`kind`](Self::kind), and by the context where the kind is not enough:
/// [`operation`](Self::operation), [`path`](Self::path), [`offset`](Self::offset),
/// [`keyslot`](Self::keyslot), [`raw_os_error`](Self::raw_os_error) and [`reason`](Self::reason).
/// Messages and hints are for people and may change in any release.
///
/// [`fmt::Display`] prints the path (if the error has one) and the message, never the
/// [source](StdError::source). No error ever contains a secret.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    hint: Option<String>,
    path: Option<PathBuf>,
    operation: Option<Operation>,
    offset: Option<u64>,
    keyslot: Option<usize>,
    reasons: Vec<Arc<dyn Any + Send + Sync>>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message alone, without the path.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file that the error is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Advice for a person: what to do about the error. It never says more of the failure than
    /// the kind and the context do.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The operation that failed.
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// The first byte of the access that failed, counted from the start of the storage.
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }

    /// Index of the keyslot that the error is about.
    pub fn keyslot(&self) -> Option<usize> {
        self.0.keyslot
    }

    /// The system's error number (`errno`), if the system reported one.
    pub fn raw_os_error(&self) -> Option<i32> {
        let mut source = self.source();
        while let Some(error) = source {
            let number = error.downcast_ref().and_then(io::Error::raw_os_error);
            if number.is_some() {
                return number;
            }
            source = error.source();
        }
        None
    }

    /// The reason of type `T`, for errors that have one: a
    /// [`Conflict`](crate::storage::sharing::Conflict) of a refused lock, for example.
    pub fn reason<T: Any + StdError>(&self) -> Option<&T> {
        let reason = self.0.reasons.iter().find_map(|reason| reason.downcast_ref());
        reason.or_else(|| self.source()?.downcast_ref())
    }

    /// Creates an error, for [`Storage`](crate::storage::Storage) implementations and other
    /// callers.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            path: None,
            operation: None,
            offset: None,
            keyslot: None,
            reasons: Vec::new(),
            source: None,
        }))
    }

    /// Creates an error of the operating system, of the kind that `source` has. `what` completes
    /// "cannot ...".
    pub fn io(what: impl fmt::Display, source: io::Error) -> Self {
        let kind = ErrorKind::of_system(&source);
        Self::new(kind, format!("cannot {what}")).with_source(source)
    }

    /// The same of a known operation on `object`: "cannot read the length".
    pub fn failed(operation: Operation, object: impl fmt::Display, source: io::Error) -> Self {
        Self::io(format_args!("{} {object}", operation.name()), source).with_operation(operation)
    }

    /// The same of an access to `len` bytes at `offset`: "cannot read 512 bytes at byte 0".
    pub fn failed_at(operation: Operation, len: u64, offset: u64, source: io::Error) -> Self {
        let object = format_args!("{len} bytes at byte {offset}");
        Self::failed(operation, object, source).with_offset(offset)
    }

    /// The error with another message.
    #[cfg(feature = "qemu")]
    #[must_use]
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// The error with the path it is about. A path that it has already stays.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// The error with the operation that failed. One that it has already stays.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// The error with the first byte of the access that failed. An offset that it has already
    /// stays.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// The error with the keyslot it is about. One that it has already stays.
    #[must_use]
    pub fn with_keyslot(mut self, keyslot: usize) -> Self {
        self.0.keyslot.get_or_insert(keyslot);
        self
    }

    /// The error with a reason that [`reason`](Self::reason) returns: one of each type.
    #[must_use]
    pub fn with_reason(mut self, reason: impl StdError + Send + Sync + 'static) -> Self {
        self.0.reasons.push(Arc::new(reason));
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

    /// The error with advice. Earlier advice is replaced.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// The error with its cause.
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
            .field("operation", &self.0.operation)
            .field("offset", &self.0.offset)
            .field("keyslot", &self.0.keyslot)
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

#[cfg(all(test, feature = "file"))]
mod tests;
