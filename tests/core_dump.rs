//! A process that holds a secret leaves no core dump.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use command::{KEYSLOT, Scene};
use nix::libc::O_NONBLOCK;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use support::{Running, eventually, peer};

#[test]
fn a_command_that_reads_a_secret_leaves_no_core_dump() {
    let Some(prlimit) = peer("prlimit") else { return };
    let scene = Scene::new();
    let fifo = scene.dir.path().join("secret");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let ends_with_a_dump = |program: &[&str]| {
        let mut command = Command::new(&prlimit);
        command.arg("--core=unlimited").args(program).current_dir(scene.dir.path());
        let mut running = Running::spawn(&mut command);
        // It waits for the secret when it has opened the other end.
        let mut writer = None;
        eventually("it reads the secret", || {
            let opened = OpenOptions::new().write(true).custom_flags(O_NONBLOCK).open(&fifo);
            writer = opened.ok();
            writer.is_some() || running.has_ended()
        });
        let pid = Pid::from_raw(running.pid().try_into().unwrap());
        kill(pid, Signal::SIGQUIT).unwrap();
        let status = running.wait();
        assert_eq!(status.signal(), Some(Signal::SIGQUIT as i32), "{status:?}");
        status.core_dumped()
    };
    if !ends_with_a_dump(&["cat", fifo.to_str().unwrap()]) {
        eprintln!("SKIPPED: no process leaves a core dump here");
    }
    let secret = format!("file:{}", fifo.display());
    let image = scene.image.to_str().unwrap();
    assert!(!ends_with_a_dump(&[KEYSLOT, "check", "--secret", &secret, image]));
}
