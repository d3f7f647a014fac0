//! How many PBKDF2 iterations fill a given time, found at the cost of a few milliseconds.
//!
//! QEMU and cryptsetup time one run that gets longer until it has taken half a second. PBKDF2 is
//! linear in its iterations, so that a run of a fraction of a millisecond says as much; what makes
//! it lie is the scheduler and the clock of the CPU. So here many short runs are timed, and the
//! median of them counts.

use std::time::{Duration, Instant};

use crate::crypto::{HashAlg, kdf};

/// How fast this thread is at PBKDF2 with one hash.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    hash: HashAlg,
    /// Iterations of one output block, per second. Not 0.
    per_second: u64,
}

impl Rate {
    /// Measures for about `budget`: 10 ms are enough to be within a few percent.
    pub fn measure(hash: HashAlg, budget: Duration) -> Self {
        let start = Instant::now();
        let mut iterations = FIRST_RUN;
        // The first runs warm up caches and clock, and find how long a run has to be.
        while run(hash, iterations) < budget / RUNS && iterations < LONGEST_RUN {
            iterations *= 2;
        }
        let mut times = vec![run(hash, iterations)];
        while start.elapsed() < budget {
            times.push(run(hash, iterations));
        }
        times.sort_unstable();
        let nanos = times[times.len() / 2].as_nanos().max(1);
        Self::new(hash, saturate(u128::from(iterations) * NANOS_PER_SECOND / nanos))
    }

    /// A rate known from elsewhere, in iterations of one output block per second. 0 counts as 1.
    pub fn new(hash: HashAlg, per_second: u64) -> Self {
        Self { hash, per_second: per_second.max(1) }
    }

    /// Iterations of one output block, per second.
    pub fn per_second(&self) -> u64 {
        self.per_second
    }

    /// The iterations that make `out_len` bytes in `time`, rounded down. May be 0.
    pub fn iterations(&self, out_len: usize, time: Duration) -> u64 {
        let in_one_block = u128::from(self.per_second).saturating_mul(time.as_nanos());
        saturate(in_one_block / NANOS_PER_SECOND / self.blocks(out_len))
    }

    /// The time that `iterations` take to make `out_len` bytes.
    pub fn time(&self, out_len: usize, iterations: u64) -> Duration {
        let all = u128::from(iterations).saturating_mul(self.blocks(out_len));
        let nanos = all.saturating_mul(NANOS_PER_SECOND) / u128::from(self.per_second);
        Duration::from_nanos(saturate(nanos))
    }

    /// Output blocks of `out_len` bytes, each of which costs all iterations.
    fn blocks(&self, out_len: usize) -> u128 {
        out_len.div_ceil(self.hash.digest_size()).max(1) as u128
    }
}

/// Times `iterations` of one output block.
fn run(hash: HashAlg, iterations: u32) -> Duration {
    let mut out = vec![0; hash.digest_size()];
    let start = Instant::now();
    kdf::pbkdf2(hash, b"passphrase", &[0; 32], iterations, &mut out);
    std::hint::black_box(&out);
    start.elapsed()
}

fn saturate(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

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

    #[test]
    fn time_and_iterations_are_inverse() {
        let rate = Rate::new(HashAlg::Sha256, 8_000_000);
        let second = Duration::from_secs(1);
        assert_eq!(rate.iterations(32, second), 8_000_000);
        assert_eq!(rate.iterations(20, second), 8_000_000);
        assert_eq!(rate.iterations(64, second), 4_000_000);
        assert_eq!(rate.iterations(33, 2 * second), 8_000_000);
        assert_eq!(rate.iterations(32, Duration::ZERO), 0);
        assert_eq!(rate.time(64, 4_000_000), second);
        assert_eq!(rate.time(32, 8_000), Duration::from_millis(1));
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
