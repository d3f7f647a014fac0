//! Between a passphrase and the volume key: [`unlock`] takes the key out of a keyslot, `seal` makes the
//! key material that goes into one.

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
