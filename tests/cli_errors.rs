//! Whatever is wrong with an image, the command says it in one line that names the file and the
//! value, with its exit status, and the image stays what it is.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene};
use support::{eventually, peer, run, run_ok};

/// Every command that opens an image, with all it needs.
const COMMANDS: [&[&str]; 9] = [
    &["info", "IMG"],
    &["check", "IMG"],
    &["info", "--secret", "env:OLD", "IMG"],
    &["check", "--secret", "env:OLD", "IMG"],
    ADD,
    ERASE,
    &["erase", "--old-secret", "env:OLD", "IMG"],
    REPLACE,
    AMEND,
];
const ADD: &[&str] =
    &["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000", "IMG"];
const ERASE: &[&str] = &["erase", "--keyslot", "0", "IMG"];
const REPLACE: &[&str] = &[
    "replace",
    "--old-secret",
    "env:OLD",
    "--new-secret",
    "env:NEW",
    "--iterations",
    "1000",
    "IMG",
];
const AMEND: &[&str] = &["amend", "--secret", "env:OLD", "-o", "state=inactive,keyslot=0", "IMG"];

#[test]
fn a_wrong_secret() {
    let scene = Scene::new();
    for command in COMMANDS.iter().filter(|command| command.contains(&"env:OLD")) {
        if command[0] == "info" {
            continue; // it says so, and that is what was asked for
        }
        let command: Vec<_> =
            command.iter().map(|&arg| if arg == "env:OLD" { "env:WRONG" } else { arg }).collect();
        if command[0] == "check" {
            let output = scene.command(&command).output().unwrap();
            assert_eq!(output.status.code(), Some(2));
            continue; // with what it found out besides on standard output
        }
        let text = scene.refused(&command, 2, &[]);
        assert!(!text.contains("hint"), "{text}");
    }
    let quiet = ["check", "-q", "--secret", "env:WRONG", "IMG"];
    scene.refused(&quiet, 2, &["no keyslot opens with the secret"]);
}

#[test]
fn a_secret_that_ends_in_a_newline() {
    let scene = Scene::new();
    let (_, secret) = SECRETS[0];
    let file = scene.file("secret", format!("{secret}\n").as_bytes());
    let source = format!("file:{}", file.display());
    for command in [
        &["add", "--secret", &source, "--new-secret", "env:NEW", "IMG"][..],
        &["replace", "--old-secret", &source, "--new-secret", "env:NEW", "IMG"],
        &["erase", "--old-secret", &source, "IMG"],
        &["check", "-q", "--secret", &source, "IMG"],
        &["amend", "--secret", &source, "-o", "state=inactive,keyslot=0", "IMG"],
    ] {
        scene.refused(command, 2, &["hint: the secret ends in a newline"]);
    }
}

/// What a line's end does to a secret, wherever it was lost or found.
#[test]
fn a_secret_and_the_end_of_its_line() {
    let scene = Scene::new();
    let check = |input: &[u8], source: &str| {
        let mut command = scene.command(&["check", "-q", "--secret", source, "IMG"]);
        command.stdin(fs::File::open(scene.file("input", input)).unwrap());
        command
    };
    let carriage = ["hint: the secret ends in a carriage return"];
    scene.command_refused(&mut check(b"xyzzy-zero\r\n", "stdin"), 2, &carriage);
    scene.command_refused(&mut check(b"xyzzy-zero\r", "fd:0"), 2, &carriage);
    let dropped = ["hint: the newline at the end of stdin was dropped; use fd:0"];
    scene.command_refused(&mut check(b"xyzzy-on\n", "stdin"), 2, &dropped);
    let text = scene.command_refused(&mut check(b"xyzzy-on", "stdin"), 2, &[]);
    assert!(!text.contains("hint"), "{text}");
}

/// Each error of several images names its own.
#[test]
fn a_check_of_several_images_names_each() {
    let (one, other) = (Scene::new(), Scene::new());
    let mut bytes = other.bytes();
    bytes[208 + 4..208 + 8].copy_from_slice(&u32::MAX.to_be_bytes());
    fs::write(&other.image, bytes).unwrap();
    let other = other.image.to_str().unwrap();
    let output =
        one.command(&["check", "-q", "--secret=env:OLD", "IMG", other, "nowhere"]).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<_> = text.lines().filter(|line| line.starts_with("keyslot: ")).collect();
    assert_eq!(errors.len(), 2, "{text}");
    assert!(errors[0].contains(other) && errors[1].contains("nowhere"), "{text}");
}

