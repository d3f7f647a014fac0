//! `keyslot header backup` and `header restore`: what they take, what they refuse, what they say.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene, assert_refusal};
use serde_json::{Value, json};
use support::locks::locks;
use support::luks2::{Change, Luks2, roomy};
use support::{Running, eventually, peer, run, stderr};

/// A backup of the scene's image, made now.
fn backup(scene: &Scene, name: &str) -> String {
    let file = scene.dir.path().join(name).to_str().unwrap().to_owned();
    scene.done(&["header", "backup", "-q", "IMG", &file]);
    file
}

/// A scene with a LUKS2 image in it.
fn luks2(image: &Luks2) -> Scene {
    let scene = Scene::without_image();
    fs::write(&scene.image, &image.bytes).unwrap();
    scene
}

/// Runs a restoration by force, which must succeed, and says what it warns of.
#[track_caller]
fn forced(scene: &Scene, file: &str) -> String {
    let output = scene.command(&["header", "restore", "--force", file, "IMG"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    stderr(&output)
}

#[test]
fn a_backup_is_the_start_of_the_image_and_its_owners() {
    for (scene, len, active) in [
        (Scene::new().and("OTHER", 6), 2_068_480, "keyslots 0, 6"),
        (luks2(&roomy(2)), 32768 + (320 << 10) + (2 << 16), "keyslots 0, 3, 5, 7"),
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
        refused(name, &[name, "the file exists", "hint: no file is replaced"]);
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
    let scene = luks2(&roomy(2));
    let file = scene.dir.path().join("disk.hdr");
    let name = file.to_str().unwrap();
    let image = scene.image.to_str().unwrap();
    let document = scene.json(&["header", "backup", "IMG", name]);
    let header = json!({
        "format": "LUKS2", "uuid": "1a00a2da-2f86-436f-b33d-2ae3da8c0b2b", "seqid": 11,
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
    let warning = "back as in the backup: keyslot 5; what opened the image then opens it again, even if it was erased since";
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
    assert_eq!(after["seqid"], 14, "{after}");
    assert!(after["keyslots"].to_string().contains('5'), "{after}");
}

#[test]
fn a_terminal_or_force() {
    let scene = Scene::new().and("OTHER", 3);
    let file = backup(&scene, "disk.hdr");
    scene.done(&["erase", "-q", "--keyslot", "3", "IMG"]);
    let scene = scene.and("NEW", 5);
    let parts = ["there is no terminal to ask on", "hint: --force"];
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

    let warnings = forced(&scene, &file);
    assert_eq!(warnings.lines().count(), 1, "{warnings}");
    assert!(warnings.contains("back as in the backup: keyslot 3; what opened"), "{warnings}");
    assert_eq!(scene.opened_by("OTHER"), [3]);
    assert_eq!(scene.opened_by("OLD"), [0]);
    assert_eq!(scene.opened_by("NEW"), [0; 0]);
    let quiet = ["header", "restore", "--force", "--quiet", &file, "IMG"];
    let output = scene.command(&quiet).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn a_header_that_is_damaged_or_gone() {
    for scene in [Scene::new(), luks2(&roomy(1))] {
        let file = backup(&scene, "disk.hdr");
        let whole = scene.bytes();
        let end = fs::metadata(&file).unwrap().len();
        for damage in [0..512, 0..40960, 0..usize::try_from(end).unwrap()] {
            let mut bytes = whole.clone();
            bytes[damage].fill(0x55);
            fs::write(&scene.image, &bytes).unwrap();
            scene.refused(&["header", "restore", &file, "IMG"], 1, &["no terminal"]);
            forced(&scene, &file);
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
fn a_backup_that_is_none() {
    for scene in [Scene::new(), luks2(&roomy(1))] {
        let file = backup(&scene, "disk.hdr");
        let whole = fs::read(&file).unwrap();
        let refused = |bytes: &[u8], status: i32, parts: &[&str]| {
            let name = scene.file("other.hdr", bytes).to_str().unwrap().to_owned();
            let restore = ["header", "restore", "--force", &name, "IMG"];
            let parts = [&[name.as_str()], parts].concat();
            scene.command_refused(&mut scene.command(&restore), status, &parts);
        };
        refused(&whole[..whole.len() - 1], 4, &["hint: the ", "is truncated"]);
        refused(&whole[..2000], 4, &[]);
        refused(&whole[..100], 4, &[]);
        refused(&[], 4, &["Volume is not in LUKS format"]);
        refused(&[7; 5000], 4, &["Volume is not in LUKS format"]);
        refused(b"QFI\xfb and so on", 4, &["qcow2"]);
        let restore = |name: &str, status, parts: &[&str]| {
            let mut command = scene.command(&["header", "restore", "--force", name, "IMG"]);
            scene.command_refused(&mut command, status, parts);
        };
        restore("/nonexistent", 1, &["/nonexistent: cannot open it for reading"]);
        restore(scene.dir.path().to_str().unwrap(), 1, &["is a directory"]);
        restore(scene.image.to_str().unwrap(), 1, &["the backup and the image are the same file"]);
        let link = scene.dir.path().join("link");
        fs::hard_link(&scene.image, &link).unwrap();
        restore(link.to_str().unwrap(), 1, &["are the same file"]);

        // The other way round: the backup would get the header of the image.
        let before = fs::read(&file).unwrap();
        let swapped = ["header", "restore", "IMG", &file];
        let output = scene.command(&swapped).output().unwrap();
        assert_refusal(&output, 1, &[&file, "hint: the backup is named first"], "swapped");
        assert!(fs::read(&file).unwrap() == before);
    }
}

/// Key material out of reach of every file: nothing is allocated for it.
#[test]
fn a_backup_with_absurd_numbers() {
    let scene = Scene::new();
    let file = backup(&scene, "disk.hdr");
    let mut bytes = fs::read(&file).unwrap();
    bytes[104..108].copy_from_slice(&u32::MAX.to_be_bytes());
    bytes[208 + 7 * 48 + 40..][..4].copy_from_slice(&0xfff0_0000_u32.to_be_bytes());
    fs::write(&file, bytes).unwrap();
    let mut command = scene.command(&["header", "restore", "--force", &file, "IMG"]);
    scene.command_refused(&mut command, 4, &[&file, "end at byte", "142606336 is the limit"]);
}

#[test]
fn the_backup_of_another_image() {
    let scene = Scene::new();
    let other = Scene::without_image();
    other.done(&[
        "create",
        "-q",
        "-f",
        "luks",
        "--new-secret=env:OTHER",
        "--iterations=1000",
        "IMG",
        "64k",
    ]);
    let file = backup(&other, "disk.hdr");
    let parts = ["the digest of another volume key", "hint: --force restores it all the same"];
    scene.refused(&["header", "restore", &file, "IMG"], 1, &parts);
    scene.refused(&["header", "restore", "--dry-run", &file, "IMG"], 1, &parts);
    let warnings = forced(&scene, &file);
    assert!(warnings.contains("the digest of another volume key"), "{warnings}");
    assert!(warnings.contains("overwritten in place: if this is interrupted"), "{warnings}");
    assert_eq!(scene.opened_by("OTHER"), [0]);
    assert_eq!(scene.opened_by("OLD"), [0; 0]);
    let len = fs::metadata(&file).unwrap().len();
    assert!(scene.bytes()[..usize::try_from(len).unwrap()] == fs::read(&file).unwrap());

    // Of another format, and what does not fit.
    let luks2 = luks2(&roomy(1));
    let two = backup(&luks2, "two.hdr");
    let parts = ["the image has a LUKS1 header, the backup one of LUKS2"];
    scene.refused(&["header", "restore", &two, "IMG"], 1, &parts);
    forced(&scene, &two);
    assert_eq!(scene.json(&["check", "IMG"])["format"], "LUKS2");
    let parts = ["bytes, the backup 2068480"];
    luks2.refused(&["header", "restore", "--force", &file, "IMG"], 1, &parts);
}

#[test]
fn other_places_and_other_data() {
    let base = roomy(3);
    let data = 32768 + (320 << 10) + (3 << 16);
    let moved =
        |offset: usize| Change::Set(vec![("/segments/0/offset", json!(offset.to_string()))]);
    let smaller =
        Change::Set(vec![("/config/keyslots_size", json!(((320 << 10) + (2 << 16)).to_string()))]);
    for (change, part) in [
        (moved(data + 4096), "the data begins at byte 557056, in the backup at byte 561152"),
        (smaller, "config.keyslots_size is 524288, in the backup 458752"),
        (
            Change::Set(vec![("/segments/0/iv_tweak", json!("8"))]),
            "the segments are others than in the backup",
        ),
    ] {
        let scene = luks2(&base);
        let name = scene.dir.path().join("disk.hdr");
        fs::write(&name, &base.with(&change).bytes).unwrap();
        let file = name.to_str().unwrap();
        scene.refused(&["header", "restore", file, "IMG"], 1, &[part, "hint: --force"]);
        assert!(forced(&scene, file).contains(part));
        let restored = Luks2::new(scene.bytes());
        let then = Luks2::new(fs::read(&name).unwrap());
        assert_eq!(restored.metadata(0), then.metadata(0));
        assert_eq!(restored.metadata(0), restored.metadata(1));
    }
}

#[test]
fn requirements_that_nobody_knows() {
    let needs = Change::Set(vec![("/config/requirements", json!({ "mandatory": ["new-thing"] }))]);
    let base = roomy(1);
    let plain = luks2(&base);
    let demanding = luks2(&base.with(&needs));
    let [file, demanding_file] = [backup(&plain, "disk.hdr"), backup(&demanding, "disk.hdr")];
    let text = "the image has the requirement \"new-thing\", which is not supported";
    for force in [&[][..], &["--force"]] {
        let args = [&["header", "restore"], force, &[&file, "IMG"]].concat();
        demanding.refused(&args, 4, &[text]);
        let args = [&["header", "restore"], force, &[&demanding_file, "IMG"]].concat();
        plain.command_refused(&mut plain.command(&args), 4, &[&demanding_file, text]);
    }
    // With no header there is nothing to lose, but somebody has to insist.
    let mut bytes = base.bytes.clone();
    bytes[..32768].fill(0);
    fs::write(&plain.image, bytes).unwrap();
    let args = ["header", "restore", &demanding_file, "IMG"];
    plain.command_refused(&mut plain.command(&args), 4, &[&demanding_file, text]);
    forced(&plain, &demanding_file);
    assert!(plain.bytes() == demanding.bytes());
}

#[test]
fn a_damaged_copy_is_told_and_saved_as_it_is() {
    let image = roomy(1).with(&Change::Bytes(16384 + 5000, vec![1]));
    let scene = luks2(&image);
    let file = scene.dir.path().join("disk.hdr");
    let name = file.to_str().unwrap();
    let output = scene.command(&["header", "backup", "IMG", name]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let warning = "the secondary copy of the header is damaged: the checksum is wrong";
    assert_eq!(stderr(&output), format!("warning: {}: {warning}\n", scene.image.display()));
    assert!(
        fs::read(&file).unwrap() == scene.bytes()[..fs::metadata(&file).unwrap().len() as usize]
    );
    let warnings = forced(&scene, name);
    assert!(warnings.contains(&format!("in the backup {warning}")), "{warnings}");
    assert!(!scene.done(&["check", "IMG"]).contains("warning"));
}

#[test]
fn refused_while_qemu_has_it_open() {
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    for is_damaged in [false, true] {
        let scene = Scene::new();
        let file = backup(&scene, "disk.hdr");
        if is_damaged {
            let mut bytes = scene.bytes();
            bytes[..512].fill(0);
            fs::write(&scene.image, bytes).unwrap();
        }
        let mut command = Command::new(&qemu_nbd);
        command.args(["--persistent", "-r", "-f", "raw"]);
        command.arg(format!("--socket={}", scene.dir.path().join("nbd.sock").display()));
        let nbd = Running::spawn(command.arg(&scene.image));
        eventually("the locks of qemu-nbd", || !locks(&scene.image).is_empty());
        let holder = format!("qemu-nbd (pid {})", nbd.pid());
        for args in [&["--force"][..], &["--dry-run"], &["--force", "--wait=1"]] {
            let args = [&["header", "restore"], args, &[&file, "IMG"]].concat();
            scene.refused(&args, 5, &[&holder, "hint: "]);
        }
        if !is_damaged {
            backup(&scene, "again.hdr");
        }
        drop(nbd);
        forced(&scene, &file);
        assert_eq!(scene.opened_by("OLD"), [0]);
    }
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
        let file = PathBuf::from(backup(&scene, &format!("{made}.hdr")));
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
