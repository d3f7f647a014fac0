//! Whatever a file's name or a header has in it, no command prints what a terminal obeys.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;

use command::Scene;
use serde_json::{Deserializer, Value, json};
use support::luks2::{Change, Luks2};

/// A title, red, a forged line, the same by C1 controls, and text turned around.
const HOSTILE: &str = "\u{1b}]0;PWNED\u{7}\u{1b}[31mRED\nforged: line\u{9b}31m\u{202e}\u{7f}\r";
/// A file's name with the same
const NAME: &str = "a\u{1b}[2J\nkeyslot: all is well\u{9b}31m\u{202e}.img";

/// An image whose header has hostile strings wherever it may have any.
fn hostile() -> Scene {
    let changes = vec![
        ("/config/flags", json!([HOSTILE])),
        ("/tokens/4", json!({ "type": HOSTILE, "keyslots": ["0"], HOSTILE: HOSTILE })),
    ];
    let mut scene =
        Scene::of(&Luks2::testdata("luks2_keyslots.img").with(&Change::Set(changes)).bytes);
    let path = scene.dir.path().join(NAME);
    fs::rename(&scene.image, &path).unwrap();
    scene.image = path;
    scene
}

const COMMANDS: [&str; 16] = [
    "info IMG",
    "info --metadata IMG",
    "info --secret env:WRONG IMG",
    "check IMG",
    "check --secret env:WRONG IMG",
    "token list IMG",
    "token export --token 4 IMG",
    "uuid IMG",
    "repair IMG",
    "erase --keyslot 3 --dry-run IMG",
    "erase --keyslot 9 IMG",
    "header backup IMG HDR",
    "header restore --dry-run HDR IMG",
    "convert --secret file:hunter IMG -O raw OUT",
    "create -f luks --iterations 1000 --new-secret env:NEW OUT2 64K",
    "info NAME",
];

fn run(scene: &Scene, words: &str, more: &[&str]) -> (String, String) {
    let named = |word: &str| match word {
        "HDR" | "OUT" | "OUT2" => format!("{word}{NAME}"),
        "NAME" => format!("missing{NAME}"),
        word => word.to_owned(),
    };
    let words: Vec<_> = words.split(' ').map(named).collect();
    let args: Vec<_> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let output = scene.command(&args).current_dir(scene.dir.path()).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn assert_tame(text: &str, what: &str) {
    let is_obeyed =
        |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
    assert!(!text.contains(is_obeyed), "{what}: {text:?}");
    for line in text.lines() {
        let line = line.trim_start();
        assert!(!line.starts_with("forged:") && !line.starts_with("keyslot: all is"), "{text}");
    }
}

#[test]
fn no_command_prints_what_a_terminal_obeys() {
    let scene = hostile();
    scene.file("hunter", b"hunter0");
    for words in COMMANDS {
        let (stdout, stderr) = run(&scene, words, &[]);
        assert!(!stdout.is_empty() || !stderr.is_empty(), "{words}");
        assert_tame(&stdout, words);
        assert_tame(&stderr, words);
    }
}

#[test]
fn json_stays_json_and_says_all_of_it() {
    let scene = hostile();
    scene.file("hunter", b"hunter0");
    for words in COMMANDS {
        let more: &[&str] = match words {
            words if words.contains("--metadata") || words.contains("export") => &[],
            _ => &["--output", "json"],
        };
        let (stdout, _) = run(&scene, words, more);
        assert_tame(&stdout, words);
        let documents = Deserializer::from_str(&stdout).into_iter::<Value>();
        let documents: Vec<_> = documents.collect::<Result<_, _>>().unwrap();
        assert_eq!(documents.len(), 1, "{words}: {stdout}");
        if words.contains("export") {
            assert_eq!(
                (&documents[0]["type"], &documents[0][HOSTILE]),
                (&json!(HOSTILE), &json!(HOSTILE))
            );
        } else if words.contains("--metadata") {
            assert_eq!(documents[0]["config"]["flags"], json!([HOSTILE]));
        } else {
            assert!(documents[0]["filename"].as_str().unwrap().ends_with(NAME), "{stdout}");
        }
    }
}
