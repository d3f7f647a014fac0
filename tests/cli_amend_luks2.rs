//! Changes of LUKS2 keyslots from the command line: QEMU's option form, the guards against losing the
//! data, KDFs and their bounds, images that are full, and those that must not be changed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/desk_luks2.rs"]
mod desk;
mod support;

use std::fs;
use std::path::Path;

use desk::{ARGON2, Desk, PBKDF2, passphrase, roomy};
use keyslot::amend::{Change as Amendment, Request};
use keyslot::crypto::KdfKind;
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::{OpenOptions, Sharing};
use serde_json::json;
use support::cryptsetup::Cryptsetup;
use support::luks2::Change;

/// `-o` with these, and secrets by their numbers as `s0` and so on.
fn amend(options: &str) -> String {
    let objects = [0, 3, 5, 7, 8, 9, 31].map(|i| format!("--object secret,id=s{i},data=hunter{i}"));
    format!("amend {} --secret env:S0 -o {options} image", objects.join(" "))
}

#[test]
fn qemu_options() {
    let desk = Desk::roomy();
    let before = desk.state();
    let options = "state=active,new-secret=s31,keyslot=31,iter-time=10 --pbkdf pbkdf2";
    let text = desk.done(&amend(options));
    let after = desk.state();
    after.assert_added_to(&before, 31);
    let kdf = &after.slot(31)["kdf"];
    assert_eq!(text, format!("keyslot 31 added ({} iterations)\n", kdf["iterations"]));
    assert_eq!(desk.opened_by(31), [31]);

    let all = ", must be between 0 and 31";
    for (keyslot, shown) in [
        ("32", "32"),
        ("-1", "4294967295"),
        ("4294967296", "4294967296"),
        ("9223372036854775807", "9223372036854775807"),
    ] {
        let options = format!("state=active,new-secret=s9,keyslot={keyslot}");
        desk.refused(&amend(&options), 1, &format!("Invalid keyslot {shown} specified{all}"));
        let shown = keyslot;
        let options = format!("state=inactive,keyslot={keyslot}");
        desk.refused(&amend(&options), 1, &format!("Invalid keyslot {shown} specified{all}"));
    }
    let text = "Refusing to overwrite active keyslot 7 - please erase it first\nhint: use --overwrite-keyslot to do it anyway";
    desk.refused(&amend("state=active,new-secret=s9,keyslot=7"), 1, text);
    let text = "Given keyslot 5 doesn't contain the given old password for erase operation";
    desk.refused(&amend("state=inactive,old-secret=s0,keyslot=5"), 2, text);
    let text = "No keyslots match given (old) password for erase operation";
    desk.refused(&amend("state=inactive,old-secret=s9"), 2, text);
    let text =
        "Given keyslot 1 is already erased (inactive) \nhint: use --erase-inactive to do it anyway";
    desk.refused(&amend("state=inactive,keyslot=1"), 1, text);

    let before = desk.state();
    let dry = desk.done(&(amend("state=inactive,old-secret=s5") + " --dry-run"));
    assert_eq!(dry, "keyslot 5 would be erased\n");
    assert!(desk.image() == before.bytes);
    assert_eq!(desk.done(&amend("state=inactive,old-secret=s5")), "keyslot 5 erased\n");
    desk.state().assert_erased_from(&before, 5);
    // With an Argon2 of this machine's, whatever comes of it.
    let options = "state=active,new-secret=s5,iter-time=10 --pbkdf-memory 64";
    let text = desk.done(&amend(options));
    assert!(text.starts_with("keyslot 1 added (argon2id: "), "{text}");
    assert_eq!(desk.opened_by(5), [1]);
}

