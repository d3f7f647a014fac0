//! How an image is named: `keyslot`, under the name qemu-img, accepts what qemu-img accepts, and
//! refuses in its words. `specs.txt` has the names.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "../support/command.rs"]
mod command;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use command::{KEYSLOT, Scene};
use support::{peer, run};

const SPECS: &str = include_str!("specs.txt");

/// An image, parts of disks with it, a payload whose header is apart, and raw data.
fn scene() -> (Scene, usize, usize) {
    let scene = Scene::new();
    let image = scene.bytes();
    let payload = u32::from_be_bytes(image[104..108].try_into().unwrap()) as usize * 512;
    let mut header = image[..payload].to_vec();
    header[104..108].fill(0);
    for (name, bytes) in [
        ("a.luks", image.clone()),
        ("disk", [&vec![0; 1 << 20], &image[..], &[0xa5; 4096]].concat()),
        ("hdr", header.clone()),
        ("hdisk", [&[0; 4096], &header[..], &[0; 4096]].concat()),
        ("pay", vec![0; 65536]),
        ("plain.raw", vec![0x11; 65536]),
        ("odd.raw", vec![0x11; 70000]),
    ] {
        scene.file(name, &bytes);
    }
    symlink(KEYSLOT, scene.dir.path().join("qemu-img")).unwrap();
    (scene, image.len(), payload)
}

/// The arguments that a line stands for.
fn arguments(line: &str) -> Vec<&str> {
    let (format, rest) = match line.strip_prefix("-f ") {
        Some(rest) => rest.split_once(' ').map(|(format, rest)| (Some(format), rest)).unwrap(),
        None => (None, line),
    };
    let mut arguments: Vec<_> = format.into_iter().flat_map(|it| ["-f", it]).collect();
    match rest.split_once(' ') {
        Some(("opts", options)) => arguments.extend(["--image-opts", options]),
        Some(("name", name)) => arguments.push(name),
        _ => arguments.push(rest),
    }
    arguments
}

/// Exit status, standard output without the space that files take, and standard error.
fn answer(program: &Path, directory: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program);
    let output = run(command.arg("info").args(arguments).current_dir(directory).env("LC_ALL", "C"));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("disk size: "));
    let text = lines.collect::<Vec<_>>().join("\n");
    (output.status.code(), text, String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_image_is_named_as_qemu_img_names_it() {
    let Some(theirs) = peer("qemu-img") else { return };
    let (scene, size, header) = scene();
    let directory = scene.dir.path();
    let ours = directory.join("qemu-img");
    let (mut is_same, mut count) = (true, 0);
    for line in SPECS.lines().filter(|line| !line.starts_with('#')) {
        match line {
            "[same]" => is_same = true,
            "[verdict]" => is_same = false,
            line => {
                let line = line.replace("{SIZE}", &size.to_string());
                let line = line.replace("{HEADER}", &header.to_string());
                let arguments = arguments(&line);
                let expected = answer(&theirs, directory, &arguments);
                let found = answer(&ours, directory, &arguments);
                if is_same {
                    assert_eq!(found, expected, "{line}");
                } else {
                    assert_eq!(found.0, expected.0, "{line}: {found:?} {expected:?}");
                }
                count += 1;
            }
        }
    }
    assert!(count > 300, "{count}");
}

/// A range that is not whole sectors is refused, which qemu-img takes: the sectors of a LUKS header
/// would not be those of the disk.
#[test]
fn an_offset_is_whole_sectors() {
    let (scene, ..) = scene();
    for options in [
        "driver=raw,offset=100,file.filename=plain.raw",
        "driver=luks,file.driver=raw,file.offset=1,file.file.filename=disk",
    ] {
        let mut command = scene.command(&["info", "--image-opts", options]);
        let output = run(command.current_dir(scene.dir.path()));
        assert_eq!(output.status.code(), Some(1));
        assert!(support::stderr(&output).contains("Specified offset is not multiple of 512"));
    }
}

/// QEMU reads through a range the bytes that were written through the same range, with the header in a
/// range of its own file.
#[test]
fn a_header_in_a_range_is_amended_there_and_nowhere_else() {
    let (scene, _, header) = scene();
    let options = format!(
        "driver=luks,file.driver=raw,file.offset=512,file.size=1k,file.file.filename=pay,\
         header.driver=raw,header.offset=4k,header.size={header},header.file.filename=hdisk"
    );
    let before = fs::read(scene.dir.path().join("hdisk")).unwrap();
    let payload = fs::read(scene.dir.path().join("pay")).unwrap();
    let amend = ["amend", "--secret", "env:OLD", "--object", "secret,id=n,data=second"];
    let change = ["-o", "state=active,new-secret=n,iter-time=10", "--image-opts", &options];
    let mut command = scene.command(&[&amend[..], &change].concat());
    let output = run(command.current_dir(scene.dir.path()));
    assert!(output.status.success(), "{output:?}");
    let after = fs::read(scene.dir.path().join("hdisk")).unwrap();
    assert!(before != after);
    assert_eq!(before[..4096], after[..4096]);
    assert_eq!(before[4096 + header..], after[4096 + header..]);
    assert_eq!(payload, fs::read(scene.dir.path().join("pay")).unwrap());

    let Some(io) = peer("qemu-io") else { return };
    let mut command = Command::new(io);
    command.args(["-r", "--object", "secret,id=s,data=second", "-c", "read -q 0 1024"]);
    command.args(["--image-opts", &format!("{options},key-secret=s")]);
    let output = run(command.current_dir(scene.dir.path()));
    assert!(output.status.success(), "{output:?}");
}
