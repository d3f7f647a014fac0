//! Standard output and standard error, whatever is at their other ends.

use std::io::{self, ErrorKind, Write};

use keyslot::{Error, Result};

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
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Error::io(what, error)),
    }
}

const TO_STDOUT: &str = "write to standard output";

/// Writes one line to standard error. There is nowhere to say that it cannot be written.
///
/// What a terminal would obey is escaped: names of files, and of processes, may have it in them.
pub fn tell(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    for c in line.chars() {
        if c.is_control() {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text.push('\n');
    let _ = io::stderr().write_all(text.as_bytes());
}
