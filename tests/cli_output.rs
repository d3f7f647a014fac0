//! What the command prints, wherever that goes: results as JSON, nothing into a pipe that is
//! closed, one line on wrong usage, and no change in a dry run.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs::File;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use command::{KEYSLOT, SECRETS, Scene, assert_refusal, is_there};
use serde_json::{Value, json};
use support::{peer, run};

#[test]
fn help_and_version_are_no_failures() {
    for (args, part) in [
        (&["--help"][..], "Usage: keyslot"),
        (&["-h"], "Usage: keyslot"),
        (&["help"], "Usage: keyslot"),
        (&["help", "replace"], "Usage: keyslot replace"),
        (&["--version"], concat!("keyslot ", env!("CARGO_PKG_VERSION"))),
        (&["-V"], concat!("keyslot ", env!("CARGO_PKG_VERSION"))),
        (&["add", "--help"], "--new-secret"),
        (&["amend", "-o", "help"], "old-secret"),
        (&["create", "-f", "luks", "-o", "help"], "cipher-alg"),
    ] {
        let output = run(Command::new(KEYSLOT).args(args));
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

/// A full disk behind standard output is no image's fault.
#[test]
fn a_result_that_cannot_be_printed_is_said_once() {
    let scene = Scene::new();
    for args in [
        &["info", "IMG", "IMG"][..],
        &["info", "--output", "json", "IMG", "IMG"],
        &["check", "IMG", "IMG"],
        &["check", "--output", "json", "IMG", "IMG"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = scene.command(args).stdout(full).output().unwrap();
        let text = "keyslot: cannot write to standard output: No space left on device\n";
        assert_eq!(String::from_utf8_lossy(&output.stderr), text, "{args:?}");
        assert_eq!(output.status.code(), Some(1), "{args:?}");
    }
}

/// The hint of wrong usage is the help of the command, where one is named.
#[test]
fn wrong_usage_points_to_help() {
    for (args, hint) in [
        (&[][..], "see 'keyslot --help'"),
        (&["--frobnicate"], "see 'keyslot --help'"),
        (&["frobnicate"], "see 'keyslot --help'"),
        (&["add", "--frobnicate"], "see 'keyslot add --help'"),
        (&["token", "list"], "see 'keyslot token --help'"),
    ] {
        let output = run(Command::new(KEYSLOT).args(args).args(["--output", "json"]));
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.ends_with(&format!("\nhint: {hint}\n")), "{args:?}: {text}");
        let entry: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(entry["error"]["hint"], hint, "{args:?}");
    }
}

#[test]
fn wrong_usage_is_one_line() {
    let scene = Scene::new();
    for (args, part) in [
        (&[][..], "Not enough arguments"),
        (&["frobnicate", "IMG"], "frobnicate"),
        (&["--frobnicate"], "--frobnicate"),
        (&["info"], "one image file name"),
        (&["check"], "<IMAGE>"),
        (&["create"], "--format"),
        (&["create", "-f", "luks"], "image file name"),
        (&["create", "-f", "luks", "-o", "size=x", "new.img"], "hint: Optional suffix k"),
        (&["create", "-f", "luks", "new.img"], "size"),
        (&["create", "-f", "luks", "new.img", "1M", "2M"], "Unexpected argument: 2M"),
        (&["create", "-f", "luks", "--new-secret", "env:NEW", "new.img", "1.5.5G"], "1.5.5G"),
        (&["create", "-f", "vmdk", "new.img", "1M"], "vmdk"),
        (&["create", "-f", "luks", "-o", "color=red", "new.img", "1M"], "color"),
        (&["create", "-f", "luks", "-o", "cipher-alg=rot13", "new.img", "1M"], "rot13"),
        (&["amend", "IMG"], "-o"),
        (&["amend", "-o", "state=active"], "one image file name"),
        (&["amend", "-o", "state=active", "IMG", "IMG"], "one image file name"),
        (&["amend", "--secret", "env:OLD", "-o", "color=red", "IMG"], "color"),
        (&["amend", "--secret", "env:OLD", "-o", "state=red", "IMG"], "'red'"),
        (&["amend", "-t", "none-such", "-o", "state=active", "IMG"], "none-such"),
        (&["add"], "<IMAGE>"),
        (&["add", "IMG", "IMG"], "unexpected argument"),
        (&["add", "--frobnicate", "IMG"], "--frobnicate"),
        (&["add", "--keyslot", "x", "IMG"], "'x'"),
        (&["add", "--iterations", "-1", "IMG"], "-1"),
        (&["add", "--iterations", "4294967296", "IMG"], "4294967296"),
        (&["add", "--iterations", "999", "IMG"], "999"),
        (&["add", "--iterations", "1000", "--iter-time", "1", "IMG"], "--iter-time"),
        (&["add", "--wait", "soon", "IMG"], "soon"),
        (&["add", "--output", "xml", "IMG"], "xml"),
        (&["erase", "IMG"], "--keyslot"),
        (&["erase", "--keyslot", "IMG"], "IMAGE"),
        (&["replace"], "<IMAGE>"),
        (&["info", "--output", "yaml", "IMG"], "yaml"),
        (&["check", "--first", "IMG"], "--secret"),
    ] {
        let part = if part == "IMAGE" { scene.image.to_str().unwrap() } else { part };
        let mut command = scene.command(args);
        let text = scene.command_refused(command.current_dir(scene.dir.path()), 1, &[part]);
        assert!(!is_there(&scene.dir.path().join("new.img")), "{args:?}: {text}");
    }
}

#[test]
fn what_cannot_be_done_to_the_keyslots() {
    let scene = Scene::new().and("OTHER", 6);
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW"];
    let replace = ["replace", "--secret", "env:OLD", "--new-secret", "env:NEW"];
    let with = |args: &[&'static str], more: &[&'static str]| [args, more, &["IMG"]].concat();
    let only = Scene::new();
    for (scene, args, status, parts) in [
        (&scene, with(&add, &["--keyslot", "8"]), 1, &["keyslot 8"][..]),
        (&scene, with(&add, &["--keyslot", "-1"]), 1, &["between 0 and 7"]),
        (&scene, with(&add, &["--keyslot", "4294967297"]), 1, &["keyslot 4294967297"]),
        (
            &scene,
            with(&add, &["--keyslot", "6"]),
            1,
            &["keyslot 6", "hint: use --overwrite-keyslot"],
        ),
        (&scene, with(&add, &["--iter-time", "18446744073709551615"]), 1, &["too large"]),
        (&scene, with(&add, &["--iter-time", "50000000000"]), 1, &["larger than 4294967295"]),
        (&scene, with(&replace, &["--keyslot", "3"]), 1, &["keyslot 3 is inactive", "hint: add"]),
        (&scene, with(&replace, &["--keyslot", "9"]), 1, &["keyslot 9"]),
        (&scene, with(&["erase", "--keyslot", "3"], &[]), 1, &["keyslot 3"]),
        (&scene, with(&["erase", "--keyslot", "8"], &[]), 1, &["keyslot 8"]),
        (
            &scene,
            with(&["erase", "--keyslot", "0", "--old-secret"], &["env:NEW"]),
            2,
            &["keyslot 0"],
        ),
        (&scene, with(&["erase", "--keyslot", "0", "--secret"], &["env:NEW"]), 2, &[]),
        (&only, with(&["erase", "--keyslot", "0"], &[]), 1, &["keyslot 0", "hint: use --lose-key"]),
        (&only, with(&["erase", "--old-secret", "env:OLD"], &[]), 1, &["hint: use --lose-key"]),
    ] {
        scene.refused(&args, status, parts);
    }

    let full = (1..8).fold(Scene::new(), |scene, keyslot| scene.and("OTHER", keyslot));
    full.refused(&with(&add, &[]), 1, &["all keyslots are in use"]);
    full.refused(&with(&replace, &["--keyslot", "0"]), 1, &["keyslot 0", "hint: erase another"]);
}

#[test]
fn secrets_that_cannot_be_had() {
    let scene = Scene::new();
    let add = |source: &'static str| ["add", "--secret", source, "--new-secret", "env:NEW", "IMG"];
    for (source, part) in [
        ("xyzzy-zero", "hint: use one of prompt, file:PATH"),
        ("pass:xyzzy-zero", "hint: use one of prompt, file:PATH"),
        ("file:/nonexistent/key", "/nonexistent/key"),
        ("file:/", "Is a directory"),
        ("file:", "no path after 'file:'"),
        ("env:KEYSLOT_NOT_SET", "KEYSLOT_NOT_SET"),
        ("env:", "no variable name after 'env:'"),
        ("fd:12345", "12345"),
        ("fd:xyzzy", "no descriptor number after 'fd:'"),
        ("object:sec9", "sec9"),
    ] {
        scene.command_refused(&mut scene.command(&add(source)), 1, &[part]);
    }
    let twice = ["add", "--secret", "stdin", "--new-secret", "fd:0", "IMG"];
    scene.command_refused(
        &mut scene.command(&twice),
        1,
        &["only one secret can be read from standard input"],
    );
    for object in ["secret,id=s", "secret,data=xyzzy-zero", "secret,id=s,data=xyzzy,format=hex"] {
        let args = ["add", "--object", object, "--secret", "object:s", "IMG"];
        scene.command_refused(&mut scene.command(&args), 1, &[]);
    }

    // Without a terminal, and without a word where the secret is.
    let Some(setsid) = peer("setsid") else { return };
    for args in [
        &["add", "IMG"][..],
        &["replace", "IMG"],
        &["amend", "-o", "state=inactive,keyslot=0", "IMG"],
        &["create", "-f", "luks", "new.img", "1M"],
        &["add", "--secret", "prompt", "IMG"],
        &["erase", "--old-secret", "prompt", "IMG"],
    ] {
        let mut command = Command::new(&setsid);
        command.arg("--wait").arg(KEYSLOT).args(scene.args(args)).current_dir(scene.dir.path());
        scene.command_refused(command.stdin(Stdio::null()), 1, &["terminal"]);
        assert!(!is_there(&scene.dir.path().join("new.img")));
    }
}

#[test]
fn results_are_json() {
    let scene = Scene::without_image();
    let cost = ["--iterations", "1000"];
    let create = [&["create", "-f", "luks", "--new-secret", "env:OLD", "IMG", "1M"], &cost[..]];
    assert_eq!(scene.json(&create.concat())["virtual-size"], 1 << 20);
    assert_eq!(scene.json(&["info", "IMG"])["format"], "luks");
    let secret = ["--secret", "env:OLD", "IMG"];
    assert_eq!(scene.json(&[&["info"], &secret[..]].concat())["secret-opens"], json!([0]));
    assert_eq!(scene.json(&["check", "IMG"])["leftovers"], json!([]));
    assert_eq!(scene.json(&[&["check"], &secret[..]].concat())["secret-opens"], json!([0]));

    let add = [&["add", "--new-secret", "env:NEW"], &cost[..], &secret].concat();
    let replace = ["replace", "--old-secret", "env:NEW", "--new-secret", "env:OTHER", "IMG"];
    let replace = [&replace, &cost[..]].concat();
    let amend = ["amend", "-o", "state=active,keyslot=5,new-secret=s,iter-time=10"];
    let amend = [&amend[..], &["--object", "secret,id=s,data=xyzzy-one"], &secret[..]].concat();
    let erase = ["erase", "--keyslot", "5", "IMG"].to_vec();
    for (args, action, keyslot) in
        [(add, "add", 1), (replace, "replace", 1), (amend, "add", 5), (erase, "erase", 5)]
    {
        let before = scene.bytes();
        let dry = scene.json(&[&args[..], &["--dry-run"]].concat());
        assert!(scene.bytes() == before, "{args:?}");
        let text = scene.done(&[&args[..], &["--dry-run"]].concat());
        assert!(text.starts_with(&format!("keyslot {keyslot} would be ")), "{text}");
        assert!(scene.bytes() == before, "{args:?}");

        let wet = scene.json(&args);
        for (result, is_dry) in [(dry, true), (wet, false)] {
            assert_eq!(result["dry-run"], is_dry);
            assert_eq!(result["filename"], scene.image.to_str().unwrap());
            let [change] = &result["changes"].as_array().unwrap()[..] else { panic!("{result}") };
            assert_eq!((&change["action"], &change["keyslot"]), (&json!(action), &json!(keyslot)));
        }
        assert!(scene.bytes() != before, "{args:?}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let scene = Scene::new();
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000"];
    for args in [
        &["info", "IMG"][..],
        &["info", "--output", "json", "IMG"],
        &["check", "IMG"],
        &["--help"],
        &["amend", "-o", "help"],
        &["create", "-f", "luks", "-o", "help"],
        &["completions", "bash"],
        &[&add[..], &["IMG"]].concat(),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = scene.command(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let output = output.wait_with_output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    assert_eq!(scene.opened_by("NEW"), [1]);
}

#[test]
fn nowhere_to_write_to() {
    let scene = Scene::new();
    let full = || File::options().write(true).open("/dev/full").unwrap();
    for (args, part) in [
        (&["info", "IMG"][..], "cannot write to standard output: No space left on device"),
        (&["check", "--output", "json", "IMG"], "No space left on device"),
        (
            &["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations=1000", "IMG"],
            "the change was made",
        ),
    ] {
        let child = scene.command(args).stdout(full()).stderr(Stdio::piped()).spawn().unwrap();
        assert_refusal(&child.wait_with_output().unwrap(), 1, &[part], part);
    }
    assert_eq!(scene.opened_by("NEW"), [1]);

    // Nor anywhere to say so.
    let mut command = scene.command(&["info", "/nonexistent"]);
    assert_eq!(command.stderr(full()).status().unwrap().code(), Some(1));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = scene.command(&["erase", "--keyslot", "7", "IMG"]);
    assert_eq!(command.stderr(writer).status().unwrap().code(), Some(1));
}

#[test]
fn under_the_name_qemu_img() {
    let scene = Scene::new();
    let link = scene.dir.path().join("qemu-img");
    symlink(KEYSLOT, &link).unwrap();
    let image = scene.image.display();
    let amend = |secret: &str, options: &str| {
        let object = format!("secret,id=s,data={secret}");
        let options_of_image = format!("driver=luks,key-secret=s,file.filename={image}");
        let mut command = Command::new(&link);
        command.args(["amend", "--object", &object, "--image-opts", &options_of_image]);
        let output = run(command.args(["-o", options]));
        (output.status.code(), support::stderr(&output))
    };
    let (status, text) = amend(SECRETS[0].1, "state=inactive,keyslot=4294967296");
    let wanted = "Invalid keyslot 4294967296 specified, must be between 0 and 7";
    assert_eq!((status, text), (Some(1), format!("qemu-img: {wanted}\n")));
    let (status, text) = amend("wrong", "state=inactive,keyslot=0");
    assert_eq!(status, Some(1));
    let opening = format!("Could not open 'driver=luks,key-secret=s,file.filename={image}'");
    let wanted = "Invalid password, cannot unlock any keyslot";
    assert_eq!(text, format!("qemu-img: {opening}: {wanted}\n"));
}
