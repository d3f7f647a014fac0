//! Each refusal is overridden by an option of its own, and `--force` stands for all of them.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;

use command::Scene;
use support::luks2::roomy;

/// The options that a refusal is tried with. No other one than its own lifts it.
const OPTIONS: [&str; 10] = [
    "--overwrite-keyslot",
    "--erase-inactive",
    "--lose-key",
    "--in-place",
    "--foreign-header",
    "--foreign-data",
    "--newer-copy",
    "--replace-token",
    "--overwrite",
    "--allow-empty-secret",
];

const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--iterations", "1000"];

/// The refusal names `own`; neither another option of the command nor none at all lifts it.
fn only(own: &str, scene: impl Fn() -> Scene, args: &[&str]) {
    let text = scene().refused(args, 1, &[]);
    assert!(text.contains(own), "{args:?} does not name {own}: {text}");
    let help = scene().done(&[args[0], args[1], "--help"]);
    for option in OPTIONS.iter().filter(|&&option| option != own && !args.contains(&option)) {
        // `--overwrite` is the start of `--overwrite-keyslot`, too.
        if help.split_whitespace().any(|word| word == *option) {
            scene().refused(&[args, &[option]].concat(), 1, &[]);
        }
    }
    scene().done(&[args, &[own]].concat());
    if own != "--allow-empty-secret" {
        scene().done(&[args, &["--force"]].concat());
    }
}

#[test]
fn an_active_keyslot_is_overwritten_if_that_is_asked_for() {
    let add = ["add", "-q", "--secret", "env:OLD", "--new-secret", "env:NEW", "--keyslot", "3"];
    only(
        "--overwrite-keyslot",
        || Scene::new().and("OTHER", 3),
        &[&add[..], &CHEAP, &["IMG"]].concat(),
    );
}

#[test]
fn the_last_key_is_lost_if_that_is_asked_for() {
    only("--lose-key", Scene::new, &["erase", "-q", "--keyslot", "0", "IMG"]);
    only("--lose-key", Scene::new, &["erase", "-q", "--old-secret", "env:OLD", "IMG"]);
    let amend = ["amend", "-q", "--secret", "env:OLD", "-o", "state=inactive,keyslot=0", "IMG"];
    only("--lose-key", Scene::new, &amend);
}

#[test]
fn an_inactive_keyslot_is_overwritten_if_that_is_asked_for() {
    only("--erase-inactive", Scene::new, &["erase", "-q", "--keyslot", "5", "IMG"]);
}

#[test]
fn a_keyslot_is_replaced_in_place_if_that_is_asked_for() {
    let full = || (1..8).fold(Scene::new(), |scene, keyslot| scene.and("OTHER", keyslot));
    let scene = full();
    let image = scene.bytes();
    let replace = ["replace", "-q", "--old-secret", "env:OLD", "--new-secret", "env:NEW"];
    only("--in-place", || Scene::of(&image), &[&replace[..], &CHEAP, &["IMG"]].concat());
}

#[test]
fn the_header_of_another_image_is_restored_if_that_is_asked_for() {
    let other = Scene::new();
    let uuid = ["uuid", "-q", "--uuid", "random", "IMG"];
    other.done(&uuid);
    let made = Scene::without_image();
    let create = ["create", "-q", "-f", "luks", "--new-secret", "env:OLD", "IMG", "64K"];
    made.done(&[&create[..], &["--iterations", "1000"]].concat());
    let backup = made.backup("other.hdr");
    let restore = ["header", "restore", "-q", "--yes"];
    // One volume's keyslots cannot become another's one by one, so this takes both.
    let parts = [&backup, "IMG"];
    only("--foreign-header", Scene::new, &[&restore[..], &["--in-place"], &parts].concat());
    only("--in-place", Scene::new, &[&restore[..], &["--foreign-header"], &parts].concat());
    let scene = Scene::new();
    let text = scene.refused(&[&restore[..], &parts].concat(), 1, &[]);
    assert!(text.contains("--foreign-header"), "{text}");
}

#[test]
fn a_token_takes_anothers_place_if_that_is_asked_for() {
    let scene = Scene::of(&roomy(1).bytes);
    let token = scene.file("token.json", br#"{"type":"a-token","keyslots":["0"]}"#);
    let import = ["token", "import", "-q", "--token", "0", "--json-file", token.to_str().unwrap()];
    let import = [&import[..], &["IMG"]].concat();
    // It has a token 0 already.
    let image = scene.bytes();
    only("--replace-token", || Scene::of(&image), &import);
}

#[test]
fn a_file_is_replaced_if_that_is_asked_for() {
    let create = ["create", "-q", "-f", "luks", "--new-secret", "env:NEW", "--iterations", "1000"];
    only("--overwrite", Scene::new, &[&create[..], &["IMG", "64K"]].concat());
}

/// An empty secret opens the image to everybody, so `--force` is not enough.
#[test]
fn an_empty_secret_takes_its_own_option() {
    let scene = || {
        let scene = Scene::new();
        fs::write(scene.dir.path().join("empty"), "").unwrap();
        scene
    };
    let empty = scene();
    let source = format!("file:{}", empty.dir.path().join("empty").display());
    let add = ["add", "-q", "--secret", "env:OLD", "--new-secret", &source];
    only("--allow-empty-secret", scene, &[&add[..], &CHEAP, &["IMG"]].concat());
    empty.refused(
        &[&add[..], &CHEAP, &["--force", "IMG"]].concat(),
        1,
        &["the new secret is empty"],
    );
    let create = ["create", "-q", "-f", "luks", "--new-secret", &source, "--iterations", "1000"];
    let create = [&create[..], &["IMG", "64K"]].concat();
    let forced = [&create[..], &["--force"]].concat();
    empty.refused(&forced, 1, &["the new secret is empty", "--allow-empty-secret"]);
}
