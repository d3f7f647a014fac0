//! Refusals that a caller may override, each by itself.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Something that is refused unless the caller asks for it.
///
/// An error that an override lifts has it as its [reason](Error::reason):
/// `error.reason::<Override>()`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Override {
    /// Adds a secret to an active keyslot, which loses its old one.
    OverwriteKeyslot,
    /// Overwrites the area of a keyslot that is inactive already.
    EraseInactive,
    /// Erases the last keyslot with a key, and with it all data under that key.
    LoseKey,
    /// Writes over what is in use if there is no room beside it. An interruption then loses
    /// secrets.
    InPlace,
    /// Restores a backup that was not made of this image.
    ForeignHeader,
    /// Writes a header over data that may belong to something else now.
    ForeignData,
    /// Replaces a copy of a LUKS2 header that may be newer than the one that can be read.
    NewerCopy,
    /// Puts a token in the place of another one.
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

    /// The error of what this lifts.
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
            Self::ForeignHeader => "the header is of another image",
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

    /// Every override if the caller insists on all of it, or else none.
    pub const fn all_if(is_forced: bool) -> Self {
        if is_forced { Self::ALL } else { Self::NONE }
    }

    /// The set with `more` in it.
    #[must_use]
    pub const fn with(self, more: Override) -> Self {
        Self(self.0 | bit(more))
    }

    /// Whether the set has this override.
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
