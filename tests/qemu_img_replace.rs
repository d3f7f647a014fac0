//! Under the name qemu-img: a file that exists is replaced as qemu-img does, which writes into it, but
//! only once the new contents are complete.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/persona.rs"]
mod persona;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use persona::{Images, arguments};
use support::run;
use tempfile::TempDir;

/// A directory with the images, the command under qemu-img's name, and a file called `target`.
struct Desk {
    directory: TempDir,
    plain: Vec<u8>,
}

/// Commands that make `target` anew, and whether it is `plain.raw` then. Otherwise it is LUKS.
const COMMANDS: [(&str, bool); 4] = [
    ("create -q -f luks S -o key-secret=s,iter-time=10 target 1M", false),
    ("convert -f raw -O luks S -o key-secret=s,iter-time=10 plain.raw target", false),
    ("convert S --image-opts A target", true),
    ("dd S --image-opts if=A! of=target", true),
];

impl Desk {
    fn new() -> Self {
        let images = Images::new();
        let desk = Self { directory: images.directory(), plain: images.bytes("plain.raw").into() };
        symlink(env!("CARGO_BIN_EXE_keyslot"), desk.path("qemu-img")).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A new file under the name `target`, longer than what it will hold.
    fn target(&self) -> PathBuf {
        let path = self.path("target");
        let _ = fs::remove_file(&path);
        fs::write(&path, vec![9; 5 << 20]).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.path("qemu-img"));
        command.args(arguments(line)).current_dir(self.directory.path());
        command
    }

    #[track_caller]
    fn done(&self, line: &str) {
        let output = run(&mut self.command(line));
        assert!(output.status.success(), "{line}: {output:?}");
        assert!(output.stderr.is_empty(), "{line}: {output:?}");
    }

    #[track_caller]
    fn check(&self, bytes: &[u8], is_plain: bool, line: &str) {
        assert_eq!(bytes.starts_with(b"LUKS\xba\xbe\0\x01"), !is_plain, "{line}");
        assert!(!is_plain || bytes == self.plain, "{line}");
        assert!(bytes.len() < 5 << 20);
    }
}

/// As with Python's `NamedTemporaryFile`, or a shell's `exec 3<>`.
#[test]
fn a_script_that_holds_the_file_open_reads_the_image_from_it() {
    let desk = Desk::new();
    for (line, is_plain) in COMMANDS {
        let target = desk.target();
        let mut held = File::options().read(true).write(true).open(&target).unwrap();
        let inode = held.metadata().unwrap().ino();
        desk.done(line);
        let mut bytes = Vec::new();
        held.read_to_end(&mut bytes).unwrap();
        desk.check(&bytes, is_plain, line);
        assert!(fs::read(&target).unwrap() == bytes, "{line}");
        assert_eq!(fs::metadata(&target).unwrap().ino(), inode, "{line}");
    }
    // The descriptor is the command's own, too.
    desk.target();
    let script = "exec 3<>target; ./qemu-img \"$@\" && cat <&3";
    let mut shell = Command::new("sh");
    shell.args(["-ec", script, "sh"]).args(arguments("convert S --image-opts A target"));
    let output = run(shell.current_dir(desk.directory.path()));
    assert!(output.status.success() && output.stdout == desk.plain, "{}", output.status);
}

#[test]
fn every_name_of_the_file_leads_to_the_image() {
    let desk = Desk::new();
    for (line, is_plain) in COMMANDS {
        let target = desk.target();
        let other = desk.path("other");
        let _ = fs::remove_file(&other);
        fs::hard_link(&target, &other).unwrap();
        desk.done(line);
        desk.check(&fs::read(&other).unwrap(), is_plain, line);
        assert_eq!(fs::metadata(&target).unwrap().nlink(), 2);
        // Through a symbolic link as well.
        desk.target();
        symlink("target", desk.path("soft")).unwrap();
        desk.done(&line.replace("target", "soft"));
        desk.check(&fs::read(desk.path("target")).unwrap(), is_plain, line);
        fs::remove_file(desk.path("soft")).unwrap();
    }
}

