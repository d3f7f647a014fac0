//! qcow2 images whose tables contradict their reference counts: nothing is written to them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;

use command::Scene;

const CLUSTER: usize = 65536;

fn word(image: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(image[at..at + 8].try_into().unwrap())
}

fn index(word: u64) -> usize {
    usize::try_from(word & 0x00ff_ffff_ffff_fe00).unwrap()
}

/// An encrypted image of 1 MiB with data in its first half, and where its L2 table is.
fn scene() -> (Scene, String, Vec<u8>, usize) {
    let scene = Scene::of(&vec![7; 512 * 1024]);
    let target = scene.dir.path().join("it.qcow2").to_str().unwrap().to_owned();
    let create = ["create", "-q", "-f", "qcow2", "--new-secret", "env:OLD", "--iterations", "1000"];
    scene.done(&[&create[..], &[&target, "1M"]].concat());
    let scene = scene.and_copied(&target);
    let image = fs::read(&target).unwrap();
    let l1 = index(word(&image, 40));
    let l2 = index(word(&image, l1));
    (scene, target, image, l2)
}

trait Copies {
    fn and_copied(self, target: &str) -> Self;
}

impl Copies for Scene {
    /// Copies the raw file into the image.
    fn and_copied(self, target: &str) -> Self {
        let convert = ["convert", "-n", "-O", "qcow2", "--new-secret", "env:OLD"];
        self.done(&[&convert[..], &["IMG", target]].concat());
        self
    }
}

#[test]
fn a_damaged_image_is_not_written() {
    let (scene, target, image, l2) = scene();
    let copied = 1_u64 << 63;
    let table = index(word(&image, 48));
    let block = index(word(&image, table));
    let first = word(&image, l2);
    let count = |host: u64| block + 2 * (index(host) / CLUSTER);
    let entry = |host: usize| (copied | host as u64).to_be_bytes().to_vec();
    for (name, at, bytes, text) in [
        ("an entry on the L2 table", l2 + 8, entry(l2), "has another use"),
        ("an entry on a refcount block", l2 + 8, entry(block), "has another use"),
        ("two entries on one cluster", l2 + 8, first.to_be_bytes().to_vec(), "has another use"),
        ("data that is not counted", count(first), vec![0, 0], "is 0"),
        ("data that is counted twice", count(first), vec![0, 2], "has another use"),
    ] {
        let mut damaged = image.clone();
        damaged[at..at + bytes.len()].copy_from_slice(&bytes);
        fs::write(&target, &damaged).unwrap();
        let convert = ["convert", "-n", "-O", "qcow2", "--new-secret", "env:OLD", "IMG", &target];
        let output = scene.command(&convert).output().unwrap();
        let said = support::stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{name}: {said}");
        assert!(said.contains(text) && said.contains("it.qcow2"), "{name}: {said}");
        assert!(said.contains("qemu-img check -r all"), "{name}: {said}");
        assert!(fs::read(&target).unwrap() == damaged, "{name}: {said}");
    }
    fs::write(&target, &image).unwrap();
    scene.and_copied(&target);
}
