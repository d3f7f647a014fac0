//! The command at work on one image in a directory of its own.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

use super::support::luks2::Luks2;
use super::support::{run, stderr};

pub struct Desk {
    /// Where it is
    pub directory: TempDir,
    /// Under this name
    pub program: PathBuf,
}

impl Desk {
    /// With `image` in it, and secrets in the environment.
    pub fn new(image: &Luks2) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("image"), &image.bytes).unwrap();
        Self { directory, program: KEYSLOT.into() }
    }

    pub fn output(&self, words: &str) -> Output {
        let mut command = Command::new(&self.program);
        command.args(words.split_whitespace()).current_dir(self.directory.path());
        run(command.env("S0", "hunter0").env("S3", "hunter3").env("S7", "hunter7"))
    }

    pub fn done(&self, words: &str) -> String {
        let output = self.output(words);
        assert!(output.status.success(), "{words}: {}", stderr(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn refused(&self, words: &str, status: i32, text: &str) {
        let before = self.image();
        let output = self.output(words);
        assert_eq!(output.status.code(), Some(status), "{words}");
        assert_eq!(stderr(&output), text, "{words}");
        assert!(self.image() == before, "{words}");
    }

    pub fn image(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }

    pub fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }
}

const KEYSLOT: &str = env!("CARGO_BIN_EXE_keyslot");
