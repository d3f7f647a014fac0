//! Changes to a header that touch no key.

use std::fmt;

use super::Priority;
use crate::json::Object;

/// A change to a header that touches no key. LUKS1 supports only a new UUID.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub enum Edit {
    /// Adds or replaces a token, which describes a source of a passphrase (LUKS2 specification,
    /// section 3.3).
    PutToken {
        /// Number of the token, 0 to 31. The default is the first free number
        number: Option<usize>,
        /// Members of the token, including `type` and `keyslots`
        token: Object,
        /// Whether an existing token may be replaced
        replace: bool,
    },
    /// Removes a token. Its keyslots stay.
    RemoveToken {
        /// Number of the token
        number: usize,
    },
    /// Sets the priority of a keyslot.
    SetPriority {
        /// Index of the keyslot
        keyslot: usize,
        /// New priority
        priority: Priority,
    },
    /// Sets the label, at most 47 bytes. An empty one removes it.
    SetLabel(String),
    /// Sets the subsystem, at most 47 bytes. An empty one removes it.
    SetSubsystem(String),
    /// Sets the UUID, in its hyphenated form.
    SetUuid(uuid::Uuid),
}

/// Hides the members of a token, which may contain a secret.
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
