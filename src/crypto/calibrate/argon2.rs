//! Calibrates Argon2: the memory and passes that take a given time.
//!
//! The parameters are those cryptsetup would choose: four passes over as much memory as takes the
//! time. If that exceeds the allowed memory, more passes over the allowed memory. On a machine that
//! is too slow, four passes over 64 MiB, however long they take.
//!
//! The time is nearly proportional to passes times memory. A short run therefore predicts the size
//! of a longer one, and only the last run takes as long as an unlock. Without disturbances all runs
//! together take less than twice that time.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::crypto::{Argon2Variant, kdf};
use crate::error::{Error, ErrorKind, Result};

/// Passes, memory in KiB and lanes that derive one key of 64 bytes in `time`, in the form that
/// [`kdf::argon2`] takes.
///
/// The memory never exceeds `max_memory_kib`, and is lower if the machine has less.
/// [`ErrorKind::OutOfMemory`] if not even 64 MiB, or a lower maximum, can be allocated.
/// [`ErrorKind::InvalidInput`] if the lanes do not fit the maximum.
///
/// A run takes at most ten seconds. Longer times are extrapolated.
pub fn argon2(
    variant: Argon2Variant,
    time: Duration,
    max_memory_kib: u32,
    parallelism: u32,
) -> Result<[u32; 3]> {
    search(time, Bounds::new(max_memory_kib, parallelism)?, |cost| {
        let mut key = [0; KEY_SIZE];
        let start = Instant::now();
        kdf::argon2(variant, b"passphrase", &[0; 32], cost, &mut key)?;
        black_box(&key);
        Ok(start.elapsed())
    })
}

/// The cost that takes `time`, given a function `run` that measures a cost.
fn search(
    time: Duration,
    mut bounds: Bounds,
    mut run: impl FnMut([u32; 3]) -> Result<Duration>,
) -> Result<[u32; 3]> {
    let longest = time.min(LONGEST_RUN);
    let mut cost = bounds.cost(0);
    let mut spent = Duration::ZERO;
    for _ in 0..RUNS {
        let took = loop {
            match run(cost) {
                Err(error) if error.kind() == ErrorKind::OutOfMemory && bounds.lower(cost) => {
                    cost = bounds.cost(work(cost));
                }
                result => break result?,
            }
        };
        let scaled = |to| work(cost).saturating_mul(nanos(to)) / nanos(took).max(1);
        let result = bounds.cost(scaled(time));
        if is_near(took, time) || result == cost {
            return Ok(cost);
        }
        spent = spent.saturating_add(took);
        // The remaining change is small, or the run was long enough to rely on. A run that took
        // much longer than predicted was disturbed, or was the first to touch memory that a virtual
        // machine had not allocated yet.
        if spent >= longest && took <= longest + longest / 2 {
            return Ok(result);
        }
        // Two large steps end nearer to the target than one, and make an overshoot cheaper.
        let next = if took < longest / 8 { longest / 3 } else { longest };
        cost = bounds.cost(scaled(next).min(work(cost).saturating_mul(MOST_GROWTH)));
    }
    Ok(cost)
}

/// Limits on the memory, and the lanes that share it.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    least: u32,
    most: u32,
    lanes: u32,
}

