//! How many PBKDF2 iterations fill a given time, found at the cost of a few milliseconds.
//!
//! QEMU and cryptsetup time one run that gets longer until it has taken half a second. PBKDF2 is
//! linear in its iterations, so that a run of a fraction of a millisecond says as much; what makes
//! it lie is the scheduler and the clock of the CPU. So here many short runs are timed, and the
//! median of them counts.

use std::time::{Duration, Instant};

use crate::crypto::pbkdf2::Lanes;
use crate::crypto::{HashAlg, kdf};

/// How fast this thread is at PBKDF2 with one hash.
///
/// Output blocks are computed side by side, so that a key of two takes less than twice the time of one:
/// a single block and the blocks of a key of 64 bytes are measured. What is asked of other lengths comes
/// from these, by what is known of the kernels.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    hash: HashAlg,
    /// Iterations of one output block, per second. Not 0.
    block: u64,
    /// Iterations of [`KEY_SIZE`] bytes, per second. Not 0.
    key: u64,
}

impl Rate {
    /// Measures for about `budget`: 10 ms are enough to be within a few percent.
    pub fn measure(hash: HashAlg, budget: Duration) -> Self {
        let start = Instant::now();
        let mut iterations = FIRST_RUN;
        // The first runs warm up caches and clock, and find how long a run has to be.
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

    /// A rate known from elsewhere, in iterations of one output block per second. 0 counts as 1.
    pub fn new(hash: HashAlg, per_second: u64) -> Self {
        let block = per_second.max(1);
        let [one, all] = [1, blocks(hash, KEY_SIZE)].map(|blocks| relative_time(hash, blocks));
        let key = saturate(u128::from(block).saturating_mul(one) / all).max(1);
        Self { hash, block, key }
    }

    /// Iterations of one output block, per second.
    pub fn per_second(&self) -> u64 {
        self.block
    }

    /// The iterations that make `out_len` bytes in `time`, rounded down. May be 0.
    pub fn iterations(&self, out_len: usize, time: Duration) -> u64 {
        let (per_second, scale) = self.of(out_len);
        let of_measured = u128::from(per_second).saturating_mul(time.as_nanos());
        saturate(scale.down(of_measured) / NANOS_PER_SECOND)
    }

    /// The time that `iterations` take to make `out_len` bytes.
    pub fn time(&self, out_len: usize, iterations: u64) -> Duration {
        let (per_second, scale) = self.of(out_len);
        let nanos = scale.up(u128::from(iterations).saturating_mul(NANOS_PER_SECOND));
        Duration::from_nanos(saturate(nanos / u128::from(per_second)))
    }

    /// The nearest rate that was measured, and how much longer `out_len` bytes take.
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

/// The times of what was measured and of what is asked for, in the same unit.
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

/// Output blocks of `len` bytes.
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

/// Of AES-256-XTS: what a keyslot of LUKS derives by default
const KEY_SIZE: usize = 64;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Runs that a budget is divided into, at least.
const RUNS: u32 = 40;

/// Iterations of the first run.
const FIRST_RUN: u32 = 64;

/// Iterations that no run goes beyond, whatever the budget.
const LONGEST_RUN: u32 = 1 << 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// SM3 makes one block after the other on every CPU.
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

    /// Whatever this CPU's kernels do with many blocks: more of them take no less time, but no more
    /// than one after the other.
    #[test]
    fn more_blocks_take_longer() {
        for &hash in HashAlg::ALL {
            let rate = Rate::new(hash, 1_000_000);
            let size = hash.digest_size();
            let times: Vec<_> = (1..=40).map(|count| rate.time(count * size, 1 << 20)).collect();
            for (index, time) in times.iter().enumerate() {
                let count = u32::try_from(index + 1).unwrap();
                let what = format!("{} {count}: {times:?}", hash.name());
                // A rate is a whole number: one in a million.
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
