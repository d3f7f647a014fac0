//! Under the name qemu-img: its version, targets that exist, LUKS2, and its words for locks.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use command::{KEYSLOT, SECRETS, Scene};
use side_by_side::{Outcome, Pair};
use support::luks2::Luks2;
use support::{Running, eventually, locks::locks, peer, run, stderr};

/// A link to the command under the name of qemu-img, in the scene's directory.
fn link(scene: &Scene) -> PathBuf {
    let link = scene.dir.path().join("qemu-img");
    symlink(KEYSLOT, &link).unwrap();
    link
}

/// The number that `qemu-img --version` begins with, as scripts look for it.
fn version(program: &Path, option: &str) -> String {
    let output = run(Command::new(program).arg(option));
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rest = text.strip_prefix("qemu-img version ").unwrap_or_else(|| panic!("{text}"));
    let number: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
    let parts: Vec<_> = number.split('.').map(|part| part.parse::<u32>().unwrap()).collect();
    assert_eq!(parts.len(), 3, "{text}");
    number
}

#[test]
fn the_version_is_a_line_that_scripts_parse() {
    let scene = Scene::without_image();
    let link = link(&scene);
    let ours = version(&link, "--version");
    assert_eq!(version(&link, "-V"), ours);
    assert!(run(Command::new(&link).arg("--version")).stdout.ends_with(b")\n"));
    let Some(theirs) = peer("qemu-img") else { return };
    version(&theirs, "--version");
}

/// Scripts create into temporary files, which exist.
#[test]
fn an_existing_target_is_replaced() {
    let scene = Scene::without_image();
    let link = link(&scene);
    let plain = scene.file("plain.raw", &vec![7; 1 << 16]);
    let target = scene.file("target", b"what was there before");
    fs::set_permissions(&target, Permissions::from_mode(0o600)).unwrap();
    let (plain, name) = (plain.to_str().unwrap(), target.to_str().unwrap());
    let object = ["--object", "secret,id=s,data=xyzzy-one", "-o", "key-secret=s,iter-time=10"];
    for (args, is_luks) in [
        (vec!["create", "-q", "-f", "luks", name, "1M"], true),
        (vec!["convert", "-f", "raw", "-O", "luks", plain, name], true),
        (vec!["convert", "-f", "raw", "-O", "raw", plain, name], false),
    ] {
        let mut command = Command::new(&link);
        command.args(&args).args(if is_luks { &object[..] } else { &[] });
        let output = run(&mut command);
        assert!(output.status.success(), "{args:?}: {output:?}");
        let bytes = fs::read(&target).unwrap();
        assert_eq!(bytes.starts_with(b"LUKS\xba\xbe\0\x01"), is_luks, "{args:?}");
        assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);

        // Whatever is wrong leaves it as it is, and says nothing of an image that is not there.
        fs::write(&target, "precious").unwrap();
        let mut command = Command::new(&link);
        command.args(&args).args(if is_luks { &object[..] } else { &[] });
        let output = run(command.args(["-o", "preallocation=maybe"]));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(fs::read(&target).unwrap(), b"precious", "{args:?}");
    }
    // Under its own name it is asked for.
    scene.command_refused(
        &mut scene.command(&["create", "-f", "luks", "--new-secret", "env:NEW", name, "1M"]),
        1,
        &["the file exists", "hint: use --overwrite"],
    );
    assert_eq!(fs::read(&target).unwrap(), b"precious");
}

#[test]
fn luks2_is_raw_to_qemu_img() {
    let Some(pair) = Pair::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    let image = Luks2::testdata("luks2_keyslots.img").bytes;
    fs::write(directory.path().join("image"), &image).unwrap();
    fs::write(directory.path().join("text"), "not an image").unwrap();
    fs::write(directory.path().join("empty"), "").unwrap();
    for words in [
        "info image",
        "info --output=json image",
        "info -f raw image",
        "info -f luks image",
        "info -f luks2 image",
        "info text",
        "info --output=json text",
        "info empty",
        "info -f raw --backing-chain --output=json text",
        "convert image copy",
        "convert -f raw image copy",
        "convert -f luks image other",
        "convert -f luks2 image other",
        "convert --image-opts file.filename=image copy",
        "amend -o state=active image",
        "amend --object secret,id=s,data=hunter0 -o state=active,new-secret=s image",
        "amend -f luks2 -o state=active image",
    ] {
        let arguments: Vec<_> = words.split(' ').collect();
        let theirs = Outcome::of(&pair.theirs, &arguments, directory.path());
        let copy = directory.path().join("copy");
        let copied = fs::read(&copy).ok();
        let _ = fs::remove_file(&copy);
        let ours = Outcome::of(&pair.ours, &arguments, directory.path());
        assert_eq!(ours, theirs, "{words}");
        assert!(fs::read(&copy).ok() == copied, "{words}");
        assert!(copied.is_none_or(|copied| copied == image), "{words}");
        let _ = fs::remove_file(&copy);
    }
    assert!(fs::read(directory.path().join("image")).unwrap() == image);
}

