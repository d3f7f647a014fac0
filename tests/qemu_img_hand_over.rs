//! Under the name qemu-img, keyslot serves LUKS, and hands everything else to the real qemu-img.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::env;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use command::{KEYSLOT, Scene};
use support::{QEMU_IMG, peer, stderr};

/// The variable that lists the copies which handed a command line over.
const COPIES: &str = "KEYSLOT_HANDED_OVER_BY";

/// A directory with the command under qemu-img's name in `bin`, and a program called qemu-img in
/// `real` that tells what it was started with.
struct Desk {
    scene: Scene,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { scene: Scene::new() };
        for name in ["bin", "real"] {
            fs::create_dir(desk.path(name)).unwrap();
        }
        symlink(KEYSLOT, desk.path("bin/qemu-img")).unwrap();
        desk.script("real/qemu-img", "echo \"real: $0 $*\"");
        desk.scene.file("text", &[7; 4096]);
        desk.scene.file("image.qcow2", &[b"QFI\xfb\0\0\0\x03", &[0; 4096][..]].concat());
        desk.scene.file("disk.dmg", &[0; 4096]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scene.dir.path().join(name)
    }

    fn script(&self, name: &str, lines: &str) {
        let path = self.path(name);
        // Written by another process: a file that this one has open for writing cannot be run by a
        // child of another thread's test.
        let mut shell = Command::new("sh");
        shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut input = shell.stdin.take().unwrap();
        input.write_all(format!("#!/bin/sh\n{lines}\n").as_bytes()).unwrap();
        drop(input);
        assert!(shell.wait().unwrap().success());
    }

