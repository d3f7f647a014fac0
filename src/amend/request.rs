//! What somebody wants changed.

use crate::error::Result;
use crate::kdf::Pbkdf;
use crate::overrides::Overrides;
use crate::secret::Passphrase;

/// An amendment: changes that are all checked before one is made.
///
/// In LUKS2 they happen all or none, whatever happens, but for replacements that have to wait for
/// each other's areas; in LUKS1 those that fit one sector of the header do. If the storage fails
/// between others, the error says which are made.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The changes; each is judged on what the ones before it leave
    pub changes: Vec<Change>,
    /// Refusals that do not hold
    pub overrides: Overrides,
}

/// One change of keyslots.
///
/// A secret that could not be had is carried as its error: it is reported when the secret is
/// needed, after the checks that come first.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// A new secret into a keyslot.
    Add {
        /// The keyslot, or the first inactive one. An active one takes
        /// [`Override::OverwriteKeyslot`](crate::Override::OverwriteKeyslot).
        keyslot: Option<i64>,
        /// The new secret
        new_secret: Result<Passphrase>,
        /// Its KDF, and how long an opening shall take
        pbkdf: Pbkdf,
    },
    /// Keyslots made inactive and overwritten: one by index, or all that a secret opens.
    Erase {
        /// The keyslot; if `old_secret` is given too, it must open it
        keyslot: Option<i64>,
        /// The secret, as above
        old_secret: Option<Result<Passphrase>>,
    },
    /// A new secret in place of the old, in the same keyslot: one by index, or all that the old
    /// secret opens.
    Replace {
        /// The keyslot; if `old_secret` is given too, it must open it
        keyslot: Option<i64>,
        /// The secret, as above
        old_secret: Option<Result<Passphrase>>,
        /// The new secret
        new_secret: Result<Passphrase>,
        /// Its KDF, and how long an opening shall take
        pbkdf: Pbkdf,
    },
}

impl Change {
    /// A new secret into the first inactive keyslot.
    pub fn add(new_secret: &Passphrase, pbkdf: impl Into<Pbkdf>) -> Self {
        let pbkdf = pbkdf.into();
        Self::Add { keyslot: None, new_secret: Ok(new_secret.clone()), pbkdf }
    }

    /// The keyslot of this index erased.
    pub fn erase(keyslot: usize) -> Self {
        let keyslot = i64::try_from(keyslot).unwrap_or(i64::MAX);
        Self::Erase { keyslot: Some(keyslot), old_secret: None }
    }

    /// Every keyslot erased that the secret opens.
    pub fn erase_secret(old_secret: &Passphrase) -> Self {
        Self::Erase { keyslot: None, old_secret: Some(Ok(old_secret.clone())) }
    }

    /// One secret replaced by another, in every keyslot that it opens.
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
    /// An amendment of one change.
    pub fn one(change: Change) -> Self {
        Self { changes: vec![change], overrides: Overrides::NONE }
    }

    /// The same amendment with these refusals lifted.
    #[must_use]
    pub fn overrides(mut self, overrides: impl Into<Overrides>) -> Self {
        self.overrides = overrides.into();
        self
    }
}
