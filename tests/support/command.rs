//! The command as a process: images for it, its arguments, and what a refusal looks like.
#![allow(dead_code, reason = "no test uses all of it")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use keyslot::kdf::Cost;
use keyslot::{CreateOptions, Image, Passphrase};
use serde_json::Value;
use tempfile::TempDir;

pub const KEYSLOT: &str = env!("CARGO_BIN_EXE_keyslot");

/// What opens an image, its keyslots, and what is to open it: by the variables they are given in.
pub const SECRETS: [(&str, &str); 4] =
    [("OLD", "xyzzy-zero"), ("NEW", "xyzzy-one"), ("OTHER", "xyzzy-two"), ("WRONG", "xyzzy-three")];

/// A directory of its own for each test, with an image that [`SECRETS`]' `OLD` opens.
pub struct Scene {
    pub dir: TempDir,
    pub image: PathBuf,
}

impl Scene {
    /// An image with `OLD` in keyslot 0, and all others blank.
    pub fn new() -> Self {
        static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
        let scene = Self::without_image();
        let bytes = BYTES.get_or_init(|| {
            CreateOptions::new()
                .unwrap()
                .cost(Cost::Iterations(1000))
                .create(&scene.image, 64 * 1024, &passphrase("OLD"))
                .unwrap();
            fs::read(&scene.image).unwrap()
        });
        fs::write(&scene.image, bytes).unwrap();
        scene
    }

    pub fn without_image() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.img");
        Self { dir, image }
    }

    /// The same with `bytes` at `offset`.
    pub fn patched(offset: usize, bytes: &[u8]) -> Self {
        let scene = Self::new();
        let mut image = scene.bytes();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        fs::write(&scene.image, image).unwrap();
        scene
    }

    /// With an image of these bytes.
    pub fn of(image: &[u8]) -> Self {
        let scene = Self::without_image();
        fs::write(&scene.image, image).unwrap();
        scene
    }

    /// A backup of its header, made now, in a file of this name.
    pub fn backup(&self, name: &str) -> String {
        let file = self.dir.path().join(name).to_str().unwrap().to_owned();
        self.done(&["header", "backup", "-q", "IMG", &file]);
        file
    }

    /// Restores a header by force, which must succeed, and says what is warned of.
    #[track_caller]
    pub fn restore(&self, file: &str) -> String {
        let restore = ["header", "restore", "--force", file, "IMG"];
        let output = self.command(&restore).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }

    /// Adds a secret to it.
    pub fn and(self, secret: &str, keyslot: usize) -> Self {
        let source = format!("env:{secret}");
        let keyslot = keyslot.to_string();
        let output = self
            .command(&["add", "-q", "--secret", "env:OLD", "--new-secret", &source])
            .args(["--iterations", "1000", "--keyslot", &keyslot])
            .arg(&self.image)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.image).unwrap()
    }

    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// keyslot with these arguments, `IMG` among them for the image.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(KEYSLOT);
        command.args(self.args(args)).envs(SECRETS).stdin(Stdio::null());
        command
    }

    pub fn args(&self, args: &[&str]) -> Vec<OsString> {
        let image = self.image.as_os_str();
        args.iter().map(|&arg| if arg == "IMG" { image.into() } else { arg.into() }).collect()
    }

    /// Runs it, which must succeed, and says what it printed.
    #[track_caller]
    pub fn done(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert_no_secret(&output);
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--output json`.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.done(&[args, &["--output", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{args:?}: {err}: {text}"))
    }

    /// Runs it, which must fail with `status`, leave the image as it is, and name it and `parts`.
    /// What it says comes back.
    #[track_caller]
    pub fn refused(&self, args: &[&str], status: i32, parts: &[&str]) -> String {
        let image = self.image.to_str().unwrap();
        self.command_refused(&mut self.command(args), status, &[&[image], parts].concat())
    }

    /// The same for a command that was made otherwise; the image's name is not looked for.
    #[track_caller]
    pub fn command_refused(&self, command: &mut Command, status: i32, parts: &[&str]) -> String {
        let bytes = || fs::metadata(&self.image).is_ok_and(|it| it.is_file()).then(|| self.bytes());
        let before = bytes();
        let output = command.output().unwrap_or_else(|err| panic!("{command:?}: {err}"));
        let text = assert_refusal(&output, status, parts, &format!("{command:?}"));
        assert!(bytes() == before, "the image has changed: {text}");
        text
    }

    /// The keyslots that a secret opens, by the library.
    pub fn opened_by(&self, secret: &str) -> Vec<usize> {
        let image = Image::open(&self.image).unwrap();
        let passphrase = passphrase(secret);
        (0..8).filter(|&keyslot| image.opens(keyslot, &passphrase).unwrap()).collect()
    }
}

/// The secret of this variable.
pub fn passphrase(name: &str) -> Passphrase {
    let (_, secret) = SECRETS.iter().find(|(it, _)| *it == name).unwrap();
    Passphrase::new(secret.as_bytes()).unwrap()
}

/// `keyslot: ` and one line with all of `parts`, at most one hint, and nothing else at all.
#[track_caller]
pub fn assert_refusal(output: &Output, status: i32, parts: &[&str], what: &str) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{what}: {text}");
    assert_no_secret(output);
    assert!(!text.contains("panicked"), "{text}");
    assert!(text.ends_with('\n') && !text.contains('\r'), "{text:?}");

    let mut lines = text.lines();
    let line = lines.next().unwrap_or_default();
    assert!(line.starts_with("keyslot: "), "{text}");
    assert!(lines.next().is_none_or(|hint| hint.starts_with("hint: ")), "{text}");
    assert_eq!(lines.next(), None, "{text}");
    for part in parts {
        assert!(text.contains(part), "no {part:?} in: {text} of {what}");
    }
    assert!(output.stdout.is_empty(), "{output:?}");
    text
}

/// No secret is in what was printed.
#[track_caller]
pub fn assert_no_secret(output: &Output) {
    for bytes in [&output.stdout, &output.stderr] {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains("xyzzy"), "a secret is printed: {text}");
    }
}

/// Where `path` is, if it is here: `Path::exists` that follows nothing.
pub fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
