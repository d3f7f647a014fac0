//! Replacing secrets in LUKS2 keyslots from the command line: what is kept of the keyslot, those that
//! hold another key or are to be ignored; and everybody else kept out meanwhile.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/desk_luks2.rs"]
mod desk;
mod support;

use std::fs::{self, File};
use std::process::{Command, Stdio};

use desk::{ARGON2, Desk, PBKDF2, passphrase, roomy};
use keyslot::Image;
use serde_json::json;
use support::cryptsetup::Cryptsetup;
use support::held_up::held_up;
use support::locks::locks;
use support::luks2::Change;
use support::{Running, eventually, peer, run, run_ok, stderr};

#[test]
fn the_rest_of_a_keyslot_stays() {
    let desk = Desk::roomy();
    let argon2 = "--iterations 4 --pbkdf-memory 32 --pbkdf-parallel 1";
    let pbkdf2 = "--iterations 1000";
    for (keyslot, by, kdf, kind, text) in [
        (0, "--old-secret env:S0", pbkdf2, "pbkdf2", "1000 iterations"),
        (3, "--keyslot 3 --secret env:S9", argon2, "argon2i", "argon2i: 4 passes"),
        (5, "--keyslot 5 --old-secret env:S5", pbkdf2, "pbkdf2", "1000 iterations"),
        (5, "--keyslot 5 --secret env:S9", ARGON2, "argon2id", "argon2id: 4 passes"),
        (3, "--keyslot 3 --secret env:S9", PBKDF2, "pbkdf2", "1000 iterations"),
    ] {
        let before = desk.state();
        let text = format!("keyslot {keyslot} replaced ({text}");
        let done = desk.done(&format!("replace {by} --new-secret env:S9 {kdf} image"));
        assert!(done.starts_with(&text), "{done}");
        // Priority and tokens with it, and the hash of the splitter.
        let after = desk.state();
        after.assert_replaced_in(&before, keyslot);
        assert_eq!(after.slot(keyslot)["kdf"]["type"], kind);
        if keyslot == 0 {
            assert_eq!(after.slot(0)["kdf"]["hash"], "sha512");
        }
        assert!(desk.opened_by(9).contains(&keyslot));
    }
    assert_eq!(desk.opened_by(9), [0, 3, 5]);
    let cryptsetup = Cryptsetup::find();
    if let Some(cryptsetup) = &cryptsetup {
        assert!(cryptsetup.finds_no_fault(&desk.path()));
        assert!([0, 3, 5].iter().all(|&it| cryptsetup.opens_keyslot(&desk.path(), b"hunter9", it)));
    }
    // In every keyslot that it opens, at once.
    let document =
        desk.json(&format!("replace --old-secret env:S9 --new-secret env:S8 {PBKDF2} image"));
    let replaced = |it: u32| json!({ "action": "replace", "keyslot": it, "kdf": "pbkdf2", "iterations": 1000 });
    assert_eq!(document["changes"], json!([0, 3, 5].map(replaced)));
    assert_eq!((desk.opened_by(8), desk.opened_by(9)), (vec![0, 3, 5], vec![]));
    if let Some(cryptsetup) = &cryptsetup {
        assert!([0, 3, 5].iter().all(|&it| cryptsetup.opens_keyslot(&desk.path(), b"hunter8", it)));
    }
}