#[test]
fn a_header_that_lies() {
    let word = |value: u32| value.to_be_bytes();
    let slot = |i: usize, field: usize| 208 + 48 * i + field;
    for (offset, bytes, parts) in [
        (0, &b"LUKX"[..], &["not in LUKS format"][..]),
        (6, &[0, 2], &["LUKS2 header", "hdr_offset"]),
        (6, &[0xff, 0xff], &["LUKS version 65535"]),
        (72, &[b'x'; 32], &["hash spec is not NUL terminated"]),
        (104, &word(7), &["payload", "sector 7"]),
        (108, &word(u32::MAX), &["33554431993 sectors"]),
        (164, &word(0), &["iteration count is zero"]),
        (slot(0, 4), &word(0), &["Keyslot 0 iteration count is zero"]),
        (slot(0, 44), &word(4001), &["Keyslot 0", "4001"]),
        (slot(0, 44), &word(u32::MAX), &["Keyslot 0", "4294967295"]),
        (slot(0, 40), &word(0), &["Keyslot 0 is overlapping with the LUKS header", "sector 0"]),
        // In 32 bits of bytes this wraps to sector 8; the next, in 32 bits of sectors, to 491.
        (slot(0, 40), &word(8 + (1 << 23)), &["Keyslot 0", "sector 8388616"]),
        (slot(0, 40), &word(u32::MAX - 8), &["Keyslot 0", "sector 4294967287"]),
    ] {
        let scene = Scene::patched(offset, bytes);
        for command in COMMANDS {
            scene.refused(command, 4, parts);
        }
    }
}

#[test]
fn what_is_too_short() {
    let full = Scene::new().bytes();
    let payload = full.len() - 64 * 1024;
    for (len, parts) in [
        (0, &["not in LUKS format"][..]),
        (3, &["not in LUKS format"]),
        (6, &["truncated", "6 bytes"]),
        (591, &["truncated", "591 bytes"]),
        (592, &["Keyslot 0 ends at byte", "at byte 592", "truncated"]),
        (4096 + 1000, &["at byte 5096", "truncated"]),
    ] {
        let scene = Scene::new();
        fs::write(&scene.image, &full[..len]).unwrap();
        for command in COMMANDS {
            scene.refused(command, 4, parts);
        }
    }

    // What is in the payload, and how long it was, is no business of a keyslot's.
    for len in [payload, payload + 1, full.len() - 1] {
        let scene = Scene::new();
        fs::write(&scene.image, &full[..len]).unwrap();
        scene.done(&["info", "IMG"]);
        scene.done(ADD);
        assert_eq!(scene.bytes().len(), len);
        assert_eq!(scene.opened_by("NEW"), [1]);
    }
}