impl Bounds {
    fn new(most: u32, lanes: u32) -> Result<Self> {
        let least = lanes.saturating_mul(LEAST_OF_A_LANE).max(LEAST_MEMORY);
        if lanes == 0 || most < least {
            let text = format!("{lanes} lanes of Argon2 do not fit {most} KiB of memory");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(Self { least: LEAST_CALIBRATED.min(most).max(least), most, lanes })
    }

    /// The cost of about this much [`work`]: memory first, then passes.
    fn cost(self, work: u128) -> [u32; 3] {
        let memory = saturate(work / u128::from(LEAST_PASSES)).clamp(self.least, self.most);
        let passes = saturate(work.saturating_add(u128::from(memory / 2)) / u128::from(memory));
        [passes.max(LEAST_PASSES), memory, self.lanes]
    }

    /// Halves the memory of `cost`, which could not be allocated. Returns false at the minimum.
    fn lower(&mut self, [_, memory, _]: [u32; 3]) -> bool {
        self.most = (memory / 2).max(self.least);
        self.most < memory
    }
}

/// Passes times memory, to which the time is nearly proportional.
fn work([passes, memory, _]: [u32; 3]) -> u128 {
    u128::from(passes) * u128::from(memory)
}

/// Whether the time is within the tolerance that cryptsetup also uses.
fn is_near(took: Duration, time: Duration) -> bool {
    let (took, time) = (nanos(took).saturating_mul(100), nanos(time));
    (time.saturating_mul(95)..=time.saturating_mul(110)).contains(&took)
}

fn nanos(time: Duration) -> u128 {
    time.as_nanos()
}

fn saturate(number: u128) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Size of the largest key that encrypts a LUKS2 keyslot by default, in bytes.
const KEY_SIZE: usize = 64;

/// cryptsetup's minimum of passes; with fewer, Argon2i does not use its memory well.
const LEAST_PASSES: u32 = 4;

/// cryptsetup's minimum of memory in KiB.
const LEAST_MEMORY: u32 = 32;

/// Minimum of memory for each lane in KiB (RFC 9106, section 3.1).
const LEAST_OF_A_LANE: u32 = 8;

/// Minimum of calibrated memory in KiB, unless the maximum is lower, however slow the machine.
const LEAST_CALIBRATED: u32 = 64 << 10;

/// Limit on the runs, in case the clock stands still.
const RUNS: u32 = 8;

/// Limit on the growth from one run to the next: overheads dominate the shortest runs.
const MOST_GROWTH: u128 = 256;

/// Longer runs are extrapolated instead of measured.
const LONGEST_RUN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    /// A simulated machine to calibrate on, and its record of runs.
    struct Machine {
        /// Time to fill a KiB once
        pass: f64,
        /// Time to allocate and wipe a KiB
        touch: f64,
        /// Available KiB
        memory: u32,
        runs: u32,
        spent: Duration,
    }

    impl Machine {
        /// `pass` and `touch` are in nanoseconds.
        fn new(pass: f64, touch: f64) -> Self {
            Self { pass, touch, memory: u32::MAX, runs: 0, spent: Duration::ZERO }
        }

        fn time(&self, [passes, memory, _]: [u32; 3]) -> Duration {
            let nanos = (f64::from(passes) * self.pass + self.touch) * f64::from(memory);
            Duration::from_secs_f64(nanos / 1e9)
        }

        fn search(&mut self, time: Duration, most: u32, lanes: u32) -> Result<[u32; 3]> {
            let bounds = Bounds::new(most, lanes)?;
            let found = search(time, bounds, |cost| {
                self.runs += 1;
                assert_within(cost, most, lanes);
                if cost[1] > self.memory {
                    return Err(Error::new(ErrorKind::OutOfMemory, "no memory"));
                }
                let took = self.time(cost);
                self.spent += took;
                Ok(took)
            })?;
            assert_within(found, most, lanes);
            Ok(found)
        }
    }

    fn assert_within([passes, memory, parallelism]: [u32; 3], most: u32, lanes: u32) {
        assert!(passes >= 4, "{passes}");
        assert!((most.min(64 << 10)..=most).contains(&memory), "{memory}");
        assert!(memory >= 32 && memory >= 8 * lanes, "{memory}");
        assert_eq!(parallelism, lanes);
    }

    const SECOND: Duration = Duration::from_secs(1);
    const GIB: u32 = 1 << 20;

    /// Nanoseconds to fill a KiB, and to allocate it: from a server with four threads to a board
    /// with one.
    const MACHINES: [(f64, f64); 5] =
        [(70.0, 150.0), (150.0, 0.0), (300.0, 500.0), (1200.0, 300.0), (9000.0, 2000.0)];

    #[test]
    fn every_target_on_every_machine() {
        for (pass, touch) in MACHINES {
            for millis in [1, 100, 2000, 3_600_000] {
                for most in [32, 1000, 64 << 10, 300_000, GIB, u32::MAX] {
                    let time = Duration::from_millis(millis);
                    let mut machine = Machine::new(pass, touch);
                    let cost = machine.search(time, most, 4).unwrap();
                    let took = machine.time(cost);
                    let what = format!("{pass} {touch} {millis} ms {most}: {cost:?} {took:?}");

                    let least = machine.time([4, most.min(64 << 10), 4]);
                    if least >= time {
                        assert_eq!(took, least, "{what}");
                        assert_eq!(machine.runs, 1, "{what}");
                    } else {
                        // From four passes to five is a step of a quarter. An extrapolated cost
                        // touches its memory only once, as the run it comes from did.
                        let steps = match cost {
                            _ if time > LONGEST_RUN => 0.83..1.13,
                            [_, memory, _] if memory == most => 0.88..1.13,
                            _ => 0.94..1.11,
                        };
                        let ratio = took.as_secs_f64() / time.as_secs_f64();
                        assert!(steps.contains(&ratio), "{what}");
                        // Memory is raised first.
                        assert!(cost[0] == 4 || cost[1] == most, "{what}");
                    }
                    assert!(machine.runs <= 6, "{what}: {} runs", machine.runs);
                    let budget = (2 * time.min(LONGEST_RUN)).max(least);
                    assert!(machine.spent <= budget, "{what}: {:?}", machine.spent);
                }
            }
        }
    }

