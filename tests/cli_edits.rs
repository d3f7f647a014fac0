//! `token`, `config`, `uuid` and `repair`: what cryptsetup sees of them, and what is refused.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/desk.rs"]
mod desk;
mod support;

use std::fs;

use desk::Desk;
use serde_json::{Value, json};
use support::cryptsetup::Cryptsetup;
use support::luks2::{Change, Luks2, roomy};

fn json_of(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Both copies are good, and cryptsetup has nothing to mend.
fn assert_sound(desk: &Desk) -> Luks2 {
    let image = Luks2::new(desk.image());
    assert_eq!(image.text(0), image.text(1));
    if let Some(cryptsetup) = Cryptsetup::find() {
        let before = desk.image();
        cryptsetup.run("luksDump", &[], &desk.path());
        assert!(before == desk.image(), "cryptsetup repaired it");
    }
    image
}

#[test]
fn tokens_go_in_and_come_out() {
    let desk = Desk::new(&roomy(0));
    let tpm = json!({ "type": "systemd-tpm2", "keyslots": ["3", "5"], "tpm2-blob": "AA==", "n": 18_446_744_073_709_551_615_u64 });
    let clevis = json!({ "type": "clevis", "keyslots": ["5"], "jwe": { "protected": { "ü": [null, 1.5] } } });
    for (name, token) in [("tpm", &tpm), ("clevis", &clevis)] {
        fs::write(desk.directory.path().join(name), token.to_string()).unwrap();
    }
    assert_eq!(desk.done("token import --json-file tpm image"), "token 1 imported\n");
    assert_eq!(
        desk.done("token import --json-file clevis --token 31 image"),
        "token 31 imported\n"
    );
    assert_sound(&desk);
    assert_eq!(
        desk.done("token list image"),
        "token 0: test, for keyslots 0, 3\ntoken 1: systemd-tpm2, for keyslots 3, 5\n\
         token 4: nobody-knows, for keyslot 0\ntoken 31: clevis, for keyslot 5\n"
    );
    assert_eq!(desk.done("token export --token 1 image"), format!("{tpm}\n"));
    assert_eq!(desk.done("token export --token 31 --json-file out image"), "");
    let out = fs::read_to_string(desk.directory.path().join("out")).unwrap();
    assert_eq!(json_of(&out), clevis);
    desk.refused(
        "token export --token 31 --json-file out image",
        1,
        "keyslot: out: the file exists\nhint: use --overwrite to replace it\n",
    );
    desk.done("token export --force --token 31 --json-file out image");
    desk.refused(
        "token export --force --token 31 --json-file image image",
        1,
        "keyslot: image: the token would overwrite the image that it is in\n",
    );
    if let Some(cryptsetup) = Cryptsetup::find() {
        let exported = cryptsetup.run("token", &["export", "--token-id", "31"], &desk.path());
        assert_eq!(json_of(&exported), clevis);
    }
    let check = desk.done("check image");
    assert!(check.contains("keyslot 5: active, 1000 iterations, priority prefer, only token 1 (systemd-tpm2) opens it\n"), "{check}");
    let info = json_of(&desk.done("info --output json image"));
    let slots = info["format-specific"]["data"]["keyslots"].as_array().unwrap();
    let opener = |number: u64| {
        let slot = slots.iter().find(|slot| slot["keyslot"] == number).unwrap();
        slot.get("opened-by-token").cloned()
    };
    assert_eq!([opener(0), opener(3), opener(5)], [None, Some(json!(1)), Some(json!(1))]);

    // What an amendment does to them: a keyslot that is erased is nobody's any more.
    desk.done("erase --keyslot 3 image");
    let tokens = assert_sound(&desk).metadata(0)["tokens"].clone();
    assert_eq!(tokens["0"]["keyslots"], json!(["0"]));
    assert_eq!(tokens["1"]["keyslots"], json!(["5"]));
    assert_eq!(tokens["1"]["n"], tpm["n"]);
    assert_eq!(tokens["31"], clevis);

    assert_eq!(
        desk.done("token import --force --keyslot 0 --token 0 --json-file tpm image"),
        "token 0 imported\n"
    );
    assert_eq!(desk.done("token remove --token 1 image"), "token 1 removed\n");
    let tokens = json_of(&desk.done("token list --output json image"));
    let expected = json!([
        { "token": 0, "type": "systemd-tpm2", "keyslots": [0] },
        { "token": 4, "type": "nobody-knows", "keyslots": [0] },
        { "token": 31, "type": "clevis", "keyslots": [5] },
    ]);
    assert_eq!(tokens, json!({ "filename": "image", "tokens": expected }));
    let result = json_of(&desk.done("token import --output json --json-file clevis image"));
    assert_eq!(result, json!({ "token": 1, "filename": "image", "dry-run": false }));
    let before = desk.image();
    assert_eq!(
        desk.done("token remove --dry-run --token 1 image"),
        "would be done: token 1 removed\n"
    );
    assert!(before == desk.image());
    assert_sound(&desk);
}

#[test]
fn tokens_that_are_refused() {
    let desk = Desk::new(&roomy(0));
    for (token, text) in [
        ("", "the JSON text is malformed: no value at byte 0"),
        ("[]", "the token is not a JSON object"),
        ("{}", "the token has no type"),
        (r#"{"type":"","keyslots":[]}"#, "the token has no type"),
        (r#"{"type":"a"}"#, "the token has no keyslots: it must be an array, which may be empty"),
        (
            r#"{"type":"a","keyslots":["1"]}"#,
            "the token refers to keyslot \"1\", which does not exist",
        ),
        (
            r#"{"type":"a","keyslots":[0]}"#,
            "the token has 0 in keyslots: it must be a string\nhint: write keyslots as strings: [\"0\"], not [0]",
        ),
        (
            r#"{"type":"luks2-keyring","keyslots":[]}"#,
            "the token of type luks2-keyring has no key_description",
        ),
        (
            r#"{"type":"luks2-b","keyslots":[]}"#,
            "unknown token type \"luks2-b\": the prefix luks2- is reserved for cryptsetup",
        ),
    ] {
        fs::write(desk.directory.path().join("token"), token).unwrap();
        let named = if text.contains("JSON") { "token" } else { "image" };
        let text = format!("keyslot: {named}: {text}\n");
        desk.refused("token import --json-file token image", 1, &text);
    }
    let good = r#"{"type":"luks2-keyring","keyslots":["0"],"key_description":"a b"}"#;
    fs::write(desk.directory.path().join("token"), good).unwrap();
    for (words, text) in [
        (
            "token import --json-file nowhere image",
            "nowhere: cannot open: No such file or directory\n",
        ),
        (
            "token import --token 0 --json-file token image",
            "image: token 0 already exists\nhint: use --replace-token to do it anyway\n",
        ),
        ("token import --token 32 --json-file token image", "image: token 32: must be 0 to 31\n"),
        ("token remove --token 2 image", "image: token 2 does not exist\n"),
        ("token export --token 2 image", "image: token 2 does not exist\n"),
    ] {
        desk.refused(words, 1, &format!("keyslot: {text}"));
    }
    // A token that no header has room for.
    let long = json!({ "type": "a", "keyslots": [], "long": "x".repeat(12288) });
    fs::write(desk.directory.path().join("token"), long.to_string()).unwrap();
    let output = desk.output("token import --json-file token image");
    assert_eq!(output.status.code(), Some(1));
    let text = support::stderr(&output);
    assert!(text.contains("does not fit its area of 12288 bytes"), "{text}");
    for number in 0..30 {
        let path = desk.directory.path().join("token");
        fs::write(path, json!({ "type": "a", "keyslots": [], "n": number }).to_string()).unwrap();
        desk.done("token import --json-file token image");
    }
    desk.refused(
        "token import --json-file token image",
        1,
        "keyslot: image: all 32 tokens are in use\n",
    );
}

#[test]
fn names_and_priorities() {
    let desk = Desk::new(&roomy(0));
    let label = "é".repeat(23);
    let words =
        format!("config --label {label} --subsystem a/b --keyslot 3 --priority prefer image");
    let text = format!("priority of keyslot 3: prefer\nlabel: {label}\nsubsystem: a/b\n");
    assert_eq!(desk.done(&words), text);
    assert_sound(&desk);
    if let Some(cryptsetup) = Cryptsetup::find() {
        let dump = cryptsetup.run("luksDump", &[], &desk.path());
        assert!(dump.contains(&format!("Label:         \t{label}\n")), "{dump}");
        assert!(dump.contains("Subsystem:     \ta/b\n"), "{dump}");
        assert_eq!(dump.matches("Priority:   preferred").count(), 2, "{dump}");
    }
    desk.done("config --keyslot 3 --priority normal image");
    let slot = assert_sound(&desk).metadata(0)["keyslots"]["3"].clone();
    assert!(slot.get("priority").is_none());
    assert!(desk.done("check --secret env:S3 image").contains("opens keyslot 3"));
    let result = json_of(&desk.done("config --output json --keyslot 0 --priority ignore image"));
    assert_eq!(
        result,
        json!({ "keyslot": 0, "priority": "ignore", "filename": "image", "dry-run": false })
    );

    for (words, text) in [
        (
            "config --keyslot 1 --priority ignore image",
            "image: keyslot 1 does not exist\n".to_owned(),
        ),
        (
            &format!("config --label {}x image", "é".repeat(24)),
            "image: label of 49 bytes: must have at most 47\n".to_owned(),
        ),
    ] {
        desk.refused(words, 1, &format!("keyslot: {text}"));
    }
    assert_eq!(desk.output("config image").status.code(), Some(1));
    assert_eq!(desk.output("config --priority prefer image").status.code(), Some(1));
}

#[test]
fn uuids_of_both_formats() {
    let uuid = "01234567-89ab-4def-8123-456789abcdef";
    for name in ["luks1_qemu.img", "luks2_keyslots.img"] {
        let desk = Desk::new(&Luks2::testdata("luks2_keyslots.img"));
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        fs::copy(path, desk.path()).unwrap();
        let old = desk.done("uuid image");
        let upper = uuid.to_ascii_uppercase();
        assert_eq!(desk.done(&format!("uuid --uuid {upper} image")), format!("uuid: {uuid}\n"));
        assert_eq!(desk.done("uuid image"), format!("{uuid}\n"));
        let result = json_of(&desk.done("uuid --output json image"));
        assert_eq!(result, json!({ "filename": "image", "uuid": uuid }));
        if let Some(cryptsetup) = Cryptsetup::find() {
            assert_eq!(cryptsetup.run("luksUUID", &[], &desk.path()), format!("{uuid}\n"));
        }
        desk.done("uuid -q --uuid random image");
        let random = desk.done("uuid image");
        assert!(random != old && random.trim() != uuid);
        assert!(desk.done("check --secret env:S0 image").contains("the secret opens keyslot 0"));
        for wrong in
            ["1234", "0123456789ab4def8123456789abcdef", "{01234567-89ab-4def-8123-456789abcdef}"]
        {
            let text = format!("keyslot: '{wrong}' is not a UUID\n");
            desk.refused(&format!("uuid --uuid {wrong} image"), 1, &text);
        }
    }
}

#[test]
fn luks1_has_none_of_it() {
    let desk = Desk::new(&Luks2::testdata("luks2_keyslots.img"));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/luks1_qemu.img");
    fs::copy(path, desk.path()).unwrap();
    fs::write(desk.directory.path().join("token"), "{}").unwrap();
    let none =
        "keyslot: image: a LUKS1 header has no tokens, no priorities, no label and no subsystem\n";
    desk.refused("config --label a image", 1, none);
    desk.refused("config --keyslot 0 --priority prefer image", 1, none);
    desk.refused("token import --json-file token image", 1, none);
    desk.refused("token list image", 1, "keyslot: image: a LUKS1 header has no tokens\n");
    assert_eq!(desk.done("repair image"), "image: nothing to repair\n");
}

/// Scripts ask by the exit status, and read nothing.
#[test]
fn is_luks_is_silent() {
    let desk = Desk::new(&roomy(0));
    fs::write(desk.directory.path().join("plain"), [0; 4096]).unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/luks1_qemu.img");
    fs::copy(path, desk.directory.path().join("one")).unwrap();
    for (words, status) in [
        ("image", 0),
        ("--type luks2 image", 0),
        ("--type luks image", 0),
        ("--type luks1 image", 1),
        ("one", 0),
        ("--type luks1 one", 0),
        ("--type luks2 one", 1),
        ("plain", 1),
    ] {
        let output = desk.output(&format!("is-luks {words}"));
        assert_eq!(output.status.code(), Some(status), "{words}");
        assert!(output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    }
    for (file, why) in [("nowhere", "No such file"), (".", "is a directory")] {
        let output = desk.output(&format!("is-luks {file}"));
        assert_eq!(output.status.code(), Some(1));
        assert!(support::stderr(&output).contains(why), "{output:?}");
    }
}

#[test]
fn repair_mends_either_copy() {
    let base = roomy(0);
    for (change, warning) in [
        (
            Change::Bytes(6000, vec![0; 4]),
            "the primary copy of the header is damaged: the checksum is wrong",
        ),
        (
            Change::Bytes(16384 + 6000, vec![0; 4]),
            "the secondary copy of the header is damaged: the checksum is wrong",
        ),
        (
            Change::Only(0, Box::new(Change::Binary(16, 1_u64.to_be_bytes().to_vec()))),
            "the primary copy of the header is older than the other",
        ),
    ] {
        let desk = Desk::new(&base.with(&change));
        let before = desk.image();
        let text = desk.done("repair --dry-run image");
        assert!(text.starts_with(&format!("image: would be repaired: {warning}")), "{text}");
        assert!(before == desk.image());
        let text = desk.done("repair image");
        assert!(text.starts_with(&format!("image: repaired: {warning}")), "{text}");
        let image = assert_sound(&desk);
        assert_eq!(image.text(0), base.text(0));
        assert_eq!(desk.done("repair image"), "image: nothing to repair\n");
        assert!(!desk.done("check image").contains("warning"));
    }
    // The start of the image is somebody else's, maybe.
    let desk = Desk::new(&base.with(&Change::Bytes(0, b"\xeb\x63\x90".repeat(100))));
    desk.refused(
        "repair image",
        1,
        "keyslot: image: the image does not begin with a LUKS header; its first bytes would be overwritten\nhint: use --foreign-data to do it anyway\n",
    );
    for words in ["erase --keyslot 3 image", "config --label a image"] {
        desk.refused(
            words,
            1,
            "keyslot: image: the image does not begin with a LUKS header: only the secondary copy is left\nhint: use 'keyslot repair --foreign-data' to restore the primary copy\n",
        );
    }
    let result = json_of(&desk.done("repair --force --output json image"));
    assert_eq!(result["repaired"], json!(true));
    assert_sound(&desk);
}
