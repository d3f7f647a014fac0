//! Waiting for other programs, for a limited time.

use std::thread;
use std::time::{Duration, Instant};

/// A time limit for waiting, with pauses between attempts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    start: Instant,
    limit: Duration,
    pause: Duration,
}

impl Patience {
    /// Starts now. Without a limit it lasts [`MOMENT`]: a child that another thread is starting has
    /// all descriptors of this process, and their locks, until its `exec`.
    pub fn new(limit: Option<Duration>) -> Self {
        let limit = limit.unwrap_or(MOMENT);
        Self { start: Instant::now(), limit, pause: Duration::from_millis(5) }
    }

    /// Pauses before another attempt. Returns `false` if no time is left for one.
    pub fn pause(&mut self) -> bool {
        let left = self.limit.saturating_sub(self.start.elapsed());
        if left.is_zero() {
            return false;
        }
        thread::sleep(self.pause.min(left));
        self.pause = (self.pause * 2).min(Duration::from_millis(100));
        true
    }
}

/// Longer than a child takes from `fork` to `exec` on a busy machine.
const MOMENT: Duration = Duration::from_millis(100);
