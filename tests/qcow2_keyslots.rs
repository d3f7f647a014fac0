//! Keyslots of qcow2 images that qemu-img made, of every kind: they change, nothing else does, and QEMU
//! opens the result.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use command::{SECRETS, Scene};
use keyslot::OpenOptions;
use serde_json::json;
use support::{peer, qcow2, run, run_ok};

const OLD: &str = SECRETS[0].1;
const NEW: &str = SECRETS[1].1;
const NONE: [usize; 0] = [];
const FAST: [&str; 2] = ["--iterations", "1000"];

/// Options of `qemu-img create`, and names of the files that the image refers to
#[rustfmt::skip]
const KINDS: [(&str, &[&str]); 16] = [
    ("", &[]),
    (",cluster_size=512", &[]),
    (",cluster_size=4k", &[]),
    (",cluster_size=2M", &[]),
    (",compat=0.10", &[]),
    (",compat=0.10,cluster_size=512", &[]),
    (",extended_l2=on", &[]),
    (",refcount_bits=1", &[]),
    (",refcount_bits=64", &[]),
    (",lazy_refcounts=on", &[]),
    (",preallocation=metadata", &[]),
    (",preallocation=full,cluster_size=4k", &[]),
    (",compression_type=zstd", &[]),
    (",data_file=data.raw", &["data.raw"]),
    (",backing_file=base.qcow2,backing_fmt=qcow2", &["base.qcow2"]),
    (",backing_file=base.luks.qcow2,backing_fmt=qcow2", &["base.luks.qcow2"]),
];

/// Makes an image of this kind with `OLD` in keyslot 0. What it refers to is gone afterwards.
fn make(scene: &Scene, (options, names): (&str, &[&str])) {
    let qemu_img = peer("qemu-img").unwrap();
    let dir = scene.dir.path();
    for name in names.iter().filter(|name| name.starts_with("base")) {
        if name.contains("luks") {
            qcow2::create(&dir.join(name), "base", "", "1M");
        } else {
            let mut command = Command::new(&qemu_img);
            run_ok(command.args(["create", "-q", "-f", "qcow2"]).arg(dir.join(name)).arg("1M"));
        }
    }
    let options = options.replace("data_file=", &format!("data_file={}/", dir.display()));
    qcow2::create(&scene.image, OLD, &options, "1M");
    if names.is_empty() {
        let write = "write -q -P 0xa5 64k 128k";
        run_ok(&mut qemu_io(&scene.image, OLD, write));
    }
    for name in names {
        fs::rename(dir.join(name), dir.join("away")).unwrap();
    }
}

fn qemu_io(image: &Path, secret: &str, command: &str) -> Command {
    let mut qemu_io = Command::new(peer("qemu-io").unwrap());
    qemu_io.args(["-c", command, "--object", &format!("secret,id=s,data={secret}")]);
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", image.display());
    qemu_io.args(["--image-opts", &opts]);
    qemu_io
}

/// Whether QEMU opens it with this secret and finds what [`make`] wrote.
fn qemu_reads(image: &Path, secret: &str) -> bool {
    let output = run(qemu_io(image, secret, "read -q -P 0xa5 64k 128k").arg("-r"));
    output.status.success() && output.stdout.is_empty()
}

/// Brings back the files that [`make`] hid.
fn put_back(scene: &Scene, names: &[&str]) {
    let dir = scene.dir.path();
    for name in names {
        fs::rename(dir.join("away"), dir.join(name)).unwrap();
    }
}

fn changed_outside_the_luks_header(before: &[u8], after: &[u8]) -> Vec<usize> {
    let area = qcow2::area(before);
    let differs = |at: &usize| before[*at] != after[*at] && !area.contains(at);
    assert_eq!(before.len(), after.len());
    (0..before.len()).filter(differs).collect()
}

