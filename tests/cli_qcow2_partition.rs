//! A guest's LUKS partition on the disk in a qcow2 image: its keyslots change where they are, the rest
//! of the disk and the image's own structure stay.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use command::Scene;
use serde_json::json;
use support::cryptsetup::Cryptsetup;
use support::guest::Guest;
use support::{peer, run_ok, stderr};

const KIB: usize = 1024;
/// Partition 2 of the disk
const PART: Range<usize> = 5120 * KIB..9216 * KIB;
const FAST: [&str; 4] = ["--pbkdf", "pbkdf2", "--iterations", "1000"];
/// The secrets of `tests/support/command.rs`
const OLD: &str = "xyzzy-zero";
const NEW: &str = "xyzzy-one";

/// A qcow2 image with options of `qemu-img convert`, whose disk has a GPT and a LUKS partition made by
/// cryptsetup.
fn guest(kind: &str, options: &[&str]) -> Option<(Scene, Guest, Vec<u8>)> {
    let (sgdisk, cryptsetup, qemu_img) = (peer("sgdisk")?, peer("cryptsetup")?, peer("qemu-img")?);
    peer("qemu-io")?;
    let scene = Scene::without_image();
    let raw = scene.dir.path().join("disk.raw");
    fs::write(&raw, vec![0; 12 << 20]).unwrap();
    let mut command = Command::new(sgdisk);
    run_ok(command.args(["-n", "1:2048:10239", "-n", "2:10240:18431"]).arg(&raw));

    let part = scene.file("part", &vec![0; PART.len()]);
    let secret = scene.file("secret", OLD.as_bytes());
    let mut command = Command::new(cryptsetup);
    command.args(["luksFormat", "-q", "--type", kind, "--pbkdf-force-iterations", "1000"]);
    if kind == "luks2" {
        command.args(["--pbkdf", "pbkdf2", "--luks2-keyslots-size", "1M"]);
    }
    run_ok(command.args([&part, &secret]));
    let mut disk = fs::read(&raw).unwrap();
    disk[PART].copy_from_slice(&fs::read(&part).unwrap());
    // Data of the guest on both sides
    disk[PART.start - 100_000..PART.start].fill(0xa5);
    disk[PART.end..PART.end + 100_000].fill(0x5a);
    fs::write(&raw, &disk).unwrap();

    let mut command = Command::new(qemu_img);
    command.args(["convert", "-q", "-f", "raw", "-O", "qcow2"]).args(options);
    run_ok(command.args([&raw, &scene.image]));
    let guest = Guest { image: scene.image.clone(), is_encrypted: false };
    Some((scene, guest, disk))
}

fn outside(bytes: &[u8]) -> [&[u8]; 2] {
    [&bytes[..PART.start], &bytes[PART.end..]]
}

/// Whether the partition, as QEMU reads it, opens with this secret by cryptsetup.
fn opens(scene: &Scene, guest: &Guest, secret: &str) -> bool {
    let part = scene.file("part.now", &guest.raw()[PART]);
    Cryptsetup::find().unwrap().opens(&part, secret.as_bytes())
}

#[test]
fn a_guests_keyslots_change_where_they_are() {
    let cases: [(&str, &[&str], bool); 5] = [
        ("luks1", &[], false),
        ("luks2", &["-o", "cluster_size=4k"], true),
        ("luks1", &["-o", "cluster_size=512"], true),
        ("luks2", &["-o", "compat=0.10"], true),
        ("luks2", &["-o", "cluster_size=2M,preallocation=metadata"], false),
    ];
    for (kind, options, has_snapshot) in cases {
        let Some((scene, guest, disk)) = guest(kind, options) else { return };
        if has_snapshot {
            guest.snapshot("before");
        }
        let part = ["--partition", "2", "IMG"];
        let done = |args: &[&str]| scene.done(&[args, &part].concat());
        let info = scene.json(&[&["info"][..], &part].concat());
        let format = if kind == "luks1" { "luks" } else { kind };
        assert_eq!(info["format"], json!(format), "{info}");
        done(&[&["add", "--secret", "env:OLD", "--new-secret", "env:NEW"][..], &FAST].concat());
        guest.check();
        assert!(opens(&scene, &guest, NEW) && opens(&scene, &guest, OLD), "{kind} {options:?}");
        let replace = ["replace", "--old-secret", "env:OLD", "--new-secret", "env:OTHER"];
        done(&[&replace[..], &FAST].concat());
        let check = scene.json(&[&["check", "--secret", "env:NEW"][..], &part].concat());
        assert_eq!(check["secret-opens"], json!([1]));
        guest.check();
        assert!(opens(&scene, &guest, NEW) && !opens(&scene, &guest, OLD));
        assert!(outside(&guest.raw()) == outside(&disk));

        let backup = scene.dir.path().join("backup");
        let backup = backup.to_str().unwrap();
        scene.done(&["header", "backup", "--partition", "2", "IMG", backup]);
        done(&["erase", "--keyslot", "1", "--secret", "env:OTHER"]);
        assert!(!opens(&scene, &guest, NEW));
        scene.done(&["header", "restore", "--yes", "--partition", "2", backup, "IMG"]);
        assert!(opens(&scene, &guest, NEW));
        guest.check();
        assert!(outside(&guest.raw()) == outside(&disk));
        if has_snapshot {
            guest.revert("before");
            guest.check();
            assert!(guest.raw() == disk, "the snapshot changed");
        }
    }
}

