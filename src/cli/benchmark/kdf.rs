//! Speed of key derivation.

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use keyslot::crypto::calibrate::Rate;
use keyslot::crypto::{Argon2Variant, HashAlg, KdfKind, kdf};
use keyslot::{ErrorKind, Result};
use serde::Serialize;

use super::super::KdfName;

/// A key derivation function to be measured.
#[derive(Clone, Copy)]
pub enum Kdf {
    Pbkdf2(HashAlg),
    Argon2(Argon2Variant),
}

impl Kdf {
    /// All functions of this name or, without a name, all functions.
    pub fn all(name: Option<KdfName>) -> Vec<Self> {
        let hashes = HashAlg::ALL.iter().map(|&hash| Self::Pbkdf2(hash));
        match name {
            None => hashes.chain(ARGON2.map(Self::Argon2)).collect(),
            Some(KdfName::Pbkdf2) => hashes.collect(),
            Some(KdfName::Argon2i) => vec![Self::Argon2(Argon2Variant::Argon2i)],
            Some(KdfName::Argon2id) => vec![Self::Argon2(Argon2Variant::Argon2id)],
        }
    }

    pub fn measure(self) -> Result<KdfSpeed> {
        let variant = match self {
            Self::Pbkdf2(hash) => {
                return Ok(KdfSpeed::Pbkdf2 {
                    kdf: KdfKind::Pbkdf2.name(),
                    hash: hash.name(),
                    key_bits: BITS,
                    iterations_per_second: iterations(hash),
                });
            }
            Self::Argon2(variant) => variant,
        };
        let Speed { kib_passes, memory, lanes } = Speed::measure(variant)?;
        let millis = u64::try_from(of_defaults(kib_passes).as_millis()).unwrap_or(u64::MAX);
        Ok(KdfSpeed::Argon2 {
            kdf: variant.name(),
            key_bits: BITS,
            memory_kib: memory,
            parallelism: lanes,
            kib_passes_per_second: kib_passes,
            cryptsetup_default_ms: millis,
        })
    }
}

/// Speed of a key derivation function. Displays as a row of the table.
#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
pub enum KdfSpeed {
    Pbkdf2 {
        kdf: &'static str,
        hash: &'static str,
        key_bits: usize,
        iterations_per_second: u64,
    },
    Argon2 {
        kdf: &'static str,
        key_bits: usize,
        memory_kib: u32,
        parallelism: u32,
        kib_passes_per_second: u64,
        cryptsetup_default_ms: u64,
    },
}

impl Display for KdfSpeed {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pbkdf2 { hash, key_bits, iterations_per_second: rate, .. } => {
                let name = format!("PBKDF2-{hash}");
                write!(f, "{name:<18}{rate:>12} iterations/s for a key of {key_bits} bits")
            }
            Self::Argon2 { kdf, memory_kib, parallelism, kib_passes_per_second: rate, .. } => {
                let time = of_defaults(*rate).as_secs_f64();
                let mib = memory_kib >> 10;
                write!(
                    f,
                    "{kdf:<18}{rate:>12} KiB-passes/s in {mib} MiB and {parallelism} lanes; \
                     4 passes over 1 GiB: {time:.2} s",
                )
            }
        }
    }
}

/// PBKDF2 iterations per second for a key of [`BITS`].
fn iterations(hash: HashAlg) -> u64 {
    let rates = (0..TRIES).map(|_| Rate::measure(hash, TRY));
    let second = Duration::from_secs(1);
    rates.map(|rate| rate.iterations(BITS / 8, second)).max().unwrap_or_default()
}

/// Speed of Argon2, and the memory and lanes it was measured with.
struct Speed {
    /// Passes over a KiB, per second. Not 0.
    kib_passes: u64,
    /// KiB
    memory: u32,
    lanes: u32,
}

impl Speed {
    /// Measures the best of several runs, in less memory if it cannot be allocated.
    fn measure(variant: Argon2Variant) -> Result<Self> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let lanes = u32::try_from(cpus).map_or(MOST_LANES, |cpus| cpus.min(MOST_LANES));
        let mut memory = MOST_MEMORY;
        let mut best = Duration::MAX;
        let mut tries = 0;
        while tries < TRIES {
            let start = Instant::now();
            let cost = [PASSES, memory, lanes];
            match kdf::argon2(variant, b"passphrase", &[0; 32], cost, &mut [0; BITS / 8]) {
                Ok(()) => best = best.min(start.elapsed()),
                Err(error) if error.kind() == ErrorKind::OutOfMemory && memory > LEAST_MEMORY => {
                    memory /= 2;
                    (best, tries) = (Duration::MAX, 0);
                    continue;
                }
                Err(error) => return Err(error),
            }
            tries += 1;
        }
        let work = u128::from(PASSES) * u128::from(memory) * NANOS_PER_SECOND;
        let kib_passes = u64::try_from(work / best.as_nanos().max(1)).unwrap_or(u64::MAX).max(1);
        Ok(Self { kib_passes, memory, lanes })
    }
}

/// Time that a keyslot with cryptsetup's defaults takes to open: 4 passes over 1 GiB, in the same
/// number of lanes.
fn of_defaults(kib_passes: u64) -> Duration {
    let work = u128::from(PASSES) << 20;
    let nanos = work * NANOS_PER_SECOND / u128::from(kib_passes);
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

const ARGON2: [Argon2Variant; 2] = [Argon2Variant::Argon2i, Argon2Variant::Argon2id];
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Length of the key that is derived
const BITS: usize = 256;
/// Number of measurements, of which the fastest counts
const TRIES: u32 = 3;
/// Length of one PBKDF2 measurement
const TRY: Duration = Duration::from_millis(20);
/// Passes of Argon2: the minimum and usual number in cryptsetup
const PASSES: u32 = 4;
/// Maximum in cryptsetup
const MOST_LANES: u32 = 4;
/// Memory for Argon2 in KiB: far beyond any cache, yet a run takes less than a second
const MOST_MEMORY: u32 = 128 << 10;
const LEAST_MEMORY: u32 = 1 << 10;
