//! Under the name qemu-img: resize, byte for byte as the real one.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/persona.rs"]
mod persona;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use persona::{Images, LEN, arguments};
use side_by_side::{Outcome, Pair, for_each};
use support::{Running, eventually, locks::locks, peer, run};

#[test]
fn resize_is_qemu_imgs() {
    let Some(pair) = Pair::find() else { return };
    let images = Images::new();
    for_each(
        &[
            "resize S --image-opts A 128K",
            "resize -q S --image-opts A 128K",
            "resize S --image-opts A +1",
            "resize S --image-opts A +1000",
            "resize S --image-opts A 65537",
            "resize S --image-opts A +0",
            "resize S --image-opts A 65536",
            "resize S --image-opts A 64K",
            "resize S --image-opts A 32K",
            "resize S --image-opts A -1",
            "resize --shrink S --image-opts A 32K",
            "resize S --shrink --image-opts A -1K",
            "resize S --shrink --image-opts A -- -1K",
            "resize --shrink S --image-opts A 1",
            "resize --shrink S --image-opts A 0",
            "resize --shrink S --image-opts A -64K",
            "resize --shrink S --image-opts A -1G",
            "resize S --image-opts A 0",
            "resize S --image-opts D 64K",
            "resize S --image-opts D +1",
            "resize S --image-opts --shrink D 1K",
            "resize S --image-opts W 128K",
            "resize S --image-opts --shrink W 32K",
            "resize S --image-opts V 128K",
            "resize S --image-opts --shrink V 32K",
            "resize S --image-opts A 128K --shrink",
            "resize S --image-opts A 128K -q",
            "resize S --image-opts A 128K --",
            "resize S --image-opts -- A 128K",
            "resize S --image-opts A -1K --shrink",
            "resize S --image-opts A -1K --shrink -q",
            "resize S --image-opts --shrink A -1K -- ",
            "resize S --image-opts --shrink -1K A",
            "resize S --image-opts --shrink A -1K 5K",
            "resize S --image-opts --shrink A 5K -1K",
            "resize S --image-opts --shrink A -q9",
            "resize S --image-opts A --shrink",
            "resize S --image-opts A -f",
            "resize S --image-opts 128K A",
            "resize --preallocation=off S --image-opts A 128K",
            "resize --preallocation=falloc S --image-opts A 1M",
            "resize --preallocation=full S --image-opts A 1M",
            "resize --preallocation full S --image-opts A 64K",
            "resize --preallocation=full --shrink S --image-opts A 32K",
            "resize --preallocation=metadata S --image-opts A 1M",
            "resize --preallocation=metadata S --image-opts A 32K",
            "resize --preallocation=some S --image-opts A 1M",
            "resize S --image-opts A 1Q",
            "resize S --image-opts A +x",
            "resize S --image-opts A ''",
            "resize S --image-opts A 9E",
            "resize S --image-opts A 17E",
            "resize S --image-opts A 4000P",
            "resize S --image-opts A +8191P",
            "resize S --image-opts A",
            "resize S --image-opts A B 1M",
            "resize S --image-opts A,read-only=on 1M",
            "resize S --image-opts A,force-share=on 1M",
            "resize --image-opts A 1M",
            "resize --object secret,id=s,data=wrong --image-opts A 1M",
            "resize a.luks 1M",
            "resize -f luks a.luks 1M",
            "resize -f luks plain.raw 1M",
            "resize nowhere 1M",
            "resize -f luks nowhere 1M",
            "resize",
            "resize a.luks",
            "resize 1M",
            "resize -f luks --image-opts A 1M",
        ],
        |line| images.judge(&pair, line).map(drop),
    );
}

/// The space that is asked for is there.
#[test]
fn space_is_allocated() {
    let Some(pair) = Pair::find() else { return };
    let images = Images::new();
    for (mode, is_allocated) in [("off", false), ("falloc", true), ("full", true)] {
        let blocks = |program: &Path| {
            let directory = images.directory();
            let line = format!("resize --preallocation={mode} S --image-opts A 8M");
            let outcome = Outcome::of(program, &arguments(&line), directory.path());
            assert_eq!(outcome.status, Some(0), "{outcome:?}");
            fs::metadata(directory.path().join("a.luks")).unwrap().blocks()
        };
        for program in [&pair.theirs, &pair.ours] {
            assert_eq!(blocks(program) > (7 << 20) / 512, is_allocated, "{mode}");
        }
    }
}

/// An image that is in use keeps its size, and the words are the same.
#[test]
fn an_image_in_use_is_not_resized() {
    let (Some(qemu_nbd), Some(pair)) = (peer("qemu-nbd"), Pair::find()) else { return };
    let images = Images::new();
    let directory = images.directory();
    let image = directory.path().join("a.luks");
    for args in [&[][..], &["-r"]] {
        let mut nbd = Command::new(&qemu_nbd);
        nbd.args(["--persistent", "--object", "secret,id=s,data=hunter0"]).args(args);
        nbd.arg("-k").arg(directory.path().join("socket"));
        let options = "driver=luks,key-secret=s,file.filename=a.luks";
        nbd.args(["--image-opts", options]).current_dir(directory.path());
        let _nbd = Running::spawn(&mut nbd);
        eventually("qemu-nbd's locks", || locks(&image).iter().any(|it| it.contains("203 203")));
        let outcome = |program: &Path| {
            let arguments = arguments("resize S --image-opts A 1M");
            Outcome::of(program, &arguments, directory.path())
        };
        assert_eq!(outcome(&pair.ours), outcome(&pair.theirs), "beside {args:?}");
        assert_eq!(fs::metadata(&image).unwrap().len(), images.bytes("a.luks").len() as u64);
    }
}

/// Data that was written stays, and data that is cut off is gone.
#[test]
fn the_contents_stay() {
    let Some(pair) = Pair::find() else { return };
    let images = Images::new();
    let directory = images.directory();
    let ours = |line: &str| Outcome::of(&pair.ours, &arguments(line), directory.path());
    for line in ["+64K", "1M", "65K"].map(|size| format!("resize --shrink S --image-opts A {size}"))
    {
        assert_eq!(ours(&line).stdout, "Image resized.\n", "{line}");
    }
    assert_eq!(ours("dd S --image-opts if=A! of=out.raw").status, Some(0));
    let out = fs::read(directory.path().join("out.raw")).unwrap();
    assert_eq!(out.len(), 65 * 1024);
    assert!(out[..LEN] == *images.bytes("plain.raw"));
}

/// The length is durable before the command says so.
#[test]
fn the_length_is_synced() {
    let (Some(strace), Some(pair)) = (peer("strace"), Pair::find()) else { return };
    let directory = Images::new().directory();
    let log = directory.path().join("log");
    let mut command = Command::new(strace);
    command.args(["-f", "-e", "trace=ftruncate,fdatasync,fsync,write", "-o"]).arg(&log);
    command.arg(&pair.ours).args(arguments("resize S --image-opts A 1M"));
    let output = run(command.current_dir(directory.path()));
    assert!(output.status.success(), "{output:?}");
    let log = fs::read_to_string(log).unwrap();
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no {what} in {log}"));
    assert!(at("ftruncate(") < at("fdatasync(") && at("fdatasync(") < at("Image resized"), "{log}");
}