#[test]
fn keyslots_change_in_images_of_every_kind_and_nothing_else_does() {
    if peer("qemu-img").is_none() || peer("qemu-io").is_none() {
        return;
    }
    for kind in KINDS {
        let scene = Scene::without_image();
        make(&scene, kind);
        let before = scene.bytes();
        let backup = scene.backup("header.bak");
        let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW"];
        scene.done(&[&add[..], &FAST, &["IMG"]].concat());
        assert_eq!(scene.opened_by("NEW"), [1], "{kind:?}");
        let replace = ["replace", "--old-secret", "env:OLD", "--new-secret", "env:OTHER"];
        scene.done(&[&replace[..], &FAST, &["IMG"]].concat());
        assert_eq!(scene.opened_by("OTHER"), [0], "{kind:?}");
        scene.done(&["erase", "--keyslot", "0", "IMG"]);
        let only_new = scene.bytes();
        assert_eq!(changed_outside_the_luks_header(&before, &only_new), NONE, "{kind:?}");
        scene.refused(&["add", "--secret", "env:OLD", "--new-secret", "env:OTHER", "IMG"], 2, &[]);
        let check = scene.json(&["check", "--secret", "env:NEW", "IMG"]);
        assert_eq!((&check["secret-opens"], &check["leftovers"]), (&json!([1]), &json!([])));

        put_back(&scene, kind.1);
        if kind.1.is_empty() {
            assert!(qemu_reads(&scene.image, NEW) && !qemu_reads(&scene.image, OLD), "{kind:?}");
        }
        if !kind.0.contains("base.luks") {
            assert!(qcow2::is_clean(&scene.image, NEW), "{kind:?}");
        }
        scene.restore(&backup);
        assert_eq!(scene.opened_by("OLD"), [0], "{kind:?}");
        assert_eq!(scene.opened_by("NEW"), NONE, "{kind:?}");
        assert_eq!(changed_outside_the_luks_header(&before, &scene.bytes()), NONE, "{kind:?}");
        if kind.1.is_empty() {
            assert!(qemu_reads(&scene.image, OLD), "{kind:?}");
        }
    }
}

#[test]
fn snapshots_and_bitmaps_stay() {
    let Some(qemu_img) = peer("qemu-img") else { return };
    let scene = Scene::without_image();
    make(&scene, KINDS[0]);
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", scene.image.display());
    let object = format!("secret,id=s,data={OLD}");
    let mut snapshot = Command::new(&qemu_img);
    run_ok(snapshot.args(["snapshot", "-c", "one", "--object", &object, "--image-opts", &opts]));
    let mut bitmap = Command::new(&qemu_img);
    bitmap.args(["bitmap", "--object", &object, "--add", "--image-opts", &opts]);
    run_ok(bitmap.arg("changes"));
    let before = scene.bytes();
    let replace = ["replace", "--old-secret", "env:OLD", "--new-secret", "env:NEW"];
    scene.done(&[&replace[..], &FAST, &["IMG"]].concat());
    assert_eq!(changed_outside_the_luks_header(&before, &scene.bytes()), NONE);
    assert!(qcow2::is_clean(&scene.image, NEW) && qemu_reads(&scene.image, NEW));
    let data = &scene.json(&["info", "IMG"])["format-specific"]["data"];
    assert_eq!(data["internal-snapshots"], 1);
}

#[test]
fn amend_takes_the_options_with_and_without_their_prefix() {
    if peer("qemu-img").is_none() || peer("qemu-io").is_none() {
        return;
    }
    let scene = Scene::without_image();
    make(&scene, KINDS[0]);
    let file = |name: &str, secret: &str| {
        let path = scene.file(name, secret.as_bytes());
        format!("secret,id={name},file={}", path.display())
    };
    let (s, t) = (file("s", OLD), file("t", NEW));
    let opts = format!("driver=qcow2,encrypt.key-secret=s,file.filename={}", scene.image.display());
    let amend = ["amend", "--object", &s, "--object", &t, "--image-opts", &opts, "-o"];
    let done = |options: &str| scene.done(&[&amend[..], &[options]].concat());
    done("encrypt.state=active,encrypt.new-secret=t,encrypt.iter-time=10,encrypt.keyslot=5");
    assert_eq!(scene.opened_by("NEW"), [5]);
    done("encrypt.state=inactive,encrypt.old-secret=t");
    assert_eq!(scene.opened_by("NEW"), NONE);
    done("state=active,new-secret=t,iter-time=10");
    assert!(qemu_reads(&scene.image, NEW));
    scene.refused(&[&amend[..], &["size=2M"]].concat(), 4, &["'size' changes more than"]);
    let invalid = ["Invalid parameter 'foo'"];
    scene.refused(&[&amend[..], &["encrypt.foo=1"]].concat(), 1, &invalid);
}

