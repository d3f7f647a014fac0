//! An image that is a part of a file: a partition, or a range. Whatever is done to it, the bytes
//! outside stay, and the locks are on the whole file.

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
use support::locks::locks;
use support::{Running, eventually, peer, run, run_ok, stderr};

const KIB: usize = 1024;
/// Partition 2 of [`gpt`]
const PART: Range<usize> = 5120 * KIB..9216 * KIB;
const FAST: [&str; 4] = ["--pbkdf", "pbkdf2", "--iterations", "1000"];
/// The secrets of `tests/support/command.rs`
const OLD: &str = "xyzzy-zero";
const NEW: &str = "xyzzy-one";

/// A disk with a GPT whose partition 2 has the image of `luks`, and noise around it.
fn gpt(luks: &[u8]) -> Option<Scene> {
    let sgdisk = peer("sgdisk")?;
    let mut disk: Vec<u8> = (0_u32..)
        .map(|it| it.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .take(12 << 20)
        .collect();
    disk[..PART.start].fill(0);
    disk[PART][..luks.len()].copy_from_slice(luks);
    let scene = Scene::of(&disk);
    let mut command = Command::new(sgdisk);
    command.args(["-n", "1:2048:10239", "-n", "2:10240:18431", "-c", "2:secrets"]);
    run_ok(command.arg(&scene.image));
    Some(scene)
}

fn luks1() -> Vec<u8> {
    Scene::new().bytes()
}

/// Made by cryptsetup, as large as a partition.
fn luks2() -> Option<Vec<u8>> {
    let cryptsetup = peer("cryptsetup")?;
    let scene = Scene::without_image();
    fs::write(&scene.image, vec![0; PART.len()]).unwrap();
    let secret = scene.file("secret", OLD.as_bytes());
    let mut command = Command::new(cryptsetup);
    command.args(["luksFormat", "-q", "--type", "luks2", "--luks2-keyslots-size", "1M"]);
    command.args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
    run_ok(command.args([&scene.image, &secret]));
    Some(scene.bytes())
}

fn outside(bytes: &[u8]) -> [&[u8]; 2] {
    [&bytes[..PART.start], &bytes[PART.end..]]
}

#[test]
fn keyslots_in_a_partition_change_and_nothing_outside_of_it() {
    let (Some(cryptsetup), Some(luks2)) = (Cryptsetup::find(), luks2()) else { return };
    for luks in [luks1(), luks2] {
        let Some(scene) = gpt(&luks) else { return };
        let before = scene.bytes();
        let part = ["--partition", "2", "IMG"];
        let done = |args: &[&str]| scene.done(&[args, &part].concat());
        let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW"];
        done(&[&add[..], &FAST].concat());
        let replace = ["replace", "--old-secret", "env:OLD", "--new-secret", "env:OTHER"];
        done(&[&replace[..], &FAST].concat());
        let check = scene.json(&[&["check", "--secret", "env:NEW"][..], &part].concat());
        assert_eq!(check["secret-opens"], json!([1]));

        let after = scene.bytes();
        assert_eq!(outside(&after), outside(&before));
        // What cryptsetup would see through a loop device
        let copy = scene.file("part", &after[PART]);
        assert!(cryptsetup.opens_keyslot(&copy, NEW.as_bytes(), 1));
        assert!(!cryptsetup.opens(&copy, OLD.as_bytes()));

        let backup = scene.dir.path().join("backup");
        let backup = backup.to_str().unwrap();
        scene.done(&["header", "backup", "--partition", "2", "IMG", backup]);
        done(&["erase", "--keyslot", "1", "--secret", "env:OTHER"]);
        scene.done(&["header", "restore", "--yes", "--partition", "2", backup, "IMG"]);
        done(&["uuid", "--uuid", "random"]);
        let check = scene.json(&[&["check", "--secret", "env:NEW"][..], &part].concat());
        assert_eq!(check["secret-opens"], json!([1]));
        assert_eq!(outside(&scene.bytes()), outside(&before));
    }
}

#[test]
fn an_image_is_created_in_a_partition_and_the_table_stays() {
    let Some(sgdisk) = peer("sgdisk") else { return };
    for format in ["luks", "luks2"] {
        let Some(scene) = gpt(&[]) else { return };
        let before = scene.bytes();
        let keyslots: &[&str] = if format == "luks2" { &["--keyslots-size", "1M"] } else { &[] };
        let create = ["create", "-f", format, "--new-secret", "env:OLD"];
        let create = [&create[..], &FAST, keyslots, &["--partition", "2"]].concat();
        // What is there is not lost by accident.
        scene.refused(
            &[&create[..], &["IMG"]].concat(),
            1,
            &["the header would overwrite data at byte 0", "--overwrite"],
        );
        scene.refused(&[&create[..], &["IMG", "1M"]].concat(), 1, &["SIZE does not apply"]);
        scene.done(&[&create[..], &["--force", "IMG"]].concat());
        assert_eq!(outside(&scene.bytes()), outside(&before));
        let verified = run_ok(Command::new(&sgdisk).arg("-v").arg(&scene.image));
        assert!(String::from_utf8_lossy(&verified.stdout).contains("No problems found"));

        let raw = scene.dir.path().join("raw");
        let raw = raw.to_str().unwrap();
        scene.done(&["convert", "--secret", "env:OLD", "--partition", "2", "IMG", raw]);
        let info = scene.json(&["info", "--partition", "2", "IMG"]);
        let len = fs::metadata(raw).unwrap().len();
        assert_eq!(info["virtual-size"], json!(len));
        assert!(len > 1 << 20 && len < PART.len() as u64);
    }
}

/// QEMU's raw layer with an offset is the same range.
#[test]
fn qemu_and_keyslot_see_the_same_image_in_a_range() {
    let (Some(img), Some(io)) = (peer("qemu-img"), peer("qemu-io")) else { return };
    let Some(scene) = gpt(&luks1()) else { return };
    let file = scene.image.display();
    let options = format!(
        "driver=luks,file.driver=raw,file.offset={},file.size={},file.file.filename={file}",
        PART.start,
        PART.len()
    );
    for output in ["human", "json"] {
        let info = ["info", "--output", output, "--image-opts", &options];
        let theirs = run_ok(Command::new(&img).args(info)).stdout;
        assert_eq!(scene.done(&info), String::from_utf8(theirs).unwrap());
    }
    let object = format!("secret,id=s,data={OLD}");
    let opened = format!("{options},key-secret=s");
    let mut write = Command::new(&io);
    write.args(["--object", &object, "--image-opts", &opened, "-c", "write -q -P 0x42 4096 4096"]);
    run_ok(&mut write);

    let amend = [
        "amend",
        "--object",
        &object,
        "--object",
        "secret,id=n,data=second",
        "--image-opts",
        &opened,
    ];
    scene.done(&[&amend[..], &["-o", "state=active,new-secret=n,iter-time=10"]].concat());
    let second = opened.clone();
    let mut read = Command::new(&io);
    read.args(["-r", "--object", "secret,id=s,data=second", "--image-opts", &second]);
    run_ok(read.args(["-c", "read -q -P 0x42 4096 4096"]));

    let raw = scene.dir.path().join("raw");
    let range = [PART.start.to_string(), PART.len().to_string()];
    let convert = ["convert", "--secret", "env:OLD", "--offset", &range[0], "--size", &range[1]];
    scene.done(&[&convert[..], &["IMG", raw.to_str().unwrap()]].concat());
    assert_eq!(fs::read(&raw).unwrap()[4096..8192], [0x42; 4096]);
}

#[test]
fn an_image_in_a_part_is_refused_while_qemu_has_the_disk_open() {
    let (Some(nbd), Some(scene)) = (peer("qemu-nbd"), gpt(&luks1())) else { return };
    let socket = scene.dir.path().join("socket");
    let mut serve = Command::new(nbd);
    serve.args(["--read-only", "--format", "raw", "--persistent", "--socket"]);
    let server = Running::spawn(serve.arg(&socket).arg(&scene.image));
    eventually("the locks of qemu-nbd", || socket.exists() && !locks(&scene.image).is_empty());
    let (start, len) = (PART.start.to_string(), PART.len().to_string());
    let parts =
        [&["--partition", "2"][..], &["--offset", &start], &["--offset", &start, "--size", &len]];
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "IMG"];
    let erase = ["erase", "--keyslot", "1", "IMG"];
    let create = ["create", "-f", "luks", "--force", "--new-secret", "env:NEW", "IMG"];
    for part in parts {
        scene.refused(&[&add[..], part, &FAST].concat(), 5, &["qemu-nbd"]);
        scene.refused(&[&create[..], part, &FAST].concat(), 5, &["qemu-nbd"]);
        // The locks are those of the whole file, so reading without one works.
        scene.done(&[&["check", "--secret", "env:OLD", "IMG"][..], part].concat());
    }
    drop(server);
    for part in parts {
        scene.done(&[&add[..], part, &FAST].concat());
        scene.done(&[&erase[..], part].concat());
    }
}

