//! The command, held up at its first write: it holds its locks and has written nothing.

use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Running, eventually};

/// A command that is about to write for the first time. It is killed when this is dropped.
#[derive(Debug)]
pub struct HeldUp {
    strace: Running,
    pub pid: u32,
}

impl HeldUp {
    pub fn has_ended(&mut self) -> bool {
        self.strace.has_ended()
    }
}

impl Drop for HeldUp {
    fn drop(&mut self) {
        // Without strace it would go on.
        let _ = kill(Pid::from_raw(i32::try_from(self.pid).unwrap()), Signal::SIGKILL);
    }
}

/// Starts `command` under strace, and waits until it is about to write for the first time.
pub fn held_up(strace: &Path, command: &Command) -> HeldUp {
    let mut traced = Command::new(strace);
    traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]);
    traced.args(["-e", "inject=pwrite64:delay_enter=60000000:when=1"]);
    traced.arg(command.get_program()).args(command.get_args());
    traced.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(directory) = command.get_current_dir() {
        traced.current_dir(directory);
    }
    let running = Running::spawn(&mut traced);
    eventually("the first write", || writing(running.pid()).is_some());
    let pid = writing(running.pid()).unwrap();
    HeldUp { strace: running, pid }
}

/// The child of strace whose main thread is about to write.
pub fn writing(strace: u32) -> Option<u32> {
    let children = std::fs::read_to_string(format!("/proc/{strace}/task/{strace}/children"));
    let children = children.unwrap_or_default();
    let is_writing = |pid: &&str| {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap_or_default();
        call.split(' ').next() == Some(&nix::libc::SYS_pwrite64.to_string())
    };
    children.split(' ').find(is_writing)?.parse().ok()
}