#[test]
fn an_absurd_iteration_count() {
    let slot_0 = 208 + 4;
    let digest = 164;
    for (offset, count, what) in [
        (slot_0, u32::MAX, "keyslot 0 asks for 10 minutes"),
        (slot_0, 1 << 30, "keyslot 0 asks for 2 minutes"),
        (digest, u32::MAX, "volume key digest asks for 5 minutes"),
        (digest, 1 << 31, "volume key digest asks for 2 minutes"),
    ] {
        let scene = Scene::patched(offset, &u32::to_be_bytes(count));
        for command in COMMANDS.iter().filter(|command| command.contains(&"env:OLD")) {
            // The slot is looked at before anything that comes after it.
            let hint = if command[0] == "info" {
                "keyslot check --ignore-limits"
            } else {
                "use --ignore-limits"
            };
            scene.refused(command, 4, &[what, "the limit is 2 minutes", "hint: ", hint]);
        }
        scene.done(&["info", "IMG"]);
        scene.done(&["check", "IMG"]);
    }

    // Who insists gets it: it works on for much longer than a refusal takes.
    for command in [ADD, &["check", "--secret", "env:OLD", "IMG"]] {
        let scene = Scene::patched(slot_0, &u32::MAX.to_be_bytes());
        let mut child = scene.command(command).arg("--ignore-limits").spawn().unwrap();
        eventually("half a second of work, or an end", || {
            child.try_wait().unwrap().is_some() || user_ticks(child.id()) >= 50
        });
        assert!(child.try_wait().unwrap().is_none(), "{command:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    // Another keyslot that opens makes up for it.
    let scene = Scene::new().and("OTHER", 3);
    let mut bytes = scene.bytes();
    bytes[slot_0..slot_0 + 4].copy_from_slice(&u32::MAX.to_be_bytes());
    fs::write(&scene.image, bytes).unwrap();
    let text = scene.done(&["check", "--secret", "env:OTHER", "IMG"]);
    assert!(text.contains("the secret opens keyslot 3"), "{text}");
    let text = scene.done(&["info", "--secret", "env:OTHER", "IMG"]);
    assert!(text.contains("secret opens: keyslot 3"), "{text}");
    scene.done(&["add", "--secret", "env:OTHER", "--new-secret", "env:NEW", "-q", "IMG"]);
}

/// The processor time that a process has used, in hundredths of a second (proc(5), `stat`).
fn user_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    behind_name.split_whitespace().nth(11).unwrap().parse().unwrap()
}

#[test]
fn what_is_not_a_file() {
    let dir = Scene::without_image();
    fs::create_dir(&dir.image).unwrap();
    let fifo = Scene::without_image();
    nix::unistd::mkfifo(&fifo.image, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let socket = Scene::without_image();
    let _listener = UnixListener::bind(&socket.image).unwrap();
    let mut null = Scene::without_image();
    null.image = "/dev/null".into();
    let missing = Scene::without_image();
    let mut nowhere = Scene::without_image();
    nowhere.image = nowhere.dir.path().join("no/such/disk.img");
    let mut below = Scene::without_image();
    below.image = below.file("file", b"").join("disk.img");
    let dangling = Scene::without_image();
    std::os::unix::fs::symlink("nowhere", &dangling.image).unwrap();

    for (scene, part) in [
        (&dir, "is a directory"),
        (&fifo, "is a FIFO"),
        (&socket, "is a socket"),
        (&null, "is a character device"),
        (&missing, "No such file or directory"),
        (&nowhere, "No such file or directory"),
        (&below, "Not a directory"),
        (&dangling, "No such file or directory"),
    ] {
        for command in COMMANDS {
            scene.refused(command, 1, &[part]);
        }
    }
}

#[test]
fn other_formats() {
    let scene = Scene::without_image();
    for (bytes, part) in [
        (vec![0; 1 << 20], "not in LUKS format"),
        (b"QFI\xfb\0\0\0\x03".repeat(1000), "qcow2"),
        (b"LUKS\xba\xbe\0\x02".repeat(1000), "hdr_offset"),
        (b"SKUL\xba\xbe\0\x02".repeat(1000), "not in LUKS format"),
    ] {
        fs::write(&scene.image, bytes).unwrap();
        for command in COMMANDS {
            scene.refused(command, 4, &[part]);
        }
    }
    let Some(qemu_img) = peer("qemu-img") else { return };
    fs::remove_file(&scene.image).unwrap();
    run_ok(Command::new(qemu_img).args(["create", "-f", "qcow2"]).arg(&scene.image).arg("1M"));
    for command in COMMANDS {
        scene.refused(command, 4, &["qcow2"]);
    }
}

#[test]
fn without_permission() {
    let scene = Scene::new();
    let allow =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    let program = scene.dir.path().join("keyslot");
    fs::copy(KEYSLOT, &program).unwrap();
    allow(scene.dir.path(), 0o755);
    // Root may do everything, so as somebody else.
    let Some(setpriv) = peer("setpriv") else { return };
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    let as_nobody = |args: &[&str]| {
        let mut command = if is_root {
            let mut command = Command::new(&setpriv);
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
            command
        } else {
            Command::new(&program)
        };
        command.args(scene.args(args)).envs(SECRETS);
        command
    };
    let image = scene.image.to_str().unwrap();

    allow(&scene.image, 0o444);
    for (i, command) in COMMANDS.iter().enumerate() {
        if i < 4 {
            assert!(run(&mut as_nobody(command)).status.success(), "{command:?}");
        } else {
            let parts = [image, "for writing", "Permission denied"];
            scene.command_refused(&mut as_nobody(command), 1, &parts);
        }
    }

    allow(&scene.image, 0o000);
    for command in COMMANDS {
        let text = scene.command_refused(&mut as_nobody(command), 1, &[image]);
        assert!(text.contains("Permission denied"), "{text}");
    }
    allow(scene.dir.path(), 0o555);
    let new = scene.dir.path().join("new.img");
    let create = ["create", "-f", "luks", "--new-secret", "env:NEW", new.to_str().unwrap(), "1M"];
    let parts = [new.to_str().unwrap(), "Permission denied"];
    scene.command_refused(&mut as_nobody(&create), 1, &parts);
    assert!(!command::is_there(&new));
    allow(scene.dir.path(), 0o755);
}

#[test]
fn a_name_that_a_terminal_would_obey() {
    let mut scene = Scene::new();
    let path = scene.dir.path().join("a\nkeyslot: all is well\x1b[2J.img");
    fs::rename(&scene.image, &path).unwrap();
    scene.image = path;
    for (command, status) in [(ADD, 2), (&["check", "-q", "--secret", "env:WRONG", "IMG"], 2)] {
        let command: Vec<_> =
            command.iter().map(|&arg| if arg == "env:OLD" { "env:WRONG" } else { arg }).collect();
        let text = scene.command_refused(&mut scene.command(&command), status, &["all is well"]);
        assert!(!text.contains('\x1b'), "{text}");
    }
}
