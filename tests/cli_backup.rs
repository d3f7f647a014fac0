//! A header backup is known as one: which secrets it keeps alive, and what can be done with it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::process::Command;

use command::Scene;
use serde_json::json;
use support::{peer, run_ok};

/// An image that `OLD` and, in keyslot 3, `NEW` open.
fn image(format: &str) -> Scene {
    let scene = Scene::without_image();
    let kdf = ["--pbkdf", "pbkdf2", "--iterations", "1000"];
    let create = ["create", "-q", "-f", format, "--new-secret", "env:OLD", "IMG", "64K"];
    scene.done(&[&create[..], &kdf].concat());
    let add = ["add", "-q", "--secret", "env:OLD", "--new-secret", "env:NEW", "--keyslot", "3"];
    scene.done(&[&add[..], &kdf, &["IMG"]].concat());
    scene
}

/// A backup of each program.
fn backups(scene: &Scene) -> Vec<String> {
    let mut backups = vec![scene.backup("ours")];
    if let Some(cryptsetup) = peer("cryptsetup") {
        let theirs = scene.dir.path().join("theirs").to_str().unwrap().to_owned();
        let mut command = Command::new(cryptsetup);
        command.args(["luksHeaderBackup", "--header-backup-file", &theirs]);
        run_ok(command.arg(&scene.image));
        backups.push(theirs);
    }
    backups
}

#[test]
fn a_backup_says_which_secrets_it_keeps_alive() {
    const NOTE: &str = "note: the file ends before the payload and is a header backup: it keeps";
    for format in ["luks1", "luks2"] {
        let scene = image(format);
        let backups = backups(&scene);
        scene.done(&["erase", "-q", "--keyslot", "3", "--secret", "env:OLD", "IMG"]);
        let check = scene.command(&["check", "-q", "--secret", "env:NEW", "IMG"]).output().unwrap();
        assert_eq!(check.status.code(), Some(2), "the secret is erased");
        for backup in &backups {
            let note = format!("{NOTE} the secrets of keyslots 0, 3 alive");
            let text = scene.done(&["info", backup]);
            assert!(text.contains(&note), "{text}");
            let text = scene.done(&["check", "--secret", "env:NEW", backup]);
            assert!(text.contains(&note) && text.contains("the secret opens keyslot 3"), "{text}");
            for command in ["info", "check"] {
                let document = scene.json(&[command, "--secret", "env:NEW", backup]);
                assert_eq!(document["header-backup"], true);
                assert_eq!(document["keeps-keyslots"], json!([0, 3]));
                assert_eq!(document["secret-opens"], json!([3]));
            }
        }
        assert!(!scene.done(&["info", "IMG"]).contains("backup"));
        assert_eq!(scene.json(&["check", "IMG"]).get("header-backup"), None);
        // Without the key material of keyslot 3, only the other secret is kept.
        let len = if format == "luks1" { 600_000 } else { 16 << 10 << 1 };
        let backup = fs::read(&backups[0]).unwrap();
        let short = scene.file("short", &backup[..len]);
        let short = scene.command(&["info", short.to_str().unwrap()]).output().unwrap();
        let text = String::from_utf8(short.stdout).unwrap();
        assert!(!text.contains("keyslots 0, 3"), "{text}");
    }
}

/// A person with the backup can still open the data with an erased secret.
#[test]
fn a_backup_is_a_header_for_the_payload_of_its_image() {
    for format in ["luks1", "luks2"] {
        let scene = image(format);
        let plain = scene.file("plain", &vec![0x5a; 64 << 10]);
        let into = ["convert", "-n", "-O", "luks", "--new-secret", "env:OLD"];
        scene.done(&[&into[..], &[plain.to_str().unwrap(), "IMG"]].concat());
        for backup in backups(&scene) {
            // Nothing but the payload is needed of the image.
            let mut bytes = scene.bytes();
            bytes[..1 << 15].fill(0);
            let damaged = scene.file("damaged", &bytes);
            let damaged = damaged.to_str().unwrap();
            let out = scene.dir.path().join("out").to_str().unwrap().to_owned();
            let convert = ["convert", "--secret", "env:NEW", "--header", &backup, damaged, &out];
            scene.done(&convert);
            assert!(fs::read(&out).unwrap() == vec![0x5a; 64 << 10], "{format}");
            fs::remove_file(out).unwrap();
            let check = ["check", "--secret", "env:NEW", "--header", &backup, damaged];
            assert_eq!(scene.json(&check)["secret-opens"], json!([3]));
        }
    }
}
