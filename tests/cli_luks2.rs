//! The command on LUKS2 images: what it shows, what it finds, and what it does not do yet.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/desk.rs"]
mod desk;
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use desk::Desk;
use serde_json::{Value, json};
use support::luks2::{Change, Luks2};

const KEYSLOT: &str = env!("CARGO_BIN_EXE_keyslot");

#[test]
fn check_tells_keyslots() {
    let desk = Desk::new(&Luks2::testdata("luks2_keyslots.img"));
    let text = "image: sound LUKS2 header, aes-cbc-essiv:sha256, 128-bit key, sha512\n\
        keyslot 0: active, 1000 iterations\n\
        keyslot 3: active, argon2i: 4 passes over 32 KiB, parallelism 1, priority ignore\n\
        keyslot 5: active, 1000 iterations, priority prefer\n\
        keyslot 7: active, 1000 iterations, unbound: its key is not the volume key\n";
    assert_eq!(desk.done("check image"), text);
    for (secret, keyslot) in [("S0", 0), ("S3", 3), ("S7", 7)] {
        let text = format!("{text}the secret opens keyslot {keyslot}\n");
        assert_eq!(desk.done(&format!("check --secret env:{secret} image")), text);
    }
    let document: Value = serde_json::from_str(&desk.done("check --output json image")).unwrap();
    let slots = json!([
        { "keyslot": 0, "active": true, "kdf": "pbkdf2", "iterations": 1000 },
        { "keyslot": 3, "active": true, "kdf": "argon2i", "time": 4, "memory-kib": 32,
            "cpus": 1, "priority": "ignore" },
        { "keyslot": 5, "active": true, "kdf": "pbkdf2", "iterations": 1000, "priority": "prefer" },
        { "keyslot": 7, "active": true, "kdf": "pbkdf2", "iterations": 1000, "unbound": true },
    ]);
    assert_eq!((&document["format"], &document["keyslots"]), (&json!("luks2"), &slots));
}

/// What needs repair is reported, and not repaired.
#[test]
fn a_damaged_copy_is_told_and_stays() {
    let base = Luks2::testdata("luks2_keyslots.img");
    for (change, text) in [
        (
            Change::Bytes(0, vec![0; 512]),
            "the primary copy of the header is damaged: it begins with zeros",
        ),
        (
            Change::Bytes(0, vec![1]),
            "the primary copy of the header is damaged: the magic is wrong",
        ),
        (
            Change::Bytes(5000, vec![1]),
            "the primary copy of the header is damaged: the checksum is wrong",
        ),
        (
            Change::Bytes(16384, vec![0; 6]),
            "the secondary copy of the header is damaged: the magic is wrong",
        ),
        (
            Change::Bytes(30000, vec![1]),
            "the secondary copy of the header is damaged: the checksum is wrong",
        ),
        (
            Change::Only(
                0,
                Box::new(Change::Text("\"key_size\":16,\"af\"", "\"key_size\":null,\"af\"")),
            ),
            "the primary copy of the header is damaged: keyslots.\"0\".key_size is null: it must be an integer",
        ),
        (
            Change::Only(1, Box::new(Change::Binary(16, 12_u64.to_be_bytes().into()))),
            "the primary copy of the header is older than the other: seqid 11, not 12",
        ),
        (
            Change::Only(1, Box::new(Change::Text("a description", "another"))),
            "both copies of the header have seqid 11 and differ: the primary is used",
        ),
    ] {
        let desk = Desk::new(&base.with(&change));
        let before = desk.image();
        let output = desk.done("check --secret env:S0 image");
        assert!(output.contains(&format!("\nwarning: {text}\n")), "{output}");
        let document: Value =
            serde_json::from_str(&desk.done("check --output json image")).unwrap();
        assert_eq!(document["warning"], text);
        assert!(desk.done("info image").contains(&format!("    warning: {text}\n")));
        assert!(desk.image() == before);
    }
}

#[test]
fn both_copies_damaged() {
    let base = Luks2::testdata("luks2_keyslots.img");
    let both = |one, other| Change::Both(Box::new(one), Box::new(other));
    let desk = Desk::new(
        &base.with(&both(Change::Bytes(5000, vec![1]), Change::Bytes(16384, vec![0; 6]))),
    );
    let text = "keyslot: image: LUKS2 header: the checksum is wrong\nhint: its secondary copy: not found\n";
    for words in ["check image", "info image", "erase --keyslot 0 image"] {
        desk.refused(words, 4, text);
    }
}

