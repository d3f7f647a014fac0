//! Whatever is wrong, `keyslot convert` says it in one line that names the file and the value, with
//! its exit status; no target is left that was not there, and none is changed that was.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/converting.rs"]
mod converting;
mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use command::{KEYSLOT, SECRETS, assert_refusal};
use converting::{Desk, FROM_LUKS, OBJECTS, TO_LUKS, noise};
use support::{peer, run};

#[test]
fn wrong_usage() {
    let desk = Desk::new();
    fs::write(desk.path("old.raw"), "old").unwrap();
    let sparse = "Valid sizes are multiples of 512 up to 16777216";
    let coroutines = "Must be between 1 and 16";
    for (words, parts) in [
        ("", &["image file name"][..]),
        ("plain.raw", &["image file name"]),
        ("-q plain.raw", &["image file name"]),
        ("-S 1 plain.raw new", &[sparse]),
        ("-S 513 plain.raw new", &[sparse]),
        ("-S 17M plain.raw new", &[sparse]),
        ("-S -1 plain.raw new", &["between 0 and 9223372036854775807"]),
        ("-S 9E plain.raw new", &["between 0 and 9223372036854775807"]),
        ("-S foo plain.raw new", &["'foo'"]),
        ("-m 0 plain.raw new", &[coroutines]),
        ("-m 17 plain.raw new", &[coroutines]),
        ("-m x plain.raw new", &["'x'"]),
        ("-O nosuch plain.raw new", &["nosuch"]),
        ("-f nosuch plain.raw new", &["nosuch"]),
        ("-t nosuch plain.raw new", &["Invalid cache option: nosuch"]),
        ("-T nosuch plain.raw new", &["Invalid source cache option: nosuch"]),
        ("--frobnicate plain.raw new", &["--frobnicate"]),
        ("--image-opts -f raw plain.raw new", &["--image-opts and --format are mutually"]),
        ("--target-image-opts plain.raw driver=raw", &["requires use of -n flag"]),
        (
            "-n --target-image-opts -O raw plain.raw driver=raw,file.filename=old.raw",
            &["are mutually exclusive"],
        ),
        ("-n -o help plain.raw old.raw", &["-o has no effect when skipping image creation"]),
        ("-c plain.raw new", &[]),
        ("-o color=red plain.raw new", &["color"]),
        ("-o size=x plain.raw new", &["size"]),
        ("-o preallocation=red plain.raw new", &["red"]),
        ("-O luks --new-secret env:NEW -o color=red plain.raw new", &["color"]),
        ("-O luks --new-secret env:NEW -o iter-time=x plain.raw new", &["iter-time"]),
        ("-O luks -o key-secret=nosuch plain.raw new", &["'nosuch'"]),
        ("-O luks -o cipher-alg=rot13 --new-secret env:NEW plain.raw new", &["rot13"]),
        ("-O luks --new-secret env:NEW -o cipher-alg=cast5-128 plain.raw new", &["xts"]),
        ("-O luks --new-secret env:NEW --iterations 999 plain.raw new", &["999"]),
        ("-O luks --new-secret env:NOSUCH plain.raw new", &["NOSUCH"]),
        ("-O luks --new-secret frob:x plain.raw new", &["say where to read it"]),
        ("--secret stdin -f luks disk.luks -O luks --new-secret stdin new", &["standard input"]),
        (".  new", &["."]),
        ("nosuch.raw new", &["nosuch.raw", "No such file or directory"]),
        ("-f luks --secret env:OLD nosuch.luks new", &["nosuch.luks", "No such file"]),
    ] {
        desk.refused(words, 1, parts);
    }
    let twice = format!("{OBJECTS} -O luks --new-secret env:NEW -o key-secret=new plain.raw new");
    desk.refused(&twice, 1, &["key-secret"]);
    for (words, part) in
        [("-O luks -o help", "cipher-alg"), ("-O luks -o help plain.raw new", "preallocation")]
    {
        let text = desk.done(words);
        assert!(text.contains(part), "{words}: {text}");
        assert!(!desk.path("new").exists());
    }
}

#[test]
fn secrets_that_are_wrong_or_missing() {
    let desk = Desk::new();
    fs::write(desk.path("old"), "precious").unwrap();
    let wrong = FROM_LUKS.replace("OLD", "WRONG");
    let image = ["disk.luks"];
    for target in ["new", &format!("{TO_LUKS} new"), "--force old", "-n old"] {
        let text = desk.refused(&format!("{wrong} {target}"), 2, &image);
        assert!(!text.contains("hint"), "{text}");
    }
    let source = "--image-opts driver=luks,file.filename=disk.luks,key-secret";
    desk.refused(&format!("{OBJECTS} {source}=new new"), 2, &image);
    desk.refused(&format!("{OBJECTS} {source}=nosuch new"), 1, &["disk.luks", "'nosuch'"]);

    let Some(setsid) = peer("setsid") else { return };
    for words in ["-f luks disk.luks new", "-O luks plain.raw new", "disk.luks new"] {
        let mut command = Command::new(&setsid);
        command.args(["--wait", KEYSLOT, "convert"]).args(words.split(' '));
        let output = command.current_dir(desk.dir.path()).stdin(Stdio::null()).output().unwrap();
        assert_refusal(&output, 1, &["terminal"], words);
    }
    assert_eq!(desk.names(), ["disk.luks", "old", "plain.raw"]);
}

