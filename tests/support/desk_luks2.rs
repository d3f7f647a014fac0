//! The command on a copy of `testdata/luks2_keyslots.img`: keyslots 0, 3 (to be ignored, argon2i), 5
//! (preferred) and 7 (unbound) open with `hunter` and their number, which the variables `S0`, `S3`...
//! have; there are more of these. (Not in `support` itself: it needs the command.)
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use keyslot::{Image, Passphrase};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::luks2::{Change, Luks2};
use crate::support::luks2_state::State;
use crate::support::{run, stderr};

pub const KEYSLOT: &str = env!("CARGO_BIN_EXE_keyslot");
/// Options of a cheap KDF
pub const PBKDF2: &str = "--pbkdf pbkdf2 --iterations 1000";
pub const ARGON2: &str = "--pbkdf argon2id --iterations 4 --pbkdf-memory 32 --pbkdf-parallel 1";

pub struct Desk {
    pub directory: TempDir,
}

impl Desk {
    pub fn new(image: &Luks2) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let desk = Self { directory };
        fs::write(desk.path(), &image.bytes).unwrap();
        desk
    }

    /// With no room for another keyslot.
    pub fn full() -> Self {
        Self::new(&Luks2::testdata("luks2_keyslots.img"))
    }

    /// With room for 48 more.
    pub fn roomy() -> Self {
        Self::new(&roomy())
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub fn image(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    pub fn state(&self) -> State {
        State::of(&self.path())
    }

    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(KEYSLOT);
        command.args(words.split_whitespace()).current_dir(self.directory.path());
        for number in 0..32 {
            command.env(format!("S{number}"), format!("hunter{number}"));
        }
        command.stdin(Stdio::null());
        command
    }

    pub fn output(&self, words: &str) -> Output {
        run(&mut self.command(words))
    }

    /// What it prints.
    #[track_caller]
    pub fn done(&self, words: &str) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words}: {}", stderr(&output));
        // That tokens go with their last keyslot is said, and `State` knows it.
        let said = stderr(&output);
        let is_token = |line: &&str| {
            line.starts_with("warning: image: token ") && line.ends_with(" is removed")
        };
        let others: Vec<_> = said.lines().filter(|line| !is_token(line)).collect();
        assert!(others.is_empty(), "{words}: {said}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[track_caller]
    pub fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.done(&format!("{words} --output json"))).unwrap()
    }

    /// It ends with `status`, says `text` behind the image's name, and the image stays as it is.
    #[track_caller]
    pub fn refused(&self, words: &str, status: i32, text: &str) {
        let before = self.image();
        let output = self.output(words);
        assert_eq!(stderr(&output), format!("keyslot: image: {text}\n"), "{words}");
        assert_eq!(output.status.code(), Some(status), "{words}");
        assert!(output.stdout.is_empty() && self.image() == before, "{words}");
    }

    /// The keyslots that a secret opens, by its number.
    pub fn opened_by(&self, secret: usize) -> Vec<usize> {
        let image = Image::open(self.path()).unwrap();
        (0..32).filter(|&keyslot| image.opens(keyslot, &passphrase(secret)).unwrap()).collect()
    }

    /// The keyslots that there are.
    pub fn keyslots(&self) -> Vec<usize> {
        let image = Image::open(self.path()).unwrap();
        image.keyslots().map(|it| it.index).collect()
    }
}

pub fn passphrase(secret: usize) -> Passphrase {
    Passphrase::new(format!("hunter{secret}").as_bytes()).unwrap()
}

/// The image with 3 MiB between the areas of its keyslots and its payload.
pub fn roomy() -> Luks2 {
    const MORE: usize = 3 << 20;
    let mut image = Luks2::testdata("luks2_keyslots.img").with(&Change::Set(vec![
        ("/config/keyslots_size", json!((327_680 + MORE).to_string())),
        ("/segments/0/offset", json!((360_448 + MORE).to_string())),
    ]));
    image.bytes.splice(360_448..360_448, vec![0; MORE]);
    image
}
