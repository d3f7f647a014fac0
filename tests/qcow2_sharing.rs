//! A qcow2 image beside QEMU's programs: each use keeps out those that QEMU's own use keeps out, and no
//! change of keyslots is lost to another.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::env;
use std::path::Path;
use std::process::{Command, Output};

use command::{SECRETS, Scene, passphrase};
use keyslot::{ErrorKind, OpenOptions, Sharing};
use support::locks::{locks, ofd_locks};
use support::{Running, eventually, peer, qcow2, run, stderr};

const OLD: &str = SECRETS[0].1;
const OBJECT: &str = "secret,id=s,data=xyzzy-zero";
const ADD: [&str; 6] =
    ["add", "--secret=env:OLD", "--new-secret=env:NEW", "--iterations=1000", "-q", "IMG"];

/// How qemu-nbd has an image open, and the bytes that it locks then
const HOLDERS: [(&[&str], &str, &[&str]); 3] = [
    (&[], "", &["100 101", "103 103", "201 201", "203 203"]),
    (&["-r"], "", &["100 100", "201 201", "203 203"]),
    (&["-r"], ",force-share=on", &["100 100"]),
];

fn scene() -> Option<Scene> {
    peer("qemu-img")?;
    peer("qemu-io")?;
    let scene = Scene::without_image();
    qcow2::create(&scene.image, OLD, "", "1M");
    Some(scene)
}

fn options(scene: &Scene, suffix: &str) -> String {
    format!("driver=qcow2,encrypt.key-secret=s,file.filename={}{suffix}", scene.image.display())
}

fn nbd(qemu_nbd: &Path, scene: &Scene, args: &[&str], suffix: &str) -> Running {
    let mut command = Command::new(qemu_nbd);
    command.args(["--persistent", "--object", OBJECT, "--image-opts"]);
    command.arg(format!("--socket={}", scene.dir.path().join("nbd.sock").display()));
    Running::spawn(command.args(args).arg(options(scene, suffix)))
}

fn io(scene: &Scene, args: &[&str], suffix: &str) -> Output {
    let mut command = Command::new(peer("qemu-io").unwrap());
    command.args(["--object", OBJECT, "--image-opts"]).args(args);
    run(command.arg(options(scene, suffix)))
}

#[test]
fn keyslots_are_not_changed_while_qemu_has_it_open() {
    let (Some(scene), Some(qemu_nbd)) = (scene(), peer("qemu-nbd")) else { return };
    for (args, suffix, wanted) in HOLDERS {
        let nbd = nbd(&qemu_nbd, &scene, args, suffix);
        eventually("the locks of qemu-nbd", || locks(&scene.image) == wanted);
        let holder = format!("qemu-nbd (pid {})", nbd.pid());
        scene.refused(&ADD, 5, &[&holder, "--wait"]);
        scene.refused(&["erase", "--force", "--keyslot=0", "IMG"], 5, &[&holder]);
        scene.done(&["info", "IMG"]);
    }
    scene.done(&ADD);
}

#[test]
fn the_storage_daemon_keeps_changes_out() {
    let (Some(scene), Some(daemon)) = (scene(), peer("qemu-storage-daemon")) else { return };
    let mut command = Command::new(daemon);
    command.args(["--object", OBJECT, "--blockdev"]);
    let image = scene.image.display();
    command.arg(format!(
        "driver=qcow2,node-name=disk,encrypt.format=luks,encrypt.key-secret=s,file.driver=file,file.filename={image}"
    ));
    let daemon = Running::spawn(&mut command);
    eventually("its locks", || locks(&scene.image).contains(&"203 203".to_owned()));
    scene.refused(&ADD, 5, &[&format!("qemu-storage-da (pid {})", daemon.pid())]);
}

