//! LUKS1: what is wrong with one item of a header leaves the rest of it usable.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;

use command::Scene;
use serde_json::json;
use support::cryptsetup::Cryptsetup;

/// The entry of a keyslot.
const fn slot(index: usize) -> usize {
    208 + 48 * index
}

/// Bytes and their offset.
type Bytes = (usize, &'static [u8]);

/// `OLD` in keyslot 0, `OTHER` in keyslot 1, and these bytes at these offsets.
fn damaged(bytes: &[Bytes]) -> Scene {
    let scene = Scene::new().and("OTHER", 1);
    let mut image = scene.bytes();
    for (offset, bytes) in bytes {
        image[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    fs::write(&scene.image, image).unwrap();
    scene
}

/// Where partition tools write a disk signature: keyslots 4 and 6.
const SIGNATURE: [Bytes; 2] = [(440, b"\x68\xf4\xe7\x68"), (510, b"\x55\xaa")];

#[test]
fn a_disk_signature_damages_a_keyslot_that_is_not_in_use() {
    let scene = damaged(&SIGNATURE);
    assert_eq!(scene.opened_by("OLD"), [0]);
    let checked = scene.json(&["check", "--secret", "env:OLD", "IMG"]);
    let damage = "Keyslot 4 is overlapping with the encrypted payload";
    assert_eq!(checked["keyslots"][4], json!({ "keyslot": 4, "active": false, "damage": damage }));
    assert_eq!(checked["secret-opens"], json!([0]));
    assert_eq!(checked["leftovers"], json!([]));
    let text = scene.done(&["check", "IMG"]);
    assert!(
        text.contains("keyslot 4: inactive, its entry is damaged: ") && !text.contains("sound")
    );
    assert_eq!(
        scene.json(&["info", "IMG"])["format-specific"]["data"]["slots"][4]["damage"],
        damage
    );

    // QEMU refuses the image, and so do we under its name.
    let link = scene.dir.path().join("qemu-img");
    std::os::unix::fs::symlink(command::KEYSLOT, &link).unwrap();
    let output = std::process::Command::new(link).arg("info").arg(&scene.image).output().unwrap();
    assert!(!output.status.success() && support::stderr(&output).contains(damage), "{output:?}");

    // The damaged keyslot is not touched, not even by index, until it is repaired.
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000"];
    let parts = ["the entry of keyslot 4 is damaged", damage, "'keyslot repair'"];
    scene.refused(&[&add[..], &["--keyslot", "4", "IMG"]].concat(), 4, &parts);
    scene.refused(&["erase", "--force", "--keyslot", "4", "IMG"], 4, &parts);
    for _ in 0..2 {
        scene.done(&[&add[..], &["IMG"]].concat());
    }
    assert_eq!(scene.opened_by("NEW"), [2, 3]);
    scene.done(&[&add[..], &["IMG"]].concat());
    assert_eq!(scene.opened_by("NEW"), [2, 3, 5]);
    scene.backup("backup");
}

#[test]
fn repair_puts_a_damaged_unused_entry_back() {
    let sound = Scene::new().and("OTHER", 1).bytes();
    let cases: [(&str, Vec<Bytes>, bool); 5] = [
        ("signature", SIGNATURE.to_vec(), false),
        ("stripes", vec![(slot(3) + 44, b"\0\0\0\x01")], false),
        ("into another area", vec![(slot(7) + 40, b"\0\0\0\x08")], false),
        ("state", vec![(slot(5), b"\xff\xff")], true),
        ("all of it", vec![(slot(2), &[0xa5; 48])], true),
    ];
    for (name, bytes, needs_force) in cases {
        let scene = damaged(&bytes);
        assert_eq!(scene.opened_by("OTHER"), [1], "{name}");
        if needs_force {
            let hint = "use 'keyslot repair --lose-key' to make it inactive";
            scene.refused(&["repair", "IMG"], 1, &["may have been active", hint]);
        }
        let repair: &[&str] = if needs_force { &["repair", "--force"] } else { &["repair"] };
        let before = scene.bytes();
        let text = scene.done(&[repair, &["--dry-run", "IMG"]].concat());
        assert!(text.contains("would be repaired: keyslot"), "{text}");
        assert!(scene.bytes() == before, "{name}");
        let text = scene.done(&[repair, &["IMG"]].concat());
        assert!(text.contains("is inactive again"), "{text}");
        let (after, entries) = (scene.bytes(), slot(2)..slot(8));
        let offsets = |image: &[u8]| -> Vec<u8> {
            image[entries.clone()]
                .chunks(48)
                .flat_map(|it| [&it[..8], &it[40..]].concat())
                .collect()
        };
        assert_eq!(offsets(&after), offsets(&sound), "{name}");
        assert!(after[..slot(2)] == before[..slot(2)] && after[592..] == before[592..], "{name}");
        assert!(scene.done(&["repair", "IMG"]).contains("nothing to repair"));
        assert!(scene.done(&["check", "IMG"]).contains("sound LUKS1 header"), "{name}");
        assert_eq!(scene.opened_by("OLD"), [0], "{name}");
    }
    // An entry that is in use is not damaged in silence.
    let scene = damaged(&[(slot(1) + 44, b"\0\0\0\x01")]);
    scene.refused(&["check", "IMG"], 4, &["Keyslot 1 is corrupted (stripes 1 != 4000)"]);
}

#[test]
fn what_repair_did_is_what_cryptsetup_does() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let scene = Scene::without_image();
    cryptsetup.format(&scene.image, b"xyzzy-zero", &[]);
    let mut bytes = scene.bytes();
    for (offset, signature) in SIGNATURE {
        bytes[offset..offset + signature.len()].copy_from_slice(signature);
    }
    fs::write(&scene.image, &bytes).unwrap();
    let other = Scene::of(&bytes);
    support::run_ok(
        std::process::Command::new("cryptsetup").args(["-q", "repair"]).arg(&other.image),
    );
    scene.done(&["repair", "IMG"]);
    assert!(cryptsetup.opens(&scene.image, b"xyzzy-zero"));
    // cryptsetup clears keyslot 6's salt, too, where the signature's other half is.
    let (mut ours, theirs) = (scene.bytes(), other.bytes());
    ours[510..512].fill(0);
    assert!(ours == theirs);
}

#[test]
fn an_unknown_cipher_or_hash_is_needed_by_few_commands() {
    let text = "Algorithm 'aria' with key size 32 bytes not supported";
    let hash = "Hash algorithm 'streebog256' not supported";
    let names: [(usize, &'static [u8], &str); 2] =
        [(8, b"aria\0", text), (72, b"streebog256\0", hash)];
    for (offset, name, text) in names {
        let scene = damaged(&[(offset, name)]);
        let name = std::str::from_utf8(&name[..name.len() - 1]).unwrap();
        let info = scene.done(&["info", "IMG"]);
        assert!(info.contains(name), "{info}");
        let checked = scene.done(&["check", "IMG"]);
        assert!(checked.contains(name), "{checked}");
        assert!(checked.contains(&format!("keyslot 1: cannot be opened: {text}")), "{checked}");
        assert!(checked.contains("keyslot 2: inactive, blank"), "{checked}");
        scene.done(&["uuid", "IMG"]);
        let backup = scene.backup("backup");

        // What needs it says so in one way.
        let new = ["--new-secret", "env:NEW", "IMG"];
        for args in [
            &["check", "--secret", "env:OLD", "IMG"][..],
            &["info", "--secret", "env:OLD", "IMG"],
            &[&["add", "--secret", "env:OLD"], &new[..]].concat(),
            &[&["replace", "--old-secret", "env:OLD"], &new[..]].concat(),
            &["erase", "--old-secret", "env:OLD", "IMG"],
        ] {
            scene.refused(args, 4, &[text]);
        }
        let before = scene.bytes();
        scene.done(&["erase", "--keyslot", "1", "IMG"]);
        let after = scene.bytes();
        assert!(after[4096 + 0x3f000..4096 + 2 * 0x3f000].iter().all(|&byte| byte == 0));
        assert!(after[slot(2)..4096] == before[slot(2)..4096]);
        scene.refused(&["erase", "--keyslot", "0", "IMG"], 1, &["only active keyslot"]);

        // A keyslot cannot be written, but the whole header can.
        let restore = ["header", "restore", "--yes", &backup, "IMG"];
        scene.refused(&restore, 4, &[text, "use --in-place to overwrite the header in place"]);
        scene.restore(&backup);
        assert!(scene.bytes() == before, "{name}");
    }
}

#[test]
fn a_header_backup_is_checked_like_an_image() {
    let scene = Scene::new().and("OTHER", 5);
    let backup = Scene::of(&fs::read(scene.backup("backup")).unwrap());
    // That of QEMU's layout ends with the payload's beginning; cryptsetup leaves a gap.
    let mut bytes = backup.bytes();
    bytes[104..108].copy_from_slice(&4096_u32.to_be_bytes());
    fs::write(&backup.image, bytes).unwrap();
    let checked = backup.json(&["check", "--secret", "env:OTHER", "IMG"]);
    assert_eq!(checked["secret-opens"], json!([5]));
    assert_eq!(checked["payload-missing"], json!(true));
    assert!(backup.done(&["check", "IMG"]).contains("note: the file ends before the payload"));
    let info = backup.json(&["info", "IMG"]);
    assert_eq!(info["virtual-size"], json!(null));
    assert!(backup.done(&["info", "IMG"]).contains("virtual size: unavailable\n"));
    assert_eq!(backup.done(&["uuid", "IMG"]), scene.done(&["uuid", "IMG"]));
    let target = backup.dir.path().join("raw");
    let convert = ["convert", "--secret", "env:OLD", "IMG", target.to_str().unwrap()];
    backup.refused(&convert, 4, &["the payload begins at byte 2097152", "the image is truncated"]);

    // With key material missing it is truncated all the same.
    let bytes = backup.bytes();
    fs::write(&backup.image, &bytes[..100_000]).unwrap();
    backup.refused(&["check", "IMG"], 4, &["Keyslot 0 ends at byte", "the image is truncated"]);
}

#[test]
fn keyslots_of_a_detached_header_are_changed_without_its_payload() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let scene = Scene::without_image();
    let payload = scene.file("payload", &vec![0; 1 << 20]);
    let (secret, header) = (scene.file("secret", b"xyzzy-zero"), scene.image.clone());
    let mut format = std::process::Command::new("cryptsetup");
    format.args(["luksFormat", "-q", "--type", "luks1", "--pbkdf-force-iterations", "1000"]);
    support::run_ok(format.arg("--header").args([&header, &payload, &secret]));
    assert_eq!(scene.bytes()[104..108], [0; 4]);

    let add =
        ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000", "IMG"];
    scene.done(&add);
    assert!(cryptsetup.opens_keyslot(&header, b"xyzzy-one", 1));
    let replace = ["replace", "--old-secret", "env:OLD", "--new-secret", "env:OTHER", "IMG"];
    scene.done(&[&replace[..], &["--iterations", "1000"]].concat());
    assert!(cryptsetup.opens_keyslot(&header, b"xyzzy-two", 0));
    scene.done(&["erase", "--keyslot", "1", "IMG"]);
    assert!(!cryptsetup.opens(&header, b"xyzzy-one"));
    scene.done(&["uuid", "IMG"]);
    let info = scene.json(&["info", "IMG"]);
    assert_eq!(info["format-specific"]["data"]["detached-header"], json!(true));
    let backup = scene.backup("backup");
    scene.done(&["erase", "--force", "--keyslot", "0", "IMG"]);
    scene.done(&["header", "restore", "--yes", &backup, "IMG"]);
    assert_eq!(scene.opened_by("OTHER"), [0]);
    let target = scene.dir.path().join("raw");
    let convert = ["convert", "--secret", "env:OTHER", "IMG", target.to_str().unwrap()];
    scene.refused(&convert, 4, &["the header is detached: its payload is in another file"]);
}

/// cryptsetup reads such a name, and QEMU does not.
#[test]
fn a_hash_in_capitals_opens() {
    let scene = damaged(&[(72, b"SHA256")]);
    assert_eq!(scene.opened_by("OLD"), [0]);
    let add =
        ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000", "IMG"];
    scene.done(&add);
    assert_eq!(scene.bytes()[72..78], *b"SHA256");
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    assert!(cryptsetup.opens(&scene.image, b"xyzzy-one"));
}
