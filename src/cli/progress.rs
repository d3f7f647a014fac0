//! Signs of life while something takes time: on a terminal only, but for qemu-img's percentage.

use std::cell::Cell;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

/// A spinner on standard error; gone when it is dropped.
pub struct Spinner(Option<ProgressBar>);

impl Spinner {
    /// Says `what` is going on, unless that is not wanted or nobody would see it.
    pub fn start(what: &'static str, quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let bar = ProgressBar::new_spinner().with_style(style).with_message(what);
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

/// qemu-img's `-p`: a percentage on standard output that the next one overwrites. Whatever comes
/// of it, what was begun ends at 100%, and the line ends.
pub struct Percent {
    line: Line,
    begun: Cell<bool>,
}

impl Percent {
    /// Nothing yet; nothing at all if it is not wanted.
    pub fn new(shown: bool) -> Self {
        Self { line: Line { shown }, begun: Cell::new(false) }
    }

    /// The work begins.
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

/// A line of qemu-img's percentages, which ends when it is dropped.
struct Line {
    shown: bool,
}

impl Line {
    fn print(&self, percent: f64) {
        self.write(&format!("    ({percent:.2}/100%)\r"));
    }

    fn write(&self, text: &str) {
        if self.shown {
            // Whoever reads it is gone: the work goes on.
            let _ = output::print(text);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.write("\n");
    }
}

/// How far a conversion is: qemu-img's percentage on standard output, or a bar with rate and time
/// left on standard error.
pub struct Progress {
    line: Line,
    bar: bool,
}

impl Progress {
    /// The percentage, if it is wanted and not to be `quiet`, begins.
    pub fn begin(percent: bool, quiet: bool, is_qemu_img: bool) -> Self {
        let line = Line { shown: percent && !quiet };
        line.print(0.0);
        let bar = !percent && !quiet && !is_qemu_img && std::io::stderr().is_terminal();
        Self { line, bar }
    }

    /// Does `work` on `len` bytes, which tells of those that are done, from any thread.
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
                // qemu-img's steps: its chunks, and a hundredth at least.
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

    /// The work is done, and the line ends.
    pub fn end(self) {
        self.line.print(100.0);
    }
}

#[allow(clippy::cast_precision_loss, reason = "two decimals are shown")]
fn hundredths(done: u64, len: u64) -> f64 {
    100.0 * done as f64 / len as f64
}

const BAR: &str = "{msg} {wide_bar} {percent}% {binary_bytes_per_sec} {eta} left";
