//! Prompts on the terminal: for a passphrase, without echo, or for a confirmation.
//!
//! The terminal is restored however a prompt ends: by an answer, an error, Ctrl-C or a `kill`.
//! Signals that would end or stop the process are blocked until then. After Ctrl-Z and `fg` the
//! question is asked again, and so it is after any other SIGCONT: SIGSTOP cannot be blocked, and
//! the shell may have changed the terminal while the process was stopped.
//!
//! Signals are blocked in the asking thread. The kernel would deliver them to any other thread, so
//! no other may exist: threads of key derivations and of the spinner are joined when their work
//! ends.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use keyslot::secret::Passphrase;
use keyslot::{Error, ErrorKind, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcdrain, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::output::foreign;

/// Asks for `what` on the controlling terminal, even if the standard streams are redirected.
pub fn ask(what: &str) -> Result<Passphrase> {
    let failed = |error| Error::io("ask for a passphrase on the terminal", error);
    let mut tty = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    let mut line = Zeroizing::new([0; LONGEST_LINE]);
    let len = loop {
        let hidden = Hidden::new(&tty).map_err(failed)?;
        write!(tty, "{}: ", foreign(what)).map_err(failed)?;
        if hidden.answer_is_there(&tty).map_err(failed)? {
            break tty.read(&mut line[..]).map_err(failed)?;
        }
        writeln!(tty).map_err(failed)?;
    };
    match line[..len].strip_suffix(b"\n") {
        // The terminal drops characters beyond its longest line.
        Some(line) if line.len() + 1 >= LONGEST_LINE => {
            let text =
                format!("the passphrase has {} bytes or more, too many for a terminal", line.len());
            Err(Error::new(ErrorKind::InvalidInput, text)
                .with_hint("read it from a file, with file:PATH"))
        }
        Some(line) => Passphrase::new(line),
        None => Err(Error::new(ErrorKind::Cancelled, "input ended early")),
    }
}

/// Asks a question on the controlling terminal. Any answer but `yes` means no.
pub fn confirm(question: &str) -> Result<bool> {
    let failed = |error| Error::io("ask on the terminal", error);
    let mut tty = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    write!(tty, "{} (yes/no): ", foreign(question)).map_err(failed)?;
    let mut answer = Vec::new();
    let line = BufReader::new(tty).take(LONGEST_LINE as u64).read_until(b'\n', &mut answer);
    line.map_err(failed)?;
    Ok(answer.trim_ascii() == b"yes")
}

/// A terminal without echo, and blocked signals, until this is dropped.
struct Hidden {
    tty: File,
    terminal: Termios,
    signals: SigSet,
    waiting: SignalFd,
}

impl Hidden {
    fn new(tty: &File) -> io::Result<Self> {
        let tty = tty.try_clone()?;
        // Stops a process in the background until `fg`. Otherwise the settings read below would be
        // those that the shell edits its own command line with.
        tcdrain(&tty)?;
        let terminal = tcgetattr(&tty)?;
        let held_up: SigSet = SIGNALS.into_iter().collect();
        let waiting = SignalFd::with_flags(&held_up, SfdFlags::SFD_CLOEXEC)?;
        let signals = held_up.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        let hidden = Self { tty, terminal, signals, waiting };

        let mut without_echo = hidden.terminal.clone();
        without_echo.local_flags.remove(LocalFlags::ECHO);
        // Echo the newline that ends the answer; keep line editing and signals.
        without_echo.local_flags.insert(LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        tcsetattr(&hidden.tty, SetArg::TCSADRAIN, &without_echo)?;
        Ok(hidden)
    }

    /// Waits for a line. Returns false if a signal comes first, which stays pending until the drop.
    fn answer_is_there(&self, tty: &File) -> io::Result<bool> {
        let watch = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut watched = [watch(self.waiting.as_fd()), watch(tty.as_fd())];
        poll(&mut watched, PollTimeout::NONE)?;
        Ok(!watched[0].any().unwrap_or(true))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // In this order: a pending signal may end the process.
        let _ = tcsetattr(&self.tty, SetArg::TCSANOW, &self.terminal);
        let _ = self.signals.thread_set_mask();
    }
}

/// Signals that end, stop or continue a process by default. Rust programs ignore SIGPIPE; SIGKILL
/// and SIGSTOP cannot be blocked.
const SIGNALS: [Signal; 13] = [
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGIO,
    Signal::SIGPROF,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGVTALRM,
    Signal::SIGXCPU,
];
/// Longest line that a terminal returns, in bytes (`termios(3)`).
const LONGEST_LINE: usize = 4096;
