//! `keyslot header restore` killed at every write and at every sync, and failed by the system at each
//! of them: what is in both headers opens the image, and what is only in one of them does or does not
//! together; the same command again brings it to its end.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::path::Path;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene, assert_refusal};
use keyslot::{Image, Passphrase};
use support::luks2::roomy;
use support::{peer, run};

/// Secrets that are in both, only in the backup, and only in the image.
struct Secrets {
    kept: &'static [&'static str],
    then: &'static [&'static str],
    now: &'static [&'static str],
}

#[test]
fn luks1() {
    let scene = Scene::new().and("OTHER", 6);
    let file = scene.backup("disk.hdr");
    scene.done(&["erase", "-q", "--keyslot", "6", "IMG"]);
    let scene = scene.and("NEW", 6).and("NEW", 2);
    let secrets = Secrets { kept: &["xyzzy-zero"], then: &["xyzzy-two"], now: &["xyzzy-one"] };
    each_call(&scene, &file, &secrets);
}

#[test]
fn luks2() {
    let scene = Scene::of(&roomy(3).bytes);
    let file = scene.backup("disk.hdr");
    scene.done(&["erase", "-q", "--keyslot", "5", "IMG"]);
    for keyslot in ["0", "9"] {
        let command = if keyslot == "0" { "replace" } else { "add" };
        let secret = if keyslot == "0" { "--old-secret" } else { "--secret" };
        let mut command = scene.command(&[command, "-q", secret, "env:ZERO"]);
        command.args(["--new-secret=env:NEW", "--pbkdf=pbkdf2", "--iterations=1000"]);
        command.args(["--keyslot", keyslot]).arg(&scene.image).env("ZERO", "hunter0");
        if keyslot == "9" {
            command.env("ZERO", "xyzzy-one");
        }
        assert!(command.output().unwrap().status.success(), "{command:?}");
    }
    let secrets = Secrets {
        kept: &["hunter3", "hunter7"],
        then: &["hunter0", "hunter5"],
        now: &["xyzzy-one"],
    };
    each_call(&scene, &file, &secrets);
}

fn each_call(scene: &Scene, file: &str, secrets: &Secrets) {
    let Some(strace) = peer("strace") else { return };
    let whole = scene.bytes();
    for what in [
        "pwrite64:signal=KILL",
        "fdatasync:signal=KILL",
        "pwrite64:error=ENOSPC",
        "fdatasync:error=EIO",
    ] {
        for when in 1.. {
            std::fs::write(&scene.image, &whole).unwrap();
            let mut command = Command::new(&strace);
            let call = what.split(':').next().unwrap();
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={what}:when={when}"), KEYSLOT]);
            command.args(["header", "restore", "-q", "--force", file]).arg(&scene.image);
            let output = run(command.envs(SECRETS));
            let at = format!("{what} at call {when}");
            assert_promise(&scene.image, secrets, &at);
            if output.status.success() {
                eprintln!("stopped by {what} at {} calls", when - 1);
                assert!(when > 8, "there are few {what}");
                break;
            }
            if what.contains("error") {
                let image = scene.image.to_str().unwrap();
                assert_refusal(&output, 1, &[image, "cannot ", "; "], &at);
            }
            scene.restore(file);
            assert_promise(&scene.image, secrets, &at);
            assert!(secrets.then.iter().all(|secret| opens(&scene.image, secret)), "{at}");
            assert!(!secrets.now.iter().any(|secret| opens(&scene.image, secret)), "{at}");
            assert_eq!(Image::open(&scene.image).unwrap().header().leftovers(), [], "{at}");
        }
    }
}

#[track_caller]
fn assert_promise(image: &Path, secrets: &Secrets, at: &str) {
    let all = |secrets: &[&str]| secrets.iter().all(|secret| opens(image, secret));
    assert!(all(secrets.kept), "{at}: what is in both does not open it");
    assert!(all(secrets.then) || all(secrets.now), "{at}: neither all old nor all new ones do");
}

/// Whether any keyslot opens with it, by whatever priority.
fn opens(image: &Path, secret: &str) -> bool {
    let image = Image::open(image).unwrap();
    let passphrase = Passphrase::new(secret.as_bytes()).unwrap();
    image.keyslots().any(|keyslot| image.opens(keyslot.index, &passphrase).unwrap())
}
