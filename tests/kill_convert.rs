//! `keyslot convert` killed at every write, sync, link and rename, failed by the system at each of
//! them, and interrupted at any moment: under the target's name there is nothing, or what was
//! there, or the complete image; and nothing of ours lies beside it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/converting.rs"]
mod converting;
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use command::{KEYSLOT, SECRETS, assert_refusal};
use converting::{
    Desk, FROM_LUKS, OBJECTS, TO_LUKS, aes_256_xts, luks, noise, payload, volume_key,
};
use nix::libc::{SIGINT, SIGKILL, SIGTERM};
use support::parallel::in_parallel;
use support::{peer, run, run_ok};

/// More calls of a kind than these are tried in samples.
const ALL_OF_THEM: usize = 12;
const CALLS: [&str; 4] =
    ["pwrite64", "fdatasync,fsync", "linkat,link", "rename,renameat,renameat2"];

#[derive(Clone, Debug)]
struct Case {
    words: String,
    /// What is under the target's name before
    old: Option<&'static [u8]>,
}

fn cases() -> Vec<Case> {
    let old = b"what was there before".as_slice();
    let case = |(options, source, target, old)| Case {
        words: format!("-q {options}{source} {target} new"),
        old,
    };
    let raw = "-f raw plain.raw";
    [
        ("", raw, TO_LUKS, None),
        ("", FROM_LUKS, "-O raw", None),
        ("--force ", raw, TO_LUKS, Some(old)),
        ("--force ", FROM_LUKS, "-O raw", Some(old)),
        ("", FROM_LUKS, TO_LUKS, None),
        ("", raw, "-O raw", None),
    ]
    .map(case)
    .to_vec()
}

#[test]
fn killed_at_each_call() {
    let Some(strace) = peer("strace") else { return };
    in_parallel(cases(), |case| {
        let mut kills = CALLS.map(|_| 0);
        for (calls, kills) in CALLS.into_iter().zip(&mut kills) {
            for when in whens() {
                let desk = case.desk();
                let output = case.run(&strace, &desk, &format!("{calls}:signal=KILL"), when);
                let at = format!("{}: killed at {calls} {when}", case.words);
                if output.status.success() {
                    case.assert_complete(&desk);
                    break;
                }
                assert_eq!(output.status.signal(), Some(SIGKILL), "{at}: {output:?}");
                *kills += 1;
                // A successor has a name of its own until it has the old one's.
                let is_renamed = calls.starts_with("rename") || calls.starts_with("link");
                case.assert_nothing_or_all(&desk, case.old.is_some() && is_renamed, &at);
            }
        }
        let [writes, syncs, links, renames] = kills;
        eprintln!("{}: killed at {kills:?} of {CALLS:?}", case.words);
        assert!(writes > 1 && syncs > 0 && links + renames > 0, "{}: {kills:?}", case.words);
    });
}

/// Success is said of what is durable, and a name is given to nothing else. (qemu-img does not
/// sync.)
#[test]
fn durable_before_it_has_its_name() {
    let Some(strace) = peer("strace") else { return };
    for case in cases() {
        let desk = case.desk();
        let log = desk.path("log");
        let mut command = Command::new(&strace);
        command.args(["-f", "-qq", "-e", &format!("trace={}", CALLS.join(","))]).arg("-o");
        command.arg(&log).args([KEYSLOT, "convert"]).args(case.words.split(' ')).envs(SECRETS);
        run_ok(command.current_dir(desk.dir.path()));
        let log = fs::read_to_string(log).unwrap();
        let last = |names: &[&str]| {
            let is_it = |line: &str| names.iter().any(|name| line.contains(&format!(" {name}(")));
            log.lines().collect::<Vec<_>>().into_iter().rposition(is_it)
        };
        let named = last(&["linkat", "link", "rename", "renameat", "renameat2"]);
        let before = log.lines().take(named.expect("a link or a rename"));
        let synced = before.enumerate().filter(|(_, line)| line.contains("sync(")).last();
        let (written, synced) = (last(&["pwrite64"]).unwrap(), synced.expect("a sync").0);
        assert!(written < synced, "{}: written after the last sync\n{log}", case.words);
        let at_last = last(&["fsync", "fdatasync"]);
        assert!(at_last > named, "{}: a name may be lost\n{log}", case.words);
    }
}

#[test]
fn failed_at_each_call() {
    let Some(strace) = peer("strace") else { return };
    in_parallel(cases(), |case| {
        for (calls, error) in CALLS.into_iter().zip(["ENOSPC", "EIO", "EDQUOT", "EIO"]) {
            for when in whens() {
                let desk = case.desk();
                let output = case.run(&strace, &desk, &format!("{calls}:error={error}"), when);
                let at = format!("{}: {error} at {calls} {when}", case.words);
                if output.status.success() {
                    case.assert_complete(&desk);
                    break;
                }
                assert_refusal(&output, 1, &["new"], &at);
                case.assert_nothing_or_all(&desk, false, &at);
            }
        }
    });
}

