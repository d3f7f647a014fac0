//! What the integration tests share. Each of them is a crate of its own and uses only a part.
#![allow(dead_code, reason = "no test uses all of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

pub mod amending;
pub mod both_ways;
pub mod crash;
pub mod cryptsetup;
pub mod disk;
pub mod guest;
pub mod held_up;
pub mod locks;
pub mod luks2;
pub mod luks2_state;
pub mod memory;
pub mod opener;
pub mod parallel;
pub mod partition;
pub mod promise;
pub mod qcow2;
pub mod qcow2_check;
pub mod qemu;
pub mod restoring;
pub mod twice;
pub mod watched;

use std::env;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use keyslot::storage::Storage;
use keyslot::{Image, Limits, OpenOptions, Result, Sharing};

/// Where a program we are compared with is; `None` (and a line that says so) if it is not here.
///
/// With `KEYSLOT_REQUIRE_PEERS=1` its absence is a failure, so that no skipped test looks like a
/// passed one.
pub fn peer(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            env::var_os("KEYSLOT_REQUIRE_PEERS").is_none_or(|value| value != "1"),
            "{name} is not installed, and KEYSLOT_REQUIRE_PEERS=1"
        );
        eprintln!("SKIPPED: {name} is not installed");
    }
    found
}

/// Where the LUKS header and its areas are in an image, which may be qcow2, or in a partition of a disk.
pub fn luks_area(image: &[u8]) -> Range<usize> {
    partition::area(image).unwrap_or_else(|| qcow2::area(image))
}

/// An image on this storage, which is this test's alone, to be read and changed.
pub fn open_on(storage: impl Storage + 'static, limits: Limits) -> Result<Image> {
    OpenOptions::new().sharing(Sharing::Amend).limits(limits).open_storage(Arc::new(storage))
}

/// Runs it to its end, with nothing to read. Under the name qemu-img, keyslot does everything itself,
/// unless the test says which program it hands over to.
pub fn run(command: &mut Command) -> Output {
    if command.get_envs().all(|(name, _)| name != QEMU_IMG) {
        command.env(QEMU_IMG, "");
    }
    command.stdin(Stdio::null()).output().unwrap_or_else(|err| panic!("{command:?}: {err}"))
}

/// Runs it, which must succeed.
pub fn run_ok(command: &mut Command) -> Output {
    let output = run(command);
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, stderr(&output));
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A child that does not outlive its test.
#[derive(Debug)]
pub struct Running(Child);

impl Running {
    pub fn spawn(command: &mut Command) -> Self {
        Self(
            command.stdin(Stdio::null()).spawn().unwrap_or_else(|err| panic!("{command:?}: {err}")),
        )
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits until it has, which is a failure after 20 seconds.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("it has ended", || self.has_ended());
        self.0.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks again until it is so; after 20 seconds that is a failure.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "not within 20 seconds: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The variable with the path of the real qemu-img.
pub const QEMU_IMG: &str = "KEYSLOT_QEMU_IMG";

/// The passphrase of [`luks1_image`].
pub const PASSPHRASE: &str = "abc";

/// A LUKS1 image of 1 MiB made by `qemu-img`, which takes some seconds.
pub fn luks1_image(qemu_img: &Path, image: &Path) {
    run_ok(
        Command::new(qemu_img)
            .args(["create", "-q", "-f", "luks", "-o", "key-secret=s,iter-time=10"])
            .args(["--object", &secret_object()])
            .arg(image)
            .arg("1M"),
    );
}

/// The `--object` under which QEMU's programs know [`PASSPHRASE`] as `s`.
pub fn secret_object() -> String {
    format!("secret,id=s,data={PASSPHRASE}")
}
