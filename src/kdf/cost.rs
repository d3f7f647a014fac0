//! Choice of the KDF of a new keyslot, and of its cost.

use std::time::{Duration, Instant};

use super::{DEFAULT_ITER_TIME, MIN_ITERATIONS, machine};
use crate::crypto::calibrate::{self, Rate};
use crate::crypto::{Argon2Variant, CipherSpec, HashAlg, KdfAlg, KdfKind, SectorCipher, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Digest, OwnedDigest, Template};

/// Target cost of opening a keyslot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cost {
    /// Exact number of PBKDF2 iterations or Argon2 passes
    Iterations(u32),
    /// Time that an opening takes on this machine; iterations or passes are calibrated for it
    Time(Duration),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Time(DEFAULT_ITER_TIME)
    }
}

/// KDF of a new keyslot. Unset fields take the header's or cryptsetup's defaults: a replaced keyslot
/// keeps its KDF, a new LUKS2 keyslot uses Argon2id, a new LUKS1 keyslot PBKDF2.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Pbkdf {
    /// Kind of KDF
    pub kind: Option<KdfKind>,
    /// Hash of PBKDF2 and of the anti-forensic split. In LUKS1 it must be the header's hash.
    pub hash: Option<HashAlg>,
    /// Target cost
    pub cost: Cost,
    /// Argon2 memory in KiB: an upper limit, or exact with [`Cost::Iterations`]. The default is
    /// 1 GiB or half of the machine's memory, whichever is less.
    pub memory: Option<u32>,
    /// Argon2 lanes. The default is the number of CPUs, up to 4.
    pub parallelism: Option<u32>,
}

impl From<Cost> for Pbkdf {
    fn from(cost: Cost) -> Self {
        Self { cost, ..Self::default() }
    }
}

impl Pbkdf {
    /// Sets the kind of KDF.
    #[must_use]
    pub fn kind(mut self, kind: impl Into<Option<KdfKind>>) -> Self {
        self.kind = kind.into();
        self
    }

    /// Sets the hash of PBKDF2 and of the anti-forensic split.
    #[must_use]
    pub fn hash(mut self, hash: impl Into<Option<HashAlg>>) -> Self {
        self.hash = hash.into();
        self
    }

    /// Sets the memory of Argon2 in KiB.
    #[must_use]
    pub fn memory(mut self, memory: impl Into<Option<u32>>) -> Self {
        self.memory = memory.into();
        self
    }

    /// Sets the number of lanes of Argon2.
    #[must_use]
    pub fn parallelism(mut self, parallelism: impl Into<Option<u32>>) -> Self {
        self.parallelism = parallelism.into();
        self
    }

    /// Kind of KDF, or `default` if none is set.
    pub fn kind_or(&self, default: KdfKind) -> KdfKind {
        self.kind.unwrap_or(default)
    }

    /// Refuses numbers outside cryptsetup's bounds, regardless of this machine.
    pub fn check(&self, default: KdfKind) -> Result<()> {
        let kind = self.kind_or(default);
        if kind == KdfKind::Pbkdf2 {
            return match (self.memory, self.parallelism) {
                (None, None) => Ok(()),
                _ => Err(invalid("memory and lanes apply only to Argon2, not to pbkdf2")),
            };
        }
        let lanes = self.parallelism.unwrap_or(1);
        if !(1..=MAX_LANES).contains(&lanes) {
            let text = format!("{lanes} Argon2 lanes: must be 1 to {MAX_LANES}");
            return Err(invalid(text));
        }
        let least = MIN_MEMORY.max(8 * lanes);
        match self.memory {
            Some(memory) if !(least..=MAX_MEMORY).contains(&memory) => {
                let text = format!("{memory} KiB of memory: must be {least} to {MAX_MEMORY}");
                Err(invalid(text))
            }
            _ => Ok(()),
        }
    }

    /// Chooses the KDF of a keyslot made by `template`. A target time is calibrated on this
    /// machine.
    pub(crate) fn settle(&self, template: &Template) -> Result<KdfAlg> {
        self.check(template.kdf)?;
        let template = &Template { hash: self.hash.unwrap_or(template.hash), ..template.clone() };
        let variant = match self.kind_or(template.kdf) {
            KdfKind::Pbkdf2 => {
                let iterations = self.cost.iterations(template)?;
                return Ok(KdfAlg::Pbkdf2 { hash: template.hash, iterations });
            }
            KdfKind::Argon2i => Argon2Variant::Argon2i,
            KdfKind::Argon2id => Argon2Variant::Argon2id,
        };
        let lanes = self.parallelism.unwrap_or_else(machine::default_argon2_parallelism);
        let memory = self.memory.unwrap_or_else(machine::default_argon2_memory);
        let [time, memory, parallelism] = match self.cost {
            Cost::Iterations(passes) => [passes, memory, lanes],
            Cost::Time(time) => {
                calibrate::argon2(variant, time_left(time, template, None)?, memory, lanes)?
            }
        };
        Ok(KdfAlg::Argon2 { variant, time, memory, parallelism })
    }
}