#[test]
fn info_shows_all_that_is_there() {
    let desk = Desk::new(&Luks2::testdata("luks2_keyslots.img"));
    let text = desk.done("info image");
    for part in [
        "file format: luks2\nvirtual size: 16 KiB (16384 bytes)\n",
        "    label: a label\n    subsystem: a subsystem\n    seqid: 11\n    header size: 16384\n",
        "            keyslot: 3\n            type: luks2\n            key bits: 128\n            priority: ignore\n",
        "            kdf: argon2i\n            time: 4\n            memory kib: 32\n            cpus: 1\n",
        "            token: 4\n            type: nobody-knows\n",
        "            cipher: aes-cbc-essiv:sha256\n            sector size: 512\n            iv tweak: 0\n",
        "            unbound: true\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("metadata"));
    // Long numbers and what nobody knows.
    let text = desk.done("info --metadata image");
    assert!(text.contains("\"a number\":18446744073709551615,\n      \"ü\":["), "{text}");
    let opens = desk.done("info --secret env:S7 --output json image");
    let document: Value = serde_json::from_str(&opens).unwrap();
    assert_eq!(document["secret-opens"], json!([7]));
    let luks1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/luks1_qemu.img");
    fs::copy(luks1, desk.path()).unwrap();
    desk.refused("info --metadata image", 4, "keyslot: image: a LUKS1 header has no metadata\n");
}

#[test]
fn what_needs_more_than_we_know_is_not_changed() {
    let requirement = json!({ "mandatory": ["a-requirement"] });
    let change = Change::Set(vec![("/config/requirements", requirement)]);
    let desk = Desk::new(&Luks2::testdata("luks2_keyslots.img").with(&change));
    let text =
        "keyslot: image: the image has the requirement \"a-requirement\", which is not supported\n";
    for words in [
        "add --secret env:S0 --new-secret env:S7 image",
        "erase --keyslot 0 image",
        "erase --force --keyslot 0 image",
        "replace --old-secret env:S0 --new-secret env:S7 image",
        "amend --secret env:S0 -o state=inactive,keyslot=0 image",
        "amend --secret env:NOSUCH -o state=inactive,keyslot=0 image",
    ] {
        desk.refused(words, 4, text);
    }
}

/// Under its name the program knows what qemu-img knows.
#[test]
fn qemu_img_does_not_know_it() {
    let mut desk = Desk::new(&Luks2::testdata("luks2_keyslots.img"));
    desk.program = desk.directory.path().join("qemu-img");
    symlink(KEYSLOT, &desk.program).unwrap();
    let object = "--object secret,id=s,data=hunter0";
    let image = "driver=luks,key-secret=s,file.filename=image";
    for (words, shown) in [
        ("info -f luks image".to_owned(), "image"),
        (format!("convert {object} --image-opts {image} new"), image),
        (format!("amend {object} -o state=inactive,keyslot=0 --image-opts {image}"), image),
    ] {
        let text = format!("qemu-img: Could not open '{shown}': LUKS version 2 is not supported\n");
        desk.refused(&words, 1, &text);
    }
    assert!(!desk.directory.path().join("new").exists());
}

/// It is an estimate: that there is one for each keyslot, and that more work takes longer.
#[test]
fn info_estimates_what_an_opening_takes() {
    let costly = vec![
        ("/keyslots/0/kdf/iterations", json!(200_000_000)),
        // Absurd, and not what an estimate takes.
        ("/keyslots/3/kdf/memory", json!(u32::MAX)),
        ("/keyslots/3/kdf/time", json!(u32::MAX)),
        ("/keyslots/3/kdf/cpus", json!((1 << 24) - 1)),
    ];
    let desk = Desk::new(&Luks2::testdata("luks2_keyslots.img").with(&Change::Set(costly)));
    let document: Value =
        serde_json::from_str(&desk.done("info --estimate --output json image")).unwrap();
    let estimates = document["estimates"].as_array().unwrap();
    let ms = |keyslot: u64| {
        let it = estimates.iter().find(|it| it["keyslot"] == keyslot).unwrap();
        it["milliseconds"].as_u64().unwrap()
    };
    assert_eq!(estimates.len(), 4);
    assert!(ms(0) > 100 * ms(5).max(1) && ms(3) > 1000 && ms(7) < ms(0), "{estimates:?}");
    let text = desk.done("info --estimate image");
    assert!(text.contains("\nkeyslot 5 opens in about "), "{text}");
    assert!(!desk.done("info image").contains("opens in about"));
}

/// A machine that is ten times slower opens it in ten times that time.
#[test]
fn the_time_of_a_slower_machine() {
    let iterations = |options: &str| {
        let desk = Desk::new(&support::luks2::roomy(1));
        let words = format!(
            "add --secret env:S0 --new-secret env:S7 --pbkdf pbkdf2 --iter-time 400 --output json {options} image"
        );
        let result: Value = serde_json::from_str(&desk.done(&words)).unwrap();
        result["changes"][0]["iterations"].as_u64().unwrap()
    };
    // The best of three: other programs slow a calibration down, and nothing speeds it up.
    let best = |counts: [u64; 3]| counts.into_iter().max().unwrap_or_default();
    let counts = [(); 3].map(|()| (iterations(""), iterations("--iter-time-target 10")));
    let (here, there) = (best(counts.map(|it| it.0)), best(counts.map(|it| it.1)));
    assert!((4 * there..40 * there).contains(&here), "{here} {there}");
    let desk = Desk::new(&support::luks2::roomy(1));
    for factor in ["0", "-1", "nan", "1001", "x"] {
        let words =
            format!("add --secret env:S0 --new-secret env:S7 --iter-time-target={factor} image");
        let output = desk.output(&words);
        assert_eq!(output.status.code(), Some(1));
        let text = support::stderr(&output);
        assert!(text.contains(factor) && text.contains("must be from 0.01 to 1000"), "{text}");
    }
}