#[test]
fn uses_of_the_data_lock_what_qemu_locks() {
    let Some(scene) = scene() else { return };
    let read = || io(&scene, &["-r", "-c", "read -q 0 512"], "");
    let write = || io(&scene, &["-c", "write -q 0 512"], "");
    for (sharing, wanted, reads) in [
        (Sharing::ReadData, HOLDERS[1].2, true),
        (Sharing::ReadStable, HOLDERS[1].2, true),
        (Sharing::WriteData, HOLDERS[0].2, false),
        (Sharing::WriteAlone, HOLDERS[0].2, false),
        (Sharing::WriteQcow2, HOLDERS[0].2, false),
        (Sharing::Amend, &["100 101", "103 103", "200 201", "203 203"], false),
    ] {
        let image = OpenOptions::new().sharing(sharing).open(&scene.image).unwrap();
        assert_eq!(locks(&scene.image), wanted, "{sharing:?}");
        assert_eq!(read().status.success(), reads, "{sharing:?}: {}", stderr(&read()));
        assert!(!write().status.success(), "{sharing:?}");
        assert!(stderr(&write()).contains("Failed to get "), "{sharing:?}");
        let second = OpenOptions::new().sharing(Sharing::WriteAlone).open(&scene.image);
        assert_eq!(second.unwrap_err().kind(), ErrorKind::InUse, "{sharing:?}");
        drop(image);
        assert!(locks(&scene.image).is_empty(), "{sharing:?}");
    }
    assert!(write().status.success());
}

#[test]
fn a_change_of_keyslots_takes_the_image_from_nobody() {
    let (Some(scene), Some(qemu_nbd)) = (scene(), peer("qemu-nbd")) else { return };
    // Open to read its data, and amended meanwhile: the locks go back to what they were.
    let open = OpenOptions::new().sharing(Sharing::ReadData).write(true);
    let mut image = open.open(&scene.image).unwrap();
    let unlocked = image.unlock(&passphrase("OLD")).unwrap();
    let add = || keyslot::amend::Change::Add {
        keyslot: None,
        new_secret: Ok(passphrase("NEW")),
        pbkdf: keyslot::kdf::Cost::Iterations(1000).into(),
    };
    let plan = image.plan(keyslot::amend::Request::new(vec![add()])).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();
    assert_eq!(locks(&scene.image), HOLDERS[1].2);
    let nbd = nbd(&qemu_nbd, &scene, &["-r"], "");
    eventually("two readers", || ofd_locks(nbd.pid(), &scene.image) == HOLDERS[1].2);
    let plan = image.plan(keyslot::amend::Request::new(vec![add()])).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse, "{error}");
    drop(nbd);
}

/// Rounds of the race; `KEYSLOT_ROUNDS=1000` for all that the promise was measured with.
fn rounds() -> usize {
    env::var("KEYSLOT_ROUNDS").ok().and_then(|it| it.parse().ok()).unwrap_or(20)
}

#[test]
fn no_change_is_lost_to_another() {
    let (Some(scene), Some(qemu_img)) = (scene(), peer("qemu-img")) else { return };
    let file = |name: &str, secret: &str| {
        let path = scene.file(name, secret.as_bytes());
        format!("secret,id={name},file={}", path.display())
    };
    let (s, t) = (file("s", OLD), file("t", SECRETS[2].1));
    let image_opts = options(&scene, "");
    let mut refused = 0;
    for round in 0..rounds() {
        // Both secrets come, or both go.
        let is_add = round % 2 == 0;
        let ours = if is_add {
            vec!["add", "-q", "--secret=env:OLD", "--new-secret=env:NEW", "--iterations=1000"]
        } else {
            vec!["erase", "-q", "--old-secret=env:NEW"]
        };
        let mut ours = scene.command(&[&ours[..], &["--wait=60", "IMG"]].concat());
        let ours = ours.spawn().unwrap();
        let peer = if is_add {
            "encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10"
        } else {
            "encrypt.state=inactive,encrypt.old-secret=t"
        };
        let amend = || {
            let mut command = Command::new(&qemu_img);
            command.args(["amend", "--object", &s, "--object", &t, "--image-opts", &image_opts]);
            run(command.args(["-o", peer]))
        };
        // QEMU does not wait for others.
        let mut output = amend();
        while !output.status.success() {
            let text = stderr(&output);
            assert!(text.contains("Failed to get "), "round {round}: {text}");
            refused += 1;
            output = amend();
        }
        let ours = ours.wait_with_output().unwrap();
        assert!(ours.status.success(), "round {round}: {ours:?}");
        let opened = [scene.opened_by("NEW"), scene.opened_by("OTHER")];
        let expected = usize::from(is_add);
        assert_eq!(opened.each_ref().map(Vec::len), [expected; 2], "round {round}: {opened:?}");
    }
    println!("{} rounds, qemu-img was refused {refused} times", rounds());
    assert!(qcow2::is_clean(&scene.image, OLD));
}