#[test]
fn sources_that_are_not_luks_or_damaged() {
    let desk = Desk::new();
    let whole = desk.bytes("disk.luks");
    let payload = whole.len() - desk.plain.len();
    let patched = |offset: usize, bytes: &[u8]| {
        let mut image = whole.clone();
        image[offset..offset + bytes.len()].copy_from_slice(bytes);
        image
    };
    for (bytes, parts) in [
        (patched(0, b"LUKX"), &["not in LUKS format"][..]),
        (patched(6, &[0, 2]), &["LUKS2 header", "hdr_offset"]),
        (patched(8, b"rot13\0"), &["rot13"]),
        (patched(164, &[0; 4]), &["iteration count is zero"]),
        (patched(208 + 4, &[0xff; 4]), &["4294967295"]),
        (whole[..0].to_vec(), &["not in LUKS format"]),
        (whole[..591].to_vec(), &["truncated", "591 bytes"]),
        (whole[..5096].to_vec(), &["truncated", "at byte 5096"]),
        (whole[..payload - 1].to_vec(), &["truncated"]),
    ] {
        fs::write(desk.path("disk.luks"), bytes).unwrap();
        for target in ["new", &format!("{TO_LUKS} new"), "-n plain.raw"] {
            let text = desk.refused(&format!("{FROM_LUKS} {target}"), 4, parts);
            assert!(text.contains("disk.luks"), "{text}");
        }
    }
    // A payload of less than a sector: QEMU makes a sector of it. Nothing: an empty image.
    fs::write(desk.path("disk.luks"), &whole[..payload]).unwrap();
    desk.done(&format!("{FROM_LUKS} empty.raw"));
    assert_eq!(desk.bytes("empty.raw"), b"");
}

/// What would be taken for something else than was meant, silently.
#[test]
fn secrets_and_formats_that_do_not_fit() {
    let desk = Desk::new();
    fs::copy(desk.path("disk.luks"), desk.path("t.luks")).unwrap();
    fs::write(desk.path("t.raw"), vec![1; desk.plain.len()]).unwrap();
    let mut damaged = desk.bytes("disk.luks");
    damaged[0] = b'X';
    fs::write(desk.path("damaged.luks"), damaged).unwrap();
    fs::write(desk.path("disk.vhdx"), [b"vhdxfile", [0; 1016].as_slice()].concat()).unwrap();
    for (words, status, parts) in [
        // A raw image is about to be written over a LUKS one.
        ("-n plain.raw t.luks", 1, &["t.luks", "LUKS image", "hint: use -O luks"][..]),
        ("-n --new-secret env:OLD plain.raw t.luks", 1, &["--new-secret"]),
        ("-n -O raw --new-secret env:OLD plain.raw t.raw", 1, &["--new-secret"]),
        ("--new-secret env:NEW plain.raw new", 1, &["--new-secret"]),
        ("-n --iterations 1000 plain.raw t.raw", 1, &["--iterations"]),
        ("--iter-time 10 plain.raw new", 1, &["--iter-time"]),
        // Ciphertext is about to be copied.
        ("--secret env:OLD damaged.luks new", 4, &["damaged.luks", "not in LUKS format"]),
        ("-f raw --secret env:OLD disk.luks new", 1, &["--secret"]),
        ("disk.vhdx new", 4, &["disk.vhdx", "vhdx", "hint: use -f raw"]),
        ("plain.raw json:{}", 1, &["'json'"]),
        ("plain.raw new/", 1, &["new/", "s a directory"]),
    ] {
        desk.refused(words, status, parts);
    }
    let long = "n".repeat(300);
    desk.refused(&format!("plain.raw {long}"), 1, &[&long, "File name too long"]);
    desk.done("-n -O raw plain.raw t.luks");
    desk.done("-f raw disk.vhdx new");
}

/// A source that becomes another one in the middle, by who knows of no locks.
#[test]
fn a_source_that_changes() {
    let Some(strace) = peer("strace") else { return };
    for (change, parts) in [
        ("truncate -s 1M plain.raw", ["plain.raw", "cannot "]),
        ("echo >>plain.raw", ["plain.raw", "the source was written to"]),
    ] {
        let desk = Desk::with(noise(8 << 20));
        // The first write of each thread takes a second longer.
        let mut command = Command::new(&strace);
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64", "-e"]);
        command.args(["inject=pwrite64:delay_enter=3000000:when=1", KEYSLOT, "convert"]);
        command.args(["-m", "1", "plain.raw", "new"]).current_dir(desk.dir.path());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // It has looked at the source when it is about to write what it read.
        support::eventually("a write", || support::held_up::writing(child.id()).is_some());
        run(Command::new("sh").args(["-c", change]).current_dir(desk.dir.path()));
        assert_refusal(&child.wait_with_output().unwrap(), 1, &parts, change);
        assert!(!desk.path("new").exists());
    }
}

