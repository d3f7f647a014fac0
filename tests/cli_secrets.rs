//! What is not taken for a secret, and what is not taken for an answer.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use command::Scene;

#[test]
fn a_descriptor_that_was_not_inherited_is_not_the_image() {
    let scene = Scene::new();
    let before = scene.bytes();
    for number in 3..8 {
        let descriptor = format!("fd:{number}");
        let add = ["add", "--secret=env:OLD", "--new-secret", &descriptor, "IMG"];
        let output = support::run(&mut scene.command(&add));
        assert_eq!(output.status.code(), Some(1));
        let text = format!("keyslot: /proc/self/fd/{number}: cannot open the secret: ");
        assert!(support::stderr(&output).starts_with(&text), "{output:?}");
    }
    assert!(scene.bytes() == before);
}

#[test]
fn an_empty_new_secret_is_forced_or_refused() {
    let scene = Scene::new();
    let empty = format!("file:{}", scene.file("empty", b"").display());
    let add = ["add", "--secret=env:OLD", "--iterations=1000", "-q", "--new-secret", &empty, "IMG"];
    scene.refused(&add, 1, &["the new secret is empty", "hint: --force"]);
    let replace = ["replace", "--old-secret=env:OLD", "--new-secret", &empty, "IMG"];
    scene.refused(&replace, 1, &["the new secret is empty"]);
    scene.done(&[&add[..], &["--force"]].concat());
    scene.done(&["check", "--secret", &empty, "IMG"]);
}

#[test]
fn more_work_than_an_opening_would_allow_is_forced_or_refused() {
    let scene = Scene::new();
    let before = scene.bytes();
    let add = ["add", "--secret=env:OLD", "--new-secret=env:NEW", "--iterations=4294967295", "IMG"];
    scene.refused(&add, 1, &["keyslot 1", "4294967295", "hint: --force"]);
    assert!(scene.bytes() == before);
}

#[test]
fn two_answers_to_one_question() {
    let scene = Scene::new();
    let object =
        ["--object", "secret,id=new,data=x", "--secret=env:OLD", "--iterations=1000", "IMG"];
    let amend = |options| [&["amend", "-o", options][..], &object].concat();
    let twice = "must not be given beside iter-time";
    scene.refused(&amend("state=active,new-secret=new,iter-time=10"), 1, &[twice]);
    let erasing = "must not be given when erasing keyslots";
    scene.refused(&amend("state=inactive,keyslot=0"), 1, &[erasing]);
    let create = ["create", "-f", "luks", "-o", "iter-time=10", "--iterations=1000"];
    let new = scene.dir.path().join("new.img");
    let rest = ["--new-secret=env:NEW", new.to_str().unwrap(), "1M"];
    let output = support::run(scene.command(&[&create[..], &rest].concat()).env("LC_ALL", "C"));
    assert_eq!(output.status.code(), Some(1));
    assert!(support::stderr(&output).contains(twice));
    assert!(!command::is_there(&new));
}
