//! Exit statuses.

use std::process::ExitCode;

use keyslot::ErrorKind;
use serde::{Serialize, Serializer};

/// Exit status of a command.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Status {
    #[default]
    Done,
    Failed,
    WrongSecret,
    OutOfMemory,
    Unusable,
    InUse,
}

impl Status {
    /// Every status, in the order of their numbers.
    pub const ALL: [Self; 6] = [
        Self::Done,
        Self::Failed,
        Self::WrongSecret,
        Self::OutOfMemory,
        Self::Unusable,
        Self::InUse,
    ];

    /// The status of a failure.
    pub fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::WrongSecret => Self::WrongSecret,
            ErrorKind::OutOfMemory => Self::OutOfMemory,
            ErrorKind::Corrupt | ErrorKind::Limit | ErrorKind::NotLuks | ErrorKind::Unsupported => {
                Self::Unusable
            }
            ErrorKind::InUse => Self::InUse,
            _ => Self::Failed,
        }
    }

    /// Number that the process exits with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::WrongSecret => 2,
            Self::OutOfMemory => 3,
            Self::Unusable => 4,
            Self::InUse => 5,
        }
    }

    /// Meaning, for help and man pages.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "wrong usage, or any other failure",
            Self::WrongSecret => "no keyslot opens with the secret",
            Self::OutOfMemory => "out of memory",
            Self::Unusable => {
                "not a LUKS image, or one that is damaged, unsupported or opened by no keyslot"
            }
            Self::InUse => "in use by another program",
        }
    }

    /// This status, or `next` if this one is success.
    pub fn or(self, next: Self) -> Self {
        if self == Self::Done { next } else { self }
    }
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status.code())
    }
}

impl Serialize for Status {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.code())
    }
}