    #[test]
    fn two_seconds_are_spent_once_and_a_half() {
        let mut machine = Machine::new(150.0, 100.0);
        let cost = machine.search(2 * SECOND, GIB, 2).unwrap();
        assert_eq!((cost[1], machine.runs), (GIB, 3));
        assert!(machine.spent < 3 * SECOND, "{:?}", machine.spent);
    }

    /// Another program uses the machine during the last run.
    #[test]
    fn a_run_that_was_disturbed_is_run_again() {
        let machine = Machine::new(150.0, 100.0);
        let mut runs = 0;
        let cost = search(2 * SECOND, Bounds::new(GIB, 2).unwrap(), |cost| {
            runs += 1;
            Ok(machine.time(cost) * if runs == 3 { 3 } else { 1 })
        });
        let took = machine.time(cost.unwrap());
        assert!(took.abs_diff(2 * SECOND) < SECOND / 4, "{took:?}");
        assert_eq!(runs, 4);
    }

    #[test]
    fn less_memory_where_there_is_less() {
        for memory in [64 << 10, 100_000, 500_000, GIB - 1] {
            let mut machine = Machine { memory, ..Machine::new(70.0, 0.0) };
            let cost = machine.search(2 * SECOND, u32::MAX, 4).unwrap();
            assert!(cost[1] <= memory && cost[1] >= (memory / 2).max(64 << 10), "{cost:?}");
            let took = machine.time(cost).as_secs_f64();
            assert!((1.8..2.2).contains(&took), "{cost:?} {took}");
        }
        let mut machine = Machine { memory: (64 << 10) - 1, ..Machine::new(70.0, 0.0) };
        let error = machine.search(2 * SECOND, GIB, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
        assert_eq!(machine.runs, 1);
    }

    #[test]
    fn other_errors_end_it() {
        let bounds = Bounds::new(GIB, 1).unwrap();
        let error = search(SECOND, bounds, |_| Err(Error::new(ErrorKind::Unsupported, "no")));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn clocks_that_lie() {
        let mut lies = [Duration::ZERO, Duration::MAX, Duration::from_nanos(1), 3 * SECOND]
            .into_iter()
            .cycle();
        for time in [Duration::ZERO, Duration::from_nanos(1), SECOND, Duration::MAX] {
            for most in [32, GIB, u32::MAX] {
                for lie in [Duration::ZERO, Duration::MAX] {
                    assert_ends(time, most, |_| Ok(lie));
                }
                assert_ends(time, most, |_| Ok(lies.next().unwrap()));
            }
        }
    }

    fn assert_ends(time: Duration, most: u32, mut run: impl FnMut([u32; 3]) -> Result<Duration>) {
        let mut runs = 0;
        let found = search(time, Bounds::new(most, 1).unwrap(), |cost| {
            runs += 1;
            assert_within(cost, most, 1);
            run(cost)
        });
        assert_within(found.unwrap(), most, 1);
        assert!(runs <= RUNS, "{runs}");
    }

    #[test]
    fn lanes_have_to_fit() {
        for (most, lanes) in [(31, 1), (0, 1), (GIB, 0), (39, 5), (u32::MAX - 1, u32::MAX)] {
            let error = Bounds::new(most, lanes).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{most} {lanes}");
        }
        assert_eq!(Bounds::new(40, 5).unwrap().least, 40);
        assert_eq!(Bounds::new(GIB, 10_000).unwrap().least, 80_000);
    }

    #[test]
    fn this_machine() {
        let variant = Argon2Variant::Argon2id;
        let [passes, memory, lanes] = argon2(variant, Duration::from_millis(5), 1024, 2).unwrap();
        assert!(passes >= 4 && memory == 1024 && lanes == 2, "{passes} {memory} {lanes}");
    }
}
