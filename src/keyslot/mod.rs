//! Between a passphrase and the volume key: [`unlock`] takes the key out of a keyslot,
//! [`seal`] makes the key material that goes into one.

mod seal;
mod unlock;

use std::time::Duration;

pub use seal::{Cost, new_digest, seal};
pub use unlock::{Unlocked, opens, unlock, wrong_secret};

use crate::error::{Error, ErrorKind, Result};

/// How much work a header may ask for. What asks for more is refused, not clamped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// PBKDF2 iterations of a keyslot or a digest
    pub iterations: u32,
}

impl Limits {
    /// Whatever the header asks for, be it an hour.
    pub const NONE: Self = Self { iterations: u32::MAX };

    /// The same limits with another one on PBKDF2 iterations.
    #[must_use]
    pub fn with_iterations(self, iterations: u32) -> Self {
        Self { iterations }
    }

    pub(crate) fn admit(self, what: impl std::fmt::Display, iterations: u32) -> Result<()> {
        if iterations <= self.iterations {
            return Ok(());
        }
        let text =
            format!("{what} asks for {iterations} iterations, the limit is {}", self.iterations);
        Err(Error::new(ErrorKind::Limit, text))
    }
}

impl Default for Limits {
    /// 2^28 iterations: about a minute on a machine of 2025, for a key that was made to take two
    /// seconds on one a few times faster than any there is.
    fn default() -> Self {
        Self { iterations: 1 << 28 }
    }
}

/// The default of QEMU and cryptsetup: two seconds of PBKDF2.
pub const DEFAULT_ITER_TIME: Duration = Duration::from_secs(2);
/// The least that QEMU and cryptsetup use or accept.
pub const MIN_ITERATIONS: u32 = 1000;
