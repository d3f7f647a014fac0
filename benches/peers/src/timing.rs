//! The times of the contenders, in rounds, so that noise of a machine that others use falls out.

use std::hint::black_box;
use std::time::{Duration, Instant};

use crate::contender::{Contender, Entry};

/// How often everybody has a turn, and how long one is.
#[derive(Clone, Copy)]
pub struct Rounds {
    pub count: u32,
    turn: Duration,
}

impl Rounds {
    pub const FULL: Self = Self { count: 15, turn: Duration::from_millis(20) };
    pub const QUICK: Self = Self { count: 5, turn: Duration::from_millis(8) };
}

/// What one contender took in each round, in seconds per byte.
pub struct Times(Vec<f64>);

impl Times {
    pub fn best(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// How much faster this one was. A CPU that changes its clock now and then changes it for both:
    /// therefore the median over the rounds, and not the quotient of the best times.
    pub fn speed_relative_to(&self, other: &Self) -> f64 {
        let mut ratios: Vec<_> = self.0.iter().zip(&other.0).map(|(own, its)| its / own).collect();
        ratios.sort_unstable_by(f64::total_cmp);
        ratios[ratios.len() / 2]
    }
}

/// The times of all `entries`, which take turns.
pub fn in_turn(entries: &mut [Entry], data: &mut [u8], rounds: Rounds) -> Vec<Times> {
    let mut times: Vec<_> = entries.iter().map(|_| Times(Vec::new())).collect();
    for _ in 0..rounds.count {
        for (entry, times) in entries.iter_mut().zip(&mut times) {
            times.0.push(turn(entry.contender.as_mut(), data, rounds.turn));
        }
    }
    times
}

/// The best batch of calls in a turn. A batch is short, so that some are not interrupted even on a
/// machine with more to do than it has cores, and long beside a reading of the clock.
fn turn(contender: &mut dyn Contender, data: &mut [u8], turn: Duration) -> f64 {
    let start = Instant::now();
    // The one that had its turn before may have left nothing of ours in the caches.
    contender.pass(data);
    let call = start.elapsed().max(Duration::from_nanos(1));
    let calls = (BATCH.as_nanos() / call.as_nanos()).max(1);
    let mut best = f64::INFINITY;
    loop {
        let batch = Instant::now();
        let mut bytes = 0;
        for _ in 0..calls {
            bytes += contender.pass(black_box(&mut *data));
        }
        best = best.min(batch.elapsed().as_secs_f64() / bytes as f64);
        if start.elapsed() >= turn {
            return best;
        }
    }
}

/// Memory that begins at a page, as that of programs does which care for speed.
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
}

impl Buffer {
    /// Every page is written to, and so is there.
    pub fn new(size: usize) -> Self {
        let bytes = vec![0xa5; size + PAGE];
        let start = bytes.as_ptr().align_offset(PAGE);
        Self { bytes, start }
    }

    pub fn slice(&mut self, size: usize) -> &mut [u8] {
        &mut self.bytes[self.start..][..size]
    }
}

const PAGE: usize = 4096;
const BATCH: Duration = Duration::from_micros(500);
