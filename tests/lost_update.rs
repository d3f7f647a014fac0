//! Another program at every system call of an amendment: its change survives, or ours is refused.
//!
//! The command is stopped behind one of its calls (by strace, which sends `SIGSTOP`), cryptsetup
//! changes the same header, or another file is moved to the image's path, and the command goes on.
//! cryptsetup takes a lock on LUKS2 only: there it may have to wait for ours, and then refuse its own
//! change because the header is another.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use keyslot::Image;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::amending::passphrase;
use support::cryptsetup::Cryptsetup;
use support::parallel::in_parallel;
use support::{Running, eventually, peer, run_ok};
use tempfile::TempDir;

/// The calls that touch the image.
const CALLS: [&str; 4] = ["flock", "pread64", "pwrite64", "fdatasync"];

/// What cryptsetup does to its keyslot 2, or to the free keyslot 5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Theirs {
    Add,
    Kill,
    /// Not cryptsetup: another file takes the path.
    Move,
}

/// What the command does to its keyslot 1, or to the free keyslot 3.
#[derive(Clone, Copy, Debug)]
enum Ours {
    Add,
    Erase,
    Replace,
}

const PAIRS: [(Ours, Theirs); 4] = [
    (Ours::Add, Theirs::Add),
    (Ours::Replace, Theirs::Kill),
    (Ours::Erase, Theirs::Add),
    (Ours::Add, Theirs::Move),
];

#[test]
fn another_programs_change_of_luks1_is_not_lost() {
    at_every_call("luks1");
}

#[test]
fn another_programs_change_of_luks2_is_not_lost() {
    at_every_call("luks2");
}

fn at_every_call(format: &str) {
    let (Some(cryptsetup), Some(strace)) = (Cryptsetup::find(), peer("strace")) else { return };
    let programs = (peer("cryptsetup").unwrap(), strace);
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("image.luks");
    let cheap = ["--pbkdf-force-iterations", "1000"];
    if format == "luks1" {
        cryptsetup.format(&image, b"zero", &cheap);
        cryptsetup.add(&image, b"zero", b"one", 1);
        cryptsetup.add(&image, b"zero", b"two", 2);
    } else {
        let cheap = [&["--pbkdf", "pbkdf2"][..], &cheap].concat();
        cryptsetup.format_luks2(&image, b"zero", 8, &cheap);
        cryptsetup.add_luks2(&image, [b"zero", b"one"], 1, &cheap);
        cryptsetup.add_luks2(&image, [b"zero", b"two"], 2, &cheap);
    }
    let bytes = fs::read(&image).unwrap();

    let mut points = Vec::new();
    for (ours, theirs) in PAIRS {
        let undisturbed = Scene::new(&bytes, &programs);
        for (call, number) in undisturbed.calls(ours, theirs) {
            points.push((ours, theirs, call, number));
        }
    }
    assert!(points.len() > 40, "{} points", points.len());
    in_parallel(points, |(ours, theirs, call, number)| {
        Scene::new(&bytes, &programs).disturb(*ours, *theirs, call, *number);
    });
}

/// An image of its own, and the programs.
struct Scene {
    directory: TempDir,
    image: PathBuf,
    cryptsetup: PathBuf,
    strace: PathBuf,
}