    /// The command under qemu-img's name, with these directories before the system's on PATH.
    fn command(&self, directories: &[&str], words: &str) -> Command {
        let mut path: Vec<_> = directories.iter().map(|it| self.path(it)).collect();
        path.extend(["/usr/bin", "/bin"].map(PathBuf::from));
        let mut command = Command::new(self.path("bin/qemu-img"));
        command.arg0("qemu-img").args(words.split_whitespace());
        command.current_dir(self.scene.dir.path()).env("PATH", env::join_paths(path).unwrap());
        command.env_remove(QEMU_IMG).env_remove(COPIES).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &str) -> Output {
        self.command(&["bin", "real"], words).output().unwrap()
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

const OBJECT: &str = "--object secret,id=s,data=xyzzy-zero";
const OPTS: &str = "--image-opts driver=luks,key-secret=s,file.filename=disk.img";

#[test]
fn what_is_not_luks_is_handed_over() {
    let desk = Desk::new();
    let before = desk.scene.bytes();
    for words in [
        "",
        "--help",
        "create --help",
        "-T something info disk.img",
        "rebase -b base image.qcow2",
        "snapshot -c one image.qcow2",
        "bitmap --add image.qcow2 one",
        "bench disk.img",
        "commit image.qcow2",
        "info text",
        "info -f raw disk.img",
        "info image.qcow2",
        "info disk.dmg",
        "info nowhere",
        "info -f vmdk disk.img",
        "info nbd://host/export",
        "info --image-opts driver=nbd,path=socket",
        "info --image-opts driver=luks,file.driver=ssh,file.path=x",
        "info json:{\"driver\":\"quorum\"}",
        "info --no-such-option disk.img",
        "create new 1M",
        "create -f qcow2 new 1M",
        "create -f luks --object secret_keyring,id=s,serial=1 -o key-secret=s new 1M",
        "create -f luks -o key-secret=s nbd://host/export 1M",
        "create -f luks -o key-secret=s,nocow=on new 1M",
        "create -f luks -o key-secret=s,preallocation=maybe new 1M",
        "create -f luks -o help new",
        "convert -f luks -o extent_size_hint=1M disk.img new",
        "convert -O luks -o help",
        "convert text new",
        "convert -O qcow2 disk.img new",
        "convert -l one disk.img new",
        "convert disk.img disk.img new",
        "convert -O luks image.qcow2 new",
        "amend -f qcow2 -o compat=v3 image.qcow2",
        "check image.qcow2",
        "check --no-such-option disk.img",
        "compare text text",
        "compare disk.img image.qcow2",
        "compare disk.img",
        "dd if=text of=new",
        "dd if=disk.img of=new -O qcow2",
        "dd if=disk.img of=new -O luks",
        "dd if=disk.img",
        "map text",
        "measure --size 1M",
        "measure -O qcow2 disk.img",
        "resize text 1M",
        "resize image.qcow2 --shrink",
        "snapshot -l image.qcow2",
        "snapshot -c one disk.img",
        "amend -o compat=v3 image.qcow2",
    ] {
        let output = desk.run(words);
        let wanted = format!("real: {} {words}\n", desk.path("real/qemu-img").display());
        assert_eq!((stdout(&output), stderr(&output)), (wanted, String::new()), "{words}");
        assert!(desk.scene.bytes() == before && !desk.path("new").exists(), "{words}");
    }
}

#[test]
fn luks_is_served() {
    let desk = Desk::new();
    for words in [
        "info disk.img".to_owned(),
        "info -f luks text".to_owned(),
        "info --image-opts file.filename=disk.img".to_owned(),
        format!("create -f luks {OBJECT} -o key-secret=s,iter-time=10 new.luks 1M"),
        format!("convert {OBJECT} {OPTS} new.raw"),
        format!("convert {OBJECT} -O luks -o key-secret=s,iter-time=10 text copy.luks"),
        format!("amend {OBJECT} {OPTS} -o state=active,new-secret=s,iter-time=10"),
        "amend -f luks -o state=active text".to_owned(),
        "--version".to_owned(),
        // keyslot's own command
        "is-luks disk.img".to_owned(),
    ] {
        let output = desk.run(&words);
        assert!(!stdout(&output).starts_with("real: "), "{words}");
        assert_eq!(output.status.success(), !words.contains("text") || words.contains("copy"));
    }
}

/// Arguments that are no text, the environment, open files, signals, the exit status.
#[test]
fn the_program_starts_as_it_would_have_without_keyslot() {
    let desk = Desk::new();
    let state = "grep -E '^(Sig(Blk|Ign|Cgt)|Seccomp):' /proc/self/status; cat /proc/self/coredump_filter; \
                 ls /proc/self/fd | wc -l; cat; env | grep -v -e '^_=' -e ^KEYSLOT; exit 77";
    desk.script("real/qemu-img", &format!("printf '%s|' \"$@\" | od -c; {state}"));
    let run = |program: &Path| {
        let mut command = Command::new(program);
        command.arg("info").arg(OsString::from("a b")).arg("").args(["--", "x\ny", "\u{1b}"]);
        command.env_clear().env("PATH", format!("{}:/usr/bin:/bin", desk.path("real").display()));
        let input = fs::File::open(desk.scene.file("input", b"secret")).unwrap();
        command.env("A", "b=c\n").stdin(input).output().unwrap()
    };
    let (through, direct) = (run(&desk.path("bin/qemu-img")), run(&desk.path("real/qemu-img")));
    assert_eq!((stdout(&through), stderr(&through)), (stdout(&direct), stderr(&direct)));
    assert_eq!((through.status.code(), direct.status.code()), (Some(77), Some(77)));
    assert!(stdout(&direct).contains("secret"), "{direct:?}");
}

#[test]
fn the_program_is_the_next_on_path_that_is_not_keyslot() {
    let desk = Desk::new();
    for name in ["links", "copies", "unusable", "directory"] {
        fs::create_dir(desk.path(name)).unwrap();
    }
    symlink(desk.path("bin/qemu-img"), desk.path("links/qemu-img")).unwrap();
    fs::copy(KEYSLOT, desk.path("copies/qemu-img")).unwrap();
    desk.script("unusable/qemu-img", "echo unusable");
    fs::set_permissions(desk.path("unusable/qemu-img"), Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(desk.path("directory/qemu-img")).unwrap();
    let wanted = format!("real: {} info text\n", desk.path("real/qemu-img").display());
    for directories in [
        &["real"][..],
        &["bin", "real"],
        &["real", "bin"],
        &["links", "bin", "unusable", "directory", "nowhere", "real"],
        // Another copy of the program hands it over, too, and not back.
        &["bin", "copies", "links", "real"],
        &["copies", "bin", "real"],
    ] {
        let output = desk.command(directories, "info text").output().unwrap();
        assert_eq!(stdout(&output), wanted, "{directories:?}: {output:?}");
    }
    // No directory depends on where the caller is.
    let mut relative = desk.command(&[], "info text");
    let path = format!("real::.:{}", desk.path("bin").display());
    let output = relative.env("PATH", path).output().unwrap();
    assert!(stdout(&output).starts_with("image: text\n"), "{output:?}");
}

#[test]
fn the_program_can_be_named() {
    let desk = Desk::new();
    desk.script("mine", "echo \"mine: $*\"");
    let with = |value: &str, words: &str| {
        let mut command = desk.command(&["bin", "real"], words);
        command.env(QEMU_IMG, value).output().unwrap()
    };
    let mine = desk.path("mine");
    assert_eq!(stdout(&with(mine.to_str().unwrap(), "info text")), "mine: info text\n");
    assert_eq!(stdout(&with("./mine", "info text")), "mine: info text\n");
    assert!(stdout(&with("qemu-img", "info text")).starts_with("real: "));
    // Its own answer: without a program, or with itself for one.
    for value in ["", "bin/qemu-img", "no-such-program"] {
        let output = with(value, "info text");
        assert!(stdout(&output).starts_with("image: text\n"), "{value}: {output:?}");
        let output = with(value, "rebase -b base image.qcow2");
        assert_eq!(output.status.code(), Some(1), "{value}");
        assert!(stderr(&output).starts_with("qemu-img: "), "{value}: {output:?}");
    }
    let output = with("./nowhere", "info text");
    let wanted = "qemu-img: cannot run './nowhere': No such file or directory\n";
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), wanted));
    assert!(!stdout(&with("./mine", "info disk.img")).starts_with("mine"));
}

