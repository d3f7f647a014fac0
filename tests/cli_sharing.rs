//! The command beside others who have the image open: it is refused and says by whom, or waits;
//! and while it writes, nobody else gets in. (`sharing.rs` tries the same on the library.)
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use command::{KEYSLOT, SECRETS, Scene};
use support::held_up::held_up;
use support::locks::{descriptors, locks};
use support::{Running, eventually, peer, run, stderr};

const ADD: &[&str] = &["add", "--secret=env:OLD", "--new-secret=env:NEW", "IMG"];
const QUICK_ADD: &[&str] =
    &["add", "--secret=env:OLD", "--new-secret=env:NEW", "--iterations=1000", "IMG"];
const ERASE: &[&str] = &["erase", "--old-secret=env:OTHER", "IMG"];
const CHANGES: [&[&str]; 5] = [
    ADD,
    ERASE,
    &["erase", "--keyslot=3", "IMG"],
    &["replace", "--old-secret=env:OTHER", "--new-secret=env:NEW", "IMG"],
    &["amend", "--secret=env:OLD", "-o", "state=inactive,keyslot=3", "IMG"],
];

/// How qemu-nbd has it open, the bytes it locks then, and what QEMU's own amend says.
const HOLDERS: [(&[&str], &str, &[&str], &str); 3] = [
    (&[], "", &["100 101", "203 203"], "Failed to get \"resize\" lock"),
    (&["-r"], "", &["100 100", "203 203"], "Failed to get \"resize\" lock"),
    (&["-r"], ",force-share=on", &["100 100"], "Failed to get shared \"consistent read\" lock"),
];

#[test]
fn refused_while_qemu_has_it_open() {
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    let scene = Scene::new().and("OTHER", 3);
    let link = scene.dir.path().join("qemu-img");
    symlink(KEYSLOT, &link).unwrap();
    for (args, suffix, locks, text) in HOLDERS {
        let nbd = nbd(&qemu_nbd, &scene, args, suffix, locks);
        let holder = format!("qemu-nbd (pid {})", nbd.pid());
        for change in CHANGES {
            for dry_run in [&[][..], &["--dry-run"], &["--force"]] {
                let parts = [text, &holder, "hint: ", "--wait"];
                scene.refused(&[change, dry_run].concat(), 5, &parts);
            }
        }
        let create = ["create", "--force", "-f", "luks", "--new-secret=env:NEW", "IMG", "1M"];
        scene.refused(&create, 5, &[text, &holder]);

        // Under qemu-img's name, its two lines.
        let options = options(&scene, "");
        let before = scene.bytes();
        let amend = |program: &Path| {
            let mut command = Command::new(program);
            command.args(["amend", "--object", OBJECT, "--image-opts", &options]);
            run(command.args(["-o", "state=inactive,keyslot=3"]))
        };
        let output = amend(&link);
        assert_eq!(output.status.code(), Some(1));
        let image = scene.image.display();
        let question = format!("Is another process using the image [{image}]?");
        let text = "Failed to get shared \"consistent read\" lock";
        assert_eq!(stderr(&output), format!("qemu-img: {text}\n{question}\n"));
        assert!(scene.bytes() == before);
        if let Some(qemu_img) = peer("qemu-img") {
            assert_eq!(stderr(&output), stderr(&amend(&qemu_img)));
        }

        // Looking takes no lock.
        scene.done(&["info", "IMG"]);
        scene.done(&["check", "IMG"]);
        scene.done(&["check", "--secret=env:OLD", "IMG"]);
        assert!(scene.bytes() == before);
    }
    CHANGES.iter().take(2).for_each(|change| drop(scene.done(change)));
}

#[test]
fn waits_for_qemu_to_go() {
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    let scene = Scene::new();
    let (args, suffix, locks, text) = HOLDERS[0];
    let holder = nbd(&qemu_nbd, &scene, args, suffix, locks);
    let start = Instant::now();
    let name = format!("qemu-nbd (pid {})", holder.pid());
    scene.refused(&[QUICK_ADD, &["--wait=1"]].concat(), 5, &[text, &name]);
    assert!(start.elapsed() >= Duration::from_secs(1));

    let mut command = scene.command(&[QUICK_ADD, &["--wait=60"]].concat());
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    // It has the image open, and so has been refused once or is about to be.
    eventually("an open image", || descriptors(child.id(), &scene.image) > 0);
    assert!(child.try_wait().unwrap().is_none());
    drop(holder);
    assert!(child.wait().unwrap().success());
    assert_eq!(scene.opened_by("NEW"), [1]);
}

