//! A directory with a raw image and a LUKS image of the same contents, and `keyslot convert` in it.
//! Contents are written and read here without `convert`, by the library's header and cipher alone.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keyslot::crypto::CipherSpec;
use keyslot::kdf::Cost;
use keyslot::{CreateOptions, Image};
use serde_json::Value;
use tempfile::TempDir;

use crate::command::{KEYSLOT, SECRETS, assert_no_secret, assert_refusal, passphrase};
use crate::support::amending::directory;

/// A new LUKS1 target that `NEW` opens, in no time.
pub const TO_LUKS: &str = "-O luks --new-secret env:NEW --iterations 1000";
/// The LUKS image of a [`Desk`] as the source.
pub const FROM_LUKS: &str = "-f luks --secret env:OLD disk.luks";
/// The secret objects `old` and `new` for QEMU's forms.
pub const OBJECTS: &str =
    "--object secret,id=old,data=xyzzy-zero --object secret,id=new,data=xyzzy-one";

/// A directory with `plain.raw`, and `disk.luks` of the same contents that `OLD` opens.
pub struct Desk {
    pub dir: TempDir,
    pub plain: Vec<u8>,
}

impl Desk {
    pub fn new() -> Self {
        let mut plain = noise(192 * 1024 + 512);
        plain[64 * 1024..128 * 1024].fill(0);
        Self::with(plain)
    }

    /// The same with these contents, a whole number of sectors.
    pub fn with(plain: Vec<u8>) -> Self {
        let desk = Self { dir: directory(), plain };
        fs::write(desk.path("plain.raw"), &desk.plain).unwrap();
        luks(&desk.path("disk.luks"), &aes_256_xts(), "OLD", &desk.plain);
        desk
    }

    /// Another one, of files that were made before.
    pub fn of(plain: Vec<u8>, luks: &[u8]) -> Self {
        let desk = Self { dir: directory(), plain };
        fs::write(desk.path("plain.raw"), &desk.plain).unwrap();
        fs::write(desk.path("disk.luks"), luks).unwrap();
        desk
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// `convert` with these words as its arguments, to be run in the directory.
    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(KEYSLOT);
        command.arg("convert").args(words.split_whitespace()).envs(SECRETS);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command
    }

    /// Runs it, which must succeed and have nothing to complain of, and says what it printed.
    #[track_caller]
    pub fn done(&self, words: &str) -> String {
        let output = self.command(words).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
        assert_no_secret(&output);
        assert!(output.stderr.is_empty(), "{words}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// The same with `--output json`.
    #[track_caller]
    pub fn json(&self, words: &str) -> Value {
        let text = self.done(&format!("{words} --output json"));
        serde_json::from_str(&text).unwrap_or_else(|err| panic!("{words}: {err}: {text}"))
    }

    /// Runs it, which must fail in one line with all of `parts`, and leave the directory as it is.
    #[track_caller]
    pub fn refused(&self, words: &str, status: i32, parts: &[&str]) -> String {
        self.refused_with(words, &[status], parts)
    }

    /// The same where more than one status is as good.
    #[track_caller]
    pub fn refused_with(&self, words: &str, statuses: &[i32], parts: &[&str]) -> String {
        let before = self.files();
        let output = self.command(words).output().unwrap();
        let status = output.status.code().filter(|status| statuses.contains(status));
        let text = assert_refusal(&output, status.unwrap_or(statuses[0]), parts, words);
        assert!(self.files() == before, "{words}: the directory has changed: {text}");
        text
    }

    /// Everything in the directory: inode and contents by name.
    pub fn files(&self) -> BTreeMap<String, (u64, Vec<u8>)> {
        let file = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            let metadata = fs::symlink_metadata(entry.path()).unwrap();
            let bytes = if metadata.is_file() { fs::read(entry.path()).unwrap() } else { vec![] };
            (name, (metadata.ino(), bytes))
        };
        fs::read_dir(self.dir.path()).unwrap().map(|entry| file(entry.unwrap())).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap()
    }

    #[track_caller]
    pub fn assert_plain(&self, name: &str) {
        assert!(self.bytes(name) == padded(&self.plain), "{name} is another image");
    }

    /// That it is a LUKS image of the contents.
    #[track_caller]
    pub fn assert_luks(&self, name: &str, secret: &str) {
        let payload = payload(&self.path(name), secret);
        assert!(payload.as_deref() == Some(&padded(&self.plain)), "{name} is another image");
    }
}

pub fn aes_256_xts() -> CipherSpec {
    CipherSpec::parse("aes", "xts-plain64", 64).unwrap()
}

/// Makes a LUKS image that opens with the secret of this variable.
pub fn luks(image: &Path, cipher: &CipherSpec, secret: &str, plain: &[u8]) {
    let secret = passphrase(secret);
    let options = CreateOptions::new().unwrap().cipher(cipher.clone());
    let options = options.cost(Cost::Iterations(1000)).overwrite(true);
    options.create(image, plain.len() as u64, &secret).unwrap();

    let opened = Image::open(image).unwrap();
    let unlocked = opened.unlock(&secret).unwrap();
    let mut payload = padded(plain);
    let key = unlocked.volume_key().as_bytes();
    cipher.sector_cipher(key).unwrap().encrypt(0, &mut payload);
    let file = fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&payload, opened.header().payload_offset()).unwrap();
}

/// What is in a LUKS image, decrypted; `None` if it is none, or does not open with the secret.
pub fn payload(image: &Path, secret: &str) -> Option<Vec<u8>> {
    let opened = Image::open(image).ok()?;
    let unlocked = opened.unlock(&passphrase(secret)).ok()?;
    let start = usize::try_from(opened.header().payload_offset()).unwrap();
    let mut payload = fs::read(image).unwrap().get(start..)?.to_vec();
    assert!(payload.len().is_multiple_of(512), "{} bytes of payload", payload.len());
    let cipher = opened.header().cipher().unwrap().sector_cipher(unlocked.volume_key().as_bytes());
    cipher.unwrap().decrypt(0, &mut payload);
    Some(payload)
}

/// The key of a volume, to see whether it is another one.
pub fn volume_key(image: &Path, secret: &str) -> Vec<u8> {
    let unlocked = Image::open(image).unwrap().unlock(&passphrase(secret)).unwrap();
    unlocked.volume_key().as_bytes().to_vec()
}

/// With zeros up to a whole sector.
pub fn padded(plain: &[u8]) -> Vec<u8> {
    let mut padded = plain.to_vec();
    padded.resize(plain.len().next_multiple_of(512), 0);
    padded
}

/// Bytes of which none is zero, and that no cipher or compressor makes out of others.
pub fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3] | 1
    };
    (0..len).map(|_| next()).collect()
}

/// What a file takes on the disk.
pub fn allocated(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}
