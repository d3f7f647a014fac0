//! Limits on the work that a header may ask for.
//!
//! The time limit applies to computed time: the time that the work would take on a PC of 2025, by the
//! figures below. The verdict is therefore the same on every machine and needs no measurement.

use std::fmt::Display;
use std::time::Duration;

use crate::crypto::{HashAlg, KdfAlg};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Keyslot;
use crate::kdf::MIN_ITERATIONS;

/// Limits on the work that a header may ask for. A header that asks for more is refused, not clamped.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Total time of all keyslots that one passphrase is tried on, computed for a PC of 2025:
    /// 70 ns for an iteration of PBKDF2 with SHA-256, up to 1.4 µs with other hashes; 0.7 µs for each
    /// pass of Argon2 over a KiB, divided among up to four lanes
    pub time: Duration,
    /// PBKDF2 iterations of a keyslot or a digest
    pub iterations: u32,
    /// Argon2 memory in KiB
    pub memory: u32,
    /// Argon2 lanes, each of which is a thread
    pub parallelism: u32,
}

impl Limits {
    /// No limits: an attempt may take years.
    pub const NONE: Self =
        Self { time: Duration::MAX, iterations: u32::MAX, memory: u32::MAX, parallelism: u32::MAX };

    /// Sets the limit on time.
    #[must_use]
    pub fn with_time(self, time: Duration) -> Self {
        Self { time, ..self }
    }

    /// Sets the limit on PBKDF2 iterations.
    #[must_use]
    pub fn with_iterations(self, iterations: u32) -> Self {
        Self { iterations, ..self }
    }

    /// Sets the limit on Argon2 memory, in KiB.
    #[must_use]
    pub fn with_memory(self, memory: u32) -> Self {
        Self { memory, ..self }
    }