/// While a key is derived, everybody else may use the image.
#[test]
fn nothing_is_locked_while_a_key_is_derived() {
    let scene = Scene::new().and("OTHER", 3);
    let mut add = scene.command(&[ADD, &["--iter-time=20000", "-q"]].concat());
    let mut add = Running::spawn(&mut add);
    eventually("an open image", || descriptors(add.pid(), &scene.image) > 0);
    eventually("no lock", || locks(&scene.image).is_empty());
    scene.done(&["check", "--secret=env:OLD", "IMG"]);
    scene.done(&["erase", "--keyslot=3", "IMG"]);
    assert!(!add.has_ended());
}

#[test]
fn nobody_gets_in_meanwhile() {
    let Some(strace) = peer("strace") else { return };
    let scene = Scene::new().and("OTHER", 3);
    let before = scene.bytes();
    let mut add = held_up(&strace, &scene.command(QUICK_ADD));

    let holder = format!("keyslot (pid {})", add.pid);
    for change in CHANGES {
        scene.refused(change, 5, &["Failed to get \"", &holder, "hint: "]);
    }
    scene.refused(&["check", "--secret=env:OLD", "IMG"], 5, &[&holder]);
    scene.done(&["info", "IMG"]);
    scene.done(&["check", "IMG"]);

    let is_refused = |output: &Output| {
        let text = stderr(output);
        assert!(!output.status.success(), "{text}");
        text.contains("Failed to get ")
    };
    if let Some(qemu_io) = peer("qemu-io") {
        for (args, suffix) in [(&[][..], ""), (&["-r"], ""), (&["-r"], ",force-share=on")] {
            let mut command = Command::new(&qemu_io);
            command.args(["--object", OBJECT, "--image-opts"]).args(args);
            command.args(["-c", "read 0 512", &options(&scene, suffix)]);
            assert!(is_refused(&run(&mut command)), "{args:?}");
        }
    }
    if let Some(qemu_img) = peer("qemu-img") {
        let mut command = Command::new(qemu_img);
        command.args(["amend", "--object", OBJECT, "--image-opts", &options(&scene, "")]);
        assert!(is_refused(&run(command.args(["-o", "state=inactive,keyslot=3"]))));
    }
    if let Some(flock) = peer("flock") {
        // cryptsetup's lock.
        let mut command = Command::new(flock);
        let output = run(command.args(["--nonblock", "--shared"]).arg(&scene.image).arg("true"));
        assert_eq!(output.status.code(), Some(1));
    }
    assert!(!add.has_ended());
    assert!(scene.bytes() == before);
}

#[test]
fn no_change_is_lost_to_another() {
    let scene = Scene::new();
    for round in 0..3 {
        let mut children: Vec<_> = ["NEW", "OTHER"]
            .iter()
            .map(|secret| {
                let args = ["add", "-q", "--secret=env:OLD", "--iter-time=30", "--wait=60", "IMG"];
                let mut command = scene.command(&args);
                command.arg(format!("--new-secret=env:{secret}")).spawn().unwrap()
            })
            .collect();
        for child in &mut children {
            assert!(child.wait().unwrap().success());
        }
        let opened = [scene.opened_by("NEW"), scene.opened_by("OTHER")];
        assert_eq!(opened.each_ref().map(Vec::len), [round + 1; 2], "{opened:?}");
        let mut all = [scene.opened_by("OLD"), opened.concat()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..=2 * (round + 1)).collect::<Vec<_>>());
    }
}

const OBJECT: &str = "secret,id=s,data=xyzzy-zero";

fn options(scene: &Scene, suffix: &str) -> String {
    assert_eq!(SECRETS[0].1, "xyzzy-zero");
    format!("driver=luks,key-secret=s,file.filename={}{suffix}", scene.image.display())
}

/// qemu-nbd, when it has locked these bytes.
fn nbd(qemu_nbd: &Path, scene: &Scene, args: &[&str], suffix: &str, wanted: &[&str]) -> Running {
    let mut command = Command::new(qemu_nbd);
    command.args(["--persistent", "--object", OBJECT, "--image-opts"]);
    command.arg(format!("--socket={}", scene.dir.path().join("nbd.sock").display()));
    let nbd = Running::spawn(command.args(args).arg(options(scene, suffix)));
    eventually("the locks of qemu-nbd", || locks(&scene.image) == wanted);
    nbd
}
