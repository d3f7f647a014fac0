//! `keyslot header backup` and `header restore`: what they do, and what they say.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene};
use serde_json::{Value, json};
use support::luks2::{Change, Luks2, roomy};
use support::{Running, run, stderr};

#[test]
fn a_backup_is_the_start_of_the_image_and_its_owners() {
    for (scene, len, active) in [
        (Scene::new().and("OTHER", 6), 2_068_480, "keyslots 0, 6"),
        (Scene::of(&roomy(2).bytes), 32768 + (320 << 10) + (2 << 16), "keyslots 0, 3, 5, 7"),
    ] {
        let file = scene.dir.path().join("disk.hdr");
        let name = file.to_str().unwrap();
        let before = scene.bytes();
        let text = scene.done(&["header", "backup", "IMG", name]);
        assert!(text.starts_with(&format!("{name}: {len} bytes, LUKS")), "{text}");
        assert!(text.ends_with(&format!("{active}\n")), "{text}");
        assert!(fs::read(&file).unwrap() == before[..len]);
        assert!(scene.bytes() == before);
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o600);

        // Nothing is ever replaced, whatever it is.
        let refused = |name: &str, parts: &[&str]| {
            scene.command_refused(&mut scene.command(&["header", "backup", "IMG", name]), 1, parts)
        };
        refused(name, &[name, "the file exists", "hint: choose another name"]);
        assert!(fs::read(&file).unwrap() == before[..len]);
        refused(scene.image.to_str().unwrap(), &["the file exists"]);
        let link = scene.dir.path().join("link");
        symlink("nowhere", &link).unwrap();
        refused(link.to_str().unwrap(), &["symbolic link"]);
        refused("/nonexistent/disk.hdr", &["cannot create a file in /nonexistent"]);
        assert_eq!(fs::read_dir(scene.dir.path()).unwrap().count(), 3);
    }
}

