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

const REFUSED: &str = "the secret given to open the image opens only what would be erased\n\
    hint: give a secret that opens another keyslot, or use --force\n";

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
    let output = desk.output("erase --dry-run --keyslot 0 image");
    assert_eq!(output.status.code(), Some(0));
    let rest = "warning: image: no keyslot is left that a secret opens without naming it: keyslot 3 is ignored\n";
    assert_eq!(stderr(&output), rest);
    // A keyslot that a secret opens is left: nothing to say.
    let output = desk.output("erase --dry-run --keyslot 3 image");
    assert_eq!(stderr(&output), "");
    let output = desk.output("erase --force --keyslot 0 image");
    assert_eq!(stderr(&output), rest);
    let output = desk.output("erase --force --keyslot 3 image");
    assert_eq!(stderr(&output), "warning: image: no keyslot is left, nothing opens the image\n");
}
