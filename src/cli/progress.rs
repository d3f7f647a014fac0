//! Signs of life while a key is derived, on a terminal only.

use std::cell::Cell;
use std::io::IsTerminal;
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
    shown: bool,
    begun: Cell<bool>,
}

impl Percent {
    /// Nothing yet; nothing at all if it is not wanted.
    pub fn new(shown: bool) -> Self {
        Self { shown, begun: Cell::new(false) }
    }

    /// The work begins.
    pub fn begin(&self) {
        self.begun.set(true);
        self.print("    (0.00/100%)\r");
    }

    fn print(&self, text: &str) {
        if self.shown {
            // Whoever reads it is gone: the work goes on.
            let _ = output::print(text);
        }
    }
}

impl Drop for Percent {
    fn drop(&mut self) {
        if self.begun.get() {
            self.print("    (100.00/100%)\r");
        }
        self.print("\n");
    }
}
