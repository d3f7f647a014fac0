//! Conversions from and to qcow2 images, with qemu-img on the other side.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use command::{SECRETS, Scene};
use support::{peer, qcow2, run_ok};

const OLD: &str = SECRETS[0].1;
const NEW: [&str; 4] = ["--new-secret", "env:OLD", "--iterations", "1000"];

/// 3 MiB and a sector: noise, zeros, one byte, and zeros up to the end
fn plain() -> Vec<u8> {
    let mut bytes = vec![0; (3 << 20) + 512];
    let mut state = 1_u32;
    for byte in &mut bytes[..700_000] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    bytes[2_000_001] = 1;
    bytes
}

fn path(scene: &Scene, name: &str) -> String {
    scene.dir.path().join(name).to_str().unwrap().to_owned()
}

/// `qemu-img convert` of an encrypted qcow2 image to a raw file.
fn qemu_decrypts(image: &Path, to: &str) -> Vec<u8> {
    let mut command = Command::new(peer("qemu-img").unwrap());
    command.args(["convert", "-O", "raw", "--object", &format!("secret,id=s,data={OLD}")]);
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", image.display());
    run_ok(command.args(["--image-opts", &opts, to]));
    fs::read(to).unwrap()
}

#[test]
fn what_keyslot_writes_qemu_reads() {
    let Some(_) = peer("qemu-img") else { return };
    for options in [
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=2M",
        "compat=0.10",
        "refcount_bits=1",
        "refcount_bits=64,cluster_size=4k",
        "preallocation=metadata",
        "preallocation=full,cluster_size=512",
        "encrypt.cipher-alg=aes-128",
    ] {
        let scene = Scene::of(&plain());
        let (target, back) = (path(&scene, "new.qcow2"), path(&scene, "back"));
        let convert = ["convert", "--verify", "-O", "qcow2", "-o", options];
        scene.done(&[&convert[..], &NEW, &["IMG", &target]].concat());
        assert!(qcow2::is_clean(Path::new(&target), OLD), "{options}");
        assert!(qemu_decrypts(Path::new(&target), &back) == plain(), "{options}");
        scene.done(&["convert", "--overwrite", "--secret", "env:OLD", &target, &back]);
        assert!(fs::read(&back).unwrap() == plain(), "{options}");
    }
}

#[test]
fn zeros_take_no_space() {
    let scene = Scene::of(&vec![0; 64 << 20]);
    let (target, back) = (path(&scene, "new.qcow2"), path(&scene, "back"));
    scene.done(&[&["convert", "-O", "qcow2"][..], &NEW, &["IMG", &target]].concat());
    assert!(fs::metadata(&target).unwrap().len() < 3 << 20);
    scene.done(&["convert", "--secret", "env:OLD", &target, &back]);
    let back = fs::metadata(&back).unwrap();
    assert_eq!((back.len(), back.blocks()), (64 << 20, 0));
}

#[test]
fn what_qemu_writes_keyslot_reads() {
    let Some(qemu_img) = peer("qemu-img") else { return };
    for options in [
        "",
        ",cluster_size=512",
        ",cluster_size=2M",
        ",compat=0.10",
        ",extended_l2=on",
        ",refcount_bits=1",
        ",preallocation=metadata",
    ] {
        let scene = Scene::of(&plain());
        let (source, back) = (path(&scene, "old.qcow2"), path(&scene, "back"));
        let mut command = Command::new(&qemu_img);
        command.args(["convert", "-f", "raw", "-O", "qcow2", "--object"]);
        command.arg(format!("secret,id=s,data={OLD}")).arg("-o");
        let encrypt = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10";
        command.arg(format!("{encrypt}{options}")).arg(&scene.image);
        run_ok(command.arg(&source));
        scene.done(&["convert", "--secret", "env:OLD", &source, &back]);
        assert!(fs::read(&back).unwrap() == plain(), "{options}");
        // From one encryption to another, and from an unencrypted image.
        let luks2 = path(&scene, "new.luks2");
        let convert = ["convert", "--secret", "env:OLD", "-O", "luks2", "--pbkdf", "pbkdf2"];
        scene.done(&[&convert[..], &NEW, &[&source, &luks2]].concat());
        let third = path(&scene, "third");
        scene.done(&["convert", "--secret", "env:OLD", &luks2, &third]);
        assert!(fs::read(&third).unwrap() == plain(), "{options}");
    }
}