/// `qemu-nbd` holds the image in each of its ways: what amend, create and convert say of it.
#[test]
fn refusals_of_locks_are_in_qemus_words() {
    let (Some(qemu_nbd), Some(qemu_img)) = (peer("qemu-nbd"), peer("qemu-img")) else { return };
    let scene = Scene::new().and("OTHER", 3);
    let link = link(&scene);
    let image = scene.image.to_str().unwrap();
    let object = "secret,id=s,data=xyzzy-zero";
    let options = format!("driver=luks,file.filename={image},key-secret=s");
    let before = scene.bytes();
    for (args, suffix, held) in [
        (&[][..], "", "203 203"),
        (&["-r"], "", "203 203"),
        (&["-r"], ",force-share=on", "100 100"),
    ] {
        let socket = scene.dir.path().join("socket");
        let mut nbd = Command::new(&qemu_nbd);
        nbd.args(["--persistent", "--object", object]).args(args).arg("-k").arg(&socket);
        let _nbd = Running::spawn(nbd.args(["--image-opts", &format!("{options}{suffix}")]));
        eventually("qemu-nbd's locks", || locks(&scene.image).iter().any(|it| it.contains(held)));

        let erase = ["amend", "--object", object, "--image-opts", &options, "-o"];
        let erase = [&erase[..], &["state=inactive,keyslot=3"]].concat();
        let create =
            ["create", "-q", "-f", "luks", "--object", object, "-o", "key-secret=s", image];
        let create = [&create[..], &["64K"]].concat();
        let mut commands = vec![erase];
        // QEMU writes over what is only read, or by writers that bear with it.
        if held == "203 203" {
            commands.push(create);
        }
        if args.is_empty() {
            let target = scene.dir.path().join("out.raw").to_str().unwrap().to_owned();
            let convert = ["convert", "--object", object, "--image-opts", &options];
            let output = |program: &Path| run(Command::new(program).args(convert).arg(&target));
            assert_eq!(stderr(&output(&link)), stderr(&output(&qemu_img)));
        }
        for command in commands {
            let output = |program: &Path| run(Command::new(program).args(&command));
            let (ours, theirs) = (output(&link), output(&qemu_img));
            assert_eq!((ours.status.code(), theirs.status.code()), (Some(1), Some(1)));
            assert_eq!(stderr(&ours), stderr(&theirs), "{command:?} beside {args:?}{suffix}");
            assert!(ours.stdout.is_empty(), "{ours:?}");
            assert!(scene.bytes() == before);
        }
    }
}

/// Of several images, and of commands that qemu-img does not have.
#[test]
fn a_failure_is_said_once() {
    let scene = Scene::new();
    let link = link(&scene);
    let image = scene.image.to_str().unwrap();
    let text = scene.file("text", b"not an image").to_str().unwrap().to_owned();
    for (args, lines) in [
        (vec!["header", "backup", &text, "backup"], 1),
        (vec!["erase", "--old-secret", "env:WRONG", image], 1),
        (vec!["is-luks", &text], 0),
        (vec!["info", &text, image], 2),
        (vec!["info", image, image], 2),
    ] {
        let output = run(Command::new(&link).args(&args).envs(SECRETS));
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert_eq!(stderr(&output).lines().count(), lines, "{args:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{args:?}: {output:?}");
    }
    let several = run(Command::new(&link).args(["info", image, image]));
    assert!(stderr(&several).starts_with("qemu-img: Expecting one image file name\n"));
}

/// Whatever a secret is, qemu-img takes it without a word.
#[test]
fn any_new_secret_is_taken() {
    let scene = Scene::new();
    let link = link(&scene);
    let name = scene.image.to_str().unwrap();
    let old = "secret,id=old,data=xyzzy-zero";
    let options = format!("driver=luks,file.filename={name},key-secret=old");
    let plain = scene.file("plain.raw", &[7; 512]).to_str().unwrap().to_owned();
    let target = scene.dir.path().join("target").to_str().unwrap().to_owned();
    for secret in ["", "line\n"] {
        let file = scene.file("secret", secret.as_bytes());
        let object = format!("secret,id=s,file={}", file.display());
        let new = ["--object", &object, "-o", "key-secret=s,iter-time=10"];
        let amend = ["--object", &object, "-o", "state=active,new-secret=s,iter-time=10"];
        for args in [
            [&["create", "-q", "-f", "luks", &target, "64K"][..], &new].concat(),
            [&["convert", "-f", "raw", "-O", "luks", &plain, &target][..], &new].concat(),
            [&["amend", "--object", old, "--image-opts", &options][..], &amend].concat(),
        ] {
            let output = run(Command::new(&link).args(&args));
            assert!(output.status.success(), "{args:?}: {output:?}");
            assert!(output.stderr.is_empty(), "{args:?}: {output:?}");
        }
    }
}

/// A name may begin with a protocol there, and `file:` is no part of it.
#[test]
fn names_of_files_are_read_as_qemu_img_reads_them() {
    let Some(pair) = Pair::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("text"), "not an image").unwrap();
    fs::write(directory.path().join("a:b"), "not an image").unwrap();
    let create = "create -f luks --object secret,id=s,data=hunter0 -o key-secret=s,iter-time=10";
    for words in [
        "info file:text",
        "info file:nowhere",
        "info a:b",
        "info ./a:b",
        "convert file:text copy",
        "convert text file:copy",
        "convert -n text file:nowhere",
        "amend -o state=active file:text",
        &format!("{create} file:copy 64K"),
        "create -f luks a:b 64K",
        "create -f luks json:text 64K",
    ] {
        let arguments: Vec<_> = words.split(' ').collect();
        let theirs = Outcome::of(&pair.theirs, &arguments, directory.path());
        let copy = directory.path().join("copy");
        let is_copied = copy.exists();
        let _ = fs::remove_file(&copy);
        let ours = Outcome::of(&pair.ours, &arguments, directory.path());
        assert_eq!(ours, theirs, "{words}");
        assert_eq!(copy.exists(), is_copied, "{words}");
        let _ = fs::remove_file(&copy);
    }
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}
