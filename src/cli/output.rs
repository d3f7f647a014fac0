//! Standard output and standard error, whatever is at their other ends.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use keyslot::{Error, Result};
use serde::Serialize;

use super::{Output, Status, qemu_format};

/// What a command found or did: its JSON is what the man page lists, its text is for a person.
pub trait Report: Serialize + Display {
    /// Exit status of the command.
    fn exit_status(&self) -> Status {
        Status::Done
    }

    /// Whether something was changed. If the report cannot be printed, the error says so.
    fn is_change(&self) -> bool {
        false
    }
}

/// Prints a report in the form that was asked for, and returns its exit status. JSON is printed
/// even if the command is to be quiet.
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

/// Writes to standard output. A reader that has gone (`| head`) has what it wanted.
pub fn print(text: &str) -> Result<()> {
    print_as(TO_STDOUT, text).map(drop)
}

/// The same for what a change came to: the error says that it is done all the same.
pub fn print_done(text: &str) -> Result<()> {
    print_as("write to standard output that the change is done, which it is", text).map(drop)
}

/// Writes a line of several that take a while to make, and says whether anybody reads on.
pub fn print_row(line: &str) -> Result<bool> {
    print_as(TO_STDOUT, &format!("{line}\n"))
}

/// Whether there is a reader.
fn print_as(what: &str, text: &str) -> Result<bool> {
    // Layout is ours; nothing that a terminal obeys gets through, wherever it came from.
    let text = escaped(text, &['\n', '\r', '\t']);
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io(what, error)),
    }
}

const TO_STDOUT: &str = "write to standard output";

/// Writes one line to standard error. There is nowhere to say that it cannot be written.
pub fn tell(line: &str) {
    let _ = io::stderr().write_all(format!("{}\n", foreign(line)).as_bytes());
}

/// Text that others chose (names of files and processes, strings of a header), for a line of ours:
/// what a terminal obeys is escaped, newlines too.
pub fn foreign(text: &str) -> String {
    escaped(text, &[])
}

/// A file's name, as reports have it.
pub fn filename(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// JSON text with the same escaped, as JSON has it.
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
/// separators, and those that turn the direction of what follows.
fn is_obeyed(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
