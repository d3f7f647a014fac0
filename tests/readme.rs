//! The shell blocks of the README are run, one after the other, and every command must succeed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use support::{peer, run, stderr};

/// The blocks that a shell can run.
fn blocks(text: &str) -> Vec<&str> {
    text.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap()).collect()
}

#[test]
fn the_blocks_of_the_readme_run() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let (qemu_img, cryptsetup) = (peer("qemu-img"), peer("cryptsetup"));
    let directory = tempfile::tempdir().unwrap();
    let bin = directory.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // The same, but for the two seconds that a new keyslot takes to open.
    let cheap = format!(
        "#!/bin/sh\ncase \"$1 $*\" in\n  *iter-time*) ;;\n  create*|add*|replace*|convert*-O*) set -- \"$@\" --iter-time 10 ;;\nesac\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_keyslot")
    );
    fs::write(bin.join("keyslot"), cheap).unwrap();
    fs::set_permissions(bin.join("keyslot"), Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}:/usr/sbin:/sbin", bin.display(), std::env::var("PATH").unwrap());

    let blocks = blocks(&text);
    assert!(blocks.len() > 4, "{blocks:?}");
    for block in blocks {
        // A block is run without the lines of a peer that is not here, which `peer` has said.
        let is_run = |line: &&str| {
            !(line.starts_with("qemu-img ") && qemu_img.is_none()
                || line.starts_with("cryptsetup ") && cryptsetup.is_none())
        };
        let script: Vec<_> = block.lines().filter(is_run).collect();
        let script = script.join("\n");
        let mut command = Command::new("sh");
        command.args(["-ec", &script]).current_dir(directory.path()).env("PATH", &path);
        let output = run(&mut command);
        assert!(output.status.success(), "{script}\n{}", stderr(&output));
    }
}

/// Every option and command that the README names is there.
#[test]
fn what_the_readme_names_exists() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let keyslot = |args: &[&str]| run(Command::new(env!("CARGO_BIN_EXE_keyslot")).args(args));
    let man = tempfile::tempdir().unwrap();
    assert!(keyslot(&["man", man.path().to_str().unwrap()]).status.success());
    let pages = fs::read_dir(man.path()).unwrap().map(|page| page.unwrap().path());
    let pages: String = pages.map(|page| fs::read_to_string(page).unwrap()).collect();
    let pages = pages.replace("\\-", "-");
    // Options of other programs
    let others = [
        "--type",
        "--label",
        "--test-passphrase",
        "--dump-json-metadata",
        "--path",
        "--release",
        "--example",
        "--open",
        "--bench",
        "--bin",
        "--cfg",
    ];
    let is_name = |c: char| c.is_ascii_lowercase() || c == '-';
    for (at, _) in text.match_indices("--") {
        let option: String = text[at..].chars().take_while(|c| is_name(*c)).collect();
        let is_one = option.len() > 3 && option[2..].starts_with(|c: char| c.is_ascii_lowercase());
        let before = text[..at].chars().next_back().unwrap();
        if !is_one || is_name(before) || others.contains(&option.as_str()) {
            continue;
        }
        let is_alias = pages.contains(&format!("[alias: {option}]"));
        assert!(is_alias || pages.contains(&format!("{option}\\f")), "{option} is in no man page");
    }
}
