//! Changes of a header that touch no key.

use std::fmt;

use super::Priority;
use crate::json::Object;

/// A change of a header that touches no key. All but the UUID are of LUKS2.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Edit {
    /// A token: how somebody comes by a passphrase (LUKS2 specification, section 3.3).
    PutToken {
        /// Its number, 0 to 31; without it the first that is free
        number: Option<usize>,
        /// Its members, `type` and `keyslots` among them
        token: Object,
        /// Whether it may take another's place
        replace: bool,
    },
    /// No such token any more. The keyslots that it was for stay.
    RemoveToken {
        /// Its number
        number: usize,
    },
    /// Whether a keyslot is tried where none is named.
    SetPriority {
        /// Index of the keyslot
        keyslot: usize,
        /// Its priority from now on
        priority: Priority,
    },
    /// The label, at most 47 bytes; none, if it is empty.
    SetLabel(String),
    /// The subsystem, at most 47 bytes; none, if it is empty.
    SetSubsystem(String),
    /// The UUID, in its hyphenated form.
    SetUuid(uuid::Uuid),
}

/// A token may hold what opens a keyslot.
impl fmt::Debug for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutToken { number, replace, .. } => {
                let mut shown = f.debug_struct("PutToken");
                shown.field("number", number).field("replace", replace).finish_non_exhaustive()
            }
            Self::RemoveToken { number } => write!(f, "RemoveToken({number})"),
            Self::SetPriority { keyslot, priority } => {
                write!(f, "SetPriority({keyslot}, {})", priority.name())
            }
            Self::SetLabel(label) => write!(f, "SetLabel({label:?})"),
            Self::SetSubsystem(subsystem) => write!(f, "SetSubsystem({subsystem:?})"),
            Self::SetUuid(uuid) => write!(f, "SetUuid({uuid})"),
        }
    }
}
