//! `keyslot convert` as somebody at the command line sees it: four ways between raw and LUKS, what
//! it prints, and that a target is replaced, overwritten or left as what was asked says.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/converting.rs"]
mod converting;
mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use command::KEYSLOT;
use converting::{
    Desk, FROM_LUKS, OBJECTS, TO_LUKS, aes_256_xts, luks, noise, padded, payload, volume_key,
};
use serde_json::{Value, json};
use support::{peer, run, run_ok};

#[test]
fn four_ways() {
    let desk = Desk::new();
    let before = desk.files();
    let text = desk.done(&format!("-f raw plain.raw {TO_LUKS} a.luks"));
    assert!(text.lines().count() == 1 && text.contains("a.luks"), "{text:?}");
    desk.assert_luks("a.luks", "NEW");
    desk.done(&format!("{FROM_LUKS} -O raw b.raw"));
    desk.assert_plain("b.raw");
    desk.done(&format!("{FROM_LUKS} {TO_LUKS} c.luks"));
    desk.assert_luks("c.luks", "NEW");
    let key = |name, secret| volume_key(&desk.path(name), secret);
    assert_ne!(key("disk.luks", "OLD"), key("c.luks", "NEW"), "the volume key is the same");
    assert_eq!(payload(&desk.path("c.luks"), "OLD"), None);
    desk.done("-f raw plain.raw -O raw d.raw");
    desk.assert_plain("d.raw");

    // raw is the target's format that is not said, and the source's own that of the source.
    desk.done("plain.raw e.raw");
    desk.assert_plain("e.raw");
    desk.done("--secret env:OLD disk.luks f.raw");
    desk.assert_plain("f.raw");

    // In QEMU's words.
    let source = "--image-opts driver=luks,file.filename=disk.luks,key-secret=old";
    desk.done(&format!("{OBJECTS} {source} g.raw"));
    desk.assert_plain("g.raw");
    desk.done(&format!("{OBJECTS} plain.raw h.luks -O luks -o key-secret=new,iter-time=10"));
    desk.assert_luks("h.luks", "NEW");
    let options = "-o key-secret=new,iter-time=10 -o cipher-alg=aes-128,cipher-mode=cbc";
    desk.done(&format!("{OBJECTS} {source} -O luks {options},ivgen-alg=essiv -q i.luks"));
    desk.assert_luks("i.luks", "NEW");
    let image = keyslot::Image::open(desk.path("i.luks")).unwrap();
    assert_eq!(image.header().cipher().unwrap().cipher_mode(), "cbc-essiv:sha256");
    for (name, file) in before {
        assert!(desk.files()[&name] == file, "{name} has changed");
    }
}

#[test]
fn prints_what_was_asked_for() {
    let desk = Desk::new();
    assert_eq!(desk.done(&format!("-q -f raw plain.raw {TO_LUKS} a.luks")), "");
    assert_eq!(desk.done("--quiet plain.raw a.raw"), "");
    for (words, name, format) in [
        (format!("-f raw plain.raw {TO_LUKS} b.luks"), "b.luks", "luks"),
        (format!("{FROM_LUKS} b.raw"), "b.raw", "raw"),
        (format!("-q {FROM_LUKS} {TO_LUKS} c.luks"), "c.luks", "luks"),
    ] {
        let result = desk.json(&words);
        assert_eq!((&result["filename"], &result["format"]), (&json!(name), &json!(format)));
        assert_eq!(result["virtual-size"], desk.plain.len(), "{result}");
    }

    // As qemu-img it says nothing but the progress that is asked for.
    symlink(KEYSLOT, desk.path("qemu-img")).unwrap();
    fs::write(desk.path("empty.raw"), "").unwrap();
    fs::write(desk.path("1m.raw"), noise(1 << 20)).unwrap();
    let whole = "    (0.00/100%)\r    (100.00/100%)\r    (100.00/100%)\r\n";
    let begun = "    (0.00/100%)\r\n";
    for (arguments, status, wanted) in [
        ("-f raw plain.raw d.raw", 0, ""),
        ("-p -f raw 1m.raw e.raw", 0, whole),
        ("-p -q -f raw 1m.raw f.raw", 0, ""),
        ("-q -p -f raw 1m.raw g.raw", 0, ""),
        ("-p empty.raw h.raw", 0, "    (0.00/100%)\r    (100.00/100%)\r\n"),
        ("-p nosuch.raw i.raw", 1, begun),
        ("-p plain.raw nosuch/i.raw", 1, begun),
        ("-p plain.raw", 1, ""),
        ("-p -S 1 plain.raw i.raw", 1, ""),
    ] {
        for program in [Some(desk.path("qemu-img")), peer("qemu-img")].into_iter().flatten() {
            let mut command = Command::new(program);
            command.arg("convert").args(arguments.split(' ')).current_dir(desk.dir.path());
            let output = run(&mut command);
            let stdout = String::from_utf8_lossy(&output.stdout);
            assert_eq!((output.status.code(), &*stdout), (Some(status), wanted), "{command:?}");
            if status == 0 {
                fs::remove_file(desk.path(arguments.rsplit(' ').next().unwrap())).unwrap();
            }
        }
    }
}

