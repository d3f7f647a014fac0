//! The best time of each contender, in rounds: noise of a machine that others use falls out.

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
    pub const QUICK: Self = Self { count: 4, turn: Duration::from_millis(8) };
}

/// Seconds per byte for each of `entries`, which take turns.
pub fn best_of(entries: &mut [Entry], data: &mut [u8], rounds: Rounds) -> Vec<f64> {
    let mut best = vec![f64::INFINITY; entries.len()];
    for _ in 0..rounds.count {
        for (entry, best) in entries.iter_mut().zip(&mut best) {
            *best = best.min(turn(entry.contender.as_mut(), data, rounds.turn));
        }
    }
    best
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
