//! Help, man pages and completions: for any width, with values, examples and all that is needed.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/pages.rs"]
mod pages;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use pages::{pages, section};
use support::{peer, run};

fn keyslot(args: &[&str], columns: u32) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
    let output = run(command.args(args).env("COLUMNS", columns.to_string()));
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_wraps_to_the_terminal() {
    for page in pages().keys() {
        let words: Vec<_> = page.split('-').skip(1).collect();
        // `is-luks` is one word.
        let words = if words == ["is", "luks"] { vec!["is-luks"] } else { words };
        for columns in [60, 100] {
            let text = keyslot(&[&words[..], &["--help"]].concat(), columns);
            for line in text.lines().filter(|line| !line.starts_with("Usage: ")) {
                // What has no space cannot be broken.
                let is_long = line.chars().count() > columns as usize;
                let longest = line.split_whitespace().map(str::len).max().unwrap_or_default();
                assert!(!is_long || longest > 40, "{page} in {columns} columns: {line}");
            }
        }
        let narrow = keyslot(&[&words[..], &["-h"]].concat(), 60).lines().count();
        assert!(narrow >= keyslot(&[&words[..], &["-h"]].concat(), 200).lines().count(), "{page}");
    }
    let help = keyslot(&["--help"], 100);
    for command in ["\n  man ", "\n  completions ", "\n  add "] {
        assert!(help.contains(command), "{help}");
    }
}

#[test]
fn man_pages_have_what_a_page_has() {
    let pages = pages();
    for (name, page) in &pages {
        for heading in ["NAME", "SYNOPSIS", "DESCRIPTION", "EXIT STATUS", "EXAMPLES", "SEE ALSO"] {
            assert!(!section(page, heading).is_empty(), "{name} has no {heading}");
        }
        let synopsis = section(page, "SYNOPSIS").join("\n");
        let options = section(page, "OPTIONS").join("\n");
        if options.contains("--output ") {
            assert!(synopsis.contains("[--output FORMAT]"), "{name}: {synopsis}");
            assert!(!section(page, "JSON").is_empty(), "{name} has no JSON");
        }
        let see_also = section(page, "SEE ALSO").join(" ");
        for other in see_also.split(", ").filter_map(|page| page.strip_suffix("(1)")) {
            assert!(other == "qemu-img" || pages.contains_key(other), "{name}: {other}");
        }
        // What an example uses is there.
        for example in section(page, "EXAMPLES") {
            let words = example.split_whitespace().filter(|word| word.starts_with("--"));
            for option in words.filter(|_| example.contains(&name.replace('-', " "))) {
                assert!(options.contains(option) || name == "keyslot", "{name}: {option}");
            }
        }
    }
    let Some(man) = peer("man") else { return };
    let directory = tempfile::tempdir().unwrap();
    keyslot(&["man", directory.path().to_str().unwrap()], 80);
    for name in pages.keys() {
        let page = directory.path().join(format!("{name}.1"));
        let output = run(Command::new(&man).args(["--warnings", "-l"]).arg(page));
        assert!(output.status.success() && output.stderr.is_empty(), "{name}: {output:?}");
    }
}

#[test]
fn completions_know_sources_and_formats() {
    for shell in ["bash", "zsh", "fish"] {
        let script = keyslot(&["completions", shell], 80);
        for value in ["prompt", "object", "stdin", "luks2", "sha256", "writethrough"] {
            assert!(script.contains(value), "{shell} does not know {value}");
        }
    }
    let Some(bash) = peer("bash") else { return };
    let script = keyslot(&["completions", "bash"], 80);
    for (words, expected) in [
        ("keyslot add --secret pr", "prompt"),
        ("keyslot create --format luks2", "luks2"),
        ("keyslot convert --output-format ra", "raw"),
    ] {
        let last = words.split(' ').count() - 1;
        let test = format!(
            "{script}\nCOMP_WORDS=({words}); COMP_CWORD={last}; _keyslot keyslot \"${{COMP_WORDS[{last}]}}\" \"${{COMP_WORDS[{}]}}\"; echo \"${{COMPREPLY[@]}}\"",
            last - 1
        );
        let output = run(Command::new(&bash).args(["-c", &test]));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), expected, "{output:?}");
    }
}

/// Names that people know from cryptsetup are in the pages, too.
#[test]
fn man_pages_have_the_aliases_of_options() {
    let pages = pages();
    for (page, alias) in [
        ("keyslot-add", "[alias: --key-slot]"),
        ("keyslot-add", "[alias: --new-key-slot]"),
        ("keyslot-create", "[alias: --pbkdf-force-iterations]"),
        ("keyslot-token-import", "[alias: --token-id]"),
    ] {
        let options = section(&pages[page], "OPTIONS").join("\n");
        assert!(options.contains(alias), "{page}: {options}");
    }
    // Where --force is about limits, it has the name that this has elsewhere.
    let check = section(&pages["keyslot-check"], "SYNOPSIS").join("\n");
    assert!(check.contains("[--ignore-limits]") && !check.contains("--force"), "{check}");
    let commands = section(&pages["keyslot"], "SYNOPSIS");
    let place = |name: &str| commands.iter().position(|line| line.contains(name)).unwrap();
    assert!(place("keyslot create ") < place("keyslot erase "), "{commands:?}");
}

#[test]
fn man_makes_its_directory() {
    let directory = tempfile::tempdir().unwrap();
    let man1 = directory.path().join("share/man1");
    keyslot(&["man", man1.to_str().unwrap()], 80);
    assert!(man1.join("keyslot-add.1").is_file());
}

/// What the example with jq in a page prints, run in this directory.
fn listed(page: &str, directory: &Path) -> String {
    let lines = section(page, "EXAMPLES");
    let from = lines.iter().position(|line| line.contains("--output json")).unwrap();
    let to = lines.iter().position(|line| line.contains("jq -r")).unwrap();
    let script = lines[from..=to].join("\n");
    let script = script.replacen("keyslot", env!("CARGO_BIN_EXE_keyslot"), 1);
    let output = run(Command::new("sh").args(["-c", &script]).current_dir(directory));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn examples_with_jq_list_what_they_say() {
    if peer("jq").is_none() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for (image, key) in [("opens.img", "old.key"), ("other.img", "other.key")] {
        fs::write(directory.path().join(key), image).unwrap();
        let new = format!("file:{key}");
        let create = ["create", "-q", "-f", "luks", "--iterations", "1000", "--new-secret", &new];
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
        command.args(create).args([image, "64K"]).current_dir(directory.path());
        assert!(run(&mut command).status.success());
    }
    fs::write(directory.path().join("text.img"), "not an image").unwrap();
    let pages = pages();
    assert_eq!(listed(&pages["keyslot-check"], directory.path()), "opens.img\n");
    assert_eq!(listed(&pages["keyslot"], directory.path()), "text.img\n");
}