#[test]
fn progress_on_a_terminal_only() {
    let desk = Desk::with(noise(32 << 20));
    let Some(python) = peer("python3") else { return };
    let words = "-f raw plain.raw -O luks --new-secret env:NEW --iter-time 300 --force";
    for (quiet, is_shown) in [("", true), (" -q", false)] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/on_terminal.py");
        let mut command = Command::new(&python);
        command.args([script, "[]", KEYSLOT, "convert"]).args(words.split(' '));
        command.args(quiet.split_whitespace()).arg("a.luks").envs(command::SECRETS);
        let output = run_ok(command.current_dir(desk.dir.path()).env("TERM", "xterm"));
        let result: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(result["status"], 0, "{result}");
        let text = result["text"].as_str().unwrap();
        assert_eq!(text.contains(['\u{1b}', '%']), is_shown, "{text:?}");
        assert_eq!(text.is_empty(), !is_shown, "{text:?}");
    }
    // `done` finds nothing on standard error.
    assert!(!desk.done(&format!("{words} a.luks")).contains(['\u{1b}', '%', '\r']));
}

#[test]
fn an_existing_target_stays_unless_forced() {
    let desk = Desk::new();
    fs::write(desk.path("old"), "precious").unwrap();
    fs::set_permissions(desk.path("old"), fs::Permissions::from_mode(0o604)).unwrap();
    fs::hard_link(desk.path("old"), desk.path("other-name")).unwrap();
    symlink("old", desk.path("link")).unwrap();
    symlink("elsewhere", desk.path("dangling")).unwrap();
    fs::create_dir(desk.path("directory")).unwrap();
    for target in [TO_LUKS, "-O raw", ""] {
        for name in ["old", "link"] {
            let words = format!("-f raw plain.raw {target} {name}");
            desk.refused(&words, 1, &[name, "exists", "hint: use --overwrite to replace it"]);
        }
        for name in ["dangling", "directory", "/dev/null"] {
            for force in ["", "--force "] {
                let words = format!("{force}-f raw plain.raw {target} {name}");
                let text = desk.refused(&words, 1, &[name]);
                assert!(!text.contains("--force"), "that does not help: {text}");
            }
        }
        let missing = format!("-f raw plain.raw {target} nowhere/new");
        desk.refused(&missing, 1, &["nowhere/new", "No such file or directory"]);
    }

    for (words, name) in [
        (format!("--force -f raw plain.raw {TO_LUKS} old"), "old"),
        (format!("--force {FROM_LUKS} link"), "link"),
    ] {
        let before = fs::metadata(desk.path(name)).unwrap();
        desk.done(&words);
        let after = fs::metadata(desk.path(name)).unwrap();
        assert_ne!(after.ino(), before.ino(), "it is another file, put in its place when complete");
        assert_eq!(after.mode(), before.mode());
    }
    desk.assert_plain("old");
    assert!(desk.path("link").is_symlink());
    assert_eq!(desk.bytes("other-name"), b"precious");
    assert_eq!(desk.names().len(), 7, "{:?}", desk.names());
}