#[test]
fn one_that_is_unbound_keeps_its_key() {
    let desk = Desk::roomy();
    let key = |secret: usize| {
        let unlocked = Image::open(desk.path()).unwrap().unlock_keyslot(7, &passphrase(secret));
        unlocked.unwrap().volume_key().as_bytes().to_vec()
    };
    let before = (desk.state(), key(7));
    let replace = |how: &str| format!("replace {how} --new-secret env:S9 --iterations 1000 image");
    desk.refused(
        &replace("--keyslot 7 --secret env:S0"),
        2,
        "keyslot 7 does not open with the secret",
    );
    desk.refused(
        &replace("--secret env:S0 --old-secret env:S7"),
        1,
        "the old secret opens keyslot 7, which is unbound\nhint: use --keyslot to select it",
    );
    let text = desk.done(&replace("--keyslot 7 --secret env:S7"));
    assert_eq!(text, "keyslot 7 replaced (1000 iterations)\n");
    desk.state().assert_replaced_in(&before.0, 7);
    assert_eq!((desk.opened_by(9), key(9)), (vec![7], before.1.clone()));
    if let Some(cryptsetup) = Cryptsetup::find() {
        assert!(cryptsetup.finds_no_fault(&desk.path()));
        assert_eq!(cryptsetup.volume_key(&desk.path(), b"hunter9", Some(7)), before.1);
    }
    // And with itself as the old secret.
    desk.done(&format!(
        "replace --keyslot 7 --old-secret env:S9 --new-secret env:S8 {ARGON2} image"
    ));
    assert_eq!(key(8), before.1);

    // Without room, by force.
    let desk = Desk::full();
    let before = desk.state();
    let output = desk.output(&replace("--force --keyslot 7 --secret env:S7"));
    assert!(output.status.success(), "{output:?}");
    let after = desk.state();
    assert_eq!((after.area(7), desk.opened_by(9)), (before.area(7), vec![7]));
    assert_eq!(after.metadata["digests"], before.metadata["digests"]);

    // Of several that the old secret opens, those that hold the volume key are meant.
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let desk = Desk::roomy();
    let options = "--unbound --key-size 128 --pbkdf pbkdf2 --pbkdf-force-iterations 1000";
    let options: Vec<_> = options.split(' ').collect();
    for keyslot in [1, 8] {
        cryptsetup.add_luks2(&desk.path(), [b"hunter0", b"hunter0"], keyslot, &options);
    }
    assert_eq!(desk.opened_by(0), [0, 1, 8]);
    desk.done(&replace("-q --old-secret env:S0"));
    assert_eq!((desk.opened_by(0), desk.opened_by(9)), (vec![1, 8], vec![0]));
    desk.refused(
        &replace("--secret env:S5 --old-secret env:S0"),
        1,
        "the old secret opens keyslot 1, which is unbound\nhint: use --keyslot to select it",
    );
}

/// One that is to be ignored opens where it is named.
#[test]
fn one_that_is_to_be_ignored() {
    let desk = Desk::roomy();
    let replace = |how: &str| format!("replace {how} --new-secret env:S9 {PBKDF2} image");
    let wrong = "the secret opens keyslot 3, whose priority is 'ignore'\nhint: use 'keyslot config --keyslot 3 --priority normal', or 'keyslot add' with --keyslot 3 --new-keyslot N";
    desk.refused(&replace("--old-secret env:S0 --secret env:S3"), 2, wrong);
    desk.refused(&replace("--keyslot 5 --secret env:S3"), 2, wrong);
    let before = desk.state();
    desk.done(&replace("--keyslot 3 --secret env:S3"));
    desk.state().assert_replaced_in(&before, 3);
    assert_eq!((desk.opened_by(9), desk.opened_by(3)), (vec![3], vec![]));
    // And by its secret, which may be the one that opens the image.
    desk.done(&replace("--old-secret env:S9"));
    assert_eq!(desk.opened_by(9), [3]);
    let before = desk.state();
    desk.done(
        &replace("--old-secret env:S9 --secret env:S0")
            .replace("secret env:S9 --p", "secret env:S3 --p"),
    );
    desk.state().assert_replaced_in(&before, 3);
    assert_eq!(desk.opened_by(3), [3]);
    assert_eq!(desk.state().slot(3)["priority"], 0);
}

/// What is there would say of the new key material that it is something else.
#[test]
fn the_volume_key_goes_where_no_other_key_is() {
    let set = |pointer, value: &str| Change::Set(vec![(pointer, json!(value))]);
    let base = roomy();
    let hint = "\nhint: erase the keyslot first, in a separate amendment";
    for (change, keyslot, why) in [
        (set("/keyslots/0/type", "luks3"), 0, "keyslots of type \"luks3\" are not supported"),
        (set("/keyslots/0/kdf/type", "scrypt"), 0, "the KDF \"scrypt\" is not supported"),
        (set("/keyslots/7/kdf/type", "scrypt"), 7, "the KDF \"scrypt\" is not supported"),
        (Change::Binary(24, vec![b'l']), 7, "it does not hold the volume key"),
    ] {
        let desk = Desk::new(&base.with(&change));
        let text = format!("keyslot {keyslot} cannot be overwritten: {why}{hint}");
        let add = format!("add --force --keyslot {keyslot} --secret env:S5 --new-secret env:S9");
        desk.refused(&format!("{add} {PBKDF2} image"), 1, &text);
        desk.refused(&format!("{add} {PBKDF2} --dry-run image"), 1, &text);
        if why.contains("supported") {
            let replace =
                format!("replace --keyslot {keyslot} --secret env:S5 --new-secret env:S9");
            desk.refused(&format!("{replace} {PBKDF2} image"), 1, &text);
        }
        let before = desk.state();
        desk.done(&format!("erase -q --keyslot {keyslot} image"));
        desk.state().assert_erased_from(&before, keyslot);
        desk.done(&format!("{add} -q {PBKDF2} image"));
        assert_eq!(desk.opened_by(9), [keyslot]);
    }
}

