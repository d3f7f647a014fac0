//! Between a passphrase and the volume key: [`unlock`] takes the key out of a keyslot,
//! [`seal`] makes the key material that goes into one.

mod cost;
mod estimate;
mod limits;
mod machine;
mod seal;
mod search;
mod unlock;

use std::time::Duration;

pub(crate) use cost::digest_iterations;
pub use cost::{Cost, Pbkdf};
pub use estimate::estimate;
pub use limits::Limits;
pub(crate) use seal::seal_with_salt;
pub use seal::{new_digest, new_luks2_digest, seal};
pub(crate) use search::search_admitted;
pub use search::{Candidate, Outcome, Until, search};
pub(crate) use unlock::INTERRUPTED;
pub use unlock::{Unlocked, cannot_open, opens, unlock, unlock_keyslot, wrong_secret};

/// The default of QEMU and cryptsetup: two seconds of PBKDF2.
pub const DEFAULT_ITER_TIME: Duration = Duration::from_secs(2);
/// The least that QEMU and cryptsetup use or accept.
pub const MIN_ITERATIONS: u32 = 1000;
/// The least passes of Argon2 that cryptsetup uses or accepts.
pub const MIN_PASSES: u32 = 4;
