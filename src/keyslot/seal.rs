//! Passphrase and volume key in, key material out (LUKS1 specification, "adding new passwords").

use std::sync::Arc;
use std::time::{Duration, Instant};

use zeroize::Zeroizing;

use super::{DEFAULT_ITER_TIME, MIN_ITERATIONS};
use crate::crypto::calibrate::Rate;
use crate::crypto::{CipherSpec, HashAlg, SectorCipher, af, kdf, random};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{NewDigest, Sealed};
use crate::secret::{Passphrase, SecretBytes, VolumeKey};

/// How long an opening shall take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cost {
    /// This many PBKDF2 iterations in the keyslot
    Iterations(u32),
    /// As many iterations as make an opening on this machine take this long
    Time(Duration),
}

impl Default for Cost {
    fn default() -> Self {
        Self::Time(DEFAULT_ITER_TIME)
    }
}

impl Cost {
    /// Iterations of a keyslot whose header checks the volume key with `digest_iterations`. Never
    /// below [`MIN_ITERATIONS`], unless asked for by number.
    pub fn iterations(
        self,
        cipher: &CipherSpec,
        hash: HashAlg,
        digest_iterations: u32,
    ) -> Result<u32> {
        match self {
            Self::Iterations(iterations) => Ok(iterations),
            Self::Time(time) => {
                let rate = measure(hash, time);
                let rest = rate.time(DIGEST_SIZE, u64::from(digest_iterations))
                    + time_to_merge(cipher, hash)?;
                // A rest that takes more than half was calibrated for another time.
                let left = time.saturating_sub(rest).max(time / 2);
                scale(&rate, cipher.key_size(), left)
            }
        }
    }

    /// Iterations of a new header's first keyslot and of its digest. The digest gets an eighth
    /// of the keyslot's time, as in QEMU; together they take the time asked for.
    pub fn split(self, cipher: &CipherSpec, hash: HashAlg) -> Result<(u32, u32)> {
        match self {
            Self::Iterations(iterations) => Ok((iterations, (iterations / 8).max(MIN_ITERATIONS))),
            Self::Time(time) => {
                let rate = measure(hash, time);
                let time = time.saturating_sub(time_to_merge(cipher, hash)?).max(time / 2);
                let keyslot = scale(&rate, cipher.key_size(), time / 9 * 8)?;
                Ok((keyslot, scale(&rate, DIGEST_SIZE, time / 9)?))
            }
        }
    }
}

/// Key material for a keyslot: the volume key, split and encrypted under the passphrase.
pub fn seal(
    cipher: &CipherSpec,
    hash: HashAlg,
    stripes: u32,
    volume_key: &VolumeKey,
    passphrase: &Passphrase,
    iterations: u32,
) -> Result<Sealed> {
    let mut salt = [0; 32];
    random::fill(&mut salt)?;
    let mut key = SecretBytes::zeroed(cipher.key_size())?;
    kdf::pbkdf2(hash, passphrase.as_bytes(), &salt, iterations, key.as_mut_slice());

    let split = af::split(hash, volume_key.as_bytes(), stripes, &mut random::fill)?;
    let len = split.len().next_multiple_of(SectorCipher::SECTOR_SIZE);
    let mut material = Zeroizing::new(vec![0; len]);
    material[..split.len()].copy_from_slice(&split);
    cipher.sector_cipher(key.as_slice())?.encrypt(0, &mut material);
    Ok(Sealed { iterations, salt, material: Arc::from(material.as_slice()) })
}

/// The digest of a new volume key.
pub fn new_digest(hash: HashAlg, volume_key: &VolumeKey, iterations: u32) -> Result<NewDigest> {
    let mut digest = NewDigest { iterations, salt: [0; 32], value: [0; DIGEST_SIZE] };
    random::fill(&mut digest.salt)?;
    kdf::pbkdf2(hash, volume_key.as_bytes(), &digest.salt, iterations, &mut digest.value);
    Ok(digest)
}

/// What an opening takes besides PBKDF2: decrypting the key material and merging it.
fn time_to_merge(cipher: &CipherSpec, hash: HashAlg) -> Result<Duration> {
    let key = vec![0; cipher.key_size()];
    let split = cipher.key_size() * af::STRIPES as usize;
    let mut material = vec![0; split.next_multiple_of(SectorCipher::SECTOR_SIZE)];
    let start = Instant::now();
    cipher.sector_cipher(&key)?.decrypt(0, &mut material);
    af::merge(hash, &material[..split], cipher.key_size(), af::STRIPES);
    Ok(start.elapsed())
}

/// Measures for a quarter of the time it is about, and no longer than gives a steady figure.
fn measure(hash: HashAlg, time: Duration) -> Rate {
    Rate::measure(hash, (time / 4).clamp(SHORTEST_MEASURE, LONGEST_MEASURE))
}

/// Iterations that take `time` for a key of `key_size` bytes, with QEMU's bounds and texts.
fn scale(rate: &Rate, key_size: usize, time: Duration) -> Result<u32> {
    let out_of_range = |text| {
        Error::new(ErrorKind::InvalidInput, format!("{text}: Numerical result out of range"))
    };
    let second = rate.iterations(key_size, Duration::from_secs(1));
    if u128::from(second) * time.as_millis() > u128::from(u64::MAX) {
        return Err(out_of_range(format!("PBKDF iterations {second} too large to scale")));
    }
    let iterations = rate.iterations(key_size, time).max(u64::from(MIN_ITERATIONS));
    u32::try_from(iterations).map_err(|_| {
        out_of_range(format!("PBKDF iterations {iterations} larger than {}", u32::MAX))
    })
}

const DIGEST_SIZE: usize = 20;
const SHORTEST_MEASURE: Duration = Duration::from_millis(5);
const LONGEST_MEASURE: Duration = Duration::from_millis(100);
