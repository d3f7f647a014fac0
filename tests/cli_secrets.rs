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
fn an_empty_new_secret_is_allowed_by_an_option_of_its_own() {
    let scene = Scene::new();
    let empty = format!("file:{}", scene.file("empty", b"").display());
    let add = ["add", "--secret=env:OLD", "--iterations=1000", "-q", "--new-secret", &empty, "IMG"];
    let replace = ["replace", "--old-secret=env:OLD", "--new-secret", &empty, "IMG"];
    let create = ["create", "-f", "luks", "--new-secret", &empty, "--iterations=1000", "IMG", "1M"];
    let convert = ["convert", "-O", "luks", "--secret=env:OLD", "--iterations=1000"];
    let convert = [&convert[..], &["--new-secret", &empty, "IMG", "IMG.new"]].concat();
    let text = ["the new secret is empty", "hint: use --allow-empty-secret"];
    for command in [&add[..], &replace, &create, &convert] {
        let forced = [command, &["--force"]].concat();
        scene.command_refused(&mut scene.command(&forced), 1, &text);
    }
    scene.done(&[&add[..], &["--allow-empty-secret"]].concat());
    scene.done(&["check", "--secret", &empty, "IMG"]);
    scene.done(&[&create[..], &["--allow-empty-secret", "--force"]].concat());
    assert_eq!(scene.opened_by("OLD"), [0; 0]);
}

/// In QEMU's words, too.
#[test]
fn an_empty_secret_object_is_allowed_by_the_same_option() {
    let scene = Scene::new();
    let object = format!("secret,id=s,file={}", scene.file("empty", b"").display());
    let object = ["--object", &object, "--iterations=1000", "-q"];
    let amend = ["amend", "--secret=env:OLD", "-o", "state=active,new-secret=s", "IMG"];
    let new = scene.dir.path().join("new").to_str().unwrap().to_owned();
    let create = ["create", "-f", "luks", "-o", "key-secret=s", &new, "1M"];
    let convert = ["convert", "--secret=env:OLD", "-O", "luks", "-o", "key-secret=s", "IMG", &new];
    let text = ["the new secret is empty", "hint: use --allow-empty-secret"];
    for command in [&amend[..], &create, &convert] {
        let command = [command, &object].concat();
        scene.command_refused(&mut scene.command(&command), 1, &text);
        assert!(!command::is_there(std::path::Path::new(&new)));
    }
    for command in [&amend[..], &create] {
        scene.done(&[command, &object, &["--allow-empty-secret"]].concat());
    }
    assert!(command::is_there(std::path::Path::new(&new)));
}

/// Other options of the secret are about one that is there.
#[test]
fn what_is_done_with_a_secret_needs_one() {
    let scene = Scene::new();
    for option in [&["--first"][..], &["--keyslot", "0"]] {
        let command = [&["check"][..], option, &["--tries", "2", "IMG"]].concat();
        let text = ["not provided: <--secret <SOURCE>|--key-file <PATH>>"];
        scene.command_refused(&mut scene.command(&command), 1, &text);
    }
}

#[test]
fn more_work_than_an_opening_would_allow_is_forced_or_refused() {
    let scene = Scene::new();
    let before = scene.bytes();
    let add = ["add", "--secret=env:OLD", "--new-secret=env:NEW", "--iterations=4294967295", "IMG"];
    scene.refused(&add, 1, &["keyslot 1", "4294967295", "hint: use --ignore-limits"]);
    scene.refused(&[&add[..], &["--force"]].concat(), 1, &["hint: use --ignore-limits"]);
    assert!(scene.bytes() == before);
}