/// The shell's limit is a signal, which would kill.
#[test]
fn a_file_beyond_the_limit() {
    let desk = Desk::with(noise(1 << 20));
    let script = format!("ulimit -f 100; exec {KEYSLOT} convert plain.raw new");
    let mut command = Command::new("sh");
    let output = run(command.args(["-c", &script]).current_dir(desk.dir.path()));
    assert_refusal(&output, 1, &["new", "File too large"], &script);
    assert!(!desk.path("new").exists());
}

/// Its first part fits, and not the rest.
#[test]
fn a_full_disk() {
    let Some(full) = FullDisk::mount() else { return };
    let desk = Desk::new();
    fs::write(desk.path("plain.raw"), noise(1 << 20)).unwrap();
    let files = || fs::read_dir(full.path()).unwrap().count();
    let target = full.path().join("new");
    let name = target.to_str().unwrap();
    for options in ["-f raw plain.raw", &format!("-f raw plain.raw {TO_LUKS}")] {
        for preallocation in ["off", "falloc", "full"] {
            let words = format!("{options} -o preallocation={preallocation} {name}");
            desk.refused(&words, 1, &["No space left on device", name]);
            assert_eq!(files(), 0, "{words}");
            fs::write(&target, "precious").unwrap();
            desk.refused(&format!("--force {words}"), 1, &["No space left on device", name]);
            assert!(fs::read(&target).unwrap() == b"precious" && files() == 1, "{words}");
            fs::remove_file(&target).unwrap();
        }
    }
    // Holes have no space.
    File::create(&target).unwrap().set_len(1 << 20).unwrap();
    let words = format!("-n -f raw plain.raw -O raw {name}");
    desk.refused(&words, 1, &["No space left on device", name]);
    assert_eq!(fs::metadata(&target).unwrap().len(), 1 << 20);
}

/// A write that the system says it did, and did not.
#[test]
fn verify_finds_what_was_not_written() {
    const LEN: usize = 48 << 10;
    let Some(strace) = peer("strace") else { return };
    for (source, target) in [
        ("-f raw plain.raw", "-O raw"),
        (FROM_LUKS, "-O raw"),
        ("-f raw plain.raw", TO_LUKS),
        (FROM_LUKS, TO_LUKS),
    ] {
        let desk = Desk::with(noise(LEN));
        let words = format!("--verify {source} {target} new");
        desk.done(&words);
        fs::remove_file(desk.path("new")).unwrap();
        let log = desk.path("log");
        let traced = |expressions: &[&str]| {
            let mut command = Command::new(&strace);
            command.args(["-f", "-qq", "-e", "trace=pwrite64", "-o"]).arg(&log).args(expressions);
            command.args([KEYSLOT, "convert"]).args(words.split(' '));
            run(command.current_dir(desk.dir.path()).envs(SECRETS))
        };
        assert!(traced(&[]).status.success(), "{words}");
        let when = write_of(&fs::read_to_string(&log).unwrap(), LEN);
        fs::remove_file(desk.path("new")).unwrap();
        let output = traced(&["-e", &format!("inject=pwrite64:retval={LEN}:when={when}")]);
        fs::remove_file(&log).unwrap();
        assert_refusal(&output, 1, &["new"], &words);
        assert_eq!(desk.names(), ["disk.luks", "plain.raw"], "{words}");
    }
}

/// Which of its thread's writes is the one of this length. (strace counts each thread's own.)
fn write_of(log: &str, len: usize) -> usize {
    let mut writes: Vec<(&str, Vec<usize>)> = Vec::new();
    for line in log.lines().filter(|line| line.contains(" pwrite64(")) {
        let thread = line.split(' ').next().unwrap();
        let numbers = line.rsplit('"').next().unwrap();
        let count = numbers.split(", ").nth(1).unwrap().parse().unwrap();
        match writes.iter_mut().find(|(it, _)| *it == thread) {
            Some((_, counts)) => counts.push(count),
            None => writes.push((thread, vec![count])),
        }
    }
    let when = writes.iter().find_map(|(_, counts)| counts.iter().position(|&it| it == len));
    let when = when.expect("the payload is written in one piece");
    for (thread, counts) in &writes {
        let it = counts.get(when);
        assert!(it.is_none_or(|&it| it >= len), "{thread} would be told of more than it wrote");
    }
    when + 1
}

/// A file system with room for a keyslot and not for a payload.
struct FullDisk(tempfile::TempDir);

impl FullDisk {
    fn mount() -> Option<Self> {
        let mount = peer("mount")?;
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(mount);
        command.args(["-t", "tmpfs", "-o", "size=600k", "tmpfs"]).arg(dir.path());
        let output = run(&mut command);
        if !output.status.success() {
            eprintln!("SKIPPED: no tmpfs can be mounted: {}", support::stderr(&output));
            return None;
        }
        Some(Self(dir))
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_path_buf()
    }
}

impl Drop for FullDisk {
    fn drop(&mut self) {
        let path: &Path = self.0.path();
        run(Command::new("umount").arg(path));
    }
}
