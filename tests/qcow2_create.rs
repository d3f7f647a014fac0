//! qcow2 images that keyslot creates: qemu-img finds no fault in them, and QEMU writes and reads them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene};
use support::{peer, qcow2, run, run_ok};

const OLD: &str = SECRETS[0].1;
const CREATE: [&str; 7] =
    ["create", "-f", "qcow2", "--new-secret", "env:OLD", "--iterations", "1000"];

#[test]
fn qemu_uses_images_of_every_kind() {
    let (Some(_), Some(qemu_io)) = (peer("qemu-img"), peer("qemu-io")) else { return };
    for options in [
        "cluster_size=64k",
        "cluster_size=512",
        "cluster_size=4k",
        "cluster_size=2M",
        "compat=0.10",
        "compat=0.10,cluster_size=512",
        "refcount_bits=1",
        "refcount_bits=2,cluster_size=512",
        "refcount_bits=64,cluster_size=512",
        "lazy_refcounts=on",
        "preallocation=metadata",
        "preallocation=metadata,cluster_size=512,refcount_bits=32",
        "preallocation=falloc,cluster_size=4k",
        "preallocation=full",
        "encrypt.cipher-alg=aes-128,encrypt.hash-alg=sha512",
        "cipher-alg=twofish-256",
    ] {
        let scene = Scene::without_image();
        scene.done(&[&CREATE[..], &["-q", "-o", options, "IMG", "5M"]].concat());
        assert!(qcow2::is_clean(&scene.image, OLD), "{options}");
        let mut command = Command::new(&qemu_io);
        command.args(["--object", &format!("secret,id=s,data={OLD}")]);
        command.args(["-c", "write -q -P 7 1M 3M", "-c", "read -q -P 7 1M 3M"]);
        let image = scene.image.display();
        let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={image}");
        let output = run_ok(command.args(["--image-opts", &opts]));
        assert!(output.stdout.is_empty(), "{options}: {output:?}");
        assert!(qcow2::is_clean(&scene.image, OLD), "{options}");
        assert_eq!(scene.json(&["info", "IMG"])["virtual-size"], 5 << 20, "{options}");
    }
}

#[test]
fn a_disk_may_be_as_large_as_the_tables_allow() {
    let scene = Scene::without_image();
    scene.done(&[&CREATE[..], &["IMG", "2P"]].concat());
    assert!(scene.bytes().len() < 64 << 20);
    if peer("qemu-img").is_some() {
        assert!(qcow2::is_clean(&scene.image, OLD));
    }
    fs::remove_file(&scene.image).unwrap();
    for size in ["6P", "7E"] {
        let text = scene.refused(&[&CREATE[..], &["IMG", size]].concat(), 1, &["too large"]);
        assert!(!scene.image.exists(), "{text}");
    }
    let small = [&CREATE[..], &["-o", "cluster_size=512", "IMG", "1T"]].concat();
    scene.refused(&small, 1, &["image size 1099511627776 is too large for qcow2"]);
}

#[test]
fn an_overlay_has_the_size_of_its_backing_file() {
    let scene = Scene::without_image();
    let dir = scene.dir.path();
    fs::write(dir.join("base.raw"), vec![1; 3 << 20]).unwrap();
    let overlay = |file: &str, format: &str| {
        let _ = fs::remove_file(&scene.image);
        let create = [&CREATE[..], &["-q", "-b", file, "-F", format, "IMG"]].concat();
        scene.done(&create);
        let info = scene.json(&["info", "IMG"]);
        assert_eq!(info["backing-filename"], file);
        assert_eq!(info["backing-filename-format"], format);
        info["virtual-size"].as_u64().unwrap() >> 20
    };
    assert_eq!(overlay("base.raw", "raw"), 3);
    scene.done(&[&CREATE[..], &["-q", dir.join("base.qcow2").to_str().unwrap(), "7M"]].concat());
    assert_eq!(overlay("base.qcow2", "qcow2"), 7);
    let refused = |more: &[&str], text: &str| {
        let _ = fs::remove_file(&scene.image);
        let error = scene.command(&[&CREATE[..], more, &["IMG"]].concat()).output().unwrap();
        assert!(!error.status.success() && !scene.image.exists(), "{more:?}");
        let said = support::stderr(&error);
        assert!(said.contains(text), "{more:?}: {said}");
    };
    refused(&["-b", "base.raw"], "Backing file specified without backing format");
    refused(&["-b", "none", "-F", "raw"], "none: cannot open");
    refused(&["-b", "none", "-F", "vmdk"], "none: cannot open");
    refused(&[], "Image creation needs a size parameter");
    refused(&["-u", "-b", "none", "-F", "raw"], "Image creation needs a size parameter");
    scene.done(&[&CREATE[..], &["-u", "-b", "none", "-F", "raw", "IMG", "1M"]].concat());
}

#[test]
fn under_the_name_qemu_img_it_says_what_qemu_img_says() {
    let Some(qemu_img) = peer("qemu-img") else { return };
    let scene = Scene::without_image();
    let ours = scene.dir.path().join("qemu-img");
    symlink(KEYSLOT, &ours).unwrap();
    fs::write(scene.dir.path().join("base"), vec![0; 1 << 20]).unwrap();
    let object = format!("secret,id=s,data={OLD}");
    for options in [
        "",
        ",cluster_size=4k,compat=0.10,encrypt.cipher-alg=aes-128",
        ",backing_file=base,backing_fmt=raw,preallocation=off,lazy_refcounts=on",
        ",cluster_size=300",
        ",cluster_size=4M",
        ",compat=0.10,lazy_refcounts=on",
        ",compat=2",
        ",refcount_bits=3",
        ",compat=0.10,refcount_bits=1",
        ",key-secret=s",
        ",encrypt.foo=1",
        ",preallocation=metadata,backing_file=base,backing_fmt=raw",
    ] {
        let run = |program| {
            let mut command = Command::new(program);
            command.args(["create", "-f", "qcow2", "--object", &object, "-o"]);
            command.arg(format!("encrypt.format=luks,encrypt.key-secret=s{options}"));
            command.args(["-o", "encrypt.iter-time=10", "new.qcow2", "1M"]);
            let output = run(command.current_dir(scene.dir.path()));
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            (output.status.code(), text(&output.stdout), text(&output.stderr))
        };
        assert_eq!(run(&ours), run(&qemu_img), "{options}");
    }
}