impl Scene {
    fn new(bytes: &[u8], (cryptsetup, strace): &(PathBuf, PathBuf)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image.luks");
        fs::write(&image, bytes).unwrap();
        fs::write(directory.path().join("moved.luks"), bytes).unwrap();
        for (name, secret) in [("zero", "zero"), ("new", "ours"), ("their", "theirs")] {
            fs::write(directory.path().join(name), secret).unwrap();
        }
        Self { directory, image, cryptsetup: cryptsetup.clone(), strace: strace.clone() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The command under strace, with these options of strace's.
    fn ours(&self, ours: Ours, options: &[String]) -> Command {
        let mut command = Command::new(&self.strace);
        command.args(["-f", "-o"]).arg(self.file("trace"));
        command.arg(format!("--trace={}", CALLS.join(","))).args(options);
        command.arg(env!("CARGO_BIN_EXE_keyslot"));
        let source = |name: &str| format!("file:{}", self.file(name).display());
        let new = ["--new-secret", &source("new"), "--pbkdf", "pbkdf2", "--iterations", "1000"];
        command.args(match ours {
            Ours::Add => ["add", "--keyslot", "3"],
            Ours::Erase => ["erase", "--keyslot", "1"],
            Ours::Replace => ["replace", "--keyslot", "1"],
        });
        command.args(["--secret", &source("zero")]);
        if !matches!(ours, Ours::Erase) {
            command.args(new);
        }
        command.arg(&self.image).stdout(Stdio::null());
        command
    }

    /// The calls of an amendment that nothing disturbs, each with its number among those of its name.
    fn calls(&self, ours: Ours, theirs: Theirs) -> Vec<(String, usize)> {
        run_ok(&mut self.ours(ours, &[]));
        let trace = fs::read_to_string(self.file("trace")).unwrap();
        let calls = trace.lines().filter_map(|line| {
            let (thread, rest) = line.split_once(' ')?;
            let (call, _) = rest.trim_start().split_once('(')?;
            CALLS.contains(&call).then_some((thread, call, line))
        });
        // strace counts the calls of each thread for itself.
        let mut counts = BTreeMap::<_, usize>::new();
        let (mut points, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        for (thread, call, line) in calls {
            let number = counts.entry((thread, call)).or_default();
            *number += 1;
            // Behind the unlocking nothing is looked at: what is moved then was moved later.
            let is_over = theirs == Theirs::Move && line.contains("LOCK_UN");
            let set = if is_over { &mut left_out } else { &mut points };
            set.insert((call.to_owned(), *number));
        }
        points.difference(&left_out).cloned().collect()
    }

    fn theirs(&self, theirs: Theirs) -> Command {
        let mut command = match theirs {
            Theirs::Move => {
                let mut command = Command::new("mv");
                command.arg(self.file("moved.luks"));
                command
            }
            Theirs::Add | Theirs::Kill => Command::new(&self.cryptsetup),
        };
        match theirs {
            Theirs::Move => command.arg(&self.image),
            Theirs::Add => {
                let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
                command.args(["luksAddKey", "-q", "--key-slot", "5"]).args(cheap);
                let secret = self.file("zero");
                command.arg("--key-file").arg(secret).arg(&self.image).arg(self.file("their"))
            }
            Theirs::Kill => command.args(["luksKillSlot", "-q"]).arg(&self.image).arg("2"),
        };
        command
    }

    fn disturb(&self, ours: Ours, theirs: Theirs, call: &str, number: usize) {
        let inject = format!("--inject={call}:signal=SIGSTOP:when={number}");
        let errors = fs::File::create(self.file("errors")).unwrap();
        let mut amends = Running::spawn(self.ours(ours, &[inject]).stderr(errors));
        let trace = self.file("trace");
        let stops = || {
            let trace = fs::read_to_string(&trace).unwrap_or_default();
            let stop = |line: &&str| line.contains("--- stopped by SIGSTOP");
            let pid = |line: &str| line.split_whitespace().next()?.parse().ok();
            trace.lines().filter(stop).filter_map(pid).collect::<Vec<i32>>()
        };
        eventually("the command is stopped", || !stops().is_empty() || amends.has_ended());
        let mut changes = Running::spawn(&mut self.theirs(theirs));
        let pid = changes.pid();
        eventually("the other is done, or waits", || changes.has_ended() || waits(pid));
        // Each of its threads has a call of this number.
        let mut continued = 0;
        eventually("the command is done", || {
            for pid in &stops()[continued..] {
                continued += 1;
                let _ = kill(Pid::from_raw(*pid), Signal::SIGCONT);
            }
            amends.has_ended()
        });
        let is_done = amends.wait().success();
        let what = format!(
            "{ours:?} and {theirs:?} behind {call} {number}: ours {is_done}, {}",
            fs::read_to_string(self.file("errors")).unwrap()
        );
        let theirs = changes.wait().success().then_some(theirs);
        assert!(theirs.is_some() || is_done, "{what}: neither is done");
        self.assert_nothing_is_lost(ours, theirs, is_done, &what);
    }

    /// `theirs` is none if they refused it.
    fn assert_nothing_is_lost(
        &self,
        ours: Ours,
        theirs: Option<Theirs>,
        is_done: bool,
        what: &str,
    ) {
        let image = Image::open(&self.image).unwrap();
        let opens = |secret: &str| image.unlock(&passphrase(secret)).is_ok();
        assert!(opens("zero"), "{what}: the secret that nobody changes");
        match theirs {
            None => {}
            Some(Theirs::Add) => assert!(opens("theirs"), "{what}: their secret is lost"),
            Some(Theirs::Kill) => assert!(!opens("two"), "{what}: their keyslot is back"),
            Some(Theirs::Move) => assert!(opens("one") && opens("two") || is_done, "{what}"),
        }
        let is_there = match ours {
            Ours::Add => opens("ours") && opens("one"),
            Ours::Erase => !opens("one"),
            Ours::Replace => opens("ours") && !opens("one"),
        };
        assert!(!is_done || is_there, "{what}: success is said and nothing changed");
        let is_kept = opens("one") || matches!(ours, Ours::Erase) || opens("ours");
        assert!(is_kept, "{what}: neither secret opens");
    }
}

/// Whether a process waits for a lock.
fn waits(pid: u32) -> bool {
    let pid = format!(" {pid} ");
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().any(|line| line.contains("-> FLOCK") && line.contains(&pid))
}