#[test]
fn lists_of_changes() {
    let desk = Desk::roomy();
    let list = "keys.0.state=inactive,keys.0.old-secret=s5,keys.1.state=active,keys.1.keyslot=5,\
        keys.1.new-secret=s9,keys.2.state=active,keys.2.new-secret=s8,keys.3.state=inactive,\
        keys.3.keyslot=7";
    let words = format!("{} {PBKDF2}", amend(list));
    // One that erases in a list with one that adds takes the KDF for the one that adds.
    let planned = desk.json(&format!("{words} --dry-run"));
    let add = |action: &str, keyslot: usize| json!({ "action": action, "keyslot": keyslot, "kdf": "pbkdf2", "iterations": 1000 });
    let changes = json!([add("add", 1), { "action": "erase", "keyslot": 7 }, add("replace", 5)]);
    assert_eq!(planned["changes"], changes);
    let warnings = json!(["token 0 (luks2-keyring) refers to no other keyslot and is removed"]);
    assert_eq!((&planned["dry-run"], &planned["warnings"]), (&json!(true), &warnings));
    assert_eq!(desk.keyslots(), [0, 3, 5, 7]);

    let before = desk.state();
    let done = desk.json(&words);
    let add = |action: &str, keyslot: usize| json!({ "action": action, "keyslot": keyslot, "kdf": "pbkdf2", "iterations": 1000 });
    let changes = json!([add("add", 1), { "action": "erase", "keyslot": 7 }, add("replace", 5)]);
    assert_eq!((&done["changes"], &done["dry-run"]), (&changes, &json!(false)));
    assert_eq!(desk.keyslots(), [0, 1, 3, 5]);
    assert_eq!([8, 9, 5, 7].map(|it| desk.opened_by(it)), [vec![1], vec![5], vec![], vec![]]);
    let after = desk.state();
    // All of it is one commit, and another that takes the mark of the areas away.
    assert_eq!(after.seqid, before.seqid + 2);
    assert_eq!(after.metadata["config"], before.metadata["config"]);

    let broken = "keys.0.state=inactive,keys.0.keyslot=1,keys.1.state=inactive,keys.1.keyslot=1";
    let text =
        "Given keyslot 1 is already erased (inactive) \nhint: use --erase-inactive to do it anyway";
    desk.refused(&amend(broken), 1, text);
}

#[test]
fn the_last_one_stays() {
    let desk = Desk::roomy();
    for keyslot in [0, 5] {
        let before = desk.state();
        desk.done(&format!("erase -q --keyslot {keyslot} image"));
        desk.state().assert_erased_from(&before, keyslot);
    }
    // What is left besides it holds another key.
    let only = "Attempt to erase the only active keyslot 3 which will erase all the data in the image irreversibly - refusing operation\nhint: use --lose-key to do it anyway";
    desk.refused("erase --keyslot 3 image", 1, only);
    let all = "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation\nhint: use --lose-key to do it anyway";
    desk.refused("erase --old-secret env:S3 image", 1, all);
    desk.refused("erase --keyslot 3 --old-secret env:S3 image", 1, only);
    let before = desk.state();
    let output = desk.output("erase --keyslot 3 --force image");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "keyslot 3 erased\n");
    let warning = "warning: image: no keyslot with the volume key is left, so nothing opens the image: keyslot 7 holds another key\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), warning);
    desk.state().assert_erased_from(&before, 3);
    assert_eq!(desk.keyslots(), [7]);
    if let Some(cryptsetup) = Cryptsetup::find() {
        assert!(cryptsetup.finds_no_fault(&desk.path()));
    }
    let add = format!("add --secret env:S3 --new-secret env:S0 {PBKDF2} image");
    desk.refused(&add, 4, "no keyslot holds the volume key any more");
    let before = desk.state();
    desk.done("erase -q --keyslot 7 image");
    desk.state().assert_erased_from(&before, 7);
    assert_eq!(desk.keyslots(), [0; 0]);
}