#[test]
fn what_json_says() {
    let scene = Scene::of(&roomy(2).bytes);
    let file = scene.dir.path().join("disk.hdr");
    let name = file.to_str().unwrap();
    let image = scene.image.to_str().unwrap();
    let document = scene.json(&["header", "backup", "IMG", name]);
    let header = json!({
        "format": "luks2", "uuid": "1a00a2da-2f86-436f-b33d-2ae3da8c0b2b", "seqid": 11,
        "label": "a label", "subsystem": "a subsystem", "keyslots": [0, 3, 5, 7],
    });
    let mut expected = header.clone();
    expected["filename"] = json!(image);
    expected["backup"] = json!(name);
    expected["size"] = json!(491_520);
    expected["warnings"] = json!([]);
    assert_eq!(document, expected);

    scene.done(&["erase", "-q", "--keyslot", "5", "IMG"]);
    let json = |args: &[&str]| -> Value {
        let output = scene.command(args).args(["--output", "json", name, image]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let before = scene.bytes();
    let planned = json(&["header", "restore", "--dry-run"]);
    assert!(scene.bytes() == before);
    let mut present = header.clone();
    present["seqid"] = json!(13);
    present["keyslots"] = json!([0, 3, 7]);
    let warning = "restored: keyslot 5; secrets erased since the backup will open the image again";
    let mut expected = json!({
        "filename": image, "backup": name, "dry-run": true,
        "present": present, "restored": header,
        "changes": [
            { "action": "keep", "keyslot": 0 }, { "action": "keep", "keyslot": 3 },
            { "action": "add", "keyslot": 5 }, { "action": "keep", "keyslot": 7 },
        ],
        "warnings": [warning],
    });
    assert_eq!(planned, expected);
    expected["dry-run"] = json!(false);
    assert_eq!(json(&["header", "restore", "--force"]), expected);
    let after = scene.json(&["info", "IMG"])["format-specific"]["data"].clone();
    assert_eq!(after["seqid"], 15, "{after}");
    assert!(after["keyslots"].to_string().contains('5'), "{after}");
}

#[test]
fn a_terminal_or_yes() {
    let scene = Scene::new().and("OTHER", 3);
    let file = scene.backup("disk.hdr");
    scene.done(&["erase", "-q", "--keyslot", "3", "IMG"]);
    let scene = scene.and("NEW", 5);
    let parts = ["not confirmed: no terminal", "hint: use --yes"];
    scene.refused(&["header", "restore", &file, "IMG"], 1, &parts);
    let before = scene.bytes();
    let text = scene.done(&["header", "restore", "--dry-run", &file, "IMG"]);
    assert!(scene.bytes() == before);
    let lines: Vec<_> = text.lines().collect();
    let [present, then, rest @ ..] = &lines[..] else { panic!("{text}") };
    assert!(present.ends_with("keyslots 0, 5") && then.ends_with("keyslots 0, 3"), "{text}");
    let would =
        ["keyslot 0 would be kept", "keyslot 3 would be restored", "keyslot 5 would be erased"];
    assert_eq!(rest, would);

    // What only --force insists on is refused all the same.
    let other = Scene::of(&roomy(1).bytes);
    let other_file = other.backup("other.hdr");
    scene.refused(
        &["header", "restore", "--yes", &other_file, "IMG"],
        1,
        &["hint: use --foreign-header"],
    );

    scene.done(&["header", "restore", "--yes", "--quiet", &file, "IMG"]);
    assert_eq!(scene.opened_by("OTHER"), [3]);
    scene.done(&["erase", "-q", "--keyslot", "3", "IMG"]);
    let warnings = scene.restore(&file);
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(warnings.contains("restored: keyslot 3; secrets erased"), "{warnings}");
    assert_eq!(scene.opened_by("OTHER"), [3]);
    assert_eq!(scene.opened_by("OLD"), [0]);
    assert_eq!(scene.opened_by("NEW"), [0; 0]);
    let quiet = ["header", "restore", "--force", "--quiet", &file, "IMG"];
    let output = scene.command(&quiet).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn a_header_that_is_damaged_or_gone() {
    for scene in [Scene::new(), Scene::of(&roomy(1).bytes)] {
        let file = scene.backup("disk.hdr");
        let whole = scene.bytes();
        let end = fs::metadata(&file).unwrap().len();
        for damage in [0..512, 0..40960, 0..usize::try_from(end).unwrap()] {
            let mut bytes = whole.clone();
            bytes[damage].fill(0x55);
            fs::write(&scene.image, &bytes).unwrap();
            scene.refused(&["header", "restore", &file, "IMG"], 1, &["no terminal"]);
            scene.restore(&file);
            let mut after = scene.bytes();
            if after[7] == 2 {
                // With one copy left it is an amendment, with a higher seqid.
                let found = Luks2::new(after.clone());
                assert_eq!(found.metadata(0), found.metadata(1));
                after[..32768].copy_from_slice(&whole[..32768]);
            }
            assert!(after == whole);
        }
    }
}

#[test]
fn a_damaged_copy_is_told_and_saved_as_it_is() {
    let image = roomy(1).with(&Change::Bytes(16384 + 5000, vec![1]));
    let scene = Scene::of(&image.bytes);
    let file = scene.dir.path().join("disk.hdr");
    let name = file.to_str().unwrap();
    let output = scene.command(&["header", "backup", "IMG", name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let warning = "the secondary copy of the header is damaged: the checksum is wrong";
    assert_eq!(stderr(&output), format!("warning: {}: {warning}\n", scene.image.display()));
    assert!(scene.bytes().starts_with(&fs::read(&file).unwrap()));
    let warnings = scene.restore(name);
    assert!(warnings.contains(&format!("in the backup, {warning}")), "{warnings}");
    assert!(!scene.done(&["check", "IMG"]).contains("warning"));
}

/// Whoever changes keyslots meanwhile: every backup opens with what opens it then.
#[test]
fn a_backup_meanwhile_is_of_one_moment() {
    let scene = Scene::new();
    let mut children: Vec<_> = (1..4)
        .map(|keyslot| {
            let keyslot = keyslot.to_string();
            let mut command =
                scene.command(&["add", "-q", "--secret=env:OLD", "--new-secret=env:NEW"]);
            command.args(["--iterations=1000", "--wait=60", "--keyslot", &keyslot]);
            Running::spawn(command.arg(&scene.image).envs(SECRETS))
        })
        .collect();
    let mut made = 0;
    while children.iter_mut().any(|child| !child.has_ended()) {
        made += 1;
        let file = PathBuf::from(scene.backup(&format!("{made}.hdr")));
        // With a payload it is an image.
        let mut bytes = fs::read(&file).unwrap();
        bytes.resize(3 << 20, 0);
        fs::write(&file, bytes).unwrap();
        let mut command = Command::new(KEYSLOT);
        command.args(["check", "--output=json", "--secret=env:NEW"]).arg(&file).envs(SECRETS);
        let output = run(&mut command);
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let active = document["keyslots"].as_array().unwrap().iter();
        let active: Vec<_> = active
            .filter(|it| it["active"] == true && it["keyslot"] != 0)
            .map(|it| &it["keyslot"])
            .collect();
        assert_eq!(json!(active), document["secret-opens"]);
    }
    assert!(made > 0);
}
