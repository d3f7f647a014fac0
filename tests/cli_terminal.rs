//! The command and a person: prompts without echo, and Ctrl-C at any time.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/session.rs"]
mod session;
mod support;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};

use command::Scene;
use nix::libc::{SIGINT, SIGTERM};
use serde_json::json;
use session::Session;
use support::{eventually, run_ok};

const CTRL_C: &str = "\u{3}";
const OLD: &str = "xyzzy-zero\r";
const NEW: &str = "xyzzy-one\r";
const WRONG: &str = "xyzzy-three\r";

#[test]
fn asks_for_what_is_not_given() {
    let scene = Scene::new();
    let add = ["add", "--iterations", "1000", "IMG"];
    let steps = [("Passphrase: ", OLD), ("New passphrase: ", NEW), ("again: ", NEW)];
    let Some(session) = Session::of(&scene, &add, &steps) else { return };
    assert_eq!(session.status, 0, "{session:?}");
    assert!(session.text.contains("keyslot 1 added (1000 iterations)"), "{session:?}");
    assert_eq!(scene.opened_by("NEW"), [1]);

    let replace =
        ["replace", "--keyslot", "1", "--new-secret", "prompt", "--iterations=1000", "IMG"];
    let other = "xyzzy-two\r";
    let steps = [("Passphrase: ", OLD), ("New passphrase: ", other), ("again: ", other)];
    assert_eq!(Session::of(&scene, &replace, &steps).unwrap().status, 0);
    assert_eq!(scene.opened_by("OTHER"), [1]);

    let erase = ["erase", "--old-secret", "prompt", "IMG"];
    let session = Session::of(&scene, &erase, &[("Passphrase to erase: ", other)]).unwrap();
    assert_eq!(session.status, 0, "{session:?}");
    assert_eq!(scene.opened_by("OTHER"), [0; 0]);
}

#[test]
fn two_that_differ_and_one_that_is_wrong() {
    let scene = Scene::new();
    let before = scene.bytes();
    let steps = [("Passphrase: ", OLD), ("New passphrase: ", NEW), ("again: ", WRONG)];
    let Some(session) = Session::of(&scene, &["add", "IMG"], &steps) else { return };
    assert_eq!(session.status, 1, "{session:?}");
    let text = format!("keyslot: {}: the two passphrases differ\r\n", scene.image.display());
    assert!(session.text.ends_with(&text), "{session:?}");

    // The wrong one is found out before the new one is asked for.
    let wrong = ("disk.img: Passphrase: ", WRONG);
    let session = Session::of(&scene, &["add", "--tries", "1", "IMG"], &[wrong]).unwrap();
    assert_eq!(session.status, 2, "{session:?}");
    assert!(!session.text.contains("New passphrase"), "{session:?}");
    // Three tries, and no more.
    let session = Session::of(&scene, &["add", "IMG"], &[wrong; 3]).unwrap();
    assert_eq!(session.status, 2, "{session:?}");
    assert_eq!(session.text.matches("; try again").count(), 2, "{session:?}");
    let info = ["info", "--secret", "prompt", "IMG"];
    let session = Session::of(&scene, &info, &[wrong, wrong, (wrong.0, OLD)]).unwrap();
    assert_eq!(session.status, 0, "{session:?}");
    assert!(session.text.ends_with("secret opens: keyslot 0\r\n"), "{session:?}");
    let session = Session::of(&scene, &info, &[wrong; 3]).unwrap();
    assert_eq!(session.status, 2, "{session:?}");
    let erase = ["erase", "--old-secret", "prompt", "IMG"];
    let wrong = ("Passphrase to erase: ", WRONG);
    let session = Session::of(&scene, &erase, &[wrong; 3]).unwrap();
    assert_eq!(session.status, 2, "{session:?}");
    assert!(scene.bytes() == before);
}

/// Nobody types a passphrase in vain.
#[test]
fn asks_only_after_what_needs_no_secret() {
    let scene = Scene::new();
    for args in [
        &["add", "--keyslot", "0", "IMG"][..],
        &["add", "--keyslot", "8", "IMG"],
        &["add", "--iterations", "999", "IMG"],
        &["add", "--pbkdf", "argon2id", "IMG"],
        &["add", "IMG.no"],
        &["erase", "--keyslot", "3", "--secret", "prompt", "IMG"],
        &["erase", "--keyslot", "0", "--old-secret", "prompt", "IMG"],
        &["replace", "--keyslot", "3", "IMG"],
        &["replace", "--iterations", "999", "IMG"],
        &["amend", "-o", "state=active", "IMG"],
        &["check", "--secret", "prompt", "IMG.no"],
        &["info", "--secret", "prompt", "IMG.no"],
        &["create", "-f", "luks", "IMG", "1M"],
        &["convert", "IMG", "IMG"],
        &["convert", "IMG", "-O", "vmdk", "IMG.new"],
        &["convert", "IMG", "-O", "luks", "--label", "x", "IMG.new"],
    ] {
        let Some(session) = Session::of(&scene, args, &[]) else { return };
        assert_eq!(session.status, 1, "{session:?}");
        assert!(!session.text.contains("assphrase"), "{session:?}");
    }
}