#[test]
fn a_part_that_is_not_there_is_refused() {
    let Some(scene) = gpt(&luks1()) else { return };
    let len = (12 << 20).to_string();
    for (part, said) in [
        (&["--partition", "3"][..], "partition 3 does not exist: the GPT has 1, 2"),
        (&["--partition", "0"], "partition 0 does not exist"),
        (
            &["--offset", &len, "--size", "512"],
            "512 bytes from byte 12582912 on are not in the file",
        ),
        (&["--offset", "16777216"], "byte 16777216 is not in the file, which has 12582912 bytes"),
        (&["--offset", "100"], "100 bytes: must be a multiple of 512"),
    ] {
        for command in ["info", "check", "uuid"] {
            let output = run(scene
                .command(&[&[command], part, &["IMG"]].concat())
                .stdin(std::process::Stdio::null()));
            assert_eq!(output.status.code(), Some(1), "{part:?} {output:?}");
            assert!(stderr(&output).contains(said), "{part:?} {output:?}");
        }
    }
    let plain = Scene::new();
    plain.refused(
        &["info", "--partition", "1", "IMG"],
        1,
        &["partition 1 does not exist: no partition table"],
    );
}

/// A partition without LUKS is not taken for a raw source: that would be the whole disk.
#[test]
fn a_conversion_of_a_partition_without_luks_is_refused() {
    let Some(scene) = gpt(&luks1()) else { return };
    let target = scene.dir.path().join("target");
    let to = ["IMG", target.to_str().unwrap()];
    let convert = ["convert", "--partition", "1"];
    scene.refused(&[&convert[..], &to].concat(), 4, &["Volume is not in LUKS format"]);
    let raw = [&convert[..], &["-f", "raw"], &to].concat();
    scene.refused(&raw, 1, &["do not apply to a raw source"]);
    assert!(!target.exists());
}

