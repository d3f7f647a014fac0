//! What opening a new keyslot shall cost: which KDF, and how much of it.

use std::time::{Duration, Instant};

use super::{DEFAULT_ITER_TIME, MIN_ITERATIONS, machine};
use crate::crypto::calibrate::{self, Rate};
use crate::crypto::{Argon2Variant, CipherSpec, HashAlg, KdfAlg, KdfKind, SectorCipher, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Digest, OwnedDigest, Template};

/// How long an opening shall take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cost {
    /// This many PBKDF2 iterations, or passes of Argon2, in the keyslot
    Iterations(u32),
    /// As many as make an opening on this machine take this long
    Time(Duration),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Time(DEFAULT_ITER_TIME)
    }
}

/// The KDF of a new keyslot. What is not said is as the header has it, and cryptsetup: a replaced
/// keyslot keeps its KDF, a new one of LUKS2 has Argon2id, one of LUKS1 PBKDF2.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pbkdf {
    /// Which KDF
    pub kind: Option<KdfKind>,
    /// Hash of PBKDF2 and of the anti-forensic split. LUKS1 has that of its header.
    pub hash: Option<HashAlg>,
    /// How much of it
    pub cost: Cost,
    /// The most memory of Argon2 in KiB, or with a count of passes its memory. The default is
    /// 1 GiB, or half of what there is.
    pub memory: Option<u32>,
    /// Lanes of Argon2. The default is as many as there are CPUs, up to 4.
    pub parallelism: Option<u32>,
}

impl From<Cost> for Pbkdf {
    fn from(cost: Cost) -> Self {
        Self { cost, ..Self::default() }
    }
}

impl Pbkdf {
    /// Which KDF it is where `default` is what is usual.
    pub fn kind_or(&self, default: KdfKind) -> KdfKind {
        self.kind.unwrap_or(default)
    }

    /// Refuses numbers that no keyslot can have, whatever this machine is.
    pub fn check(&self, default: KdfKind) -> Result<()> {
        let kind = self.kind_or(default);
        if kind == KdfKind::Pbkdf2 {
            return match (self.memory, self.parallelism) {
                (None, None) => Ok(()),
                _ => Err(invalid("pbkdf2 has no memory and no lanes: those are of Argon2")),
            };
        }
        let lanes = self.parallelism.unwrap_or(1);
        if !(1..=MAX_LANES).contains(&lanes) {
            let text = format!("{lanes} lanes of Argon2: it must be 1 to {MAX_LANES}");
            return Err(invalid(text));
        }
        let least = MIN_MEMORY.max(8 * lanes);
        match self.memory {
            Some(memory) if !(least..=MAX_MEMORY).contains(&memory) => {
                let text = format!("{memory} KiB of memory: it must be {least} to {MAX_MEMORY}");
                Err(invalid(text))
            }
            _ => Ok(()),
        }
    }

    /// The KDF of a keyslot that is made by `template`, calibrated on this machine if a time is
    /// asked for.
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
    /// PBKDF2 iterations of a keyslot. Never below [`MIN_ITERATIONS`], unless asked for by number.
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
    /// eighth of the keyslot's time, as in QEMU; together they take the time asked for.
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

/// PBKDF2 iterations of a LUKS2 header's digest: an eighth of a second, as in cryptsetup. Where
/// the keyslot's cost is not a time, the least there can be: then the count is somebody's choice.
pub(crate) fn digest_iterations(cost: Cost, hash: HashAlg, len: usize) -> Result<u32> {
    match cost {
        Cost::Iterations(_) => Ok(MIN_ITERATIONS),
        Cost::Time(time) => {
            let time = (time / 16).min(DIGEST_TIME);
            scale(&measure(hash, time), len, time)
        }
    }
}

/// What is left for the KDF of the time of an opening, when the key is merged and checked against
/// its digest. `rate` is that of the template's hash, if it is known.
fn time_left(time: Duration, template: &Template, rate: Option<Rate>) -> Result<Duration> {
    let merge = merge_time(&template.encryption, template.af_hash, template.key_size)?;
    let digest = template.digest.as_ref().map(OwnedDigest::view);
    let known = |digest: &Digest<'_>| rate.filter(|_| digest.hash == template.hash);
    let check = digest.map_or(Duration::ZERO, |digest| check_time(&digest, known(&digest)));
    // A rest that takes more than half was calibrated for another time.
    Ok(time.saturating_sub(merge + check).max(time / 2))
}

/// What it takes to compare a key with its digest. `rate` is that of the digest's hash, if it is known.
pub(super) fn check_time(digest: &Digest<'_>, rate: Option<Rate>) -> Duration {
    let rate = rate.unwrap_or_else(|| measure(digest.hash, SHORTEST_MEASURE));
    rate.time(digest.value.len(), digest.iterations.into())
}

/// What an opening takes besides the KDF: decrypting the key material and merging it.
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

/// Measures for a quarter of the time it is about, and no longer than gives a steady figure.
pub(super) fn measure(hash: HashAlg, time: Duration) -> Rate {
    Rate::measure(hash, (time / 4).clamp(SHORTEST_MEASURE, LONGEST_MEASURE))
}

/// Iterations that take `time` for a key of `key_size` bytes, with QEMU's bounds and texts.
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
/// What cryptsetup gives to a LUKS2 digest
const DIGEST_TIME: Duration = Duration::from_millis(125);
pub(super) const SHORTEST_MEASURE: Duration = Duration::from_millis(5);
const LONGEST_MEASURE: Duration = Duration::from_millis(100);
/// cryptsetup's bounds on Argon2: lanes, and memory in KiB
const MAX_LANES: u32 = 4;
const MIN_MEMORY: u32 = 32;
const MAX_MEMORY: u32 = 4 << 20;