/// A terminal drops what is beyond its longest line, and a part of a passphrase is another one.
#[test]
fn a_passphrase_that_the_terminal_cuts_is_refused() {
    let scene = Scene::new();
    let long = format!("{}\r", "x".repeat(5000));
    let steps = [("Passphrase: ", long.as_str())];
    let Some(session) = Session::of(&scene, &["add", "IMG"], &steps) else { return };
    assert_eq!(session.status, 1, "{session:?}");
    assert!(session.text.contains("too many for a terminal"), "{session:?}");
}

#[test]
fn ctrl_c_at_a_prompt() {
    let scene = Scene::new();
    let before = scene.bytes();
    for steps in [
        &[("Passphrase: ", CTRL_C)][..],
        &[("Passphrase: ", "xyzzy\u{3}")],
        &[("Passphrase: ", OLD), ("New passphrase: ", CTRL_C)],
        &[("Passphrase: ", OLD), ("New passphrase: ", NEW), ("again: ", CTRL_C)],
    ] {
        let Some(session) = Session::of(&scene, &["add", "IMG"], steps) else { return };
        assert_eq!(session.status, -i64::from(SIGINT), "{session:?}");
        assert!(!session.text.contains("panicked"), "{session:?}");
        assert!(scene.bytes() == before);
    }
    let kill = json!([{ "expect": "Passphrase: ", "type": "xyz", "kill": SIGTERM }]);
    let session = Session::run(&scene, &["add", "IMG"], &kill).unwrap();
    assert_eq!(session.status, -i64::from(SIGTERM), "{session:?}");
    let steps = [("Passphrase: ", "xyzzy\u{4}\u{4}")];
    let session = Session::of(&scene, &["add", "IMG"], &steps).unwrap();
    assert_eq!(session.status, 1, "{session:?}");
    assert!(session.text.contains("input ended early"), "{session:?}");
}

/// Ctrl-Z stops nothing where nobody could go on with it; the question is there again.
#[test]
fn asks_again_after_ctrl_z() {
    let scene = Scene::new();
    let erase = ["erase", "--force", "--old-secret", "prompt", "IMG"];
    let steps = [("Passphrase to erase: ", "xyz\u{1a}"), ("Passphrase to erase: ", OLD)];
    let Some(session) = Session::of(&scene, &erase, &steps) else { return };
    assert_eq!(session.status, 0, "{session:?}");
}

/// Nothing secret: the answer is seen, and only the whole word is one.
#[test]
fn asks_before_a_header_is_replaced() {
    let scene = Scene::new();
    let file = scene.dir.path().join("disk.hdr");
    let name = file.to_str().unwrap();
    scene.done(&["header", "backup", "IMG", name]);
    scene.done(&["erase", "-q", "--force", "--keyslot", "0", "IMG"]);
    let before = scene.bytes();
    let question =
        format!("Replace the header of {} with the one in {name}? ", scene.image.display());
    let answer = |text: &str| json!([{ "expect": question, "type": text, "echo": true }]);
    let restore = ["header", "restore", name, "IMG"];
    for (text, status) in
        [("no\r", 1), ("y\r", 1), ("\r", 1), ("\u{4}", 1), (CTRL_C, -i64::from(SIGINT))]
    {
        let Some(session) = Session::run(&scene, &restore, &answer(text)) else { return };
        assert_eq!(session.status, status, "{session:?}");
        assert!(session.text.contains("keyslot 0 would be restored\r\n"), "{session:?}");
        assert!(session.text.contains("nothing has changed") == (status == 1), "{session:?}");
        assert!(scene.bytes() == before);
    }
    let session = Session::run(&scene, &restore, &answer("yes\r")).unwrap();
    assert_eq!(session.status, 0, "{session:?}");
    assert!(session.text.ends_with(": the header is restored\r\n"), "{session:?}");
    assert_eq!(scene.opened_by("OLD"), [0]);
}

#[test]
fn a_signal_in_the_middle_of_a_derivation() {
    let scene = Scene::new();
    let before = scene.bytes();
    for signal in [SIGINT, SIGTERM] {
        for args in [
            &["add", "--secret=env:OLD", "--new-secret=env:NEW", "--iter-time=20000", "IMG"][..],
            &[
                "replace",
                "--old-secret=env:OLD",
                "--new-secret=env:NEW",
                "--iter-time=20000",
                "IMG",
            ],
        ] {
            let start = Instant::now();
            let mut child = scene.command(args).spawn().unwrap();
            let cpu = || {
                let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
                let words: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
                words[11].parse::<u64>().unwrap()
            };
            // Calibrating takes a tenth of a second: this is behind it.
            eventually("half a second of computing", || cpu() > 50);
            let id = child.id().to_string();
            run_ok(Command::new("kill").args(["-s", &signal.to_string(), &id]));
            let status = child.wait().unwrap();
            assert_eq!(status.signal(), Some(signal));
            assert!(start.elapsed() < Duration::from_secs(15));
            assert!(scene.bytes() == before);
        }
    }
    // And nothing of its lock is left.
    scene.done(&["erase", "--force", "--keyslot", "1", "IMG"]);
}