/// A truncated or changed table is no table, and its copy at the end of the disk serves.
#[test]
fn the_copy_of_a_damaged_table_serves() {
    let Some(scene) = gpt(&luks1()) else { return };
    let mut disk = scene.bytes();
    disk[512 + 40] ^= 1;
    fs::write(&scene.image, &disk).unwrap();
    scene.done(&["check", "--secret", "env:OLD", "--partition", "2", "IMG"]);
    let end = disk.len() - 512;
    disk[end + 40] ^= 1;
    fs::write(&scene.image, &disk).unwrap();
    scene.refused(
        &["check", "--partition", "2", "IMG"],
        4,
        &["the GPT is damaged: wrong checksum of the header at byte 512"],
    );
    // Without a partition too, the error names the file, and that it is not LUKS.
    for command in ["info", "check"] {
        let text = "disk.img: Volume is not in LUKS format; the GPT is damaged: wrong checksum";
        scene.refused(&[command, "IMG"], 4, &[text]);
    }
}

/// Extended partitions of an MBR, written by hand: sgdisk makes none.
#[test]
fn a_logical_partition_is_found() {
    let luks = luks1();
    let mut disk = vec![0; (1 << 20) + luks.len()];
    let record = |disk: &mut [u8], sector: usize, entry: (u8, u32, u32)| {
        let record = &mut disk[sector * 512..][..512];
        record[450] = entry.0;
        record[454..458].copy_from_slice(&entry.1.to_le_bytes());
        record[458..462].copy_from_slice(&entry.2.to_le_bytes());
        record[510..].copy_from_slice(b"\x55\xaa");
    };
    let sectors = u32::try_from(luks.len() / 512).unwrap();
    record(&mut disk, 0, (0x0f, 64, 1984 + sectors));
    record(&mut disk, 64, (0x83, 1984, sectors));
    disk[1 << 20..].copy_from_slice(&luks);
    let scene = Scene::of(&disk);
    let hint = "hint: LUKS is in partition 5, from byte 1048576 on: use --partition 5";
    scene.refused(&["check", "IMG"], 4, &["begins with a partition table (MBR)", hint]);
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--partition", "5", "IMG"];
    scene.done(&[&add[..], &FAST].concat());
    assert_eq!(scene.bytes()[..1 << 20], disk[..1 << 20]);
    is_opened_by_qemu(&scene.bytes()[1 << 20..], &scene);
}

