//! A file under another program's lease is opened once the lease is given back, or refused by name.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keyslot::storage::{Access, FileStorage};
use keyslot::{ErrorKind, OpenOptions, Sharing};
use support::{Running, peer};
use tempfile::TempDir;

#[test]
fn every_opening_waits_until_a_lease_is_given_back() {
    let Some(python) = peer("python3") else { return };
    let (_directory, path) = image();
    for sharing in [Sharing::None, Sharing::ReadData, Sharing::Amend] {
        for wait in [None, Some(Duration::from_secs(60))] {
            let mut lease = Lease::take(&python, &path);
            let options = OpenOptions::new().sharing(sharing).wait(wait);
            thread::scope(|scope| {
                let opened = scope.spawn(|| options.open(&path).map(drop));
                assert_eq!(lease.line(), "asked");
                assert!(!opened.is_finished());
                lease.give_back();
                opened.join().unwrap().unwrap();
            });
        }
    }
}

#[test]
fn the_command_waits_until_a_lease_is_given_back() {
    let Some(python) = peer("python3") else { return };
    let (_directory, path) = image();
    for arguments in [&["info"][..], &["repair", "--wait", "60"]] {
        let mut lease = Lease::take(&python, &path);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
        let command = command.args(arguments).arg(&path).stdout(Stdio::null());
        let mut running = Running::spawn(command);
        assert_eq!(lease.line(), "asked");
        assert!(!running.has_ended());
        lease.give_back();
        assert!(running.wait().success(), "{arguments:?}");
    }
}

#[test]
fn the_holder_of_a_lease_that_is_kept_is_named() {
    let Some(python) = peer("python3") else { return };
    let (_directory, path) = image();
    let lease = Lease::take(&python, &path);

    let (start, wait) = (Instant::now(), Duration::from_millis(50));
    let options = OpenOptions::new().sharing(Sharing::Amend).wait(Some(wait));
    let error = options.open(&path).unwrap_err();
    assert!(start.elapsed() >= wait);
    assert_eq!((error.kind(), error.path()), (ErrorKind::InUse, Some(&*path)));
    let (text, holder) =
        ("Failed to break the lease on the file: held by ", format!("(pid {})", lease.child.id()));
    assert!(error.message().starts_with(text) && error.message().ends_with(&holder), "{error}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
    let output = support::run(command.args(["repair", "--wait", "0"]).arg(&path));
    assert_eq!(output.status.code(), Some(5), "{}", support::stderr(&output));
    drop(lease);
    FileStorage::open(&path, Access::ReadWrite).unwrap();
}

fn image() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.luks");
    std::fs::copy("testdata/luks1_qemu.img", &path).unwrap();
    (directory, path)
}

/// A lease that another process holds.
struct Lease {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Lease {
    fn take(python: &Path, path: &Path) -> Self {
        let mut command = Command::new(python);
        command.arg("tests/support/lease.py").arg(path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut lease = Self { child, input, output };
        assert_eq!(lease.line(), "held");
        lease
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn give_back(&mut self) {
        self.input.take().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