/// The metadata has a place of its own, which others may have filled.
#[test]
fn metadata_that_is_full() {
    let base = roomy();
    let free = base.hdr_size - 4096 - base.text(0).len() - ",\"pad\":\"\"".len();
    let pad = json!("x".repeat(free - 5));
    let desk = Desk::new(&base.with(&Change::Set(vec![("/pad", pad)])));
    for words in [ADD, REPLACE] {
        let before = desk.image();
        let output = desk.output(&format!("{words} --force"));
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let hint = "does not fit its area of 12288 bytes\nhint: remove a keyslot or a token to make room; --force does not help\n";
        assert!(text.starts_with("keyslot: image: metadata of ") && text.ends_with(hint), "{text}");
        assert!(desk.image() == before);
    }
    let before = desk.state();
    desk.done("erase -q --keyslot 3 image");
    desk.state().assert_erased_from(&before, 3);
    let before = desk.state();
    desk.done(REPLACE);
    desk.state().assert_replaced_in(&before, 0);
}

const ADD: &str = "add --secret env:S0 --new-secret env:S9 --pbkdf pbkdf2 --iterations 1000 image";
const REPLACE: &str = "replace --old-secret env:S0 --new-secret env:S9 --iterations 1000 image";
const CHANGES: [&str; 4] = [
    ADD,
    "erase --keyslot 3 image",
    REPLACE,
    "amend --secret env:S0 -o state=inactive,keyslot=3 image",
];

#[test]
fn refused_while_qemu_has_it_open() {
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    let desk = Desk::roomy();
    for (args, wanted) in [(&[][..], ["100 101", "203 203"]), (&["-r"], ["100 100", "203 203"])] {
        let mut command = Command::new(&qemu_nbd);
        command.args(["--persistent", "-f", "raw"]).args(args);
        command.arg(format!("--socket={}", desk.directory.path().join("socket").display()));
        let nbd = Running::spawn(command.arg(desk.path()));
        eventually("the locks of qemu-nbd", || locks(&desk.path()) == wanted);
        let pid = nbd.pid();
        for words in CHANGES {
            let text = format!(
                "Failed to get \"resize\" lock: in use by qemu-nbd (pid {pid})\nhint: close it, or use --wait SECONDS"
            );
            desk.refused(words, 5, &text);
        }
    }
    desk.done(ADD);
}

/// cryptsetup's lock, in our hands and in others'.
#[test]
fn cryptsetup_and_we_take_turns() {
    let desk = Desk::roomy();
    let mine = File::open(desk.path()).unwrap();
    for shared in [false, true] {
        (if shared { mine.lock_shared() } else { mine.lock() }).unwrap();
        for words in CHANGES {
            let before = desk.image();
            let output = desk.output(words);
            assert_eq!(output.status.code(), Some(5), "{words}: {output:?}");
            assert!(desk.image() == before);
        }
        // Who only looks is let in.
        desk.done("info image");
        mine.unlock().unwrap();
    }
    let Some(cryptsetup) = peer("cryptsetup") else { return };
    let dump = || {
        let mut command = Command::new(&cryptsetup);
        command.arg("luksDump").arg(desk.path()).stdout(Stdio::null());
        command
    };
    let Some(strace) = peer("strace") else { return };
    let add = held_up(&strace, &desk.command(ADD));
    assert_eq!(locks(&desk.path()).len(), 4);
    let before = desk.image();
    let mut waiting = Running::spawn(&mut dump());
    let waits = format!(" -> FLOCK  ADVISORY  READ {} ", waiting.pid());
    eventually("cryptsetup waiting", || {
        assert!(!waiting.has_ended());
        fs::read_to_string("/proc/locks").unwrap().contains(&waits)
    });
    drop(add);
    eventually("cryptsetup let in", || waiting.has_ended());
    run_ok(&mut dump());
    assert!(desk.image() == before);
    // Nobody has it any more.
    mine.try_lock().unwrap();
    mine.unlock().unwrap();
    desk.done(ADD);
    assert!(run(&mut dump()).status.success());
}
