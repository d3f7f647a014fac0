//! Ctrl-C in the middle of a derivation that would take hours: the command is gone at once, and has
//! changed nothing.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use command::{KEYSLOT, SECRETS, Scene};
use nix::libc::SIGINT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use support::luks2::{Change, Luks2};
use support::{Running, eventually, peer};

/// Where the iterations of a keyslot of LUKS1 are.
fn iterations_at(keyslot: usize) -> usize {
    208 + 48 * keyslot + 4
}

#[test]
fn pbkdf2() {
    let scene = Scene::patched(iterations_at(0), &u32::MAX.to_be_bytes());
    interrupt(&scene);
}

/// On threads of their own.
#[test]
fn pbkdf2_of_many_keyslots() {
    let scene = (1..5).fold(Scene::new(), |scene, keyslot| scene.and("OTHER", keyslot));
    let mut image = scene.bytes();
    for keyslot in 0..5 {
        image[iterations_at(keyslot)..][..4].copy_from_slice(&u32::MAX.to_be_bytes());
    }
    interrupt(&Scene::of(&image));
}

#[test]
fn argon2() {
    let image = Luks2::testdata("luks2_argon2id.img");
    for memory in [1 << 10, 64 << 10] {
        let changes = vec![
            ("/keyslots/0/kdf/time", json!(i32::MAX)),
            ("/keyslots/0/kdf/memory", memory.into()),
        ];
        interrupt(&Scene::of(&image.with(&Change::Set(changes)).bytes));
    }
}

/// Some attempts, as the system may be busy with something else.
#[track_caller]
fn interrupt(scene: &Scene) {
    let Some(env) = peer("env") else { return };
    let before = scene.bytes();
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        // Whoever runs the tests may have it ignored.
        let mut command = Command::new(&env);
        command.arg("--default-signal=INT").arg(KEYSLOT).envs(SECRETS);
        command.args(scene.args(&["check", "--force", "--secret", "env:WRONG", "IMG"]));
        let mut running = Running::spawn(&mut command);
        let pid = Pid::from_raw(running.pid().try_into().unwrap());
        // Everything before the derivation takes a tick or two.
        eventually("it derives", || {
            assert!(!running.has_ended(), "it has ended by itself");
            ticks(pid) >= 10
        });
        let start = Instant::now();
        kill(pid, Signal::SIGINT).unwrap();
        let status = running.wait();
        let took = start.elapsed();
        assert_eq!(status.signal(), Some(SIGINT), "{status}");
        assert!(took < Duration::from_secs(1), "{took:?}");
        fastest = fastest.min(took);

        assert!(scene.bytes() == before, "the image has changed");
        let names: Vec<_> =
            fs::read_dir(scene.dir.path()).unwrap().map(|it| it.unwrap().path()).collect();
        assert_eq!(names, [scene.image.as_path()]);
    }
    eprintln!("gone within {fastest:?}");
    assert!(fastest < Duration::from_millis(100), "{fastest:?}");
}

/// What a process has computed, in ticks of 10 ms.
fn ticks(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Behind its name, which may have spaces.
    let words: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    words[11].parse().unwrap()
}
