//! Calibrates PBKDF2: the iterations that take a given time, found within a few milliseconds.
//!
//! QEMU and cryptsetup time one run, which they lengthen until it takes half a second. PBKDF2 is
//! linear in its iterations, so a run of a fraction of a millisecond is as informative. Errors come
//! from the scheduler and the CPU's clock. This module therefore times many short runs and takes
//! their median.

use std::time::{Duration, Instant};

use crate::crypto::pbkdf2::Lanes;
use crate::crypto::{HashAlg, kdf};

/// PBKDF2 speed of this thread with one hash.
///
/// Output blocks are computed side by side, so a key of two blocks takes less than twice the time
/// of one. A single block and a key of 64 bytes are measured. Other lengths are derived from these
/// and the kernels' known times.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    hash: HashAlg,
    /// Iterations per second for one output block, not 0
    block: u64,
    /// Iterations per second for [`KEY_SIZE`] bytes, not 0
    key: u64,
}

impl Rate {
    /// Measures for about `budget`. 10 ms give a result within a few percent.
    pub fn measure(hash: HashAlg, budget: Duration) -> Self {
        let start = Instant::now();
        let mut iterations = FIRST_RUN;
        // The first runs warm up the caches and the clock, and find the length of a run.
        while run(hash, KEY_SIZE, iterations) < budget / RUNS && iterations < LONGEST_RUN {
            iterations *= 2;
        }
        let (mut block, mut key) = (Vec::new(), Vec::new());
        while key.is_empty() || start.elapsed() < budget {
            block.push(run(hash, hash.digest_size(), iterations));
            key.push(run(hash, KEY_SIZE, iterations));
        }
        let [block, key] = [block, key].map(|mut times| {
            times.sort_unstable();
            let nanos = times[times.len() / 2].as_nanos().max(1);
            saturate(u128::from(iterations) * NANOS_PER_SECOND / nanos).max(1)
        });
        Self { hash, block, key }
    }

    /// Creates a rate known from elsewhere, in iterations per second for one output block. 0 counts
    /// as 1.
    pub fn new(hash: HashAlg, per_second: u64) -> Self {
        let block = per_second.max(1);
        let [one, all] = [1, blocks(hash, KEY_SIZE)].map(|blocks| relative_time(hash, blocks));
        let key = saturate(u128::from(block).saturating_mul(one) / all).max(1);
        Self { hash, block, key }
    }

    /// Iterations per second for one output block.
    pub fn per_second(&self) -> u64 {
        self.block
    }

    /// Iterations that derive `out_len` bytes in `time`, rounded down. May be 0.
    pub fn iterations(&self, out_len: usize, time: Duration) -> u64 {
        let (per_second, scale) = self.of(out_len);
        let of_measured = u128::from(per_second).saturating_mul(time.as_nanos());
        saturate(scale.down(of_measured) / NANOS_PER_SECOND)
    }

    /// Time that `iterations` take to derive `out_len` bytes.
    pub fn time(&self, out_len: usize, iterations: u64) -> Duration {
        let (per_second, scale) = self.of(out_len);
        let nanos = scale.up(u128::from(iterations).saturating_mul(NANOS_PER_SECOND));
        Duration::from_nanos(saturate(nanos / u128::from(per_second)))
    }

    /// The nearest measured rate, and the factor by which `out_len` bytes take longer.
    fn of(&self, out_len: usize) -> (u64, Scale) {
        let [asked, of_key] = [out_len, KEY_SIZE].map(|len| blocks(self.hash, len));
        let (rate, measured) = if asked < of_key { (self.block, 1) } else { (self.key, of_key) };
        let scale = if asked == measured {
            Scale { measured: 1, asked: 1 }
        } else {
            let [measured, asked] = [measured, asked].map(|it| relative_time(self.hash, it));
            Scale { measured, asked }
        };
        (rate, scale)
    }
}

/// Times of the measured and of the requested length, in the same unit.
#[derive(Clone, Copy, Debug)]
struct Scale {
    measured: u128,
    asked: u128,
}

impl Scale {
    fn up(self, number: u128) -> u128 {
        number.saturating_mul(self.asked) / self.measured
    }

    fn down(self, number: u128) -> u128 {
        number.saturating_mul(self.measured) / self.asked
    }
}