/// QEMU destroys the source here if it is told to share (`-U`).
#[test]
fn the_source_is_never_the_target() {
    let desk = Desk::new();
    fs::hard_link(desk.path("plain.raw"), desk.path("hard.raw")).unwrap();
    symlink("plain.raw", desk.path("soft.raw")).unwrap();
    let refused = |words: String| desk.refused_with(&words, &[1, 5], &[]);
    for options in ["", "-U", "-n", "-n -U", "--force", "--force -U"] {
        for target in ["plain.raw", "hard.raw", "soft.raw", "./plain.raw"] {
            refused(format!("{options} -f raw plain.raw {target}"));
        }
        refused(format!("{options} {FROM_LUKS} disk.luks"));
        if !options.contains("-n") {
            refused(format!("{options} {FROM_LUKS} {TO_LUKS} disk.luks"));
        }
    }
    let target = "--target-image-opts driver=luks,file.filename=disk.luks,key-secret=old";
    refused(format!("{OBJECTS} -n -U {FROM_LUKS} {target}"));
}

#[test]
fn into_what_is_there() {
    let desk = Desk::new();
    let size = desk.plain.len();
    let old = vec![0xaa; size + 4096];
    fs::write(desk.path("old.raw"), &old).unwrap();
    let inode = |name: &str| fs::metadata(desk.path(name)).unwrap().ino();
    let before = inode("old.raw");
    desk.done("-n -f raw plain.raw -O raw old.raw");
    let expected = [&desk.plain[..], &old[size..]].concat();
    assert!(desk.bytes("old.raw") == expected, "zeros are written, what is behind stays");
    assert_eq!(inode("old.raw"), before);
    fs::write(desk.path("old.raw"), &old).unwrap();
    desk.done(&format!("-n {FROM_LUKS} -O raw old.raw"));
    assert!(desk.bytes("old.raw") == expected);

    luks(&desk.path("old.luks"), &aes_256_xts(), "NEW", &old);
    let key = volume_key(&desk.path("old.luks"), "NEW");
    let header = desk.bytes("old.luks")[..2_068_480].to_vec();
    let target = "--target-image-opts driver=luks,file.filename=old.luks,key-secret";
    for source in ["-f raw plain.raw", FROM_LUKS] {
        desk.done(&format!("-n {OBJECTS} {source} {target}=new"));
        assert!(payload(&desk.path("old.luks"), "NEW").unwrap() == expected);
    }
    assert!(volume_key(&desk.path("old.luks"), "NEW") == key);
    assert!(desk.bytes("old.luks")[..2_068_480] == header, "the header is left alone");
    desk.refused(&format!("-n {OBJECTS} plain.raw {target}=old"), 2, &["old.luks"]);
    desk.refused(&format!("-n {OBJECTS} plain.raw {target}=nosuch"), 1, &["'nosuch'"]);
    desk.refused(&format!("-n {OBJECTS} plain.raw {target}=new,read-only=on"), 1, &["read-only"]);

    fs::write(desk.path("small.raw"), vec![0; size - 512]).unwrap();
    luks(&desk.path("small.luks"), &aes_256_xts(), "NEW", &vec![1; size - 512]);
    let smaller = "output file is smaller than input file";
    desk.refused("-n -f raw plain.raw -O raw small.raw", 1, &["small.raw", smaller]);
    let small = target.replace("old.luks", "small.luks");
    desk.refused(&format!("-n {OBJECTS} plain.raw {small}=new"), 1, &["small.luks", smaller]);
    let none = target.replace("old.luks", "plain.raw");
    desk.refused(&format!("-n {OBJECTS} old.raw {none}=new"), 4, &["plain.raw", "LUKS format"]);
    desk.refused("-n plain.raw -O raw nosuch", 1, &["nosuch", "No such file or directory"]);
    let no_effect = "-o has no effect when skipping image creation";
    desk.refused("-n -o size=1M plain.raw old.raw", 1, &[no_effect]);
}

#[test]
fn odd_lengths_and_none() {
    for len in [0, 1, 511, 512, 513, 4095] {
        let desk = Desk::with(padded(&noise(len)));
        fs::write(desk.path("plain.raw"), noise(len)).unwrap();
        desk.done(&format!("-f raw plain.raw {TO_LUKS} a.luks"));
        desk.assert_luks("a.luks", "NEW");
        desk.done("-f raw plain.raw a.raw");
        desk.assert_plain("a.raw");
        desk.done(&format!("{FROM_LUKS} b.raw --verify"));
        desk.assert_plain("b.raw");
        assert_eq!(desk.json(&format!("{FROM_LUKS} c.raw"))["virtual-size"], desk.plain.len());
    }
}