impl Cost {
    /// PBKDF2 iterations of a keyslot. A calibrated number is at least [`MIN_ITERATIONS`].
    fn iterations(self, template: &Template) -> Result<u32> {
        match self {
            Self::Iterations(iterations) => Ok(iterations),
            Self::Time(time) => {
                let rate = measure(template.hash, time);
                let left = time_left(time, template, Some(rate))?;
                scale(&rate, template.encryption.key_size(), left)
            }
        }
    }

    /// PBKDF2 iterations of a new LUKS1 header's first keyslot and of its digest. The digest gets an
    /// eighth of the keyslot's time, as in QEMU; together they take the target time.
    pub fn split(self, cipher: &CipherSpec, hash: HashAlg) -> Result<(u32, u32)> {
        match self {
            Self::Iterations(iterations) => Ok((iterations, (iterations / 8).max(MIN_ITERATIONS))),
            Self::Time(time) => {
                let rate = measure(hash, time);
                let merge = merge_time(cipher, hash, cipher.key_size())?;
                let time = time.saturating_sub(merge).max(time / 2);
                let keyslot = scale(&rate, cipher.key_size(), time / 9 * 8)?;
                Ok((keyslot, scale(&rate, LUKS1_DIGEST_SIZE, time / 9)?))
            }
        }
    }
}

/// PBKDF2 iterations of a LUKS2 header's digest: an eighth of a second, as in cryptsetup, but at most
/// 1/16 of the keyslot's target time. If the cost is a count, the minimum, because nothing is
/// calibrated then.
pub(crate) fn digest_iterations(cost: Cost, hash: HashAlg, len: usize) -> Result<u32> {
    match cost {
        Cost::Iterations(_) => Ok(MIN_ITERATIONS),
        Cost::Time(time) => {
            let time = (time / 16).min(DIGEST_TIME);
            scale(&measure(hash, time), len, time)
        }
    }
}

/// Share of an opening's time that is left for the KDF after merging the key and checking its digest.
/// `rate` is the measured rate of the template's hash, if known.
fn time_left(time: Duration, template: &Template, rate: Option<Rate>) -> Result<Duration> {
    let merge = merge_time(&template.encryption, template.af_hash, template.key_size)?;
    let digest = template.digest.as_ref().map(OwnedDigest::view);
    let known = |digest: &Digest<'_>| rate.filter(|_| digest.hash == template.hash);
    let check = digest.map_or(Duration::ZERO, |digest| check_time(&digest, known(&digest)));
    // If merging and the digest check exceed half the target, ignore them: the digest was
    // calibrated for a longer target.
    Ok(time.saturating_sub(merge + check).max(time / 2))
}

/// Time to check a key against its digest. `rate` is the measured rate of the digest's hash, if known.
pub(super) fn check_time(digest: &Digest<'_>, rate: Option<Rate>) -> Duration {
    let rate = rate.unwrap_or_else(|| measure(digest.hash, SHORTEST_MEASURE));
    rate.time(digest.value.len(), digest.iterations.into())
}

/// Time to decrypt and merge key material, measured by doing it once.
pub(super) fn merge_time(
    encryption: &CipherSpec,
    hash: HashAlg,
    key_size: usize,
) -> Result<Duration> {
    let key = vec![0; encryption.key_size()];
    let split = key_size * af::STRIPES as usize;
    let mut material = vec![0; split.next_multiple_of(SectorCipher::SECTOR_SIZE)];
    let start = Instant::now();
    encryption.sector_cipher(&key)?.decrypt(0, &mut material);
    af::merge(hash, &material[..split], key_size, af::STRIPES);
    Ok(start.elapsed())
}

/// Measures PBKDF2 for a quarter of the target time, within the bounds that give a steady figure.
pub(super) fn measure(hash: HashAlg, time: Duration) -> Rate {
    Rate::measure(hash, (time / 4).clamp(SHORTEST_MEASURE, LONGEST_MEASURE))
}

/// Iterations that take `time` for a key of `key_size` bytes, with QEMU's bounds and error texts.
fn scale(rate: &Rate, key_size: usize, time: Duration) -> Result<u32> {
    let out_of_range = |text| invalid(format!("{text}: Numerical result out of range"));
    let second = rate.iterations(key_size, Duration::from_secs(1));
    if u128::from(second) * time.as_millis() > u128::from(u64::MAX) {
        return Err(out_of_range(format!("PBKDF iterations {second} too large to scale")));
    }
    let iterations = rate.iterations(key_size, time).max(u64::from(MIN_ITERATIONS));
    u32::try_from(iterations).map_err(|_| {
        out_of_range(format!("PBKDF iterations {iterations} larger than {}", u32::MAX))
    })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Bytes of a LUKS1 digest
pub(crate) const LUKS1_DIGEST_SIZE: usize = 20;
/// Time that cryptsetup allots to a LUKS2 digest
const DIGEST_TIME: Duration = Duration::from_millis(125);
pub(super) const SHORTEST_MEASURE: Duration = Duration::from_millis(5);
const LONGEST_MEASURE: Duration = Duration::from_millis(100);
/// cryptsetup's bounds on Argon2: lanes, and memory in KiB
const MAX_LANES: u32 = 4;
const MIN_MEMORY: u32 = 32;
const MAX_MEMORY: u32 = 4 << 20;
