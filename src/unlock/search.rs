//! Tries a secret on many keyslots: those with PBKDF2 in SIMD lanes on all cores, then those with
//! Argon2 one by one, since each uses several cores.
//!
//! The first keyslot is the right one more often than any other, so it has a core to itself until it
//! is done. More keyslots do not slow it down; they share the other cores.

mod run;

use std::collections::VecDeque;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::run::Run;
use super::Limits;
use crate::crypto::pbkdf2::{Job, Lanes};
use crate::crypto::{HashAlg, KdfAlg, af, kdf};
use crate::error::{Error, Operation, Result};
use crate::header::{Digest, Keyslot};
use crate::secret::{Passphrase, SecretBytes, VolumeKey};
use crate::storage::{Storage, zeroed};

/// A keyslot to try, with the image that holds its key material.
#[derive(Clone, Debug)]
pub struct Candidate<'a> {
    /// The image
    pub storage: &'a dyn Storage,
    /// An active keyslot of the image
    pub keyslot: Keyslot<'a>,
}

/// When a search ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Until {
    /// As soon as one keyslot opens
    First,
    /// When all keyslots have been tried
    All,
}

/// Outcome of one candidate: its key, `None` if it does not open, or an error. The outer `None` means
/// that it was not tried because another candidate opened first.
pub type Outcome = Option<Result<Option<VolumeKey>>>;

/// Tries the passphrase on all candidates, roughly in order, and returns one outcome for each.
///
/// If the candidates together exceed `limits`, the most expensive ones are not tried. Their outcome is
/// [`ErrorKind::Limit`](crate::ErrorKind::Limit).
pub fn search(
    candidates: &[Candidate<'_>],
    passphrase: &Passphrase,
    limits: Limits,
    until: Until,
) -> Vec<Outcome> {
    let keyslots: Vec<_> = candidates.iter().map(|it| it.keyslot.clone()).collect();
    search_admitted(candidates, passphrase, limits.admit(&keyslots), until)
}

/// Searches like [`search`], for candidates that the limits have already judged.
pub(crate) fn search_admitted(
    candidates: &[Candidate<'_>],
    passphrase: &Passphrase,
    admitted: Vec<Result<()>>,
    until: Until,
) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    let (mut in_lanes, mut alone) = (VecDeque::new(), Vec::new());
    let judged = candidates.iter().zip(admitted).enumerate();
    for (index, (Candidate { keyslot, .. }, admitted)) in judged {
        match keyslot.kdf.alg {
            _ if admitted.is_err() => {}
            KdfAlg::Pbkdf2 { .. } => in_lanes.push_back(index),
            KdfAlg::Argon2 { time, memory, .. } => {
                alone.push((u64::from(time) * u64::from(memory), index));
            }
        }
        outcomes.push(admitted.err().map(Err));
    }
    let batch = Batch {
        candidates,
        passphrase,
        until,
        queue: Mutex::new(in_lanes),
        outcomes: Mutex::new(outcomes),
        stop: AtomicBool::new(false),
    };
    // An Argon2 keyslot that is listed first is tried before the PBKDF2 batch.
    if let Some(place) = alone.iter().position(|(_, index)| *index == 0 && until == Until::First) {
        alone.swap_remove(place);
        batch.finish(0, try_one(&candidates[0], passphrase));
    }
    if !batch.stops() {
        batch.run();
    }
    alone.sort_unstable();
    for (_, index) in alone {
        if batch.stops() {
            break;
        }
        let outcome = try_one(&candidates[index], passphrase);
        batch.finish(index, outcome);
    }
    batch.outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Tries one candidate whose cost has been judged.
fn try_one(candidate: &Candidate<'_>, passphrase: &Passphrase) -> Result<Option<VolumeKey>> {
    let Keyslot { encryption, kdf, digest, .. } = &candidate.keyslot;
    let mut key = SecretBytes::zeroed(encryption.key_size())?;
    kdf.alg.derive(passphrase.as_bytes(), kdf.salt, key.as_mut_slice())?;
    let merged = candidate.merge(&key)?;
    let mut value = Zeroizing::new(vec![0; digest.value.len()]);
    kdf::pbkdf2(digest.hash, merged.as_bytes(), digest.salt, digest.iterations, &mut value);
    Ok(bool::from(value.ct_eq(digest.value)).then_some(merged))
}

impl Candidate<'_> {
    /// Decrypts and merges the key material under a derived key; the result is unverified.
    fn merge(&self, key: &SecretBytes) -> Result<VolumeKey> {
        let Keyslot { index, area, encryption, key_size, stripes, af_hash, .. } = &self.keyslot;
        let failed = |e| {
            let offset = area.offset;
            let object = format_args!("the key material of keyslot {index} at byte {offset}");
            Error::failed(Operation::Read, object, e).with_offset(offset).with_keyslot(*index)
        };
        let mut material = Zeroizing::new(zeroed(area.len).map_err(failed)?);
        self.storage.read_exact_at(&mut material, area.offset).map_err(failed)?;
        encryption.sector_cipher(key.as_slice())?.decrypt(0, &mut material);
        let split = key_size * *stripes as usize;
        let merged = af::merge(*af_hash, &material[..split], *key_size, *stripes);
        Ok(VolumeKey::from(SecretBytes::from_slice(&merged)?))
    }

    /// Hash and iterations of a keyslot with PBKDF2.
    fn pbkdf2(&self) -> (HashAlg, u32) {
        match self.keyslot.kdf.alg {
            KdfAlg::Pbkdf2 { hash, iterations } => (hash, iterations),
            KdfAlg::Argon2 { .. } => unreachable!("it is not in the queue"),
        }
    }
}

/// State shared by the threads of a search.
struct Batch<'a> {
    candidates: &'a [Candidate<'a>],
    passphrase: &'a Passphrase,
    until: Until,
    /// PBKDF2 candidates that no thread has claimed
    queue: Mutex<VecDeque<usize>>,
    outcomes: Mutex<Vec<Outcome>>,
    stop: AtomicBool,
}

