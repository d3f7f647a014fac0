//! Under the name qemu-img: compare, whose exit status says what came out, as the real one.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/persona.rs"]
mod persona;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use persona::{Images, LEN};
use side_by_side::{Pair, for_each};

/// Raw files that differ from `plain.raw`.
fn images() -> Images {
    let mut images = Images::new();
    let plain = images.bytes("plain.raw").to_vec();
    let with = |len: usize, at: &[usize]| {
        let mut bytes = plain.clone();
        bytes.resize(len, 0);
        for &at in at {
            bytes[at] ^= 1;
        }
        bytes
    };
    images.add("first.raw", with(LEN, &[0]));
    images.add("late.raw", with(LEN, &[LEN - 1, 60_001, 50_000]));
    images.add("short.raw", with(LEN - 1024, &[]));
    images.add("odd.raw", with(LEN - 100, &[]));
    images.add("long.raw", with(2 * LEN, &[]));
    images.add("bit-longer.raw", with(LEN + 4, &[]));
    images.add("tail.raw", with(2 * LEN, &[LEN + 1000, LEN + 9000]));
    images.add("far.raw", with(3 << 20, &[(2 << 20) + 77]));
    images.add("wrong-and-long.raw", with(2 * LEN, &[70_000, 1000]));
    images
}

#[test]
fn compare_is_qemu_imgs() {
    let Some(pair) = Pair::find() else { return };
    let images = images();
    let mut lines: Vec<_> = [
        "compare S --image-opts A B",
        "compare S --image-opts A A",
        "compare S --image-opts A R",
        "compare S --image-opts R A",
        "compare -s S --image-opts A B",
        "compare -s S --image-opts A R",
        "compare -s -q S --image-opts R A",
        "compare -q S --image-opts A B",
        "compare -p S --image-opts A B",
        "compare -p -q S --image-opts A B",
        "compare -U S --image-opts A R",
        "compare S --image-opts A W",
        "compare S --image-opts W R",
        "compare S --image-opts D D",
        "compare S --image-opts D A",
        "compare -T none S --image-opts A B",
        "compare -T some S --image-opts A B",
        "compare --image-opts A B",
        "compare S --image-opts B B,read-only=on",
        "compare --object secret,id=s,data=wrong --image-opts A R",
        "compare --object secret,id=s,data=wrong --image-opts R A",
        "compare -F luks plain.raw a.luks",
        "compare -f luks a.luks b.luks",
        "compare a.luks b.luks",
        "compare -f raw -F luks a.luks b.luks",
        "compare -f luks --image-opts a b",
        "compare -F luks --image-opts a b",
        "compare -F luks S --image-opts A B",
        "compare",
        "compare a.luks",
        "compare a b c",
        "compare a.luks nowhere",
        "compare nowhere a.luks",
        "compare --no-such-option a.luks b.luks",
    ]
    .map(str::to_owned)
    .into();
    for name in
        ["first", "late", "short", "odd", "long", "bit-longer", "tail", "wrong-and-long", "far"]
    {
        for options in ["", "-s", "-q"] {
            let raw = format!("driver=raw,file.filename={name}.raw");
            lines.push(format!("compare {options} S --image-opts A {raw}"));
            lines.push(format!("compare {options} S --image-opts {raw} A"));
        }
    }
    for_each(&lines, |line| images.judge(&pair, line).map(drop));
}

/// Of a large image, whichever thread finds one, the first difference is told.
#[test]
fn the_first_difference_is_told() {
    let Some(pair) = Pair::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    std::fs::write(at("zero.raw"), vec![0; 24 << 20]).unwrap();
    let convert = "convert S -f raw -O luks -o key-secret=s,iter-time=10 zero.raw big.luks";
    let run = |line: &str| {
        let arguments = persona::arguments(line);
        side_by_side::Outcome::of(&pair.ours, &arguments, directory.path())
    };
    assert_eq!(run(convert).status, Some(0));
    for first in [0, 600_000, 12 << 20] {
        let mut bytes = vec![0; 24 << 20];
        for at in (first..bytes.len()).step_by(70_000) {
            bytes[at] = 1;
        }
        std::fs::write(at("other.raw"), bytes).unwrap();
        let big = "driver=luks,key-secret=s,file.filename=big.luks";
        let other = "driver=raw,file.filename=other.raw";
        for _ in 0..5 {
            let outcome = run(&format!("compare S --image-opts {big} {other}"));
            let wanted = format!("Content mismatch at offset {}!\n", first / 512 * 512);
            assert_eq!((outcome.status, outcome.stdout), (Some(1), wanted));
        }
    }
}
