//! Between a passphrase and the volume key: [`unlock`] takes the key out of a keyslot,
//! [`seal`] makes the key material that goes into one.

mod limits;
mod seal;
mod search;
mod unlocked;

pub use limits::Limits;
pub(crate) use seal::seal_with_salt;
pub use seal::{new_digest, seal};
pub(crate) use search::search_admitted;
pub use search::{Candidate, Outcome, Until, search};
pub(crate) use unlocked::{INTERRUPTED, confirm};
pub use unlocked::{Unlocked, cannot_open, opens, unlock, unlock_keyslot, wrong_secret};