#[test]
fn an_image_that_is_not_encrypted_becomes_so() {
    let Some(qemu_img) = peer("qemu-img") else { return };
    let scene = Scene::of(&plain());
    let (source, target, back) =
        (path(&scene, "old.qcow2"), path(&scene, "new.qcow2"), path(&scene, "back"));
    let mut command = Command::new(qemu_img);
    command.args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&scene.image);
    run_ok(command.arg(&source));
    scene.done(&[&["convert", "-O", "qcow2"][..], &NEW, &[&source, &target]].concat());
    assert!(qemu_decrypts(Path::new(&target), &back) == plain());
    let luks = path(&scene, "new.luks");
    scene.done(&[&["convert", "-O", "luks"][..], &NEW, &[&source, &luks]].concat());
    scene.done(&["convert", "--overwrite", "--secret", "env:OLD", &luks, &back]);
    assert!(fs::read(&back).unwrap() == plain());
}

#[test]
fn an_existing_image_is_written_in_place() {
    if peer("qemu-img").is_none() {
        return;
    }
    let scene = Scene::of(&plain());
    let target = path(&scene, "old.qcow2");
    qcow2::create(Path::new(&target), OLD, "", "4M");
    let convert = ["convert", "-n", "-O", "qcow2", "--new-secret", "env:OLD", "IMG", &target];
    scene.done(&convert);
    assert!(qcow2::is_clean(Path::new(&target), OLD));
    let back = qemu_decrypts(Path::new(&target), &path(&scene, "back"));
    assert!(back[..plain().len()] == plain() && back.len() == 4 << 20);
}

#[test]
fn files_that_the_image_names_are_opened_only_if_that_is_said() {
    let Some(qemu_img) = peer("qemu-img") else { return };
    let scene = Scene::of(&plain());
    let dir = scene.dir.path();
    let back = path(&scene, "back");
    // A base, an overlay of it, and an encrypted overlay of that.
    fs::write(dir.join("base.raw"), plain()).unwrap();
    let mut command = Command::new(&qemu_img);
    command.args(["create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw"]);
    run_ok(command.arg(dir.join("middle.qcow2")));
    fs::remove_file(&scene.image).unwrap();
    let create = ["create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2"];
    scene.done(&[&create[..], &NEW, &["IMG"]].concat());
    let convert = ["convert", "--secret", "env:OLD", "IMG", &back];
    let text = scene.refused(&convert, 4, &["backing file", "middle.qcow2", "--named-files"]);
    assert!(!Path::new(&back).exists(), "{text}");
    scene.done(&["convert", "--named-files", "--secret", "env:OLD", "IMG", &back]);
    assert!(fs::read(&back).unwrap() == plain());

    for (name, format) in [("json:{}", "raw"), ("nbd://host/x", "raw"), ("base.raw", "vmdk")] {
        fs::remove_file(&scene.image).unwrap();
        let create = ["create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", format];
        scene.done(&[&create[..], &NEW, &["IMG", "1M"]].concat());
        let convert = ["convert", "--named-files", "--overwrite", "--secret", "env:OLD"];
        let output = scene.command(&[&convert[..], &["IMG", &back]].concat()).output().unwrap();
        assert_eq!(output.status.code(), Some(4), "{name}: {output:?}");
    }
    // A chain that ends in itself.
    fs::remove_file(&scene.image).unwrap();
    let create = ["create", "-q", "-u", "-f", "qcow2", "-b", "loop.qcow2", "-F", "qcow2"];
    scene.done(&[&create[..], &NEW, &["IMG", "1M"]].concat());
    let mut command = Command::new(&qemu_img);
    command.args(["create", "-q", "-u", "-f", "qcow2", "-b", "loop.qcow2", "-F", "qcow2"]);
    run_ok(command.arg(dir.join("loop.qcow2")).arg("1M"));
    let convert = ["convert", "--named-files", "--overwrite", "--secret", "env:OLD", "IMG", &back];
    let output = scene.command(&convert).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{output:?}");
    assert!(support::stderr(&output).contains("a cycle"), "{output:?}");
}
