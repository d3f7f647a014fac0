//! `keyslot header restore` of what it refuses: other images, what is no backup, an image in use.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::process::Command;

use command::{Scene, assert_refusal};
use serde_json::json;
use support::locks::locks;
use support::luks2::{Change, Luks2, roomy};
use support::{Running, eventually, peer};

#[test]
fn a_backup_that_is_none() {
    for scene in [Scene::new(), Scene::of(&roomy(1).bytes)] {
        let file = scene.backup("disk.hdr");
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
        assert_refusal(&output, 1, &[&file, "hint: give the backup first"], "swapped");
        assert!(fs::read(&file).unwrap() == before);
    }
}

/// Key material out of reach of every file: nothing is allocated for it.
#[test]
fn a_backup_with_absurd_numbers() {
    let scene = Scene::new();
    let file = scene.backup("disk.hdr");
    let mut bytes = fs::read(&file).unwrap();
    bytes[104..108].copy_from_slice(&u32::MAX.to_be_bytes());
    bytes[208 + 7 * 48 + 40..][..4].copy_from_slice(&0xfff0_0000_u32.to_be_bytes());
    fs::write(&file, bytes).unwrap();
    let mut command = scene.command(&["header", "restore", "--force", &file, "IMG"]);
    scene.command_refused(&mut command, 4, &[&file, "end at byte", "the limit is 142606336"]);
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
    let file = other.backup("disk.hdr");
    let parts = ["the digest of another volume key", "hint: use --foreign-header to do it anyway"];
    scene.refused(&["header", "restore", &file, "IMG"], 1, &parts);
    scene.refused(&["header", "restore", "--dry-run", &file, "IMG"], 1, &parts);
    let warnings = scene.restore(&file);
    assert!(warnings.contains("the digest of another volume key"), "{warnings}");
    assert!(warnings.contains("overwritten in place: if this is interrupted"), "{warnings}");
    assert_eq!(scene.opened_by("OTHER"), [0]);
    assert_eq!(scene.opened_by("OLD"), [0; 0]);
    let len = fs::metadata(&file).unwrap().len();
    assert!(scene.bytes()[..usize::try_from(len).unwrap()] == fs::read(&file).unwrap());

    // Of another format, and what does not fit.
    let luks2 = Scene::of(&roomy(1).bytes);
    let two = luks2.backup("two.hdr");
    let parts = ["the image has a LUKS1 header, the backup a LUKS2 header"];
    scene.refused(&["header", "restore", &two, "IMG"], 1, &parts);
    scene.restore(&two);
    assert_eq!(scene.json(&["check", "IMG"])["format"], "luks2");
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
            "the segments differ from those in the backup",
        ),
    ] {
        let scene = Scene::of(&base.bytes);
        let name = scene.dir.path().join("disk.hdr");
        fs::write(&name, &base.with(&change).bytes).unwrap();
        let file = name.to_str().unwrap();
        scene.refused(
            &["header", "restore", file, "IMG"],
            1,
            &[part, "hint: use --foreign-header"],
        );
        assert!(scene.restore(file).contains(part));
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
    let plain = Scene::of(&base.bytes);
    let demanding = Scene::of(&base.with(&needs).bytes);
    let [file, demanding_file] = [plain.backup("disk.hdr"), demanding.backup("disk.hdr")];
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
    plain.restore(&demanding_file);
    assert!(plain.bytes() == demanding.bytes());
}

#[test]
fn refused_while_qemu_has_it_open() {
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    for is_damaged in [false, true] {
        let scene = Scene::new();
        let file = scene.backup("disk.hdr");
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
            scene.backup("again.hdr");
        }
        drop(nbd);
        scene.restore(&file);
        assert_eq!(scene.opened_by("OLD"), [0]);
    }
}