/// A program that calls qemu-img by its name gets keyslot's own answer, and not itself again.
#[test]
fn nothing_is_handed_over_twice() {
    let desk = Desk::new();
    desk.script("real/qemu-img", "echo \"wrapped: $*\"; exec \"$BIN\" \"$@\"");
    let mut command = desk.command(&["bin", "real"], "info text");
    let output = command.env("BIN", desk.path("bin/qemu-img")).output().unwrap();
    assert!(stdout(&output).starts_with("wrapped: info text\nimage: text\n"), "{output:?}");
    assert!(output.status.success());
}

/// A pipe is neither opened, which would wait, nor read.
#[test]
fn nothing_is_read_from_a_pipe() {
    let desk = Desk::new();
    let pipe = desk.path("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    assert!(stdout(&desk.run("info pipe")).starts_with("real: "));
    let secret = "--object secret,id=s,file=/dev/stdin";
    desk.script("real/qemu-img", "cat");
    let mut command = desk.command(&["bin", "real"], &format!("convert {secret} text new"));
    let input = fs::File::open(desk.scene.file("input", b"all of it")).unwrap();
    assert_eq!(stdout(&command.stdin(input).output().unwrap()), "all of it");
}

/// A script that replaces the program: qcow2, raw and LUKS side by side.
#[test]
fn a_script_needs_no_change() {
    let Some(theirs) = peer("qemu-img") else { return };
    let desk = Desk::new();
    let bin = theirs.parent().unwrap();
    for words in [
        "create -q -f qcow2 a.qcow2 1M".to_owned(),
        format!("convert {OBJECT} {OPTS} -O qcow2 b.qcow2"),
        format!("convert {OBJECT} {OPTS} -O raw c.raw"),
        "compare b.qcow2 c.raw".to_owned(),
        "snapshot -c one a.qcow2".to_owned(),
        "resize -q a.qcow2 2M".to_owned(),
        "info a.qcow2".to_owned(),
        "info disk.img".to_owned(),
        "check -q b.qcow2".to_owned(),
        "map b.qcow2".to_owned(),
        "measure -O qcow2 --size 1M".to_owned(),
        "snapshot -l a.qcow2".to_owned(),
    ] {
        let mut command = desk.command(&["bin"], &words);
        let path = [desk.path("bin"), bin.to_owned()];
        let output = command.env("PATH", env::join_paths(path).unwrap()).output().unwrap();
        assert!(output.status.success(), "{words}: {output:?}");
    }
}
