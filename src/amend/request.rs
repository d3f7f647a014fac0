//! What somebody wants changed.

use crate::error::Result;
use crate::keyslot::Cost;
use crate::secret::Passphrase;

/// An amendment: changes that all happen or none, in this order.
#[derive(Debug, Default)]
pub struct Request {
    /// The changes; each is judged on what the ones before it leave
    pub changes: Vec<Change>,
    /// Do what would destroy data, or is no change at all
    pub force: bool,
}

/// One change of keyslots.
///
/// A secret that could not be had is carried as its error: it is reported when the secret is
/// needed, after the checks that come first.
#[derive(Debug)]
pub enum Change {
    /// A new secret into a keyslot.
    Add {
        /// The keyslot, or the first inactive one. An active one is overwritten if forced.
        keyslot: Option<i64>,
        /// The new secret
        new_secret: Result<Passphrase>,
        /// How long an opening shall take
        cost: Cost,
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
        /// How long an opening shall take
        cost: Cost,
    },
}

impl Request {
    /// An amendment of one change.
    pub fn one(change: Change) -> Self {
        Self { changes: vec![change], force: false }
    }

    /// The same amendment, forced or not.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.force = force;
        self
    }
}
