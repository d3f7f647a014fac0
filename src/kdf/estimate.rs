//! Estimate of how long an opening takes on this machine.

use std::time::{Duration, Instant};

use super::cost::{SHORTEST_MEASURE, check_time, measure, merge_time};
use crate::crypto::KdfAlg;
use crate::crypto::kdf::argon2;
use crate::error::Result;
use crate::header::Keyslot;

/// Estimates how long it takes to open a keyslot with the right secret: KDF, merging, and the check of
/// the digest, on one thread or on one thread per Argon2 lane.
///
/// PBKDF2 is measured for a few milliseconds, Argon2 by one pass over at most 64 MiB. Fails if that
/// memory cannot be allocated or the keyslot's cipher does not work.
pub fn estimate(keyslot: &Keyslot<'_>) -> Result<Duration> {
    let merge = merge_time(keyslot.encryption, keyslot.af_hash, keyslot.key_size)?;
    let kdf = match keyslot.kdf.alg {
        KdfAlg::Pbkdf2 { hash, iterations } => {
            let rate = measure(hash, SHORTEST_MEASURE);
            rate.time(keyslot.encryption.key_size(), iterations.into())
        }
        KdfAlg::Argon2 { variant, time, memory, parallelism } => {
            // Bound the probe, so that a hostile header cannot make the estimate expensive.
            let (lanes, probe) = (parallelism.min(LANES), memory.min(PROBE));
            let start = Instant::now();
            argon2(variant, b"passphrase", &[0; 32], [1, probe, lanes], &mut [0; 64])?;
            // The time is nearly linear in KiB and passes.
            let work = u128::from(time) * u128::from(memory);
            let nanos = start.elapsed().as_nanos().saturating_mul(work) / u128::from(probe.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
    };
    Ok(kdf.saturating_add(merge).saturating_add(check_time(&keyslot.digest, None)))
}

/// KiB of memory that a measurement uses
const PROBE: u32 = 64 << 10;
/// Lanes of a measurement: cryptsetup's maximum
const LANES: u32 = 4;