#[test]
fn two_answers_to_one_question() {
    let scene = Scene::new();
    let object =
        ["--object", "secret,id=new,data=x", "--secret=env:OLD", "--iterations=1000", "IMG"];
    let amend = |options| [&["amend", "-o", options][..], &object].concat();
    let twice = "cannot be used with iter-time";
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

#[test]
fn an_option_given_twice_is_an_error() {
    let scene = Scene::new();
    for args in [
        &["add", "--secret=env:WRONG", "--secret=env:OLD", "--new-secret=env:NEW", "IMG"][..],
        &["add", "--secret=env:OLD", "--new-secret=env:OTHER", "--new-secret=env:NEW", "IMG"],
        &["replace", "--keyslot=1", "--keyslot=0", "--secret=env:OLD", "IMG"],
        &["create", "-f", "luks", "-f", "luks2", "--new-secret=env:NEW", "IMG", "1M"],
        &["uuid", "--uuid", "random", "--uuid", "random", "IMG"],
        &["amend", "--secret=env:OLD", "--secret=env:OLD", "-o", "state=inactive,keyslot=0", "IMG"],
        &["check", "-q", "-q", "IMG"],
    ] {
        scene.command_refused(&mut scene.command(args), 1, &["cannot be used multiple times"]);
    }
    // Under the name qemu-img the last one counts, as there.
    let name = scene.dir.path().join("qemu-img");
    std::os::unix::fs::symlink(command::KEYSLOT, &name).unwrap();
    let info = scene.args(&["info", "-f", "raw", "-f", "luks", "-q", "-q", "IMG"]);
    let info = &info[..info.len() - 3].iter().chain(&info[info.len() - 1..]).collect::<Vec<_>>();
    let output = support::run(std::process::Command::new(name).args(info));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn two_secrets_are_two_lines_of_standard_input() {
    let scene = Scene::new();
    let add = ["add", "--secret=stdin", "--new-secret=stdin", "--iterations=1000", "IMG"];
    let with = |args: &[&str], input: &str| {
        let mut command = scene.command(args);
        command.stdin(std::fs::File::open(scene.file("input", input.as_bytes())).unwrap());
        command
    };
    for input in ["xyzzy-zero\n", "xyzzy-zero", "xyzzy-zero\nxyzzy-one\n\n", ""] {
        let text = [" lines: expected 2, one per secret"];
        scene.command_refused(&mut with(&add, input), 1, &text);
    }
    assert!(with(&add, "xyzzy-zero\nxyzzy-one\n").output().unwrap().status.success());
    assert_eq!(scene.opened_by("NEW"), [1]);
    let replace = ["replace", "--old-secret=stdin", "--new-secret=stdin", "--iterations=1000"];
    let output = with(&[&replace[..], &["IMG"]].concat(), "xyzzy-one\nxyzzy-two").output();
    assert!(output.unwrap().status.success());
    assert_eq!(scene.opened_by("OTHER"), [1]);
    // The bytes of a descriptor are one secret.
    let mixed = ["add", "--secret=stdin", "--new-secret=fd:0", "IMG"];
    let text = ["only one secret can be read from standard input", "hint: use stdin for each"];
    scene.command_refused(&mut with(&mixed, "xyzzy-zero"), 1, &text);
    // Read for the first, it has nothing left for the second.
    let shared = ["replace", "--old-secret=fd:3", "--new-secret=fd:3", "IMG"];
    scene.command_refused(
        &mut scene.command(&shared),
        1,
        &["only one secret can be read from fd:3"],
    );
}

#[test]
fn names_that_cryptsetup_has() {
    let scene = Scene::new().and("OTHER", 3);
    let old = scene.file("old", b"xyzzy-zero");
    let new = scene.file("new", b"12345678xyzzy-onexx");
    let (old, new) = (old.to_str().unwrap(), new.to_str().unwrap());
    let source = "env:NEW";
    let add = ["add", "-d", old, "--new-secret", source, "-S", "5", "IMG"];
    scene.done(&[&add[..], &["--pbkdf-force-iterations", "1000"]].concat());
    assert_eq!(scene.opened_by("NEW"), [5]);
    let part = ["--key-file", new, "--keyfile-offset", "8", "--keyfile-size", "9"];
    let check = [&["check"][..], &part, &["IMG"]].concat();
    assert!(scene.done(&check).ends_with("the secret opens keyslot 5\n"));
    let short = ["check", "-d", new, "--keyfile-offset", "8", "--keyfile-size", "12", "IMG"];
    scene.command_refused(&mut scene.command(&short), 1, &[new, "11 bytes from byte 8 on, not 12"]);

    // The keyslot that the secret is in, and the one that is made.
    let two = ["add", "--key-slot", "5", "--new-key-slot", "6", "--new-secret=env:NEW", "IMG"];
    scene.refused(&[&two[..], &["-d", old]].concat(), 2, &["keyslot 5 does not open"]);
    scene.done(&[&two[..], &["--secret=env:NEW", "-i", "10"]].concat());
    assert_eq!(scene.opened_by("NEW"), [5, 6]);
    let replace = ["replace", "-d", old, "--new-secret=env:NEW", "--iterations=1000", "IMG"];
    scene.done(&replace);
    assert_eq!((scene.opened_by("OLD"), scene.opened_by("NEW")), (vec![], vec![0, 5, 6]));

    // A whole key file has its newline.
    let create = ["create", "-q", "-f", "luks", "-i", "10", "-d", "-", "IMG.new", "64K"];
    let mut create = scene.command(&create);
    create.current_dir(scene.dir.path());
    create.stdin(std::fs::File::open(scene.file("line", b"line\n")).unwrap());
    assert!(create.output().unwrap().status.success());
    let line = scene.dir.path().join("line");
    let check = ["check", "-q", "-d", line.to_str().unwrap(), "IMG.new"];
    assert!(scene.command(&check).current_dir(scene.dir.path()).status().unwrap().success());
}

#[test]
fn a_new_secret_that_ends_in_a_newline_is_warned_of() {
    let scene = Scene::new();
    let line = format!("file:{}", scene.file("line", b"xyzzy\n").display());
    let add = ["add", "--secret=env:OLD", "--new-secret", &line, "--iterations=1000", "IMG"];
    let create =
        ["create", "-f", "luks", "--new-secret", &line, "--iterations=1000", "IMG.2", "1M"];
    let object = format!("secret,id=s,file={}", scene.file("line", b"xyzzy\n").display());
    let amend = ["amend", "--secret=env:OLD", "-o", "state=active,new-secret=s", "IMG"];
    let amend = [&amend[..], &["--object", &object, "--iterations=1000"]].concat();
    for args in [&add[..], &create, &amend] {
        let output = scene.command(args).current_dir(scene.dir.path()).output().unwrap();
        let text = support::stderr(&output);
        assert!(output.status.success(), "{text}");
        assert!(text.starts_with("warning: ") && text.contains("ends in a newline"), "{text}");
    }
    let quiet = scene.command(&[&add[..], &["-q"]].concat()).output().unwrap();
    assert_eq!(support::stderr(&quiet), "");

    // Of a line that Windows wrote, stdin drops the newline.
    let mut command =
        scene.command(&["add", "--secret=env:OLD", "--new-secret=stdin", "-i", "10", "IMG"]);
    command.stdin(std::fs::File::open(scene.file("line", b"xyzzy\r\n")).unwrap());
    let text = support::stderr(&command.output().unwrap());
    assert!(text.starts_with("warning: ") && text.contains("ends in a carriage return"), "{text}");
}
