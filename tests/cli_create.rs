//! `keyslot create` never harms what is there: an existing file is replaced only if that is said,
//! and only by an image that is complete.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene};
use support::{peer, run};

#[test]
fn create_replaces_only_what_it_may() {
    let scene = Scene::new();
    let (create, force) = (CREATE, [CREATE, &["--force"]].concat());
    scene.refused(create, 1, &["the file exists", "hint: use --overwrite to replace it"]);
    let inode = |scene: &Scene| fs::metadata(&scene.image).unwrap().ino();
    let before = inode(&scene);
    let mut old = File::open(&scene.image).unwrap();
    let old_bytes = scene.bytes();
    scene.done(&force);
    assert_ne!(inode(&scene), before, "it is another file, put in its place when it was complete");
    let mut read = Vec::new();
    old.read_to_end(&mut read).unwrap();
    assert!(read == old_bytes);
    assert_eq!((scene.opened_by("OLD"), scene.opened_by("NEW")), (vec![], vec![0]));

    let mut scene = Scene::without_image();
    scene.image = scene.dir.path().join("nowhere/disk.img");
    scene.refused(create, 1, &["No such file or directory"]);
    scene.image = scene.dir.path().to_path_buf();
    scene.refused(create, 1, &["the file exists"]);
    scene.refused(&force, 1, &["not a regular file"]);
    scene.image = "/dev/null".into();
    scene.refused(&force, 1, &["not a regular file"]);
    let leftovers: Vec<_> = fs::read_dir(scene.dir.path()).unwrap().collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");

    // A link to nowhere is not a name for a new file.
    scene.image = scene.dir.path().join("link.img");
    symlink("elsewhere.img", &scene.image).unwrap();
    scene.refused(create, 1, &["exists"]);
    assert!(fs::symlink_metadata(&scene.image).unwrap().is_symlink());
}

#[test]
fn a_full_disk_leaves_what_was_there() {
    let Some(full) = FullDisk::mount() else { return };
    let scene = Scene { image: full.0.path().join("disk.img"), ..Scene::without_image() };
    let files = || fs::read_dir(full.0.path()).unwrap().count();
    for preallocation in ["preallocation=off", "preallocation=falloc", "preallocation=full"] {
        let create = [CREATE, &["-o", preallocation]].concat();
        // A sparse one fits, if there is no other.
        if preallocation != "preallocation=off" {
            scene.refused(&create, 1, &["No space left on device"]);
            assert_eq!(files(), 0, "{preallocation}");
        }

        fs::write(&scene.image, Scene::new().bytes().split_at(SMALL).0).unwrap();
        let force = [&create[..], &["--force"]].concat();
        scene.refused(&force, 1, &["No space left on device"]);
        assert_eq!(files(), 1, "{preallocation}");
        fs::remove_file(&scene.image).unwrap();
    }

    // A hole in the image has no space for the key material.
    let image = Scene::new().bytes();
    fs::write(&scene.image, &image[..SMALL]).unwrap();
    File::options().write(true).open(&scene.image).unwrap().set_len(image.len() as u64).unwrap();
    let filler = vec![1; 4096];
    let mut rest = File::create(full.0.path().join("filler")).unwrap();
    while rest.write_all(&filler).is_ok() {}
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations=1000"];
    let add = [&add[..], &["--keyslot", "5", "IMG"]].concat();
    let parts = ["No space left on device", "256000 bytes", "nothing has changed"];
    scene.refused(&add, 1, &parts);
    assert_eq!((scene.opened_by("OLD"), scene.opened_by("NEW")), (vec![0], vec![]));
}

#[test]
fn every_failing_call_leaves_what_was_there() {
    let Some(strace) = peer("strace") else { return };
    let rename = "rename,renameat,renameat2:error=EIO";
    let calls = ["pwrite64:error=ENOSPC", "fdatasync:error=EIO", "fsync:error=EIO", rename];
    for (format, call) in ["luks", "luks2"].iter().flat_map(|it| calls.map(|call| (it, call))) {
        let create =
            [&["create", "-f", format, "--pbkdf", "pbkdf2", "--force"], &CREATE[3..]].concat();
        for when in 1.. {
            let scene = Scene::new();
            let before = scene.bytes();
            let name = call.split(':').next().unwrap();
            let mut command = Command::new(&strace);
            command.args([
                "-f",
                "-o",
                "/dev/null",
                "-e",
                &format!("trace={name},renameat,renameat2"),
            ]);
            command.args(["-e", &format!("inject={call}:when={when}")]).arg(KEYSLOT);
            let output = run(command.args(scene.args(&create)).envs(SECRETS));
            let files = fs::read_dir(scene.dir.path()).unwrap().count();
            assert_eq!(files, 1, "{call} {when}: a file is left over");
            if output.status.success() {
                assert_eq!(scene.opened_by("NEW"), [0]);
                eprintln!("{format}, {call}: {} calls", when - 1);
                assert!(when > 1, "{call} is never called");
                break;
            }
            command::assert_refusal(&output, 1, &[scene.image.to_str().unwrap()], call);
            // The sync of the directory comes when the new file has its name already.
            let is_old = scene.bytes() == before;
            assert!(is_old || scene.opened_by("NEW") == [0], "{call} {when}");
            assert!(is_old || name == "fsync", "{call} {when}");
        }
    }
}

/// A file system with next to no room.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn mount() -> Option<Self> {
        let mount = peer("mount")?;
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(mount);
        command.args(["-t", "tmpfs", "-o", "size=300k", "tmpfs"]).arg(dir.path());
        let output = run(&mut command);
        if !output.status.success() {
            eprintln!("SKIPPED: no tmpfs can be mounted: {}", support::stderr(&output));
            return None;
        }
        Some(Self(dir))
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let path: &Path = self.0.path();
        run(Command::new("umount").arg(path));
    }
}

/// Of an image, what is in front of keyslot 1: fits the full disk, and a second image does not.
const SMALL: usize = 4096 + 256_000;
const CREATE: &[&str] =
    &["create", "-f", "luks", "--new-secret", "env:NEW", "--iterations", "1000", "IMG", "1M"];
