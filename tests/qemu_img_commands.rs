//! Under the name qemu-img: check, map, measure and snapshot on LUKS images, as the real one.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/persona.rs"]
mod persona;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::path::Path;
use std::process::Command;

use persona::{Images, arguments};
use side_by_side::{Outcome, Pair, for_each};
use support::{Running, eventually, locks::locks, peer};

/// Compares each line.
fn same(lines: &[&str]) {
    let Some(pair) = Pair::find() else { return };
    let images = Images::new();
    for_each(lines, |line| images.judge(&pair, line).map(drop));
}

#[test]
fn check_is_qemu_imgs() {
    same(&[
        "check S --image-opts A",
        "check -f luks a.luks",
        "check a.luks",
        "check -q S --image-opts A",
        "check --output=json S --image-opts A",
        "check --output xml S --image-opts A",
        "check -r all S --image-opts A",
        "check -r leaks S --image-opts A",
        "check -r some S --image-opts A",
        "check -T none S --image-opts A",
        "check -T some S --image-opts A",
        "check -U S --image-opts A",
        "check --image-opts A",
        "check --object secret,id=s,data=wrong --image-opts A",
        "check -f luks plain.raw",
        "check S --image-opts D",
        "check S --image-opts W",
        "check S --image-opts -r all W",
        "check -f raw plain.raw",
        "check nowhere",
        "check -f luks nowhere",
        "check",
        "check a.luks b.luks",
        "check -f luks --image-opts A",
        "check --no-such-option a.luks",
        "check -f",
    ]);
}

#[test]
fn map_is_qemu_imgs() {
    same(&[
        "map S --image-opts A",
        "map --output=human S --image-opts A",
        "map --output json S --image-opts A",
        "map --output=json -s 512 S --image-opts A",
        "map --output=json -s 1k -l 100 S --image-opts A",
        "map --output=json -s 10 -l 1 S --image-opts A",
        "map --output=json -l 1G S --image-opts A",
        "map --output=json -s 65536 S --image-opts A",
        "map --output=json -s 1G S --image-opts A",
        "map --output=json -l 0 S --image-opts A",
        "map -s 65536 S --image-opts A",
        "map --start-offset=x S --image-opts A",
        "map --max-length=x S --image-opts A",
        "map -s -1 S --image-opts A",
        "map -s 9E S --image-opts A",
        "map --output=x S --image-opts A",
        "map a.luks",
        "map -f luks a.luks",
        "map --image-opts A",
        "map --object secret,id=s,data=wrong --image-opts A",
        "map --output=json S --image-opts D",
        "map --output=json S --image-opts W",
        "map nowhere",
        "map",
        "map a b",
        "map -U S --image-opts A",
    ]);
}

#[test]
fn snapshots_are_none() {
    same(&[
        "snapshot -l S --image-opts A",
        "snapshot S --image-opts A",
        "snapshot -q -l -U S --image-opts A",
        "snapshot -l a.luks",
        "snapshot -l nowhere",
        "snapshot -l",
        "snapshot -l a b",
    ]);
}

#[test]
fn measure_is_qemu_imgs() {
    same(&[
        "measure -O luks S -o key-secret=s,iter-time=10 --size 1M",
        "measure -O luks S -o key-secret=s,iter-time=10 --size 1M --output=json",
        "measure -O luks S -o key-secret=s,iter-time=10 --size 1000001",
        "measure -O luks S -o key-secret=s,iter-time=10 --size 0",
        "measure -O luks S -o key-secret=s,iter-time=10,preallocation=full --size 1M",
        "measure -O luks S -o key-secret=s,iter-time=10 -o cipher-alg=serpent-128 --size 1M",
        "measure -O luks S -o key-secret=s,iter-time=10,cipher-mode=cbc --size 1M",
        "measure -O luks S -o key-secret=s,iter-time=10,cipher-alg=aes-128,hash-alg=sha512 --size 1M",
        "measure -O luks S -o key-secret=s,iter-time=10 --image-opts A",
        "measure -O luks S -o key-secret=s,iter-time=10 plain.raw",
        "measure -O luks S -o key-secret=s,iter-time=10 -f raw a.luks",
        "measure S --image-opts A",
        "measure S --image-opts D",
        "measure S --image-opts W",
        "measure -O raw --output=json S --image-opts A",
        "measure -O raw a.luks",
        "measure -O luks --size 1M",
        "measure -O luks -o key-secret=s --size 1M",
        "measure -O luks -o no-such=1 --size 1M",
        "measure -O luks -o cipher-alg=none,key-secret=s S --size 1M",
        "measure -O luks --size 1Q",
        "measure -O luks --size -1",
        "measure -O luks --size",
        "measure -O luks",
        "measure -O luks --size 1M a.luks",
        "measure -O luks a.luks b.luks",
        "measure --output=xml -O luks --size 1M",
        "measure -O luks S -o key-secret=s nowhere",
        "measure -f raw --image-opts -O luks A",
    ]);
}

/// What is refused while another program has the image open, and what is not.
#[test]
fn images_in_use_are_opened_as_qemu_img_opens_them() {
    let (Some(qemu_nbd), Some(pair)) = (peer("qemu-nbd"), Pair::find()) else { return };
    let directory = Images::new().directory();
    let image = directory.path().join("a.luks");
    for (args, suffix, held) in [
        (&[][..], "", "203 203"),
        (&["-r"], "", "203 203"),
        (&["-r"], ",force-share=on", "100 100"),
    ] {
        let mut nbd = Command::new(&qemu_nbd);
        nbd.args(["--persistent", "--object", "secret,id=s,data=hunter0"]).args(args);
        nbd.arg("-k").arg(directory.path().join("socket"));
        let options = format!("driver=luks,key-secret=s,file.filename=a.luks{suffix}");
        nbd.args(["--image-opts", &options]).current_dir(directory.path());
        let _nbd = Running::spawn(&mut nbd);
        eventually("qemu-nbd's locks", || locks(&image).iter().any(|it| it.contains(held)));
        for line in [
            "check S --image-opts A",
            "check -r all S --image-opts A",
            "check -U S --image-opts A",
            "map --output=json S --image-opts A",
            "measure S --image-opts A",
            "compare S --image-opts A R",
            "compare -U S --image-opts A R",
            "snapshot -l S --image-opts A",
        ] {
            let outcome = |program: &Path| Outcome::of(program, &arguments(line), directory.path());
            assert_eq!(
                outcome(&pair.ours),
                outcome(&pair.theirs),
                "{line} beside {args:?}{suffix}"
            );
        }
    }
}
