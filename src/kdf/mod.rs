//! The KDF of a new keyslot: its kind, and its cost, calibrated for a target time on this machine.

mod cost;
mod estimate;
mod machine;

use std::time::Duration;

pub use cost::{Cost, Pbkdf};
pub(crate) use cost::{LUKS1_DIGEST_SIZE, digest_iterations};
pub use estimate::estimate;

/// Default target time of a new keyslot: 2 seconds, as in QEMU and cryptsetup.
pub const DEFAULT_ITER_TIME: Duration = Duration::from_secs(2);
/// Fewest PBKDF2 iterations that QEMU and cryptsetup use or accept.
pub const MIN_ITERATIONS: u32 = 1000;
/// Fewest passes of Argon2 that cryptsetup uses or accepts.
pub const MIN_PASSES: u32 = 4;
