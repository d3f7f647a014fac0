//! The real qemu-img, and ours under its name, run with the same arguments on copies of the same
//! files. (Not in `support` itself: it needs the command, which can be left out of a build.)

#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use keyslot::amend::{Change, Request};
use keyslot::kdf::Cost;
use keyslot::{CreateOptions, Image, OpenOptions, Passphrase, Sharing};
use tempfile::TempDir;

use crate::support::{peer, run};

/// The secrets of [`image`]s, by number.
pub fn secret(number: usize) -> Passphrase {
    Passphrase::new(format!("hunter{number}").as_bytes()).unwrap()
}

/// The `--object`s that QEMU knows them by, as `sec0` and so on.
pub fn secret_objects(count: usize) -> Vec<String> {
    let object =
        |number| ["--object".to_owned(), format!("secret,id=sec{number},data=hunter{number}")];
    (0..count).flat_map(object).collect()
}

/// A small image that is opened in no time: keyslot `i` has secret `slots[i]`.
pub fn image(path: &Path, slots: &[usize]) {
    let cost = Cost::Iterations(1000);
    let options = CreateOptions::new().unwrap().cost(cost);
    options.create(path, 1 << 16, &secret(slots[0])).unwrap();
    let mut image = OpenOptions::new().sharing(Sharing::Amend).open(path).unwrap();
    let unlocked = image.unlock(&secret(slots[0])).unwrap();
    for &number in &slots[1..] {
        let change =
            Change::Add { keyslot: None, new_secret: Ok(secret(number)), pbkdf: cost.into() };
        let plan = image.plan(Request::one(change)).unwrap();
        image.amend(&plan, Some(&unlocked)).unwrap();
    }
}

/// Which keyslots a secret opens.
pub fn opened(image: &Path, secret: &Passphrase) -> Vec<usize> {
    let image = Image::open(image).unwrap();
    (0..8).filter(|&keyslot| image.opens(keyslot, secret).unwrap()).collect()
}

/// The two programs.
pub struct Pair {
    pub theirs: PathBuf,
    pub ours: PathBuf,
    _links: TempDir,
}

/// What came of running a program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// Exit status; `None` if a signal ended it
    pub status: Option<i32>,
    pub stdout: String,
    /// Without the program's name
    pub stderr: String,
}

impl Pair {
    /// `None`, and a line that says so, where there is no qemu-img.
    pub fn find() -> Option<Self> {
        let theirs = peer("qemu-img")?;
        let links = tempfile::tempdir().unwrap();
        let ours = links.path().join("qemu-img");
        symlink(env!("CARGO_BIN_EXE_keyslot"), &ours).unwrap();
        Some(Self { theirs, ours, _links: links })
    }
}

impl Outcome {
    /// Runs `program` in `directory`.
    pub fn of(program: &Path, arguments: &[impl AsRef<[u8]>], directory: &Path) -> Self {
        let mut command = Command::new(program);
        // Without the directory: QEMU prints what is here.
        command.arg0(program.file_name().unwrap());
        for argument in arguments {
            command.arg(std::ffi::OsStr::from_bytes(argument.as_ref()));
        }
        let output = run(command.current_dir(directory).env("LC_ALL", "C.UTF-8"));
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let stderr = text(&output.stderr);
        let name = program.file_name().unwrap().to_str().unwrap();
        let stderr = stderr.strip_prefix(&format!("{name}: ")).unwrap_or(&stderr).to_owned();
        Self { status: output.status.code(), stdout: text(&output.stdout), stderr }
    }
}

/// A new directory with a copy of `image` called `name`.
pub fn directory_with(image: &Path, name: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::copy(image, directory.path().join(name)).unwrap();
    directory
}

/// Judges every row, two at a time, and panics with all that were found wanting.
pub fn for_each<Row: Sync>(rows: &[Row], judge: impl Fn(&Row) -> Result<(), String> + Sync) {
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(failure) = judge(row) {
                failures.lock().unwrap().push(failure);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let failures = failures.into_inner().unwrap();
    let (count, of) = (failures.len(), rows.len());
    assert!(failures.is_empty(), "{count} of {of} differ:\n\n{}", failures.join("\n\n"));
}
