//! What is left of a LUKS2 header, what an image is that has none, and headers that ask for memory.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::process::Command;

use command::Scene;
use serde_json::json;
use support::cryptsetup::Cryptsetup;
use support::luks2::{Change, Luks2};
use support::{peer, run_ok, stderr};

fn luks2() -> Luks2 {
    Luks2::testdata("luks2_keyslots.img")
}

fn with(bytes: &[(usize, &[u8])]) -> Scene {
    let mut image = luks2().bytes;
    for (offset, bytes) in bytes {
        image[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    Scene::of(&image)
}

#[test]
fn an_erased_magic_is_recognised_and_put_back_by_force() {
    let sound = luks2().bytes;
    for erased in [[0; 6], *b"abcdef"] {
        let scene = with(&[(0, &erased), (16384, &erased)]);
        let parts = [
            "the magic is erased, the first six bytes of each copy",
            "'keyslot repair --foreign-data'",
        ];
        for args in [&["check", "IMG"][..], &["info", "IMG"], &["uuid", "IMG"], &["repair", "IMG"]]
        {
            scene.refused(args, 4, &parts);
        }
        let before = scene.bytes();
        let text = scene.done(&["repair", "--force", "--dry-run", "IMG"]);
        assert!(text.contains("would be repaired: the magic is erased"), "{text}");
        assert!(scene.bytes() == before);
        let text = scene.done(&["repair", "--force", "IMG"]);
        assert!(text.contains("repaired: the magic is erased"), "{text}");
        assert!(scene.bytes() == sound);
        assert!(scene.done(&["repair", "--force", "IMG"]).contains("nothing to repair"));
    }
    // With one checksum wrong nothing is made up.
    for at in [5000, 16384 + 5000] {
        let scene = with(&[(0, &[0; 6]), (16384, &[0; 6]), (at, b"#")]);
        scene.refused(&["repair", "--force", "IMG"], 4, &["not in LUKS format"]);
    }
}

#[test]
fn what_wipefs_erases_opens_again() {
    let (Some(cryptsetup), Some(wipefs)) = (Cryptsetup::find(), peer("wipefs")) else { return };
    let scene = Scene::without_image();
    cryptsetup.format_luks2(
        &scene.image,
        b"xyzzy-zero",
        2,
        &["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"],
    );
    let sound = scene.bytes();
    run_ok(Command::new(wipefs).arg("-qa").arg(&scene.image));
    assert!(scene.bytes() != sound);
    scene.done(&["repair", "--force", "IMG"]);
    assert!(scene.bytes() == sound);
    assert!(cryptsetup.opens(&scene.image, b"xyzzy-zero"));
}

#[test]
fn each_place_of_a_secondary_copy_says_why_it_does_not_count() {
    let hint = "at byte 16384: the checksum is wrong; at the 8 other offsets: not found";
    let scene = with(&[(5000, b"#"), (16384 + 5000, b"#")]);
    scene.refused(&["check", "IMG"], 4, &["LUKS2 header: the checksum is wrong", hint]);
    // The magic of the secondary copy is enough.
    let scene = with(&[(0, &[0; 6]), (16384 + 5000, b"#")]);
    scene.refused(&["check", "IMG"], 4, &["LUKS2 header: the magic is wrong", hint]);
    // More than one: it may have been made with several sizes.
    let copy = luks2().bytes[16384..16384 + 512].to_vec();
    let scene = with(&[(0, &[0; 6]), (16384 + 5000, b"#"), (32768, &copy)]);
    let hint = "at byte 16384: the checksum is wrong; at byte 32768: hdr_offset is 16384, but the copy is at byte 32768; at the 7 other offsets";
    scene.refused(&["check", "IMG"], 4, &[hint]);
}

#[test]
fn segments_may_be_in_any_order_on_the_disk() {
    let Some(cryptsetup) = peer("cryptsetup") else { return };
    let scene = Scene::without_image();
    fs::File::create(&scene.image).unwrap().set_len(64 << 20).unwrap();
    let secret = scene.file("secret", b"xyzzy-zero");
    let mut begin = Command::new(cryptsetup);
    begin.args(["reencrypt", "-q", "--encrypt", "--init-only", "--reduce-device-size", "32M"]);
    begin.args([
        "--force-offline-reencrypt",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
    ]);
    run_ok(begin.arg("--key-file").args([&secret, &scene.image]));
    let info = scene.json(&["info", "IMG"]);
    let segments = &info["format-specific"]["data"]["segments"];
    let offset = |number: usize| segments[number]["offset"].as_u64().unwrap();
    assert!(offset(0) > offset(1), "{segments}");
    let checked = scene.json(&["check", "--secret", "env:OLD", "IMG"]);
    assert_eq!(checked["secret-opens"], json!([0]));
    assert_eq!(checked["key-bits"], json!(512));
    assert_eq!(checked["keyslots"][0]["unbound"], json!(null));
    scene.backup("backup");
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "IMG"];
    scene.refused(&add, 4, &["online-reencrypt-v2", "--resume-only"]);
}

#[test]
fn a_cipher_that_keeps_nothing_secret_is_never_sound() {
    for (cipher, why) in [
        ("cipher_null-ecb", "nothing is encrypted"),
        ("null", "nothing is encrypted"),
        ("aes-ecb", "equal blocks of data stay equal when they are encrypted"),
        ("capi:ecb(aes)-null", "equal blocks of data stay equal when they are encrypted"),
    ] {
        let change = Change::Set(vec![("/segments/0/encryption", json!(cipher))]);
        let scene = Scene::of(&luks2().with(&change).bytes);
        let text = scene.done(&["check", "IMG"]);
        assert!(
            text.contains(&format!("warning: segment 0 has the cipher {cipher}: {why}")),
            "{text}"
        );
        assert!(
            !text.contains("sound") && text.contains(&format!("LUKS2 header, {cipher}, ")),
            "{text}"
        );
        assert_eq!(scene.json(&["check", "IMG"])["cipher"], cipher);
        let info = scene.json(&["info", "IMG"]);
        assert_eq!(info["format-specific"]["data"]["weaknesses"].as_array().unwrap().len(), 1);
    }
    // The key material of LUKS1 has the cipher of the payload.
    let scene = Scene::patched(8, b"cipher_null\0");
    let text = scene.done(&["check", "IMG"]);
    assert!(text.contains("warning: the payload has the cipher cipher_null-xts-plain64"), "{text}");
    assert!(!text.contains("sound"), "{text}");
    let text = Scene::of(&luks2().bytes).done(&["check", "IMG"]);
    assert!(text.contains("sound LUKS2 header") && !text.contains("warning"), "{text}");
}

#[test]
fn a_header_with_a_damaged_copy_is_not_sound() {
    for (at, copy) in [(5000, "primary"), (16384 + 5000, "secondary")] {
        let scene = Scene::of(&luks2().with(&Change::Bytes(at, vec![1])).bytes);
        let text = scene.done(&["check", "IMG"]);
        assert!(text.contains(&format!("\nwarning: the {copy} copy of the header is ")), "{text}");
        assert!(text.contains(": LUKS2 header, "), "{text}");
        scene.done(&["repair", "IMG"]);
        assert!(scene.done(&["check", "IMG"]).contains(": sound LUKS2 header, "));
    }
}

#[test]
fn a_new_image_with_such_a_cipher_is_warned_of() {
    let scene = Scene::without_image();
    let plain = scene.file("plain", &[7; 4096]);
    let ecb = ["--cipher", "aes-ecb", "--key-size", "256", "--new-secret", "env:NEW"];
    let ecb = [&ecb[..], &["--pbkdf", "pbkdf2", "--iterations", "1000"]].concat();
    for format in ["luks", "luks2"] {
        let create = ["create", "-f", format, "--force", "IMG", "64K"];
        let convert = ["convert", plain.to_str().unwrap(), "-O", format, "--force", "IMG"];
        for command in [&create[..], &convert] {
            let output = scene.command(&[command, &ecb].concat()).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            let text = stderr(&output);
            assert!(
                text.starts_with("warning: ") && text.contains("the cipher aes-ecb: "),
                "{text}"
            );
            let quiet = scene.command(&[command, &ecb, &["-q"]].concat()).output().unwrap();
            assert!(quiet.status.success() && quiet.stderr.is_empty(), "{quiet:?}");
        }
    }
}

#[test]
fn an_image_that_is_something_else_is_named() {
    let image = |offset: usize, magic: &[u8]| {
        let mut bytes = vec![0; 8192];
        bytes[offset..offset + magic.len()].copy_from_slice(magic);
        bytes
    };
    for (offset, magic, what) in [
        (0, &b"\x1f\x8b\x08"[..], "the image is compressed with gzip\nhint: decompress it first\n"),
        (0, b"\xfd7zXZ\0", "the image is compressed with xz"),
        (0, b"\x28\xb5\x2f\xfd", "the image is compressed with zstd"),
        (0, b"KDMV", "the image is in VMDK format\nhint: convert it to a raw image first"),
        (0, b"vhdxfile", "the image is in VHDX format"),
        (64, b"\x7f\x10\xda\xbe", "the image is in VDI format"),
        (512, b"LABELONE", "the image is an LVM physical volume"),
        (0x438, b"\x53\xef", "the image is an ext2, ext3 or ext4 file system"),
        (0, b"WithoutFreeSpace", "the image is in Parallels format"),
        (0, b"LUKS\xde\xad", "was left so\nhint: finish it with cryptsetup-reencrypt"),
        (0, b"RBDL\xba\xbe", "a clone of an encrypted RBD image\nhint: flatten the clone first"),
    ] {
        let scene = Scene::of(&image(offset, magic));
        scene.refused(&["check", "IMG"], 4, &["Volume is not in LUKS format; ", what]);
    }
    Scene::of(&image(0, b"QFI\xfb")).refused(&["check", "IMG"], 4, &["qcow2"]);
    Scene::of(&image(0, b"noise")).refused(&["check", "IMG"], 4, &["not in LUKS format\n"]);
}

#[test]
fn luks_in_a_partition_is_found() {
    let luks = luks2().bytes;
    // A master boot record with one partition.
    let mut disk = vec![0; 4096];
    disk[446 + 16..446 + 32].copy_from_slice(&[0, 0, 0, 0, 0x83, 0, 0, 0, 8, 0, 0, 0, 0, 1, 0, 0]);
    disk[510..512].copy_from_slice(b"\x55\xaa");
    disk.extend(&luks);
    let hint = "hint: LUKS is in partition 2, from byte 4096 on: use --partition 2";
    let scene = Scene::of(&disk);
    scene.refused(&["check", "IMG"], 4, &["begins with a partition table (MBR)", hint]);

    let Some(sgdisk) = peer("sgdisk") else { return };
    let scene = Scene::without_image();
    fs::File::create(&scene.image).unwrap().set_len(16 << 20).unwrap();
    run_ok(Command::new(sgdisk).args(["-n", "1:2048:+4M", "-n", "2:10240:0"]).arg(&scene.image));
    let mut disk = scene.bytes();
    disk[10240 * 512..][..luks.len()].copy_from_slice(&luks);
    fs::write(&scene.image, &disk).unwrap();
    let hint = "hint: LUKS is in partition 2, from byte 5242880 on";
    scene.refused(&["check", "IMG"], 4, &["begins with a partition table (GPT)", hint]);
    // Hostile numbers in it.
    for (at, bytes) in [(512 + 72, [0xff; 8]), (512 + 80, [0xff; 8]), (1024 + 32, [0xff; 8])] {
        disk[at..at + 8].copy_from_slice(&bytes);
        fs::write(&scene.image, &disk).unwrap();
        scene.refused(&["check", "IMG"], 4, &["begins with a partition table (GPT)"]);
    }
}

/// As much memory as the command needs without a header that asks for more, in KiB.
const MEMORY: usize = 300_000;

#[test]
fn metadata_of_many_values_does_not_take_the_memory_of_the_machine() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let scene = Scene::without_image();
    fs::File::create(&scene.image).unwrap().set_len(16 << 20).unwrap();
    cryptsetup.format_large(&scene.image, b"xyzzy-zero");
    let base = Luks2::new(scene.bytes());
    let nested = |depth: usize, count: usize| {
        let one = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let many = vec![one.as_str(); count].join(",");
        base.with_member("nested", &format!("[{many}]")).bytes
    };
    let limited = |image: &[u8], what: &str| {
        fs::write(&scene.image, image).unwrap();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("ulimit -v {MEMORY}; exec \"$0\" {what} \"$1\""));
        command.arg(command::KEYSLOT).arg(&scene.image).output().unwrap()
    };
    let (most, too_many, too_deep) = (nested(30, 2100), nested(30, 60_000), nested(32, 1));
    for what in ["info", "uuid", "check"] {
        let output = limited(&most, what);
        assert!(output.status.success(), "{what}: {output:?}");
        for (image, text) in
            [(&too_many, "more than 65536 values"), (&too_deep, "nested deeper than 32")]
        {
            let output = limited(image, what);
            assert_eq!(output.status.code(), Some(4), "{what}: {output:?}");
            assert!(support::stderr(&output).contains(text), "{output:?}");
        }
    }
}
