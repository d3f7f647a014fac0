//! Under the name qemu-img: keyslots of qcow2 images are changed and made as qemu-img does it, and all
//! else about qcow2 is the real one's.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/persona.rs"]
mod persona;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use persona::arguments;
use side_by_side::{Outcome, Pair, for_each};
use support::{QEMU_IMG, peer, run, run_ok};
use tempfile::TempDir;

const OPTIONS: &str = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
const IMAGE: &str = "driver=qcow2,encrypt.key-secret=s,file.filename=image.qcow2";

/// The arguments of a line, with `Q` and `O` for the options of `image.qcow2` and of a new image.
fn words(line: &str) -> Vec<String> {
    let line = line.replace(" Q", &format!(" {IMAGE}")).replace("=Q", &format!("={IMAGE}"));
    let line = line.replace(" O", &format!(" {OPTIONS}"));
    arguments(&line.replace(" T", " --object secret,id=t,data=hunter1"))
}

fn directory(qemu_img: &Path) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(qemu_img);
    command.args(words("create -q S -f qcow2 -o O image.qcow2 1M"));
    run_ok(command.current_dir(directory.path()));
    directory
}

/// The same words as the real one, with keyslot doing it.
#[test]
fn keyslots_are_changed_in_qemu_imgs_words() {
    let Some(pair) = Pair::find() else { return };
    let template = directory(&pair.theirs);
    let lines = [
        "create S -f qcow2 -o O new 1M",
        "create -q S -f qcow2 -o O new 1M",
        "create S -f qcow2 -o O,cluster_size=4k,lazy_refcounts=on new 1M",
        "create S -f qcow2 -o O,compat=0.10 new 1M",
        "create S -f qcow2 -o O,size=1M new",
        "create S -f qcow2 -o O,preallocation=metadata new 1M",
        "create -f qcow2 -o encrypt.format=luks new 1M",
        "create -f qcow2 -o O new 1M",
        "create S -f qcow2 -o O nowhere/new 1M",
        "amend S T -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10 --image-opts Q",
        "amend S -o encrypt.state=inactive,encrypt.keyslot=0 --image-opts Q",
        "amend S -o encrypt.state=inactive,encrypt.keyslot=9 --image-opts Q",
        "amend S -o encrypt.state=active --image-opts Q",
        "amend S T -o encrypt.state=inactive,encrypt.old-secret=t --image-opts Q",
        "amend T -o encrypt.state=inactive,encrypt.old-secret=t --image-opts Q",
        "amend --object secret,id=s,data=wrong -o encrypt.state=active --image-opts Q",
        "amend -o encrypt.state=inactive image.qcow2",
        "amend -f qcow2 -o encrypt.state=inactive image.qcow2",
    ];
    for_each(&lines, |line| {
        let run = |program: &Path| {
            let directory = tempfile::tempdir().unwrap();
            fs::copy(template.path().join("image.qcow2"), directory.path().join("image.qcow2"))
                .unwrap();
            let outcome = Outcome::of(program, &words(line), directory.path());
            (outcome, directory.path().join("new").exists())
        };
        let (theirs, ours) = (run(&pair.theirs), run(&pair.ours));
        if ours == theirs {
            return Ok(());
        }
        Err(format!("{line}\n  ours   {ours:?}\n  theirs {theirs:?}"))
    });
}

/// Without a real qemu-img, what keyslot does only to LUKS images is refused, and nothing is wrong about
/// the image.
#[test]
fn without_qemu_img_it_is_said_that_there_is_none() {
    let Some(pair) = Pair::find() else { return };
    let directory = directory(&pair.theirs);
    let before = fs::read(directory.path().join("image.qcow2")).unwrap();
    for line in [
        "check S --image-opts Q",
        "map S --image-opts Q",
        "resize S --image-opts Q 2M",
        "snapshot -l S --image-opts Q",
        "dd S --image-opts if=Q of=new",
    ] {
        let outcome = Outcome::of(&pair.ours, &words(line), directory.path());
        let text = "keyslot does this only to LUKS images, and found no other qemu-img\n";
        assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(1), text), "{line}");
        assert!(fs::read(directory.path().join("image.qcow2")).unwrap() == before, "{line}");
    }
}

/// Who does it, with a program in the place of qemu-img that says so.
#[test]
fn only_keyslots_are_keyslots() {
    let Some(pair) = Pair::find() else { return };
    let directory = directory(&pair.theirs);
    let echo = directory.path().join("echo");
    let script = "printf '#!/bin/sh\\necho real\\n' > \"$0\" && chmod 755 \"$0\"";
    run_ok(Command::new("sh").args(["-c", script]).arg(&echo));
    let ours = |line: &str| -> Output {
        let mut command = Command::new(&pair.ours);
        command.args(words(line)).current_dir(directory.path());
        run(command.env(QEMU_IMG, &echo))
    };
    for line in [
        "create S -f qcow2 new 1M",
        "create S -f qcow2 -o O -b image.qcow2 -F qcow2 new",
        "create S -f qcow2 -o O,backing_file=image.qcow2,backing_fmt=qcow2 new",
        "create S -f qcow2 -o O,extended_l2=on new 1M",
        "create S -f qcow2 -o O,data_file=data new 1M",
        "create S -f qcow2 -o O,compression_type=zstd new 1M",
        "create S -f qcow2 -o encrypt.format=aes,encrypt.key-secret=s new 1M",
        "create S -f qcow2 -o O,no-such=1 new 1M",
        "create S -f qcow2 -o O,nocow=on new 1M",
        "create S -f qcow2 -o O,encryption=off new 1M",
        "create S -f qcow2 -o O,encrypt.iter-time=x new 1M",
        "create S -f qcow2 -o O,preallocation=maybe new 1M",
        "create -f qcow2 -o help",
        "amend S -o lazy_refcounts=on --image-opts Q",
        "amend S -o encrypt.state=active -o compat=0.10 --image-opts Q",
        "amend -f qcow2 -o help",
        "amend -f qcow2 -o encrypt.state=active plain.raw",
        "info image.qcow2",
        "info S --image-opts Q",
        "convert S --image-opts Q new.raw",
        "compare S --image-opts Q Q",
        "dd S --image-opts if=Q of=new",
        "measure S --image-opts Q",
        "map S --image-opts Q",
        "check S --image-opts Q",
        "resize S --image-opts Q 2M",
        "snapshot -l S --image-opts Q",
    ] {
        let output = ours(line);
        assert_eq!(output.stdout, b"real\n", "{line}: {output:?}");
    }
    for line in [
        "create -q S -f qcow2 -o O new.qcow2 1M",
        "amend S T -o encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10 --image-opts Q",
        "amend T -o encrypt.state=active,encrypt.new-secret=t image.qcow2",
    ] {
        let output = ours(line);
        assert!(output.stdout.is_empty(), "{line}: {output:?}");
    }
    if peer("qemu-img").is_some() {
        let mut check = Command::new(&pair.theirs);
        check.args(words(
            "check S --image-opts driver=qcow2,encrypt.key-secret=s,file.filename=new.qcow2",
        ));
        run_ok(check.current_dir(directory.path()));
    }
}
