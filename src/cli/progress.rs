//! Progress of long operations: spinners and bars on a terminal, and qemu-img's percentage.

use std::cell::Cell;
use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::{Output, output};

/// A spinner on standard error. Dropping it clears the line and joins its thread.
pub struct Spinner(Option<Shown>);

struct Shown {
    bar: ProgressBar,
    /// `None` if no thread could be started; the spinner then stands still.
    ticker: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Spinner {
    /// Shows `what`, unless `quiet` or without a terminal.
    pub fn start(what: &'static str, quiet: bool) -> Self {
        if quiet || !io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(what);
        bar.tick();
        let (stop, stopped) = mpsc::channel();
        let ticking = bar.clone();
        let ticker = thread::Builder::new().spawn(move || {
            while stopped.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                ticking.tick();
            }
        });
        Self(Some(Shown { bar, ticker: ticker.ok().map(|thread| (stop, thread)) }))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        let Some(Shown { bar, ticker }) = self.0.take() else { return };
        if let Some((stop, thread)) = ticker {
            drop(stop);
            let _ = thread.join();
        }
        bar.finish_and_clear();
    }
}

/// qemu-img's `-p`: a percentage that the next one overwrites, on standard output, or on standard
/// error if the result is JSON. Once begun, it ends with 100% and a newline, even after an error.
pub struct Percent {
    line: Line,
    begun: Cell<bool>,
}

impl Percent {
    /// Prints nothing yet, and nothing at all unless `shown`.
    pub fn new(shown: bool, result: Output) -> Self {
        Self { line: Line { shown, result }, begun: Cell::new(false) }
    }

    /// Prints 0%.
    pub fn begin(&self) {
        self.begun.set(true);
        self.line.print(0.0);
    }
}

impl Drop for Percent {
    fn drop(&mut self) {
        if self.begun.get() {
            self.line.print(100.0);
        }
    }
}

/// A line of qemu-img's percentages. Dropping it ends the line.
struct Line {
    shown: bool,
    /// Format of the result: JSON has standard output to itself
    result: Output,
}

impl Line {
    fn print(&self, percent: f64) {
        self.write(&format!("    ({percent:.2}/100%)\r"));
    }

    fn write(&self, text: &str) {
        // The work goes on without a reader.
        match self.result {
            _ if !self.shown => {}
            Output::Human => drop(output::print(text)),
            Output::Json => drop(io::stderr().write_all(text.as_bytes())),
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.write("\n");
    }
}

/// Progress of a conversion: qemu-img's percentage, or a bar with rate and time left on standard
/// error.
pub struct Progress {
    line: Line,
    bar: bool,
}

impl Progress {
    /// Prints 0% if `percent`; otherwise shows a bar, unless `is_silent`.
    pub fn begin(percent: bool, result: Output, is_silent: bool) -> Self {
        let line = Line { shown: percent, result };
        line.print(0.0);
        let bar = !percent && !is_silent && io::stderr().is_terminal();
        Self { line, bar }
    }

    /// Runs `work` on `len` bytes. It calls its argument with the bytes done, from any thread.
    pub fn of<T>(
        &self,
        what: &'static str,
        len: u64,
        work: impl FnOnce(&(dyn Fn(u64) + Sync)) -> T,
    ) -> T {
        let bar = self.bar.then(|| {
            let style = ProgressStyle::with_template(BAR)
                .unwrap_or_else(|_| ProgressStyle::default_bar())
                .progress_chars("=> ");
            ProgressBar::new(len).with_style(style).with_message(what)
        });
        let done = Mutex::new(0);
        let result = work(&|bytes| {
            if let Some(bar) = &bar {
                bar.inc(bytes);
            }
            if self.line.shown {
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                let before = *done;
                *done += bytes;
                // Steps as in qemu-img: a hundredth, but at least one chunk.
                let step = (len / 100).max(2 << 20);
                if *done == len || *done / step > before / step {
                    self.line.print(hundredths(*done, len));
                }
            }
        });
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        result
    }

    /// Prints 100% and ends the line.
    pub fn end(self) {
        self.line.print(100.0);
    }
}

#[allow(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn hundredths(done: u64, len: u64) -> f64 {
    100.0 * done as f64 / len as f64
}

const TICK: Duration = Duration::from_millis(100);
const BAR: &str = "{msg} {wide_bar} {percent}% {binary_bytes_per_sec} {eta} left";
