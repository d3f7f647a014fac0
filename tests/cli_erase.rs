//! `erase`: what it takes to lose a secret, and what is said of what is left.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/desk.rs"]
#[allow(dead_code, reason = "not all of it is used")]
mod desk;
mod support;

use command::Scene;
use desk::Desk;
use support::luks2::roomy;
use support::stderr;

/// A LUKS2 image with `OLD` in keyslot 0.
fn luks2() -> Scene {
    let scene = Scene::without_image();
    let create = ["create", "-q", "-f", "luks2", "--new-secret", "env:OLD"];
    scene.done(&[&create[..], &PBKDF2, &["IMG", "64K"]].concat());
    scene
}

/// A keyslot that costs nothing.
const PBKDF2: [&str; 4] = ["--pbkdf", "pbkdf2", "--iterations", "1000"];

const REFUSED: &str = "the secret that opened the image opens only keyslots that would be erased\n\
    hint: give a secret that opens another keyslot, or use --lose-key\n";

#[test]
fn the_secret_that_confirms_an_erase_must_stay_luks1() {
    let scene = Scene::new().and("OTHER", 1);
    for args in [
        &["erase", "--keyslot", "1", "--secret", "env:OTHER", "IMG"][..],
        &["erase", "--old-secret", "env:OTHER", "--secret", "env:OTHER", "IMG"],
        &["amend", "--secret", "env:OTHER", "-o", "state=inactive,keyslot=1", "IMG"],
        &["erase", "--dry-run", "--keyslot", "1", "--secret", "env:OTHER", "IMG"],
    ] {
        scene.refused(args, 1, &[REFUSED]);
    }
    // The old secret alone is a way to hand an image over; and another secret stays.
    scene.done(&["erase", "--dry-run", "--old-secret", "env:OTHER", "IMG"]);
    scene.done(&["erase", "--old-secret", "env:OTHER", "--secret", "env:OLD", "IMG"]);
    assert_eq!(scene.opened_by("OTHER"), [0; 0]);

    // QEMU's own form keeps QEMU's rule.
    let scene = scene.and("OTHER", 1);
    let object = ["--object", "secret,id=s,data=xyzzy-two", "--image-opts"];
    let spec = format!("driver=luks,key-secret=s,file.filename={}", scene.image.display());
    let amend = [&["amend"][..], &object, &["-o", "state=inactive,keyslot=1", &spec]].concat();
    scene.done(&amend);
    assert_eq!(scene.opened_by("OTHER"), [0; 0]);

    // A copy of the secret in a keyslot that stays is enough, and so is the override.
    let scene = scene.and("OTHER", 1).and("OTHER", 2);
    scene.done(&["erase", "--keyslot", "1", "--secret", "env:OTHER", "IMG"]);
    scene.done(&["erase", "--force", "--keyslot", "2", "--secret", "env:OTHER", "IMG"]);
    assert_eq!(scene.opened_by("OTHER"), [0; 0]);
    assert_eq!(scene.opened_by("OLD"), [0]);
}

#[test]
fn the_secret_that_confirms_an_erase_must_stay_luks2() {
    let scene = luks2();
    let add = ["add", "-q", "--secret", "env:OLD", "--new-secret", "env:OTHER", "IMG"];
    scene.done(&[&add[..], &PBKDF2].concat());
    for args in [
        &["erase", "--keyslot", "1", "--secret", "env:OTHER", "IMG"][..],
        &["erase", "--old-secret", "env:OTHER", "--secret", "env:OTHER", "IMG"],
        &["amend", "--secret", "env:OTHER", "-o", "state=inactive,keyslot=1", "IMG"],
    ] {
        scene.refused(args, 1, &[REFUSED]);
    }
    // What puts a new secret in leaves one that is known.
    let new = "keys.0.state=active,keys.0.new-secret=s,keys.1.state=inactive,keys.1.keyslot=1";
    let object = ["--object", "secret,id=s,data=xyzzy-one", "--pbkdf", "pbkdf2"];
    let amend = ["amend", "--secret", "env:OTHER", "--iterations", "1000", "-o", new, "IMG"];
    scene.done(&[&amend[..], &object].concat());
    assert_eq!(scene.opened_by("NEW"), [2]);
}

