//! Safety checks that a caller can override one by one.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// A safety check that the caller can override.
///
/// An error that an override lifts carries that override as its [reason](Error::reason):
/// `error.reason::<Override>()`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Override {
    /// Adds a secret to an active keyslot, whose old secret is lost.
    OverwriteKeyslot,
    /// Overwrites the area of a keyslot that is already inactive.
    EraseInactive,
    /// Erases the last keyslot that holds a key. All data under that key is lost.
    LoseKey,
    /// Overwrites key material in place if there is no room for a second copy. An interruption
    /// then loses secrets.
    InPlace,
    /// Restores a backup of another image.
    ForeignHeader,
    /// Writes a header over data that may now belong to something else.
    ForeignData,
    /// Replaces an unreadable copy of a LUKS2 header that may be newer than the readable one.
    NewerCopy,
    /// Replaces an existing token.
    ReplaceToken,
}

impl Override {
    /// Every override.
    pub const ALL: [Self; 8] = [
        Self::OverwriteKeyslot,
        Self::EraseInactive,
        Self::LoseKey,
        Self::InPlace,
        Self::ForeignHeader,
        Self::ForeignData,
        Self::NewerCopy,
        Self::ReplaceToken,
    ];

    /// Creates an error that this override lifts.
    pub(crate) fn refused(self, text: impl Into<String>) -> Error {
        Error::new(ErrorKind::Refused, text).with_reason(self)
    }
}

impl fmt::Display for Override {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OverwriteKeyslot => "an active keyslot would be overwritten",
            Self::EraseInactive => "the keyslot is inactive",
            Self::LoseKey => "a key would be lost",
            Self::InPlace => "an interruption would lose secrets",
            Self::ForeignHeader => "the header belongs to another image",
            Self::ForeignData => "the data may belong to something else",
            Self::NewerCopy => "the other copy of the header may be newer",
            Self::ReplaceToken => "another token would be replaced",
        })
    }
}

impl std::error::Error for Override {}

/// A set of overrides: none by default.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Overrides(u16);

impl Overrides {
    /// No override.
    pub const NONE: Self = Self(0);
    /// Every override.
    pub const ALL: Self = Self(u16::MAX);

    /// Every override if `is_forced`, otherwise none.
    pub const fn all_if(is_forced: bool) -> Self {
        if is_forced { Self::ALL } else { Self::NONE }
    }

    /// Adds an override to the set.
    #[must_use]
    pub const fn with(self, more: Override) -> Self {
        Self(self.0 | bit(more))
    }

    /// Whether the set contains this override.
    pub const fn has(self, one: Override) -> bool {
        self.0 & bit(one) != 0
    }
}

const fn bit(one: Override) -> u16 {
    1 << one as u16
}

impl From<Override> for Overrides {
    fn from(one: Override) -> Self {
        Self::NONE.with(one)
    }
}

impl FromIterator<Override> for Overrides {
    fn from_iter<I: IntoIterator<Item = Override>>(all: I) -> Self {
        all.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Overrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Override::ALL.iter().filter(|it| self.has(**it))).finish()
    }
}
