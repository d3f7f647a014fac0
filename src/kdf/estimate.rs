//! How long an opening takes on this machine, without doing it.

use std::time::{Duration, Instant};

use super::cost::{SHORTEST_MEASURE, check_time, measure, merge_time};
use crate::crypto::KdfAlg;
use crate::crypto::kdf::argon2;
use crate::error::Result;
use crate::header::Keyslot;

/// About how long it takes to open a keyslot with the right secret: its KDF, the merging, and the check
/// of its digest, by one thread, or by as many as Argon2 has lanes.
///
/// PBKDF2 is measured for some milliseconds, Argon2 by one pass over 64 MiB at most. Fails if there is
/// no memory for that, or the keyslot's cipher does not work.
pub fn estimate(keyslot: &Keyslot<'_>) -> Result<Duration> {
    let merge = merge_time(keyslot.encryption, keyslot.af_hash, keyslot.key_size)?;
    let kdf = match keyslot.kdf.alg {
        KdfAlg::Pbkdf2 { hash, iterations } => {
            let rate = measure(hash, SHORTEST_MEASURE);
            rate.time(keyslot.encryption.key_size(), iterations.into())
        }
        KdfAlg::Argon2 { variant, time, memory, parallelism } => {
            // No more of either than costs little, whatever a header asks for.
            let (lanes, probe) = (parallelism.min(LANES), memory.min(PROBE));
            let start = Instant::now();
            argon2(variant, b"passphrase", &[0; 32], [1, probe, lanes], &mut [0; 64])?;
            // In KiB and passes it is linear, nearly.
            let work = u128::from(time) * u128::from(memory);
            let nanos = start.elapsed().as_nanos().saturating_mul(work) / u128::from(probe.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
    };
    Ok(kdf.saturating_add(merge).saturating_add(check_time(&keyslot.digest, None)))
}

/// KiB of memory that are a measurement
const PROBE: u32 = 64 << 10;
/// As many lanes as cryptsetup has at most
const LANES: u32 = 4;