/// `info` on the disk: where LUKS is, and with which option the other commands find it.
#[test]
fn the_partitions_of_a_disk_are_listed() {
    let Some(scene) = gpt(&luks1()) else { return };
    let uuid = scene.done(&["uuid", "--partition", "2", "IMG"]);
    let uuid = uuid.trim();
    let text = scene.done(&["info", "IMG"]);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[1..3], ["file format: raw", "virtual size: 12 MiB (12582912 bytes)"]);
    assert_eq!(
        lines[4..7],
        [
            "partition table: GPT",
            "partition 1: Linux filesystem, 4 MiB from byte 1048576",
            &format!(
                "partition 2: Linux filesystem \"secrets\", 4 MiB from byte 5242880, LUKS1 {uuid}; \
                 use --partition 2"
            ),
        ]
    );
    let info = scene.json(&["info", "IMG"]);
    assert_eq!((&info["format"], &info["partition-table"]), (&json!("raw"), &json!("gpt")));
    let kind = "0FC63DAF-8483-4772-8E79-3D69D8477DE4";
    let expected = json!([
        {
            "partition": 1, "type": kind, "offset": 1 << 20, "size": 4 << 20,
            "type-name": "Linux filesystem",
        },
        {
            "partition": 2, "type": kind, "offset": PART.start, "size": PART.len(),
            "type-name": "Linux filesystem", "name": "secrets",
            "luks": { "format": "luks", "uuid": uuid },
        },
    ]);
    assert_eq!(info["partitions"], expected);

    // The disk is no LUKS image, and what asks for one is told where it is.
    let hint = "hint: LUKS is in partition 2, from byte 5242880 on: use --partition 2";
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "IMG"];
    for args in [&["check", "IMG"][..], &["info", "-f", "luks", "IMG"], &["uuid", "IMG"], &add] {
        scene.refused(args, 4, &["begins with a partition table (GPT)", hint]);
    }
    assert_eq!(run(&mut scene.command(&["is-luks", "IMG"])).status.code(), Some(1));
    scene.done(&["is-luks", "--partition", "2", "IMG"]);
}

#[test]
fn a_damaged_header_in_a_partition_is_listed() {
    let mut luks = luks1();
    luks[7] = 3;
    let Some(scene) = gpt(&luks) else { return };
    let text = scene.done(&["info", "IMG"]);
    let why = "LUKS header unusable: LUKS version 3 is not supported; use --partition 2";
    assert!(text.contains(why), "{text}");
}

#[test]
fn several_partitions_with_luks_are_named() {
    let Some(scene) = gpt(&luks1()) else { return };
    let mut disk = scene.bytes();
    disk.copy_within(PART, 1 << 20);
    fs::write(&scene.image, &disk).unwrap();
    let hint = "hint: LUKS is in partitions 1, 2: name one of them, as in --partition 1";
    scene.refused(&["check", "IMG"], 4, &[hint]);
    assert_eq!(scene.done(&["info", "IMG"]).matches("LUKS1").count(), 2);
}

#[test]
fn a_disk_without_luks_is_not_listed() {
    let Some(scene) = gpt(&[7; 4096]) else { return };
    let text = "begins with a partition table (GPT); none of its partitions holds LUKS";
    for command in ["info", "check"] {
        scene.refused(&[command, "IMG"], 4, &[text]);
    }
}

/// Both secrets open these bytes.
fn is_opened_by_qemu(bytes: &[u8], scene: &Scene) {
    let Some(io) = peer("qemu-io") else { return };
    let copy = scene.file("copy", bytes);
    for secret in [OLD, NEW] {
        opens(&io, &copy, secret);
    }
}

fn opens(io: &Path, image: &Path, secret: &str) {
    let options = format!("driver=luks,key-secret=s,file.filename={}", image.display());
    let object = format!("secret,id=s,data={secret}");
    run_ok(Command::new(io).args([
        "-r",
        "--object",
        &object,
        "--image-opts",
        &options,
        "-c",
        "read -q 0 512",
    ]));
}
