//! Who may read a new file, which links lead to it, and what is said if it cannot be made.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene, is_there};
use support::luks2::Luks2;
use support::{peer, run, stderr};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_decrypted_file_is_for_no_more_people_than_the_image() {
    let scene = Scene::new();
    let script = "umask $1; shift; exec \"$@\"";
    for (of_image, umask, existing, expected) in [
        (0o600, "022", None, 0o600),
        (0o600, "000", None, 0o600),
        (0o640, "000", None, 0o640),
        (0o644, "000", None, 0o644),
        (0o644, "077", None, 0o600),
        (0o600, "022", Some(0o644), 0o600),
        (0o640, "022", Some(0o666), 0o640),
        (0o666, "077", Some(0o640), 0o640),
    ] {
        set_mode(&scene.image, of_image);
        let target = scene.dir.path().join("out.raw");
        let _ = fs::remove_file(&target);
        if let Some(mode) = existing {
            fs::write(&target, "old").unwrap();
            set_mode(&target, mode);
        }
        let convert = ["convert", "--force", "--secret", "env:OLD", "IMG"];
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", umask, KEYSLOT]).args(scene.args(&convert)).arg(&target);
        let output = run(command.envs(SECRETS));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mode(&target), expected, "{of_image:o} {umask} {existing:?}");
    }
}

#[test]
fn an_exported_token_is_its_owners_alone() {
    let scene = Scene::of(&Luks2::testdata("luks2_keyslots.img").bytes);
    let out = scene.file("token.json", b"old");
    set_mode(&out, 0o644);
    let export = ["token", "export", "--force", "--token", "4", "--json-file"];
    scene.done(&[&export[..], &[out.to_str().unwrap(), "IMG"]].concat());
    assert_eq!(mode(&out), 0o600);
    assert!(fs::read_to_string(&out).unwrap().starts_with('{'));
}

/// `fs.protected_symlinks` is the kernel's to enforce, so it is the kernel that follows a link.
#[test]
fn a_link_to_a_target_is_followed_by_the_kernel() {
    let Some(strace) = peer("strace") else { return };
    let scene = Scene::new();
    let link = scene.dir.path().join("a-link");
    symlink(&scene.image, &link).unwrap();
    let log = scene.dir.path().join("log");
    let mut command = Command::new(strace);
    command.args(["-f", "-e", "trace=openat,readlink,readlinkat", "-o"]).arg(&log).arg(KEYSLOT);
    command.args(["create", "--force", "-f", "luks", "--iterations", "1000", "--new-secret"]);
    let output = run(command.arg("env:NEW").arg(&link).arg("64K").envs(SECRETS));
    assert!(output.status.success(), "{output:?}");
    assert_eq!(scene.opened_by("NEW"), [0]);
    assert!(link.is_symlink());

    let log = fs::read_to_string(log).unwrap();
    let named = |line: &&str| line.contains("a-link\"") || line.contains("disk.img\"");
    let first = log.lines().find(named).unwrap();
    assert!(first.contains("a-link\", O_RDWR") && !first.contains("O_NOFOLLOW"), "{first}");
    assert!(!log.contains("disk.img\", O_RDWR"), "{log}");
}

/// As somebody else's link in a directory for everybody: refused where the kernel protects links.
#[test]
fn a_protected_link_is_refused() {
    let protects = fs::read_to_string("/proc/sys/fs/protected_symlinks");
    if protects.is_ok_and(|text| text.trim() != "1") {
        eprintln!("SKIPPED: fs.protected_symlinks is not 1");
        return;
    }
    let scene = Scene::new();
    let shared = scene.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    set_mode(&shared, 0o1777);
    let link = shared.join("link");
    symlink(&scene.image, &link).unwrap();
    if std::os::unix::fs::lchown(&link, Some(65534), None).is_err() {
        eprintln!("SKIPPED: not root");
        return;
    }
    let create = ["create", "--force", "-f", "luks", "--new-secret", "env:NEW"];
    let args = [&create[..], &[link.to_str().unwrap(), "64K"]].concat();
    scene.command_refused(&mut scene.command(&args), 1, &["Permission denied"]);
}

/// Each sync in its turn fails: there is no image, and the error speaks of none.
#[test]
fn a_failed_create_speaks_of_no_image() {
    let Some(strace) = peer("strace") else { return };
    let scene = Scene::without_image();
    let mut failures = 0;
    for format in ["luks", "luks2"] {
        for call in 1.. {
            let mut command = Command::new(&strace);
            let inject = format!("inject=fdatasync:error=EIO:when={call}");
            command.args([
                "-f",
                "-e",
                "trace=fdatasync",
                "-e",
                &inject,
                "-o",
                "/dev/null",
                KEYSLOT,
            ]);
            command.args(["create", "-f", format, "--pbkdf", "pbkdf2", "--iterations", "1000"]);
            command.args(["--new-secret", "env:NEW"]).arg(&scene.image).arg("64K");
            let output = run(command.envs(SECRETS));
            if output.status.success() {
                break;
            }
            failures += 1;
            let text = stderr(&output);
            assert!(text.contains("Input/output error"), "{text}");
            assert!(text.contains("no image was created"), "{text}");
            for word in ["nothing has changed", "opens", "keyslot 0", "still"] {
                assert!(!text.contains(word), "{text}");
            }
            assert!(!is_there(&scene.image));
        }
        fs::remove_file(&scene.image).unwrap();
    }
    assert!(failures > 2, "{failures}");
}