impl Batch<'_> {
    fn run(&self) {
        let count = lock(&self.queue).len();
        let threads = thread::available_parallelism().map_or(1, NonZero::get).min(count);
        match threads {
            0 => {}
            1 => self.work(self.first(), count),
            _ => thread::scope(|scope| {
                let first = self.first();
                let share = lock(&self.queue).len().div_ceil(threads);
                for _ in 1..threads {
                    let builder = thread::Builder::new();
                    // If no thread can be spawned, this one does all the work.
                    if builder.spawn_scoped(scope, move || self.work(None, share)).is_err() {
                        break;
                    }
                }
                self.work(first, share);
            }),
        }
    }

    /// Claims the keyslot that gets a thread to itself.
    fn first(&self) -> Option<usize> {
        if self.until == Until::First { self.claim(None) } else { None }
    }

    fn stops(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Claims the next keyslot, or the next one with this hash.
    fn claim(&self, hash: Option<HashAlg>) -> Option<usize> {
        let mut queue = lock(&self.queue);
        let fits =
            |&index: &usize| hash.is_none_or(|hash| self.candidates[index].pbkdf2().0 == hash);
        let place = queue.iter().position(fits)?;
        queue.remove(place)
    }

    /// Computes a digest whose hash differs from that of the lanes. Returns false if the search ends
    /// first.
    fn digest(&self, digest: &Digest<'_>, key: &VolumeKey, value: &mut [u8]) -> bool {
        let mut lanes = Lanes::new(digest.hash);
        let (salt, iterations) = (digest.salt, digest.iterations);
        let mut blocks = (1..).zip(value.chunks_mut(digest.hash.digest_size()));
        while !self.stops() {
            while lanes.has_room()
                && let Some((block, part)) = blocks.next()
            {
                lanes.push(Job { password: key.as_bytes(), salt, iterations, block }, part);
            }
            if lanes.is_empty() {
                return true;
            }
            lanes.step(|part, output| part.copy_from_slice(&output[..part.len()]));
        }
        false
    }

    fn finish(&self, index: usize, outcome: Result<Option<VolumeKey>>) {
        if self.until == Until::First && matches!(outcome, Ok(Some(_))) {
            self.stop.store(true, Ordering::Relaxed);
        }
        lock(&self.outcomes)[index] = Some(outcome);
    }

    /// Tries keyslots until none is left. Up to `share` keyslots of one hash run at a time, as far as
    /// they fit the lanes. The keyslot `alone` runs first, by itself.
    fn work(&self, alone: Option<usize>, share: usize) {
        let mut next = alone;
        while !self.stops()
            && let Some(index) = next.take().or_else(|| self.claim(None))
        {
            let mut run = Run::new(self, self.candidates[index].pbkdf2().0);
            run.begin(index);
            while !run.is_done() && !self.stops() {
                let is_alone = alone.is_some_and(|alone| run.trials.contains_key(&alone));
                let most = if is_alone { 1 } else { share.max(1) };
                while run.trials.len() < most
                    && run.has_room()
                    && let Some(other) = self.claim(Some(run.hash))
                {
                    run.begin(other);
                }
                run.step();
            }
        }
    }
}

/// A poisoned lock still guards valid data: no critical section leaves it half updated.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
