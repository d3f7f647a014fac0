//! Writes to standard output and standard error, which may be closed.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use keyslot::{Error, Result};
use serde::Serialize;

use super::{Output, Status, qemu_format};

/// Result of a command: serializes to the JSON that the man page lists, displays as text for a
/// person.
pub trait Report: Serialize + Display {
    /// Exit status of the command.
    fn exit_status(&self) -> Status {
        Status::Done
    }

    /// Whether the command changed something. If the report cannot be printed, the error says so.
    fn is_change(&self) -> bool {
        false
    }
}

/// Prints a report in the format asked for and returns its exit status. JSON is printed even with
/// `quiet`.
pub fn report(report: &impl Report, form: Output, quiet: bool) -> Result<Status> {
    let text = match form {
        Output::Json => qemu_format::json_line(report)?,
        Output::Human if quiet => String::new(),
        Output::Human => report.to_string(),
    };
    if !text.is_empty() {
        let print = if report.is_change() { print_done } else { print };
        print(&text)?;
    }
    Ok(report.exit_status())
}

/// Writes to standard output. A reader that closed the pipe (`| head`) is no error.
pub fn print(text: &str) -> Result<()> {
    print_as(TO_STDOUT, text).map(drop)
}

/// Prints the report of a change; an error says that the change was made.
pub fn print_done(text: &str) -> Result<()> {
    print_as("write to standard output; the change was made", text).map(drop)
}

/// Writes one of several lines that take a while to compute. Returns false once the reader is gone.
pub fn print_row(line: &str) -> Result<bool> {
    print_as(TO_STDOUT, &format!("{line}\n"))
}

/// Writes `text`, and returns false if the reader is gone.
fn print_as(what: &str, text: &str) -> Result<bool> {
    // Layout characters are keyslot's own. Everything else that a terminal obeys is escaped.
    let text = escaped(text, &['\n', '\r', '\t']);
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io(what, error)),
    }
}

const TO_STDOUT: &str = "write to standard output";

/// Writes one line to standard error. An error is ignored: there is nowhere to report it.
pub fn tell(line: &str) {
    let _ = io::stderr().write_all(format!("{}\n", foreign(line)).as_bytes());
}

/// Escapes text that others chose (names of files and processes, strings of a header) for use in a
/// line: everything that a terminal obeys, including newlines.
pub fn foreign(text: &str) -> String {
    escaped(text, &[])
}

/// Name of a file in reports.
pub fn filename(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Names keyslots: `keyslot 3`, `keyslots 1, 4`.
pub fn keyslots(numbers: &[impl Display]) -> String {
    let list: Vec<_> = numbers.iter().map(ToString::to_string).collect();
    let plural = if list.len() == 1 { "" } else { "s" };
    format!("keyslot{plural} {}", list.join(", "))
}

/// Escapes in JSON text what a terminal obeys, except newlines.
pub fn json_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && c != '\n' {
            out.extend([format!("\\u{:04x}", u32::from(c))]);
        } else {
            out.push(c);
        }
    }
    out
}

fn escaped(text: &str, kept: &[char]) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) && !kept.contains(&c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a terminal obeys the character instead of showing it: ESC, C0 and C1 controls, line
/// separators, and controls of the writing direction.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
