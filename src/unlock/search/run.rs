//! Keyslots with PBKDF2 in the SIMD lanes of one thread.

use std::collections::{HashMap, VecDeque};

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Batch;
use crate::crypto::HashAlg;
use crate::crypto::pbkdf2::{Job, Lanes};
use crate::secret::{SecretBytes, VolumeKey};

/// Keyslots of one hash that one thread has in its lanes.
pub(super) struct Run<'a> {
    batch: &'a Batch<'a>,
    pub hash: HashAlg,
    lanes: Lanes<Task>,
    /// Tasks that wait for a free lane
    waiting: VecDeque<Task>,
    pub trials: HashMap<usize, Trial>,
}

/// One output block, either of a keyslot's derived key or of the digest of the merged key.
#[derive(Clone, Copy)]
struct Task {
    index: usize,
    block: u32,
    phase: Phase,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    Key,
    Check,
}

/// A keyslot that is being tried.
pub(super) struct Trial {
    key: SecretBytes,
    merged: Option<VolumeKey>,
    value: Zeroizing<Vec<u8>>,
    /// Output blocks of this phase that are not computed yet
    missing: u32,
}

impl<'a> Run<'a> {
    pub fn new(batch: &'a Batch<'a>, hash: HashAlg) -> Self {
        let (waiting, trials) = (VecDeque::new(), HashMap::new());
        Self { batch, hash, lanes: Lanes::new(hash), waiting, trials }
    }

    pub fn is_done(&self) -> bool {
        self.trials.is_empty()
    }

    pub fn has_room(&self) -> bool {
        self.lanes.len() + self.waiting.len() < self.lanes.capacity()
    }

    pub fn begin(&mut self, index: usize) {
        let keyslot = &self.batch.candidates[index].keyslot;
        match SecretBytes::zeroed(keyslot.encryption.key_size()) {
            Ok(key) => {
                let missing = self.wait_for(index, Phase::Key, key.as_slice().len());
                let value = Zeroizing::new(vec![0; keyslot.digest.value.len()]);
                self.trials.insert(index, Trial { key, merged: None, value, missing });
            }
            Err(error) => self.batch.finish(index, Err(error)),
        }
    }

    /// Queues the output blocks of `len` bytes and returns their number.
    fn wait_for(&mut self, index: usize, phase: Phase, len: usize) -> u32 {
        let blocks = u32::try_from(len.div_ceil(self.hash.digest_size())).unwrap_or(u32::MAX);
        self.waiting.extend((1..=blocks).map(|block| Task { index, block, phase }));
        blocks
    }

    /// Runs the lanes for a few milliseconds and handles the keyslots whose phase is complete.
    pub fn step(&mut self) {
        while self.lanes.has_room()
            && let Some(task) = self.waiting.pop_front()
        {
            self.push(task);
        }
        let size = self.hash.digest_size();
        let (lanes, trials) = (&mut self.lanes, &mut self.trials);
        let mut complete = Vec::new();
        lanes.step(|task, output| {
            let Some(trial) = trials.get_mut(&task.index) else { return };
            let out = match task.phase {
                Phase::Key => trial.key.as_mut_slice(),
                Phase::Check => trial.value.as_mut_slice(),
            };
            let part = &mut out[(task.block as usize - 1) * size..];
            let len = part.len().min(size);
            part[..len].copy_from_slice(&output[..len]);
            trial.missing -= 1;
            if trial.missing == 0 {
                complete.push((task.index, task.phase));
            }
        });
        for (index, phase) in complete {
            match phase {
                Phase::Key => self.check(index),
                Phase::Check => self.compare(index),
            }
        }
    }

    fn push(&mut self, task: Task) {
        let Task { index, block, phase } = task;
        let candidate = &self.batch.candidates[index];
        let digest = &candidate.keyslot.digest;
        let job = match (phase, self.trials.get(&index).and_then(|trial| trial.merged.as_ref())) {
            (Phase::Check, Some(merged)) => Job {
                password: merged.as_bytes(),
                salt: digest.salt,
                iterations: digest.iterations,
                block,
            },
            _ => Job {
                password: self.batch.passphrase.as_bytes(),
                salt: candidate.keyslot.kdf.salt,
                iterations: candidate.pbkdf2().1,
                block,
            },
        };
        self.lanes.push(job, task);
    }

    /// Merges the key material under the derived key and starts the digest check.
    fn check(&mut self, index: usize) {
        let candidate = &self.batch.candidates[index];
        let Some(trial) = self.trials.get_mut(&index) else { return };
        let merged = match candidate.merge(&trial.key) {
            Ok(merged) => merged,
            Err(error) => {
                self.trials.remove(&index);
                return self.batch.finish(index, Err(error));
            }
        };
        let digest = &candidate.keyslot.digest;
        if digest.hash == self.hash {
            trial.merged = Some(merged);
            let missing = self.wait_for(index, Phase::Check, digest.value.len());
            if let Some(trial) = self.trials.get_mut(&index) {
                trial.missing = missing;
            }
            return;
        }
        if self.batch.digest(digest, &merged, &mut trial.value) {
            trial.merged = Some(merged);
            self.compare(index);
        }
    }

    fn compare(&mut self, index: usize) {
        let Some(Trial { merged, value, .. }) = self.trials.remove(&index) else { return };
        let digest = &self.batch.candidates[index].keyslot.digest;
        let is_right = bool::from(value.ct_eq(digest.value));
        self.batch.finish(index, Ok(merged.filter(|_| is_right)));
    }
}