#[test]
fn what_is_left_is_warned_of() {
    // An ignored keyslot, then one that cannot be opened at all, then another key.
    let desk = Desk::new(&roomy(0));
    let only = |keep: &[u32]| {
        let list = desk.done("info --output json image");
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        let slots = list["format-specific"]["data"]["keyslots"].as_array().unwrap().clone();
        for number in slots.iter().filter_map(|slot| slot["keyslot"].as_u64()) {
            if !keep.iter().any(|it| u64::from(*it) == number) {
                desk.done(&format!("erase -q --keyslot {number} image"));
            }
        }
    };
    only(&[0, 3]);
    desk.done("config --keyslot 3 --priority ignore image");
    desk.done("token remove --token 4 image");
    let output = desk.output("erase --dry-run --keyslot 0 image");
    assert_eq!(output.status.code(), Some(0));
    let rest =
        "warning: image: no remaining keyslot opens with a secret alone: keyslot 3 is ignored\n";
    assert_eq!(stderr(&output), rest);
    // A keyslot that a secret opens is left: nothing to say.
    let output = desk.output("erase --dry-run --keyslot 3 image");
    assert_eq!(stderr(&output), "");
    let output = desk.output("erase --force --keyslot 0 image");
    assert_eq!(stderr(&output), rest);
    let output = desk.output("erase --force --keep-tokens --keyslot 3 image");
    let none = "warning: image: no keyslot is left, so nothing opens the image\n";
    assert_eq!(
        stderr(&output),
        format!("{none}warning: image: token 0 (test) is left without a keyslot\n")
    );
}

#[test]
fn several_secrets_and_keyslots_are_erased_together_or_not_at_all() {
    let scene = Scene::new().and("NEW", 1).and("OTHER", 2);
    let both = ["erase", "--old-secret", "env:NEW", "--old-secret", "env:OTHER", "IMG"];
    for args in [
        &["erase", "--old-secret", "env:NEW", "--old-secret", "env:WRONG", "IMG"][..],
        &["erase", "-S", "1", "-S", "2", "--old-secret", "env:NEW", "IMG"],
        &[&both[..], &["--secret", "env:WRONG"]].concat(),
    ] {
        scene.refused(args, 2, &[]);
    }
    scene.refused(&[&both[..], &["--secret", "env:OTHER"]].concat(), 1, &[REFUSED]);
    scene.refused(&["erase", "-S", "1", "-S", "3", "IMG"], 1, &["keyslot 3 is already erased"]);
    scene.refused(&["erase", "-S", "0", "-S", "1", "-S", "2", "IMG"], 1, &["the only active"]);
    scene.done(&both);
    let left = |name| scene.opened_by(name);
    assert_eq!((left("OLD"), left("NEW"), left("OTHER")), (vec![0], vec![], vec![]));

    let scene = scene.and("NEW", 1).and("OTHER", 2);
    let text = scene.done(&["erase", "-S", "1", "--keyslot", "2", "-S", "1", "IMG"]);
    assert_eq!(text, "keyslot 1 erased\nkeyslot 2 erased\n");
    // Erasing again: only who says so takes it for done.
    scene.refused(&["erase", "-S", "1", "IMG"], 1, &["already erased"]);
    let text = scene.done(&["erase", "--if-present", "-S", "1", "IMG"]);
    assert_eq!(text, "");
    let json = scene.json(&["erase", "--if-present", "-S", "1", "IMG"]);
    assert_eq!(json["changes"], serde_json::json!([]));
    let scene = scene.and("OTHER", 2);
    let text = scene.done(&["erase", "--if-present", "-S", "1", "-S", "2", "IMG"]);
    assert_eq!(text, "keyslot 2 erased\n");
    scene.refused(&["erase", "--if-present", "-S", "8", "IMG"], 1, &["Invalid keyslot 8"]);
    scene.refused(&["erase", "--if-present", "-S", "0", "IMG"], 1, &["the only active"]);
}

