//! Reasons for refusing a change of keyslots.

use std::fmt;

use crate::Override;
use crate::error::{Error, ErrorKind};

/// Reason for refusing a change of keyslots, the [`reason`](Error::reason) of the error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AmendFault {
    /// The keyslot for a new secret is already active.
    Active {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// No keyslot is free for a new secret.
    AllInUse,
    /// The keyslot to erase is inactive, and nothing of it is left to overwrite.
    AlreadyErased {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The keyslot whose secret should be replaced is inactive.
    Inactive {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// No other keyslot holds the key of the keyslot to erase.
    LastHolder {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// No keyslot other than those that the old secret opens holds the key.
    LastHolders,
    /// The old secret opens no keyslot.
    NoMatch {
        /// Kind of the change
        change: ChangeKind,
    },
    /// The change names neither a keyslot nor an old secret.
    NoTarget {
        /// Kind of the change
        change: ChangeKind,
    },
    /// The format has no keyslot with this number.
    OutOfRange {
        /// The number asked for
        number: i64,
        /// Number of keyslots that the format has
        keyslots: usize,
        /// Kind of the change
        change: ChangeKind,
    },
    /// The old secret opens only a keyslot that does not hold the volume key.
    Unbound {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The old secret does not open the named keyslot.
    WrongSecret {
        /// Index of the keyslot
        keyslot: usize,
        /// Kind of the change
        change: ChangeKind,
    },
}

/// A kind of [`Change`](super::Change).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// Adds a secret in a free keyslot
    Add,
    /// Erases a keyslot
    Erase,
    /// Replaces the secret of a keyslot
    Replace,
}

impl AmendFault {
    /// Kind of the error that reports this fault.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::Active { .. }
            | Self::AlreadyErased { .. }
            | Self::LastHolder { .. }
            | Self::LastHolders => ErrorKind::Refused,
            Self::AllInUse => ErrorKind::NoFreeKeyslot,
            Self::Inactive { .. }
            | Self::NoTarget { .. }
            | Self::OutOfRange { .. }
            | Self::Unbound { .. } => ErrorKind::InvalidInput,
            Self::NoMatch { .. } | Self::WrongSecret { .. } => ErrorKind::WrongSecret,
        }
    }

    /// Index of the keyslot at fault, if the fault concerns a single one.
    pub fn keyslot(self) -> Option<usize> {
        match self {
            Self::Active { keyslot }
            | Self::AlreadyErased { keyslot }
            | Self::Inactive { keyslot }
            | Self::LastHolder { keyslot }
            | Self::Unbound { keyslot }
            | Self::WrongSecret { keyslot, .. } => Some(keyslot),
            Self::AllInUse
            | Self::LastHolders
            | Self::NoMatch { .. }
            | Self::NoTarget { .. }
            | Self::OutOfRange { .. } => None,
        }
    }

    /// Override that permits the change.
    pub fn lifted_by(self) -> Option<Override> {
        match self {
            Self::Active { .. } => Some(Override::OverwriteKeyslot),
            Self::AlreadyErased { .. } => Some(Override::EraseInactive),
            Self::LastHolder { .. } | Self::LastHolders => Some(Override::LoseKey),
            _ => None,
        }
    }

    /// Attaches this fault to an error as its reason.
    pub(super) fn mark(self, error: Error) -> Error {
        let error = match self.lifted_by() {
            Some(lifted_by) => error.with_reason(lifted_by),
            None => error,
        };
        let error = error.with_reason(self);
        match self.keyslot() {
            Some(keyslot) => error.with_keyslot(keyslot),
            None => error,
        }
    }
}

impl ChangeKind {
    fn verb(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Erase => "erase",
            Self::Replace => "replace",
        }
    }
}

impl fmt::Display for AmendFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active { keyslot } => write!(f, "keyslot {keyslot} is active"),
            Self::AllInUse => f.write_str("all keyslots are in use"),
            Self::AlreadyErased { keyslot } => write!(f, "keyslot {keyslot} is already erased"),
            Self::Inactive { keyslot } => write!(f, "keyslot {keyslot} is inactive"),
            Self::LastHolder { keyslot } => {
                write!(f, "keyslot {keyslot} is the last one that holds its key")
            }
            Self::LastHolders => f.write_str("the old secret opens all keyslots that hold the key"),
            Self::NoMatch { .. } => f.write_str("no keyslot opens with the old secret"),
            Self::NoTarget { change } => {
                let verb = change.verb();
                write!(f, "to {verb} a secret, its keyslot or the secret is needed")
            }
            Self::OutOfRange { number, keyslots, .. } => {
                let last = keyslots.saturating_sub(1);
                write!(f, "keyslot {number}: out of range, this format has keyslots 0 to {last}")
            }
            Self::Unbound { keyslot } => {
                write!(f, "the old secret opens keyslot {keyslot}, which is unbound")
            }
            Self::WrongSecret { keyslot, .. } => {
                write!(f, "keyslot {keyslot} does not open with the old secret")
            }
        }
    }
}

impl std::error::Error for AmendFault {}

impl From<AmendFault> for Error {
    fn from(fault: AmendFault) -> Self {
        fault.mark(Self::new(fault.kind(), fault.to_string()))
    }
}
