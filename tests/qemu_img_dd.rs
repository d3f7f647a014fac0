//! Under the name qemu-img: dd, byte for byte as the real one.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/persona.rs"]
mod persona;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use persona::{Images, arguments};
use side_by_side::{Outcome, Pair, for_each};

#[test]
fn dd_is_qemu_imgs() {
    let Some(pair) = Pair::find() else { return };
    let mut images = Images::new();
    images.add("old.raw", vec![9; 100_000]);
    let mut lines: Vec<_> = [
        "dd S --image-opts if=A! of=new.raw",
        "dd S -O raw --image-opts of=new.raw if=A!",
        "dd S --image-opts if=A! of=old.raw",
        "dd S --image-opts if=A! of=file:new.raw",
        "dd S --image-opts if=B! if=A! of=other of=new.raw",
        "dd -U S --image-opts if=A! of=new.raw",
        "dd S --image-opts if=D! of=new.raw",
        "dd S --image-opts if=W! of=new.raw",
        "dd S --image-opts if=A! of=new.raw oflag=direct",
        "dd S --image-opts if=A! of=new.raw seek=1",
        "dd S --image-opts if=A! of=new.raw word",
        "dd S --image-opts if=A!",
        "dd of=new.raw",
        "dd",
        "dd if=a.luks of=new.raw",
        "dd -f luks if=a.luks of=new.raw",
        "dd -f luks if=plain.raw of=new.raw",
        "dd if=nowhere of=new.raw",
        "dd --image-opts if=A! of=new.raw",
        "dd --object secret,id=s,data=wrong --image-opts if=A! of=new.raw",
        "dd -f luks --image-opts if=A! of=new.raw",
        "dd S --image-opts if=A! of=",
        "dd S --image-opts if=A! of=nowhere/new.raw",
        "dd -n S --image-opts if=A! of=new.raw",
    ]
    .map(str::to_owned)
    .into();
    for operands in [
        "bs=64k",
        "bs=1M",
        "bs=1000",
        "bs=1",
        "bs=1.5k",
        "bs=0x200",
        "bs=2147483647",
        "bs=2147483648",
        "bs=0",
        "bs=-1",
        "bs=x",
        "bs=",
        "bs=99999999999999999999",
        "count=1",
        "count=0",
        "count=1000",
        "count=9223372036854775807",
        "count=9223372036854775808",
        "count=1k",
        "count=-1",
        "count=",
        "count=010",
        "skip=1",
        "skip=128",
        "skip=129",
        "skip=1000000",
        "skip=9223372036854775807",
        "skip=1k",
        "skip=-1",
        "skip=0x10",
        "bs=1k count=3 skip=2",
        "bs=1k count=2 skip=3",
        "bs=1000 count=3 skip=1",
        "bs=10000 skip=6",
        "bs=1 count=1 count=700",
    ] {
        lines.push(format!("dd S --image-opts if=A! of=new.raw {operands}"));
    }
    for_each(&lines, |line| images.judge(&pair, line).map(drop));
}

/// The target stays as it was until its successor is complete, and keeps its mode. (qemu-img empties
/// it first.)
#[test]
fn a_target_is_replaced_when_the_copy_is_complete() {
    let Some(pair) = Pair::find() else { return };
    let mut images = Images::new();
    images.add("old.raw", vec![9; 1000]);
    let directory = images.directory();
    let old = directory.path().join("old.raw");
    fs::set_permissions(&old, Permissions::from_mode(0o600)).unwrap();
    let ours = |line: &str| Outcome::of(&pair.ours, &arguments(line), directory.path());
    let refused = ours("dd S --image-opts if=A! of=a.luks");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(fs::read(directory.path().join("a.luks")).unwrap() == images.bytes("a.luks"));
    assert_eq!(ours("dd S --image-opts if=A! of=old.raw").status, Some(0));
    assert!(fs::read(&old).unwrap() == images.bytes("plain.raw"));
    assert_eq!(fs::metadata(&old).unwrap().permissions().mode() & 0o777, 0o600);
}