#[test]
fn options_of_the_image_are_those_of_qemu() {
    if peer("qemu-img").is_none() || peer("qemu-io").is_none() {
        return;
    }
    let scene = Scene::without_image();
    make(&scene, KINDS[0]);
    let file = scene.image.to_str().unwrap();
    let both = |arguments: &[&str]| {
        let qemu = run(Command::new(peer("qemu-img").unwrap()).args(arguments));
        let mut ours = Command::new(command::KEYSLOT);
        let ours = run(ours.args(arguments));
        assert_eq!(qemu.status.success(), ours.status.success(), "{arguments:?}: {ours:?}");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert_eq!(text(&qemu.stdout), text(&ours.stdout), "{arguments:?}");
        let message = text(&qemu.stderr);
        let message = message.trim_end().rsplit("': ").next().unwrap().to_owned();
        assert!(text(&ours.stderr).contains(&message), "{arguments:?}: {message}: {ours:?}");
    };
    both(&["info", file]);
    both(&["info", "--output", "json", file]);
    both(&["info", "-f", "qcow2", "--output", "json", file]);
    let opts = [
        "driver=qcow2,file.filename=IMG",
        "driver=qcow2,encrypt.key-secret=s,file.filename=IMG",
        "encrypt.key-secret=s,file.filename=IMG",
        "driver=qcow2,encrypt.format=luks,file.filename=IMG",
        "driver=qcow2,encrypt.format=aes,file.filename=IMG",
        "driver=qcow2,encrypt.foo=1,file.filename=IMG",
        "driver=qcow2,key-secret=s,file.filename=IMG",
        "driver=qcow2,lazy-refcounts=on,cache-size=1M,file.filename=IMG",
    ];
    let object = format!("secret,id=s,data={OLD}");
    for opts in opts.map(|it| it.replace("IMG", file)) {
        both(&["info", "--object", &object, "--image-opts", &opts]);
    }
}

#[test]
fn a_dirty_image_is_amended_and_a_corrupt_one_is_not() {
    if peer("qemu-img").is_none() || peer("qemu-io").is_none() {
        return;
    }
    let scene = Scene::without_image();
    make(&scene, KINDS[0]);
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000"];
    let add = [&add[..], &["IMG"]].concat();
    let mut image = scene.bytes();
    image[79] = 1;
    fs::write(&scene.image, &image).unwrap();
    assert_eq!(scene.json(&["info", "IMG"])["dirty-flag"], true);
    scene.done(&add);
    assert_eq!(scene.bytes()[79], 1, "only a repair may clear the dirty bit");
    assert_eq!(changed_outside_the_luks_header(&image, &scene.bytes()), NONE);
    assert!(qemu_reads(&scene.image, NEW));
    image[79] = 2;
    fs::write(&scene.image, &image).unwrap();
    scene.done(&["info", "IMG"]);
    scene.refused(&add, 4, &["Image is corrupt; cannot be opened read/write"]);
}

#[test]
fn an_unknown_autoclear_feature_is_cleared_before_the_change() {
    if peer("qemu-img").is_none() || peer("qemu-io").is_none() {
        return;
    }
    let scene = Scene::without_image();
    make(&scene, KINDS[0]);
    let mut image = scene.bytes();
    // Features 1 and 7, of which QEMU defines the first.
    image[95] = 0x82;
    fs::write(&scene.image, &image).unwrap();
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--iterations", "1000"];
    scene.done(&[&add[..], &["--dry-run", "IMG"]].concat());
    assert!(scene.bytes() == image, "a dry run writes nothing");
    scene.done(&[&add[..], &["IMG"]].concat());
    assert_eq!(changed_outside_the_luks_header(&image, &scene.bytes()), [95]);
    assert_eq!(scene.bytes()[95], 2);
}

#[test]
fn a_header_that_moved_since_it_was_read_is_not_written() {
    let scene = Scene::new();
    let image = qcow2::around(&scene.bytes());
    fs::write(&scene.image, &image).unwrap();
    let mut opened = OpenOptions::new().write(true).open(&scene.image).unwrap();
    let moved: PathBuf = scene.image.clone();
    let mut other = [&image[..], &scene.bytes()[1024..]].concat();
    other[120..128].copy_from_slice(&(image.len() as u64).to_be_bytes());
    fs::write(moved, &other).unwrap();
    let label = keyslot::header::Edit::SetUuid(uuid::Uuid::nil());
    let error = opened.edit(&[label]).unwrap_err();
    assert_eq!(error.kind(), keyslot::ErrorKind::Changed, "{error}");
    assert!(fs::read(&scene.image).unwrap() == other);
}