    /// Judges the keyslots that a passphrase will be tried on, before any work is done. The cheapest
    /// are admitted first, so that one absurd keyslot does not exclude the others.
    pub(crate) fn admit(&self, keyslots: &[Keyslot<'_>]) -> Vec<Result<()>> {
        let mut judged: Vec<_> = keyslots
            .iter()
            .map(|it| self.admit_alone(it).map_err(|error| error.with_keyslot(it.index)))
            .collect();
        let mut by_time: Vec<_> = (0..keyslots.len()).collect();
        by_time.sort_by_key(|&place| judged[place].as_ref().ok().copied());
        let mut spent = Duration::ZERO;
        for place in by_time {
            let Ok(time) = judged[place] else { continue };
            if spent.saturating_add(time) <= self.time {
                spent += time;
                continue;
            }
            let index = keyslots[place].index;
            let [time, before, limit] = [time, spent, self.time].map(about);
            let text = format!(
                "keyslot {index} asks for {time} of work after {before} for cheaper keyslots, \
                the limit is {limit} in total"
            );
            judged[place] = Err(Error::new(ErrorKind::Limit, text).with_keyslot(index));
        }
        judged.into_iter().map(|time| time.map(|_| ())).collect()
    }

    /// Time of a keyslot and its digest, judged without regard to other keyslots.
    fn admit_alone(&self, keyslot: &Keyslot<'_>) -> Result<Duration> {
        let key_size = keyslot.encryption.key_size();
        let digest = &keyslot.digest;
        let check = KdfAlg::Pbkdf2 { hash: digest.hash, iterations: digest.iterations };
        let of_keyslot =
            self.admit_kdf(format_args!("keyslot {}", keyslot.index), keyslot.kdf.alg, key_size)?;
        let of_digest = self.admit_kdf("the volume key digest", check, digest.value.len())?;
        Ok(of_keyslot.saturating_add(of_digest))
    }

    /// Judges the cost of a new keyslot. The error is [`ErrorKind::Refused`], because the caller may
    /// ignore the limits.
    pub(crate) fn admit_new(
        &self,
        what: impl Display + Copy,
        kdf: KdfAlg,
        key_size: usize,
    ) -> Result<()> {
        let hint = match kdf {
            KdfAlg::Argon2 { time, .. } if time >= MIN_ITERATIONS => {
                "use --pbkdf pbkdf2 for that many iterations, or --ignore-limits for that many Argon2 passes"
            }
            _ => "use --ignore-limits to create it anyway",
        };
        let refused =
            |error: Error| Error::new(ErrorKind::Refused, error.message()).with_hint(hint);
        self.admit_kdf(what, kdf, key_size).map(|_| ()).map_err(refused)
    }

    /// Time of a derivation within the limits.
    pub(super) fn admit_kdf(
        &self,
        what: impl Display + Copy,
        kdf: KdfAlg,
        out_len: usize,
    ) -> Result<Duration> {
        match kdf {
            KdfAlg::Pbkdf2 { iterations, .. } => {
                within(what, iterations, "iterations", self.iterations)?;
            }
            KdfAlg::Argon2 { memory, parallelism, .. } => {
                within(what, memory, "KiB of memory", self.memory)?;
                within(what, parallelism, "lanes", self.parallelism)?;
            }
        }
        let time = time(kdf, out_len);
        if time <= self.time {
            return Ok(time);
        }
        let [time, limit] = [time, self.time].map(about);
        let cost = match kdf {
            KdfAlg::Pbkdf2 { iterations, .. } => format!("{iterations} iterations"),
            KdfAlg::Argon2 { time, memory, .. } => format!("{time} passes over {memory} KiB"),
        };
        let text = format!("{what} asks for {time} of work ({cost}), the limit is {limit}");
        Err(Error::new(ErrorKind::Limit, text))
    }
}

impl Default for Limits {
    /// Two minutes on a PC of 2025. The 32 keyslots of a LUKS2 header, calibrated on that PC for
    /// cryptsetup's default of two seconds, take about one minute. Argon2: 4 GiB, cryptsetup's
    /// maximum, and 16 lanes, where cryptsetup's maximum is 4.
    fn default() -> Self {
        let time = Duration::from_secs(120);
        Self { time, iterations: u32::MAX, memory: 4 << 20, parallelism: 16 }
    }
}

fn within(what: impl Display, asked: u32, unit: &str, limit: u32) -> Result<()> {
    if asked <= limit {
        return Ok(());
    }
    let text = format!("{what} asks for {asked} {unit}, the limit is {limit}");
    Err(Error::new(ErrorKind::Limit, text))
}

/// Time of a derivation on a PC of 2025, with one thread for PBKDF2 and one thread per Argon2 lane.
fn time(kdf: KdfAlg, out_len: usize) -> Duration {
    let nanos = match kdf {
        KdfAlg::Pbkdf2 { hash, iterations } => {
            let blocks = out_len.div_ceil(hash.digest_size()) as u128;
            u128::from(nanos(hash)) * u128::from(iterations) * blocks
        }
        KdfAlg::Argon2 { time, memory, parallelism, .. } => {
            let work = u128::from(time) * u128::from(memory) * ARGON2_NANOS;
            work / u128::from(parallelism.clamp(1, MOST_CORES))
        }
    };
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Nanoseconds per iteration of one output block on a Zen 5 core, as measured by
/// [`Rate`](crate::crypto::calibrate::Rate).
fn nanos(hash: HashAlg) -> u32 {
    match hash {
        HashAlg::Sha1 | HashAlg::Sha256 => 70,
        HashAlg::Sha224 => 120,
        HashAlg::Md5 => 180,
        HashAlg::Sha384
        | HashAlg::Sha512
        | HashAlg::Sha512_224
        | HashAlg::Sha512_256
        | HashAlg::Ripemd160
        | HashAlg::Sm3
        | HashAlg::Blake2s256 => 320,
        HashAlg::Blake2b512 => 370,
        HashAlg::Sha3_224 | HashAlg::Sha3_256 | HashAlg::Sha3_384 | HashAlg::Sha3_512 => 1000,
        HashAlg::Whirlpool => 1400,
    }
}

/// Formats a duration in the largest unit that fits at least twice, rounded down.
fn about(time: Duration) -> String {
    const UNITS: [(u64, &str); 5] =
        [(31_557_600, "years"), (86_400, "days"), (3600, "hours"), (60, "minutes"), (1, "seconds")];
    let seconds = time.as_secs();
    match UNITS.iter().find(|(unit, _)| seconds >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{} ms", time.as_millis()),
    }
}

/// Nanoseconds per KiB and pass of one Argon2 lane
const ARGON2_NANOS: u128 = 700;
/// Lanes assumed to run in parallel: cryptsetup's maximum
const MOST_CORES: u32 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::Argon2Variant;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn times_are_weighed_by_the_hash_and_the_length() {
        let pbkdf2 = |hash| KdfAlg::Pbkdf2 { hash, iterations: 1 << 28 };
        for (hash, len, expected) in [
            (HashAlg::Sha256, 32, "18 seconds"),
            (HashAlg::Sha256, 64, "37 seconds"),
            (HashAlg::Sha1, 20, "18 seconds"),
            (HashAlg::Sha512, 64, "85 seconds"),
            (HashAlg::Whirlpool, 64, "6 minutes"),
            (HashAlg::Md5, 64, "3 minutes"),
        ] {
            assert_eq!(about(time(pbkdf2(hash), len)), expected, "{}", hash.name());
        }
        let argon2 = |passes, parallelism| KdfAlg::Argon2 {
            variant: Argon2Variant::Argon2id,
            time: passes,
            memory: 1 << 20,
            parallelism,
        };
        assert_eq!(about(time(argon2(4, 1), 64)), "2 seconds");
        assert_eq!(about(time(argon2(4, 4), 64)), "734 ms");
        assert_eq!(time(argon2(4, 16), 64), time(argon2(4, 4), 64));
        assert_eq!(about(time(argon2(u32::MAX, 0), 64)), "99 years");
    }

    #[test]
    fn durations_are_read_easily() {
        for (seconds, expected) in
            [(1, "1000 ms"), (2, "2 seconds"), (119, "119 seconds"), (120, "2 minutes")]
        {
            assert_eq!(about(seconds * SECOND), expected);
        }
        assert_eq!(about(7200 * SECOND), "2 hours");
        assert_eq!(about(Duration::from_nanos(u64::MAX)), "584 years");
    }
}