/// Number of output blocks in `len` bytes.
fn blocks(hash: HashAlg, len: usize) -> usize {
    len.div_ceil(hash.digest_size()).max(1)
}

fn relative_time(hash: HashAlg, blocks: usize) -> u128 {
    Lanes::<()>::new(hash).relative_time(blocks)
}

/// Times `iterations` of `len` bytes.
fn run(hash: HashAlg, len: usize, iterations: u32) -> Duration {
    let mut out = vec![0; len];
    let start = Instant::now();
    kdf::pbkdf2(hash, b"passphrase", &[0; 32], iterations, &mut out);
    std::hint::black_box(&out);
    start.elapsed()
}

fn saturate(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Size of an AES-256-XTS key, which a keyslot derives by default
const KEY_SIZE: usize = 64;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Minimum number of runs in a budget
const RUNS: u32 = 40;

/// Iterations of the first run
const FIRST_RUN: u32 = 64;

/// Limit on the iterations of a run, for any budget
const LONGEST_RUN: u32 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// SM3 computes one block after the other on every CPU.
    #[test]
    fn time_and_iterations_are_inverse() {
        let rate = Rate::new(HashAlg::Sm3, 8_000_000);
        let second = Duration::from_secs(1);
        assert_eq!(rate.iterations(32, second), 8_000_000);
        assert_eq!(rate.iterations(20, second), 8_000_000);
        assert_eq!(rate.iterations(64, second), 4_000_000);
        assert_eq!(rate.iterations(33, 2 * second), 8_000_000);
        assert_eq!(rate.iterations(96, 3 * second), 8_000_000);
        assert_eq!(rate.iterations(32, Duration::ZERO), 0);
        assert_eq!(rate.time(64, 4_000_000), second);
        assert_eq!(rate.time(96, 8_000_000), 3 * second);
        assert_eq!(rate.time(32, 8_000), Duration::from_millis(1));
    }

    #[test]
    fn what_was_measured_counts() {
        let rate = Rate { hash: HashAlg::Sha256, block: 14_000_000, key: 11_000_000 };
        let second = Duration::from_secs(1);
        for len in [0, 1, 20, 32] {
            assert_eq!(rate.iterations(len, second), 14_000_000);
            assert_eq!(rate.time(len, 7_000_000), second / 2);
        }
        for len in [33, 48, 64] {
            assert_eq!(rate.iterations(len, second), 11_000_000);
            assert_eq!(rate.time(len, 22_000_000), 2 * second);
        }
        assert_eq!(rate.per_second(), 14_000_000);
    }

    /// On every CPU, more blocks never take less time, and never more than one after the other.
    #[test]
    fn more_blocks_take_longer() {
        for &hash in HashAlg::ALL {
            let rate = Rate::new(hash, 1_000_000);
            let size = hash.digest_size();
            let times: Vec<_> = (1..=40).map(|count| rate.time(count * size, 1 << 20)).collect();
            for (index, time) in times.iter().enumerate() {
                let count = u32::try_from(index + 1).unwrap();
                let what = format!("{} {count}: {times:?}", hash.name());
                // A rate is a whole number, so its precision is about one in a million.
                let slack = *time / 100_000;
                assert!(index == 0 || *time + slack >= times[index - 1], "{what}");
                assert!(*time <= times[0] * count + slack, "{what}");
                let iterations = rate.iterations((index + 1) * size, *time);
                assert!(iterations.abs_diff(1 << 20) <= 2, "{what}: {iterations}");
            }
        }
    }

    #[test]
    fn extremes_saturate() {
        let rate = Rate::new(HashAlg::Md5, u64::MAX);
        assert_eq!(rate.iterations(16, Duration::MAX), u64::MAX);
        let rate = Rate::new(HashAlg::Md5, 0);
        assert_eq!(rate.time(usize::MAX, u64::MAX), Duration::from_nanos(u64::MAX));
        assert_eq!(rate.iterations(0, Duration::from_secs(3)), 3);
    }

    #[test]
    fn every_hash_can_be_measured_without_a_budget() {
        for &hash in HashAlg::ALL {
            assert!(Rate::measure(hash, Duration::ZERO).per_second() > 1);
        }
    }
}
