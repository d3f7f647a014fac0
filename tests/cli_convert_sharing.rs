//! `keyslot convert` beside others who have its source or its target open: it is refused and says
//! by whom, and while it works nobody changes the source or gets at the target. QEMU writes into a
//! target (`-n`) that somebody else writes to, and keeps nobody from one that it makes.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/converting.rs"]
mod converting;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use command::{KEYSLOT, assert_refusal};
use converting::{Desk, FROM_LUKS, OBJECTS, TO_LUKS};
use support::locks::locks;
use support::{Running, eventually, peer, run, stderr};
use tempfile::TempDir;

/// How qemu-nbd has it open, and the bytes it locks then.
const HOLDERS: [(&[&str], &str, &[&str]); 3] = [
    (&[], "", &["100 101", "203 203"]),
    (&["-r"], "", &["100 100", "203 203"]),
    (&["-r"], ",force-share=on", &["100 100"]),
];
const LUKS_SOURCE: &str = "driver=luks,key-secret=old,file.filename=disk.luks";
const RAW_SOURCE: &str = "driver=raw,file.filename=plain.raw";

#[test]
fn a_source_that_is_held() {
    let desk = Desk::new();
    for (node, file, source) in
        [(LUKS_SOURCE, "disk.luks", FROM_LUKS), (RAW_SOURCE, "plain.raw", "-f raw plain.raw")]
    {
        for (args, suffix, wanted) in HOLDERS {
            let node = format!("{node}{suffix}");
            let Some(nbd) = Nbd::start(&desk, args, &node, file, wanted) else { return };
            let holder = nbd.holder();
            let words = format!("{source} out.raw");
            if args.is_empty() {
                let parts = [file, "Failed to get shared \"write\" lock", &holder, "hint: "];
                desk.refused(&words, 5, &parts);
                desk.refused(&format!("{source} {TO_LUKS} out.luks"), 5, &parts);
                desk.done(&format!("-U {words}"));
            } else {
                // It reads, as we do.
                desk.done(&words);
            }
            desk.assert_plain("out.raw");
            fs::remove_file(desk.path("out.raw")).unwrap();
        }
    }
}

#[test]
fn a_target_that_is_held() {
    let desk = Desk::new();
    fs::copy(desk.path("disk.luks"), desk.path("t.luks")).unwrap();
    fs::copy(desk.path("plain.raw"), desk.path("t.raw")).unwrap();
    let luks = LUKS_SOURCE.replace("disk.luks", "t.luks");
    let raw = RAW_SOURCE.replace("plain.raw", "t.raw");
    let into_luks = format!("-n {OBJECTS} -f raw plain.raw --target-image-opts {luks}");
    let into_raw = "-n -f raw plain.raw -O raw t.raw".to_owned();
    for (node, file, into) in [(&luks, "t.luks", &into_luks), (&raw, "t.raw", &into_raw)] {
        for (args, suffix, wanted) in HOLDERS {
            let node = format!("{node}{suffix}");
            let Some(nbd) = Nbd::start(&desk, args, &node, file, wanted) else { return };
            let holder = nbd.holder();
            for words in [
                into,
                &format!("--force {FROM_LUKS} {file}"),
                &format!("--force -U -f raw plain.raw {TO_LUKS} {file}"),
            ] {
                desk.refused(words, 5, &[file, "Failed to get ", &holder, "hint: "]);
            }
        }
        desk.done(into);
    }
    desk.assert_plain("t.raw");
    desk.assert_luks("t.luks", "OLD");
}

#[test]
fn nobody_gets_in_meanwhile() {
    let (Some(strace), Some(qemu_io)) = (peer("strace"), peer("qemu-io")) else { return };
    let desk = Desk::new();
    fs::copy(desk.path("plain.raw"), desk.path("t.raw")).unwrap();
    // Each thread's first write takes two seconds longer.
    let mut command = Command::new(strace);
    command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=pwrite64"]);
    command.args(["-e", "inject=pwrite64:delay_enter=2000000:when=1", KEYSLOT, "convert"]);
    command.args("-q -n -f luks --secret env:OLD disk.luks -O raw t.raw".split(' '));
    let mut convert = Running::spawn(command.envs(command::SECRETS).current_dir(desk.dir.path()));
    let (source, target) = (desk.path("disk.luks"), desk.path("t.raw"));
    eventually("locks on both", || !locks(&source).is_empty() && !locks(&target).is_empty());

    let opens = |file: &Path, args: &[&str], suffix: &str| {
        let node = format!("driver=raw,file.filename={}{suffix}", file.display());
        let mut command = Command::new(&qemu_io);
        let output = run(command.args(args).args(["-c", "read 0 512", "--image-opts", &node]));
        output.status.success() || !is_refused(&output)
    };
    assert!(opens(&source, &["-r"], ""), "others can read the source");
    assert!(!opens(&source, &[], ""), "somebody else writes to the source");
    assert!(!opens(&target, &[], ""), "somebody else writes to the target");
    assert!(!opens(&target, &["-r"], ""), "somebody reads a half target");
    for options in ["-n", "--force"] {
        let words = format!("{options} -f raw plain.raw -O raw t.raw");
        let output = run(&mut desk.command(&words));
        assert_refusal(&output, 5, &["t.raw", "Failed to get ", "keyslot (pid "], &words);
    }
    assert!(!convert.has_ended(), "it was over before all was tried");
    eventually("its end", || convert.has_ended());
    desk.assert_plain("t.raw");
}

fn is_refused(output: &Output) -> bool {
    let text = stderr(output);
    assert!(text.contains("Failed to get "), "{text}");
    true
}

/// qemu-nbd, and where its socket is.
struct Nbd {
    process: Running,
    _directory: TempDir,
}

impl Nbd {
    /// It has locked these bytes.
    fn start(desk: &Desk, args: &[&str], node: &str, file: &str, wanted: &[&str]) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(peer("qemu-nbd")?);
        command.args(["--persistent", "--image-opts"]).args(args).args(OBJECTS.split(' '));
        command.arg(format!("--socket={}", directory.path().join("sock").display())).arg(node);
        let process = Running::spawn(command.current_dir(desk.dir.path()));
        eventually("the locks of qemu-nbd", || locks(&desk.path(file)) == wanted);
        Some(Self { process, _directory: directory })
    }

    fn holder(&self) -> String {
        format!("qemu-nbd (pid {})", self.process.pid())
    }
}