#[test]
fn a_guests_header_survives_in_snapshots_and_that_is_said() {
    let Some((scene, guest, _)) = guest("luks2", &[]) else { return };
    let info = scene.json(&["info", "IMG"]);
    assert_eq!(info["format"], "qcow2");
    assert_eq!(info["partitions"][1]["luks"]["format"], "luks2");
    scene.refused(&["check", "IMG"], 4, &["not encrypted", "--partition"]);
    let replace = ["replace", "--old-secret", "env:OLD", "--new-secret", "env:NEW"];
    let replace = [&replace[..], &FAST, &["--partition", "2", "IMG"]].concat();
    let said = scene.command(&[&replace[..], &["--dry-run"]].concat()).output().unwrap();
    assert!(!stderr(&said).contains("snapshot"), "{said:?}");
    guest.snapshot("one");
    let said = scene.command(&replace).output().unwrap();
    assert!(said.status.success(), "{said:?}");
    assert!(stderr(&said).contains("1 internal snapshot"), "{said:?}");
    let check = ["check", "--secret", "env:NEW", "--partition", "2", "IMG"];
    assert_eq!(scene.json(&check)["secret-opens"], json!([0]));
    guest.check();
    guest.revert("one");
    let check = ["check", "--secret", "env:OLD", "--partition", "2", "IMG"];
    assert_eq!(scene.json(&check)["secret-opens"], json!([0]));
}

#[test]
fn holes_of_the_disk_become_keyslots() {
    let Some((scene, guest, _)) = guest("luks1", &[]) else { return };
    let keyslot = PART.start + 1_810_432;
    guest.io(&format!("write -q -z -u {keyslot} 256000\n"));
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--keyslot", "7"];
    scene.done(&[&add[..], &FAST, &["--partition", "2", "IMG"]].concat());
    guest.check();
    assert!(opens(&scene, &guest, NEW));
}

#[test]
fn compressed_clusters_become_keyslots() {
    let Some((scene, guest, disk)) = guest("luks1", &["-c"]) else { return };
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW"];
    scene.done(&[&add[..], &FAST, &["--partition", "2", "IMG"]].concat());
    guest.check();
    assert!(opens(&scene, &guest, NEW) && opens(&scene, &guest, OLD));
    assert!(outside(&guest.raw()) == outside(&disk));
}

#[test]
fn what_cannot_be_served_is_refused_by_name_and_unchanged() {
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--partition", "2", "IMG"];
    let Some((scene, guest, _)) = guest("luks1", &[]) else { return };
    guest.bitmap("b");
    let before = fs::read(&scene.image).unwrap();
    scene.refused(&add, 4, &["persistent bitmaps"]);
    assert!(fs::read(&scene.image).unwrap() == before);

    // An overlay: the key material is in the backing file, which no gate opens.
    let base = scene.dir.path().join("base.qcow2");
    fs::rename(&scene.image, &base).unwrap();
    let more = ["-b", base.to_str().unwrap(), "-F", "qcow2"];
    overlay(&scene.image, &more);
    scene.refused(&add, 4, &["needs the backing file", "base.qcow2"]);
}

fn overlay(image: &Path, more: &[&str]) {
    let mut command = Command::new(peer("qemu-img").unwrap());
    run_ok(command.args(["create", "-q", "-f", "qcow2"]).args(more).arg(image));
}
