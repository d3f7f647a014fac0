//! Between a passphrase and the volume key: [`unlock`] takes the key out of a keyslot,
//! [`seal`] makes the key material that goes into one.

mod cost;
mod estimate;
mod machine;
mod seal;
mod search;
mod unlock;

use std::fmt::Display;
use std::time::Duration;

pub(crate) use cost::digest_iterations;
pub use cost::{Cost, Pbkdf};
pub use estimate::estimate;
pub(crate) use seal::seal_with_salt;
pub use seal::{new_digest, new_luks2_digest, seal};
pub use search::{Candidate, Outcome, Until, search};
pub use unlock::{Unlocked, cannot_open, opens, unlock, unlock_keyslot, wrong_secret};

use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::Keyslot;

/// How much work a header may ask for. What asks for more is refused, not clamped.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// PBKDF2 iterations of a keyslot or a digest
    pub iterations: u32,
    /// Memory of Argon2 in KiB
    pub memory: u32,
    /// Passes of Argon2 over its memory times that memory in KiB: what it takes of time
    pub memory_passes: u64,
    /// Lanes of Argon2, each a thread
    pub parallelism: u32,
}

impl Limits {
    /// Whatever the header asks for, be it an hour.
    pub const NONE: Self = Self {
        iterations: u32::MAX,
        memory: u32::MAX,
        memory_passes: u64::MAX,
        parallelism: u32::MAX,
    };

    /// The same limits with another one on PBKDF2 iterations.
    #[must_use]
    pub fn with_iterations(self, iterations: u32) -> Self {
        Self { iterations, ..self }
    }

    /// The same limits with another one on the memory of Argon2, in KiB.
    #[must_use]
    pub fn with_memory(self, memory: u32) -> Self {
        Self { memory, ..self }
    }

    pub(crate) fn admit(self, what: impl Display, iterations: u32) -> Result<()> {
        within(what, iterations.into(), "iterations", self.iterations.into())
    }

    /// Judges what a keyslot and its digest ask for.
    fn admit_keyslot(self, keyslot: &Keyslot<'_>) -> Result<()> {
        self.admit_kdf(format_args!("keyslot {}", keyslot.index), keyslot.kdf.alg)?;
        self.admit("the volume key digest", keyslot.digest.iterations)
    }

    /// Judges the cost of a new keyslot. It is refused, and the limits may be ignored.
    pub(crate) fn admit_new(self, what: impl Display + Copy, kdf: KdfAlg) -> Result<()> {
        let hint = match kdf {
            KdfAlg::Argon2 { time, .. } if time >= MIN_ITERATIONS => {
                "use --pbkdf pbkdf2 for iterations; --ignore-limits takes that many passes of Argon2"
            }
            _ => "use --ignore-limits to make it all the same",
        };
        let refused =
            |error: Error| Error::new(ErrorKind::Refused, error.message()).with_hint(hint);
        self.admit_kdf(what, kdf).map_err(refused)
    }

    /// Judges what a keyslot asks for, before anything is done or had for it.
    pub(crate) fn admit_kdf(self, what: impl Display + Copy, kdf: KdfAlg) -> Result<()> {
        match kdf {
            KdfAlg::Pbkdf2 { iterations, .. } => self.admit(what, iterations),
            KdfAlg::Argon2 { time, memory, parallelism, .. } => {
                let passes = u64::from(time) * u64::from(memory);
                within(what, memory.into(), "KiB of memory", self.memory.into())?;
                within(what, passes, "passes over a KiB of memory", self.memory_passes)?;
                within(what, parallelism.into(), "lanes", self.parallelism.into())
            }
        }
    }
}

impl Default for Limits {
    /// 2^28 iterations: about a minute on a machine of 2025, for a key that was made to take two
    /// seconds on one a few times faster than any there is. Argon2: 4 GiB, the most that cryptsetup
    /// uses; 2^28 KiB in all passes, again a minute or two, where cryptsetup's defaults make 2^22;
    /// 16 lanes, where it has at most 4.
    fn default() -> Self {
        Self { iterations: 1 << 28, memory: 4 << 20, memory_passes: 1 << 28, parallelism: 16 }
    }
}

fn within(what: impl Display, asked: u64, unit: &str, limit: u64) -> Result<()> {
    if asked <= limit {
        return Ok(());
    }
    let text = format!("{what} asks for {asked} {unit}, the limit is {limit}");
    Err(Error::new(ErrorKind::Limit, text))
}

/// The default of QEMU and cryptsetup: two seconds of PBKDF2.
pub const DEFAULT_ITER_TIME: Duration = Duration::from_secs(2);
/// The least that QEMU and cryptsetup use or accept.
pub const MIN_ITERATIONS: u32 = 1000;
/// The least passes of Argon2 that cryptsetup uses or accepts.
pub const MIN_PASSES: u32 = 4;
