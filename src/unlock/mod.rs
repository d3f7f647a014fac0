//! Conversion between a volume key and key material under a passphrase: [`unlock`] recovers the key
//! from a keyslot, `seal` makes the key material of a new one.

mod limits;
mod seal;
mod search;
mod unlocked;

pub use limits::Limits;
pub(crate) use seal::seal_with_salt;
#[doc(hidden)]
pub use seal::{new_digest, seal};
pub use search::Until;
pub(crate) use search::search_admitted;
#[doc(hidden)]
pub use search::{Candidate, Outcome, search};
pub(crate) use unlocked::{INTERRUPTED, confirm};
pub use unlocked::{Unlocked, unlock, unlock_keyslot};
#[doc(hidden)]
pub use unlocked::{cannot_open, opens, wrong_secret};
