//! Requests to change keyslots.

use crate::error::Result;
use crate::kdf::Pbkdf;
use crate::overrides::Overrides;
use crate::secret::Passphrase;

/// Changes to make in one amendment. All are checked before the first is made.
///
/// In LUKS2 the changes are atomic, except replacements that must wait for each other's areas. In
/// LUKS1, changes within one header sector are atomic. If the storage fails between other changes, the
/// error says which were made.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Request {
    /// Changes, each of which applies to the result of those before it
    pub changes: Vec<Change>,
    /// Safety checks to override
    pub overrides: Overrides,
    /// Whether LUKS2 tokens that lose their last keyslot stay. By default they are removed
    pub keep_tokens: bool,
}

/// One change of keyslots.
///
/// A secret that could not be read is passed as its error, which is reported only when the secret is
/// needed. Earlier checks then fail first, as in QEMU.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// Adds a secret in a keyslot.
    Add {
        /// Index of the keyslot. The default is the first inactive one. An active keyslot requires
        /// [`Override::OverwriteKeyslot`](crate::Override::OverwriteKeyslot).
        keyslot: Option<i64>,
        /// The new secret
        new_secret: Result<Passphrase>,
        /// KDF and cost of the new keyslot
        pbkdf: Pbkdf,
    },
    /// Erases keyslots: one by index, or all that a secret opens.
    Erase {
        /// Index of the keyslot. If `old_secret` is given too, it must open this keyslot
        keyslot: Option<i64>,
        /// Secret of the keyslots to erase
        old_secret: Option<Result<Passphrase>>,
    },
    /// Replaces the secret of keyslots: of one by index, or of all that the old secret opens.
    Replace {
        /// Index of the keyslot. If `old_secret` is given too, it must open this keyslot
        keyslot: Option<i64>,
        /// Secret to replace
        old_secret: Option<Result<Passphrase>>,
        /// The new secret
        new_secret: Result<Passphrase>,
        /// KDF and cost of the new keyslot
        pbkdf: Pbkdf,
    },
}

impl Change {
    /// Adds a secret in the first inactive keyslot.
    pub fn add(new_secret: &Passphrase, pbkdf: impl Into<Pbkdf>) -> Self {
        let pbkdf = pbkdf.into();
        Self::Add { keyslot: None, new_secret: Ok(new_secret.clone()), pbkdf }
    }

    /// Erases the keyslot with this index.
    pub fn erase(keyslot: usize) -> Self {
        let keyslot = i64::try_from(keyslot).unwrap_or(i64::MAX);
        Self::Erase { keyslot: Some(keyslot), old_secret: None }
    }

    /// Erases every keyslot that the secret opens.
    pub fn erase_secret(old_secret: &Passphrase) -> Self {
        Self::Erase { keyslot: None, old_secret: Some(Ok(old_secret.clone())) }
    }

    /// Replaces a secret in every keyslot that it opens.
    pub fn replace(
        old_secret: &Passphrase,
        new_secret: &Passphrase,
        pbkdf: impl Into<Pbkdf>,
    ) -> Self {
        Self::Replace {
            keyslot: None,
            old_secret: Some(Ok(old_secret.clone())),
            new_secret: Ok(new_secret.clone()),
            pbkdf: pbkdf.into(),
        }
    }
}

impl Request {
    /// Creates a request for these changes.
    pub fn new(changes: Vec<Change>) -> Self {
        Self { changes, overrides: Overrides::NONE, keep_tokens: false }
    }

    /// Creates a request for one change.
    pub fn one(change: Change) -> Self {
        Self::new(vec![change])
    }

    /// Sets the safety checks to override.
    #[must_use]
    pub fn overrides(mut self, overrides: impl Into<Overrides>) -> Self {
        self.overrides = overrides.into();
        self
    }

    /// Sets whether LUKS2 tokens that lose their last keyslot stay. By default they are removed.
    #[must_use]
    pub fn keep_tokens(mut self, keep_tokens: bool) -> Self {
        self.keep_tokens = keep_tokens;
        self
    }
}
