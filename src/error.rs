//! The crate's error type: a stable kind, context as data, and a message for people.

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

/// A failure: its kind, its context, and a message of one line.
///
/// Decide by [`kind`](Self::kind) and, where the kind is not enough, by the context:
/// [`operation`](Self::operation), [`path`](Self::path), [`offset`](Self::offset),
/// [`keyslot`](Self::keyslot), [`raw_os_error`](Self::raw_os_error) and [`reason`](Self::reason).
/// Messages and hints are for people and may change in any release.
///
/// [`fmt::Display`] prints the path, if there is one, and the message, but not the
/// [source](StdError::source). No error contains a secret.
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

    /// The message without the path.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The file that the error is about.
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Advice on what to do about the error. It adds no facts to those of the kind and the context.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The operation that failed.
    pub fn operation(&self) -> Option<Operation> {
        self.0.operation
    }

    /// Offset of the failed access in bytes, from the start of the storage.
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

    /// The reason of type `T`, if the error has one. A refused lock has a
    /// [`Conflict`](crate::storage::sharing::Conflict), for example.
    pub fn reason<T: Any + StdError>(&self) -> Option<&T> {
        let reason = self.0.reasons.iter().find_map(|reason| reason.downcast_ref());
        reason.or_else(|| self.source()?.downcast_ref())
    }

    /// Creates an error. For [`Storage`](crate::storage::Storage) implementations and other
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

    /// Creates an error of the operating system, whose kind follows from `source`. `what` completes
    /// "cannot ...". If `source` wraps an error of this crate, as that of a storage over a
    /// [`Volume`](crate::Volume) does, the new error has its kind and its hint.
    pub fn io(what: impl fmt::Display, source: io::Error) -> Self {
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<Self>());
        let kind = inner.map_or_else(|| ErrorKind::of_system(&source), Self::kind);
        let hint = inner.and_then(|inner| inner.0.hint.clone());
        let mut error = Self::new(kind, format!("cannot {what}")).with_source(source);
        error.0.hint = hint;
        error
    }

    /// Creates an error of an operation on `object`: "cannot read the length".
    pub fn failed(operation: Operation, object: impl fmt::Display, source: io::Error) -> Self {
        Self::io(format_args!("{} {object}", operation.name()), source).with_operation(operation)
    }

    /// Creates an error of an access to `len` bytes at `offset`: "cannot read 512 bytes at byte 0".
    pub fn failed_at(operation: Operation, len: u64, offset: u64, source: io::Error) -> Self {
        let object = format_args!("{len} bytes at byte {offset}");
        Self::failed(operation, object, source).with_offset(offset)
    }

    /// Replaces the message.
    #[cfg(feature = "qemu")]
    #[must_use]
    pub(crate) fn with_message(mut self, message: impl Into<String>) -> Self {
        self.0.message = message.into();
        self
    }

    /// Sets the path, unless the error already has one.
    #[must_use]
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path.get_or_insert_with(|| path.into());
        self
    }

    /// Sets the operation, unless the error already has one.
    #[must_use]
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    /// Sets the offset of the failed access, unless the error already has one.
    #[must_use]
    pub fn with_offset(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// Sets the keyslot, unless the error already has one.
    #[must_use]
    pub fn with_keyslot(mut self, keyslot: usize) -> Self {
        self.0.keyslot.get_or_insert(keyslot);
        self
    }

    /// Adds a reason for [`reason`](Self::reason) to return, at most one of each type.
    #[must_use]
    pub fn with_reason(mut self, reason: impl StdError + Send + Sync + 'static) -> Self {
        self.0.reasons.push(Arc::new(reason));
        self
    }

    /// Sets the path to `name`, such as that of a [`Storage`](crate::storage::Storage), if there is
    /// one and the error has no path yet.
    #[must_use]
    pub(crate) fn with_name(self, name: Option<&Path>) -> Self {
        match name {
            Some(name) => self.with_path(name),
            None => self,
        }
    }

    /// Sets the hint, replacing an earlier one.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Sets the [source](StdError::source).
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// Appends `more` to the message.
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