/// A target that is written in place cannot be all or nothing; but it is the same volume, which
/// opens with the same secrets.
#[test]
fn killed_while_writing_in_place() {
    let Some(strace) = peer("strace") else { return };
    let node = "driver=luks,file.filename=new,key-secret=new";
    let words = format!("-q -n {OBJECTS} -f raw plain.raw --target-image-opts {node}");
    let case = Case { words, old: None };
    for calls in ["pwrite64:signal=KILL", "fdatasync:signal=KILL"] {
        for when in whens() {
            let desk = case.desk();
            luks(&desk.path("new"), &aes_256_xts(), "NEW", &vec![0xaa; desk.plain.len()]);
            let key = volume_key(&desk.path("new"), "NEW");
            let output = case.run(&strace, &desk, calls, when);
            assert!(volume_key(&desk.path("new"), "NEW") == key, "{calls} {when}");
            if output.status.success() {
                desk.assert_luks("new", "NEW");
                assert!(when > 1, "there is no {calls}");
                break;
            }
            // Once more, and it is done.
            run_ok(&mut desk.command(&case.words));
            desk.assert_luks("new", "NEW");
        }
    }
}

#[test]
fn interrupted_at_any_moment() {
    let plain = noise(24 << 20);
    for case in cases().into_iter().take(3) {
        let desk = Desk::with(plain.clone());
        case.put_old(&desk);
        let start = Instant::now();
        run_ok(&mut desk.command(&case.words));
        let whole = start.elapsed();
        let mut interrupted = 0;
        for i in 0..12_u32 {
            let _ = fs::remove_file(desk.path("new"));
            case.put_old(&desk);
            let mut child = desk.command(&case.words).spawn().unwrap();
            thread::sleep(whole * i / 12 + Duration::from_micros(u64::from(i) * 137));
            let signal = if i % 2 == 0 { SIGINT } else { SIGTERM };
            let id = child.id().to_string();
            run(Command::new("kill").args(["-s", &signal.to_string(), &id]));
            let status = child.wait().unwrap();
            let at = format!("{}: signal {signal} after {i}/12", case.words);
            if status.success() {
                case.assert_complete(&desk);
                continue;
            }
            assert!(
                status.signal() == Some(signal) || status.code() == Some(128 + signal),
                "{at}: {status}"
            );
            interrupted += 1;
            case.assert_nothing_or_all(&desk, false, &at);
        }
        assert!(interrupted > 2, "{}: interrupted {interrupted} times only", case.words);
    }
}

/// Every call at first, then ever fewer.
fn whens() -> impl Iterator<Item = usize> {
    (1..=ALL_OF_THEM).chain((1..).map(|i| ALL_OF_THEM + i * i))
}

impl Case {
    /// Enough for several writes, with a hole in it.
    fn desk(&self) -> Desk {
        static FILES: OnceLock<[Vec<u8>; 2]> = OnceLock::new();
        let [plain, luks] = FILES.get_or_init(|| {
            let mut plain = noise(5 << 20);
            plain[1 << 20..3 << 20].fill(0);
            let desk = Desk::with(plain);
            ["plain.raw", "disk.luks"].map(|name| desk.bytes(name))
        });
        let desk = Desk::of(plain.clone(), luks);
        self.put_old(&desk);
        desk
    }

    fn put_old(&self, desk: &Desk) {
        if let Some(old) = self.old {
            fs::write(desk.path("new"), old).unwrap();
        }
    }

    /// keyslot, stopped by `what` at a call. (strace counts the calls of each thread.)
    fn run(&self, strace: &Path, desk: &Desk, what: &str, when: usize) -> Output {
        let calls = what.split(':').next().unwrap();
        let mut command = Command::new(strace);
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={what}:when={when}"), KEYSLOT, "convert"]);
        command.args(self.words.split(' ')).envs(SECRETS);
        run(command.current_dir(desk.dir.path()))
    }

    #[track_caller]
    fn assert_complete(&self, desk: &Desk) {
        assert_eq!(desk.names(), ["disk.luks", "new", "plain.raw"], "{}", self.words);
        if self.words.contains(TO_LUKS) {
            desk.assert_luks("new", "NEW");
        } else {
            desk.assert_plain("new");
        }
    }

    /// Under the target's name there is what was there or the whole image; beside it nothing, or
    /// one file where it `may_have_stray`.
    #[track_caller]
    fn assert_nothing_or_all(&self, desk: &Desk, may_have_stray: bool, at: &str) {
        let strays: Vec<_> = desk
            .names()
            .into_iter()
            .filter(|name| !["disk.luks", "new", "plain.raw"].contains(&name.as_str()))
            .collect();
        assert!(strays.len() <= usize::from(may_have_stray), "{at}: left over: {strays:?}");
        for name in ["disk.luks", "plain.raw"] {
            assert!(desk.path(name).exists(), "{at}: {name} is gone");
        }
        match fs::read(desk.path("new")) {
            Err(_) => assert!(self.old.is_none(), "{at}: the old file is gone"),
            Ok(bytes) if self.old == Some(&bytes) => {}
            Ok(bytes) if self.words.contains(TO_LUKS) => {
                let payload = payload(&desk.path("new"), "NEW");
                let is_whole = payload.as_deref() == Some(&desk.plain);
                assert!(is_whole, "{at}: a half image of {} bytes", bytes.len());
            }
            Ok(bytes) => assert!(bytes == desk.plain, "{at}: a half image, {} bytes", bytes.len()),
        }
    }
}
