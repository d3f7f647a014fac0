//! No thread or no memory left: the work is done by the thread that is there, or refused in one line.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/session.rs"]
mod session;
mod support;

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene, assert_refusal};
use serde_json::json;
use session::Session;
use support::luks2::{Change, Luks2};
use support::{peer, run};

/// Of an ordinary user who may have one process with one thread.
struct Alone {
    scene: Scene,
    prefix: Vec<OsString>,
}

impl Alone {
    /// None if there is nothing to limit it with.
    fn new() -> Option<Self> {
        let mut prefix: Vec<OsString> = Vec::new();
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            // Root has no such limit.
            let setpriv = peer("setpriv")?;
            prefix.extend([setpriv.into(), "--reuid=65534".into(), "--clear-groups".into()]);
        }
        prefix.extend([peer("prlimit")?.into(), "--nproc=1".into()]);
        let scene = Scene::without_image();
        fs::set_permissions(scene.dir.path(), Permissions::from_mode(0o777)).unwrap();
        fs::copy(KEYSLOT, scene.dir.path().join("keyslot")).unwrap();
        let alone = Self { scene, prefix };
        let forks = alone.command(&["/bin/sh".into(), "-c".into(), "/bin/true; :".into()]);
        assert!(!run(&mut { forks }).status.success(), "it could start another process");
        Some(alone)
    }

    fn command(&self, command: &[OsString]) -> Command {
        let mut limited = Command::new(&self.prefix[0]);
        limited.args(&self.prefix[1..]).args(command).envs(SECRETS);
        limited
    }

    /// keyslot with these arguments, and `IMG` for the image.
    fn keyslot(&self, args: &[&str]) -> Vec<OsString> {
        let mut command = vec![self.scene.dir.path().join("keyslot").into()];
        command.extend(self.scene.args(args));
        command
    }

    #[track_caller]
    fn done(&self, args: &[&str]) -> String {
        let output = run(&mut self.command(&self.keyslot(args)));
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

const ARGON2: [&str; 4] =
    ["--pbkdf=argon2id", "--iterations=4", "--pbkdf-memory=8192", "--pbkdf-parallel=2"];

#[test]
fn without_threads_everything_is_done_by_one() {
    let Some(alone) = Alone::new() else { return };
    let create = ["create", "-f", "luks2", "--new-secret=env:OLD"];
    alone.done(&[&create[..], &ARGON2, &["IMG", "4M"]].concat());
    let pbkdf2 = ["--pbkdf=pbkdf2", "--iterations=1000"];
    let adds = [("env:NEW", &ARGON2[..]), ("env:OTHER", &pbkdf2), ("env:OTHER", &pbkdf2)];
    for (secret, pbkdf) in adds {
        let add = ["add", "--secret=env:OLD", "--new-secret", secret, "--force"];
        alone.done(&[&add[..], pbkdf, &["IMG"]].concat());
    }
    for secret in ["env:OLD", "env:NEW", "env:OTHER"] {
        assert!(alone.done(&["check", "--secret", secret, "IMG"]).contains("opens"));
    }
    alone.done(&["info", "--estimate", "IMG"]);
    let plain = alone.scene.dir.path().join("plain.img").into_os_string().into_string().unwrap();
    alone.done(&["convert", "--secret=env:OLD", "-O", "raw", "IMG", &plain]);
    assert_eq!(fs::metadata(plain).unwrap().len(), 4 << 20);
}

/// A terminal is where a spinner would have a thread.
#[test]
fn without_threads_a_spinner_stands_still() {
    let Some(alone) = Alone::new() else { return };
    let create = ["create", "-f", "luks2", "--new-secret=env:OLD"];
    alone.done(&[&create[..], &ARGON2, &["IMG", "1M"]].concat());
    let mut command = alone.prefix.clone();
    command.extend(alone.keyslot(&["check", "--secret=env:OLD", "IMG"]));
    let Some(session) = Session::of_command(&command, &json!([])) else { return };
    assert_eq!(session.status, 0, "{session:?}");
    assert!(session.text.contains("opens"), "{session:?}");
}

/// The keyslot is within the limits, but its memory cannot be had.
#[test]
fn without_memory_for_argon2_the_exit_status_is_3() {
    let Some(prlimit) = peer("prlimit") else { return };
    let mut image = Luks2::testdata("luks2_argon2id.img");
    image = image.with(&Change::Set(vec![("/keyslots/0/kdf/memory", (1 << 20).into())]));
    let scene = Scene::of(&image.bytes);
    let text = "cannot allocate the 1048576 KiB that Argon2 needs";
    for args in [
        &["check", "--secret=env:OLD", "IMG"][..],
        &["erase", "--old-secret=env:OLD", "IMG"],
        &["add", "--secret=env:OLD", "--new-secret=env:NEW", "IMG"],
        &["convert", "--secret=env:OLD", "-O", "raw", "IMG", "/dev/null"],
    ] {
        let mut command = Command::new(&prlimit);
        command.args(["--as=400000000", KEYSLOT]).args(scene.args(args)).envs(SECRETS);
        let output = run(&mut command);
        assert_refusal(&output, 3, &[text, scene.image.to_str().unwrap()], &format!("{args:?}"));
    }
    let scene = Scene::new();
    let new = ["create", "-f", "luks2", "--new-secret=env:NEW", "--iterations=4"];
    let mut command = Command::new(&prlimit);
    command.args(["--as=400000000", KEYSLOT]).args(new);
    let target = scene.dir.path().join("new.img");
    let output = run(command.arg("--pbkdf-memory=1048576").arg(&target).arg("1M").envs(SECRETS));
    assert_refusal(&output, 3, &[text], "create");
    assert!(!target.exists());
}

/// Wherever memory runs out, what is as large as key material is asked for first. (A few bytes more or less
/// cannot be.)
#[test]
fn no_memory_for_key_material_or_a_buffer_does_not_abort() {
    let Some(prlimit) = peer("prlimit") else { return };
    let scene = Scene::new();
    let (before, target) = (scene.bytes(), scene.dir.path().join("target"));
    let mut refused = 0;
    for args in [
        &["add", "--secret=env:OLD", "--new-secret=env:NEW", "--iterations=1000", "IMG"][..],
        &["erase", "--keyslot=0", "--force", "IMG"],
        &["convert", "--secret=env:OLD", "-O", "raw", "--force", "IMG", target.to_str().unwrap()],
    ] {
        let limited = |limit: usize, args: &[OsString]| {
            let mut command = Command::new(&prlimit);
            command.arg(format!("--as={limit}")).arg(KEYSLOT).args(args).envs(SECRETS);
            // A thread that would print a backtrace, and has no memory for that, hangs.
            run(command.env_remove("RUST_BACKTRACE"))
        };
        let step = 128 << 10;
        let mut limits = (1..).map(|steps| steps * step);
        let least = limits.find(|&limit| limited(limit, &["--version".into()]).status.success());
        for limit in (least.unwrap()..).step_by(step).take(40) {
            let output = limited(limit, &scene.args(args));
            let text = String::from_utf8(output.stderr).unwrap();
            let aborted = text.split("memory allocation of ").nth(1);
            let size = aborted.map_or(0, |it| it.split(' ').next().unwrap().parse().unwrap());
            assert!(size < 100_000, "{args:?} with {limit} bytes: {text}");
            refused += usize::from(output.status.code() == Some(3));
            fs::write(&scene.image, &before).unwrap();
        }
    }
    assert!(refused > 3, "{refused}");
}
