//! Why a change of keyslots is refused.

use std::fmt;

use crate::Override;
use crate::error::{Error, ErrorKind};

/// Why a change of keyslots is refused: the [`reason`](Error::reason) of the error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AmendFault {
    /// A secret is to be added to a keyslot that is active.
    Active {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// A secret is to be added, and no keyslot is free.
    AllInUse,
    /// The keyslot to be erased is inactive, and has nothing left to overwrite.
    AlreadyErased {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The keyslot whose secret is to be replaced is inactive.
    Inactive {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// No other keyslot holds the key of the one to be erased.
    LastHolder {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// No other keyslot holds the key of those that the old secret opens.
    LastHolders,
    /// The old secret opens no keyslot.
    NoMatch {
        /// What was to be done with the keyslot
        change: ChangeKind,
    },
    /// Neither a keyslot nor an old secret says which one it is.
    NoTarget {
        /// What was to be done with the keyslot
        change: ChangeKind,
    },
    /// The header has no keyslot of this number.
    OutOfRange {
        /// The number asked for
        number: i64,
        /// How many keyslots the header can have
        keyslots: usize,
        /// What was to be done with the keyslot
        change: ChangeKind,
    },
    /// The old secret opens only a keyslot that holds another key than the volume key.
    Unbound {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The old secret does not open the keyslot that was named with it.
    WrongSecret {
        /// Index of the keyslot
        keyslot: usize,
        /// What was to be done with the keyslot
        change: ChangeKind,
    },
}

/// A kind of [`Change`](super::Change).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// A new secret in a free keyslot
    Add,
    /// A keyslot that becomes inactive
    Erase,
    /// Another secret for a keyslot
    Replace,
}

impl AmendFault {
    /// The kind of its error.
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

    /// Index of the keyslot that it is about.
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

    /// The override that admits the change all the same.
    pub fn lifted_by(self) -> Option<Override> {
        match self {
            Self::Active { .. } => Some(Override::OverwriteKeyslot),
            Self::AlreadyErased { .. } => Some(Override::EraseInactive),
            Self::LastHolder { .. } | Self::LastHolders => Some(Override::LoseKey),
            _ => None,
        }
    }

    /// The error with this as its reason.
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
