//! Sessions with the command, pinned whole: `tests/cases/*.txt`.
//!
//! A file shows what a terminal would: `$ keyslot ...`, then standard output, then standard error with
//! `! ` before each line, then `? 2` if the exit status is 2. Lines that begin with `#` are about
//! the session. Each file has a directory of its own:
//!
//! | file | is |
//! |---|---|
//! | `luks1.img` | `testdata/luks1_qemu.img`; `OLD` opens keyslot 0 |
//! | `luks2.img` | `testdata/luks2_keyslots.img`; `OLD` opens keyslot 0 |
//! | `noise.raw` | 4096 bytes that are no image |
//!
//! `# lock luks1.img` holds the lock of a writer until the session ends.
//!
//! `KEYSLOT_CASES=overwrite cargo test --test cases` writes the files again: read the diff before
//! you commit it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use keyslot::{Image, OpenOptions, Sharing};
use support::run;

const KEYSLOT: &str = env!("CARGO_BIN_EXE_keyslot");

/// Variables of a session: secrets by their names, and the width of help.
const VARIABLES: [(&str, &str); 5] =
    [("OLD", "hunter0"), ("NEW", "hunter1"), ("WRONG", "xyzzy"), ("EMPTY", ""), ("COLUMNS", "100")];

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// Runs the session of a file again.
fn session(script: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let testdata = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    for (name, from) in [("luks1.img", "luks1_qemu.img"), ("luks2.img", "luks2_keyslots.img")] {
        fs::copy(testdata.join(from), dir.path().join(name)).unwrap();
    }
    fs::write(dir.path().join("noise.raw"), [7; 4096]).unwrap();
    let mut locked: Vec<Image> = Vec::new();
    let mut text = String::new();
    for line in script.lines() {
        if let Some(comment) = line.strip_prefix('#') {
            let _ = writeln!(text, "{line}");
            if let Some(name) = comment.trim().strip_prefix("lock ") {
                let options = OpenOptions::new().sharing(Sharing::WriteAlone);
                locked.push(options.open(dir.path().join(name)).unwrap());
            }
        } else if let Some(words) = line.strip_prefix("$ keyslot ") {
            let mut command = Command::new(KEYSLOT);
            command.args(words.split_whitespace()).current_dir(dir.path()).envs(VARIABLES);
            let _ = writeln!(text, "{line}");
            text.push_str(&shown(&run(&mut command)));
        }
    }
    text
}

/// Output as a terminal shows it, without the parts that differ between runs or machines.
fn shown(output: &Output) -> String {
    let mut text = String::from_utf8(output.stdout.clone()).unwrap();
    for line in String::from_utf8(output.stderr.clone()).unwrap().lines() {
        let _ = writeln!(text, "! {line}");
    }
    if output.status.code() != Some(0) {
        let _ = writeln!(text, "? {}", output.status.code().unwrap());
    }
    let lines = text.lines().map(|line| {
        // The space that a file occupies depends on its file system.
        let line = replaced(line, "disk size: ", str::len);
        let line = replaced(&line, "\"actual-size\": ", digits);
        // This test holds the lock.
        replaced(&line, "in use by ", |rest| rest.find(')').map_or(0, |end| end + 1)) + "\n"
    });
    lines.collect()
}

/// Replaces with `[..]` the text after `before`, of the length that `end` returns.
fn replaced(line: &str, before: &str, end: impl Fn(&str) -> usize) -> String {
    match line.split_once(before) {
        Some((head, rest)) => {
            let end = end(rest);
            let dots = if end == 0 { "" } else { "[..]" };
            format!("{head}{before}{dots}{}", &rest[end..])
        }
        None => line.to_owned(),
    }
}

fn digits(text: &str) -> usize {
    text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len()
}

#[test]
fn sessions_are_as_their_files_show_them() {
    let overwrites = std::env::var_os("KEYSLOT_CASES").is_some_and(|it| it == "overwrite");
    let mut different = Vec::new();
    let mut files: Vec<_> =
        fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 10, "{files:?}");
    for file in files {
        let expected = fs::read_to_string(&file).unwrap();
        let found = session(&expected);
        if found == expected {
            continue;
        }
        if overwrites {
            fs::write(&file, found).unwrap();
            continue;
        }
        let mut lines = expected.lines().zip(found.lines());
        let first = lines.find(|(one, other)| one != other);
        different.push(format!("{}: {first:?}\n{found}", file.display()));
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// Help of every command is among the sessions.
#[test]
fn the_help_of_every_command_is_pinned() {
    let help = |words: &[&str]| {
        let output = run(Command::new(KEYSLOT).args(words).arg("--help"));
        String::from_utf8(output.stdout).unwrap()
    };
    let pinned: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .flat_map(|entry| {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let lines = text.lines().map(str::to_owned).collect::<Vec<_>>();
            lines.into_iter().filter_map(|line| {
                line.strip_prefix("$ keyslot ")?
                    .strip_suffix("--help")
                    .map(|it| it.trim().to_owned())
            })
        })
        .collect();
    let commands = |help: &str| -> Vec<String> {
        let list = help.lines().skip_while(|line| *line != "Commands:").skip(1);
        let list = list.take_while(|line| !line.is_empty());
        let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
        names.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    let mut all = BTreeSet::from([String::new()]);
    for name in commands(&help(&[])) {
        all.extend(commands(&help(&[&name])).into_iter().map(|below| format!("{name} {below}")));
        all.insert(name);
    }
    all.retain(|name| !name.ends_with("help"));
    assert_eq!(pinned, all);
}