#[test]
fn all_keyslots_are_erased_only_by_who_insists() {
    for scene in [Scene::new().and("NEW", 5), luks2()] {
        let setsid = support::peer("setsid");
        if let Some(setsid) = setsid {
            let mut command = std::process::Command::new(setsid);
            command.arg(command::KEYSLOT).args(scene.args(&["erase", "--all", "IMG"]));
            let text = ["not confirmed: no terminal", "use --force"];
            scene.command_refused(command.stdin(std::process::Stdio::null()), 1, &text);
        }
        let output = scene.command(&["erase", "--all", "--force", "IMG"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(stderr(&output).contains("no keyslot is left, so nothing opens the image"));
        assert_eq!(scene.opened_by("OLD"), [0; 0]);
    }
}

/// An image that no keyslot opens is reported in the same words by every command, with its cipher.
#[test]
fn an_image_that_nothing_opens() {
    let nothing = "no keyslot holds the volume key any more";
    for (scene, cipher) in [
        (Scene::new(), "LUKS1 header that no keyslot opens, aes-xts-plain64, "),
        (luks2(), "LUKS2 header that no keyslot opens, aes-xts-plain64, "),
    ] {
        scene.done(&["erase", "-q", "--force", "--keyslot", "0", "IMG"]);
        let output = scene.command(&["check", "IMG"]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains(cipher) && !text.contains("sound"), "{text}");
        assert!(stderr(&output).contains(nothing), "{output:?}");
        let converted = scene.dir.path().join("new").to_str().unwrap().to_owned();
        for args in [
            &["check", "-q", "--secret", "env:OLD", "IMG"][..],
            &["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "IMG"],
            &["replace", "--old-secret", "env:OLD", "--new-secret", "env:NEW", "IMG"],
            &["convert", "--secret", "env:OLD", "IMG", &converted],
        ] {
            scene.refused(args, 4, &[nothing]);
        }
        let output = scene.command(&["info", "--secret", "env:OLD", "IMG"]).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{output:?}");
        assert!(stderr(&output).contains(nothing), "{output:?}");
    }
}

#[test]
fn the_secret_of_an_ignored_keyslot_is_not_wrong() {
    let scene = luks2();
    let add = ["add", "-q", "--secret", "env:OLD", "--new-secret", "env:OTHER", "IMG"];
    scene.done(&[&add[..], &PBKDF2].concat());
    scene.done(&["config", "-q", "--keyslot", "1", "--priority", "ignore", "IMG"]);
    let text = "the secret opens keyslot 1, whose priority is 'ignore'\n\
        hint: use 'keyslot config --keyslot 1 --priority normal', or 'keyslot add' with --keyslot 1 --new-keyslot N\n";
    let add = ["add", "--secret", "env:OTHER", "--new-secret", "env:NEW", "IMG"];
    scene.refused(&add, 2, &[text]);
    scene.refused(&["erase", "-S", "0", "--secret", "env:OTHER", "IMG"], 2, &[text]);
    let named = [&add[..], &["--keyslot", "1", "--new-keyslot", "2"], &PBKDF2].concat();
    scene.done(&named);
    assert_eq!(scene.opened_by("NEW"), [2]);
    let check = scene.done(&["check", "--secret", "env:OTHER", "--keyslot", "1", "IMG"]);
    assert!(check.ends_with("the secret opens keyslot 1\n"), "{check}");
    let wrong = ["check", "-q", "--secret", "env:OTHER", "--keyslot", "0", "IMG"];
    scene.refused(&wrong, 2, &["keyslot 0 does not open with the secret"]);
    let free = ["check", "-q", "--secret", "env:OTHER", "--keyslot", "5", "IMG"];
    scene.refused(&free, 1, &["keyslot 5 is inactive"]);
}