/// Whatever is wrong, a file that a script holds open is as it was: nothing is written into it before
/// the image is complete.
#[test]
fn a_failure_leaves_the_file_as_it_was() {
    let desk = Desk::new();
    let wrong = "--object secret,id=s,data=wrong";
    desk.target();
    let count = || fs::read_dir(desk.directory.path()).unwrap().count();
    let before = count();
    for (line, _) in COMMANDS {
        let target = desk.target();
        let _held = File::open(&target).unwrap();
        let bad = if line.contains("key-secret=s,") {
            line.replace("iter-time=10", "preallocation=maybe")
        } else {
            line.replace(" S ", &format!(" {wrong} "))
        };
        let output = run(&mut desk.command(&bad));
        assert_eq!(output.status.code(), Some(1), "{bad}: {output:?}");
        assert!(fs::read(&target).unwrap() == vec![9; 5 << 20], "{bad}");
        // The new contents are too large for the limit, half of them written.
        let mut shell = Command::new("sh");
        shell.args(["-ec", "ulimit -f 60; ./qemu-img \"$@\"", "sh"]).args(arguments(line));
        let output = run(shell.current_dir(desk.directory.path()));
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        assert!(fs::read(&target).unwrap() == vec![9; 5 << 20], "{line}");
    }
    assert_eq!(count(), before);
}

/// The mode is the file's, not the source's, and not the umask's.
#[test]
fn mode_and_owner_stay() {
    let desk = Desk::new();
    fs::set_permissions(desk.path("a.luks"), Permissions::from_mode(0o600)).unwrap();
    for mode in [0o600, 0o644, 0o660] {
        for (line, is_plain) in COMMANDS {
            for is_held in [false, true] {
                let target = desk.target();
                fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
                let before = fs::metadata(&target).unwrap();
                let _held = is_held.then(|| File::open(&target).unwrap());
                desk.done(line);
                let after = fs::metadata(&target).unwrap();
                let facts = |it: &fs::Metadata| (it.mode(), it.uid(), it.gid());
                assert_eq!(facts(&after), facts(&before), "{line}");
                desk.check(&fs::read(&target).unwrap(), is_plain, line);
            }
        }
    }
}

/// Another user's file that may be written, in a directory where it cannot be replaced.
#[test]
fn a_file_of_another_user_is_written_into() {
    let desk = Desk::new();
    if fs::metadata(desk.directory.path()).unwrap().uid() != 0 {
        eprintln!("SKIPPED: only root can make files of another user");
        return;
    }
    let path = |name: &str| desk.path(name);
    fs::remove_file(path("qemu-img")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_keyslot"), path("qemu-img")).unwrap();
    fs::set_permissions(desk.directory.path(), Permissions::from_mode(0o1777)).unwrap();
    for name in ["a.luks", "plain.raw"] {
        fs::set_permissions(path(name), Permissions::from_mode(0o644)).unwrap();
    }
    for (line, is_plain) in COMMANDS {
        let target = desk.target();
        fs::set_permissions(&target, Permissions::from_mode(0o666)).unwrap();
        let mut command = desk.command(line);
        let output = run(command.uid(65_534).gid(65_534));
        assert!(output.status.success(), "{line}: {output:?}");
        desk.check(&fs::read(&target).unwrap(), is_plain, line);
        let after = fs::metadata(&target).unwrap();
        assert_eq!((after.uid(), after.mode() & 0o777), (0, 0o666), "{line}");
    }
}

/// Zeros stay holes, and the space that was asked for is there.
#[test]
fn holes_and_allocation_survive_the_copy() {
    let desk = Desk::new();
    fs::write(desk.path("plain.raw"), vec![0; 4 << 20]).unwrap();
    for (options, is_allocated) in [("", false), ("-o preallocation=falloc", true)] {
        let target = desk.target();
        let _held = File::open(&target).unwrap();
        let line = format!("create -q -f luks S -o key-secret=s,iter-time=10 {options} target 4M");
        desk.done(&line);
        let blocks = fs::metadata(&target).unwrap().blocks();
        assert_eq!(blocks > (3 << 20) / 512, is_allocated, "{blocks} {line}");
    }
}