#[test]
fn kdfs_and_their_bounds() {
    let desk = Desk::roomy();
    let add = |kdf: &str| format!("add --secret env:S0 --new-secret env:S9 {kdf} image");
    for (kdf, text) in [
        ("--pbkdf argon2id --iterations 3", "3 passes: the minimum is 4"),
        ("--iterations 3", "3 passes: the minimum is 4"),
        ("--pbkdf pbkdf2 --iterations 999", "999 iterations: the minimum is 1000"),
        ("--pbkdf-memory 31", "31 KiB of memory: must be 32 to 4194304"),
        ("--pbkdf-memory 4194305", "4194305 KiB of memory: must be 32 to 4194304"),
        ("--pbkdf-parallel 0", "0 Argon2 lanes: must be 1 to 4"),
        ("--pbkdf-parallel 5", "5 Argon2 lanes: must be 1 to 4"),
        (
            "--pbkdf pbkdf2 --pbkdf-memory 64",
            "memory and lanes apply only to Argon2, not to pbkdf2",
        ),
        (
            "--pbkdf pbkdf2 --pbkdf-parallel 1",
            "memory and lanes apply only to Argon2, not to pbkdf2",
        ),
    ] {
        desk.refused(&add(kdf), 1, text);
    }
    // More than an opening may cost: refused before it is paid.
    let kdf = "--iterations 65 --pbkdf-memory 4194304 --pbkdf-parallel 1";
    let text = "the new secret of keyslot 1 asks for 3 minutes of work (65 passes over 4194304 KiB), the limit is 2 minutes\nhint: use --ignore-limits to create it anyway";
    desk.refused(&add(kdf), 1, text);
    for kdf in ["--pbkdf scrypt", "--iterations 4294967296", "--iterations 9 --iter-time 9"] {
        let output = desk.output(&add(kdf));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
    for (kdf, members, text) in [
        (
            PBKDF2,
            json!({ "type": "pbkdf2", "hash": "sha256", "iterations": 1000 }),
            "1000 iterations",
        ),
        (
            ARGON2,
            json!({ "type": "argon2id", "time": 4, "memory": 32, "cpus": 1 }),
            "argon2id: 4 passes over 32 KiB, parallelism 1",
        ),
        (
            "--pbkdf argon2i --iterations 5 --pbkdf-memory 33 --pbkdf-parallel 4",
            json!({ "type": "argon2i", "time": 5, "memory": 33, "cpus": 4 }),
            "argon2i: 5 passes over 33 KiB, parallelism 4",
        ),
    ] {
        let keyslot = [1, 2, 4][desk.keyslots().len() - 4];
        let before = desk.state();
        assert_eq!(desk.done(&add(kdf)), format!("keyslot {keyslot} added ({text})\n"));
        let after = desk.state();
        after.assert_added_to(&before, keyslot);
        let mut found = after.slot(keyslot)["kdf"].clone();
        found.as_object_mut().unwrap().shift_remove("salt");
        assert_eq!(found, members);
        assert_eq!(desk.opened_by(9).last(), Some(&keyslot));
    }
    let luks1 = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/luks1_qemu.img");
    fs::copy(luks1, desk.path()).unwrap();
    for kdf in ["--pbkdf argon2i", ARGON2] {
        desk.refused(&add(kdf), 1, "LUKS1 supports only pbkdf2");
    }
}

#[test]
fn an_image_that_is_full() {
    let desk = Desk::full();
    let no_room = "no room for a new keyslot: no gap between areas has 65536 bytes\nhint: erase a keyslot first, in a separate amendment";
    let add = format!("add --secret env:S0 --new-secret env:S9 {PBKDF2} image");
    desk.refused(&add, 1, no_room);
    desk.refused(&format!("{add} --force"), 1, no_room);
    let list = "keys.0.state=inactive,keys.0.keyslot=3,keys.1.state=active,keys.1.new-secret=s9";
    desk.refused(&format!("{} {PBKDF2}", amend(list)), 1, no_room);

    let replace = "replace --old-secret env:S5 --new-secret env:S9 --iterations 1000 image";
    let in_place = "no gap between the areas of keyslots is large enough, so keyslot 5 can only be overwritten in place\nhint: erase another keyslot first, or use --in-place: a crash then loses this keyslot";
    desk.refused(replace, 1, in_place);
    let before = desk.state();
    let output = desk.output(&format!("{replace} --force"));
    assert_eq!(
        support::stderr(&output),
        "warning: image: keyslot 5 is overwritten in place: if this is interrupted, neither the old nor the new secret opens it\n"
    );
    assert_eq!(output.stdout, b"keyslot 5 replaced (1000 iterations)\n");
    let after = desk.state();
    assert_eq!(
        (after.area(5), desk.opened_by(5), desk.opened_by(9)),
        (before.area(5), vec![], vec![5])
    );
    let mut as_before = after.metadata.clone();
    as_before["keyslots"]["5"]["kdf"] = before.metadata["keyslots"]["5"]["kdf"].clone();
    assert_eq!(as_before.to_string(), before.metadata.to_string());

    // One that is erased makes room, and a replaced keyslot goes there.
    desk.done("erase -q --keyslot 3 image");
    desk.done("replace -q --old-secret env:S9 --new-secret env:S5 --iterations 1000 image");
    assert_eq!(desk.opened_by(5), [5]);
    desk.done(&format!("{add} -q"));
    assert_eq!(desk.opened_by(9), [1]);
    desk.refused(&add, 1, no_room);
}

#[test]
fn thirty_two_keyslots() {
    let desk = Desk::roomy();
    let mut image = OpenOptions::new().sharing(Sharing::Amend).open(desk.path()).unwrap();
    let unlocked = image.unlock(&passphrase(0)).unwrap();
    let pbkdf = Pbkdf::from(Cost::Iterations(1000)).kind(KdfKind::Pbkdf2);
    let free = (0..32).filter(|it| ![0, 3, 5, 7].contains(it));
    let changes = free.map(|it| Amendment::add(&passphrase(it), pbkdf)).collect();
    let plan = image.plan(Request::new(changes)).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();
    drop(image);
    assert_eq!(desk.keyslots(), (0..32).collect::<Vec<_>>());
    for secret in [1, 2, 30, 31] {
        assert_eq!(desk.opened_by(secret), [secret]);
    }
    if let Some(cryptsetup) = Cryptsetup::find() {
        assert!(cryptsetup.finds_no_fault(&desk.path()));
        assert!((1..32).all(|it| {
            // The unbound one it does not open.
            it == 7 || cryptsetup.opens_keyslot(&desk.path(), format!("hunter{it}").as_bytes(), it)
        }));
    }
    let add = format!("add --secret env:S31 --new-secret env:S9 {PBKDF2} image");
    desk.refused(&add, 1, "Can't add a keyslot - all keyslots are in use");
    let before = desk.state();
    desk.done("replace -q --old-secret env:S30 --new-secret env:S0 --iterations 1000 image");
    desk.state().assert_replaced_in(&before, 30);
    desk.done("erase -q --keyslot 31 image");
    desk.done(&add.replace("S31", "S29"));
    assert_eq!(desk.opened_by(9), [9, 31]);
}

#[test]
fn what_must_not_be_changed() {
    let base = roomy();
    let resume = "\nhint: use 'cryptsetup reencrypt --resume-only' to finish the reencryption";
    for (requirement, hint) in [("nobody-knows", ""), ("offline-reencrypt", resume)] {
        let members = json!({ "mandatory": [requirement] });
        let desk = Desk::new(&base.with(&Change::Set(vec![("/config/requirements", members)])));
        refuses_all(
            &desk,
            &format!(
                "the image has the requirement \"{requirement}\", which is not supported{hint}"
            ),
        );
    }
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let desk = Desk::new(&base);
    let key = desk.directory.path().join("key");
    fs::write(&key, "hunter5").unwrap();
    let key = key.to_str().unwrap();
    let options = ["--init-only", "--key-slot", "5", "--key-file", key, "--pbkdf", "pbkdf2"];
    let options = [&options[..], &["--pbkdf-force-iterations", "1000"]].concat();
    cryptsetup.run("reencrypt", &options, &desk.path());
    let text = "the image has the requirement \"online-reencrypt-v2\", which is not supported";
    refuses_all(&desk, &format!("{text}{resume}"));
}

fn refuses_all(desk: &Desk, text: &str) {
    for words in [
        "add --secret env:S0 --new-secret env:S9 image",
        "erase --keyslot 3 image",
        "erase --force --keyslot 3 image",
        "erase --old-secret env:S5 --dry-run image",
        "replace --force --old-secret env:S0 --new-secret env:S9 image",
        &amend("state=inactive,keyslot=3"),
    ] {
        desk.refused(words, 4, text);
    }
}
