//! Detached headers: made by cryptsetup and by keyslot, with cryptsetup and QEMU on the other side.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use command::{Scene, passphrase};
use keyslot::amend::{Change, Request};
use keyslot::kdf::Cost;
use keyslot::{ErrorKind, OpenOptions, Passphrase, Sharing};
use serde_json::json;
use support::locks::locks;
use support::{Running, eventually, peer, run, run_ok};

const FAST: [&str; 4] = ["--pbkdf", "pbkdf2", "--iterations", "1000"];
const OLD: &str = "xyzzy-zero";
const NEW: &str = "xyzzy-one";

/// A payload and, beside it, a header that cryptsetup made with `OLD` in keyslot 0.
fn by_cryptsetup(kind: &str) -> Option<(Scene, String)> {
    let cryptsetup = peer("cryptsetup")?;
    let scene = Scene::of(&vec![0; 1 << 20]);
    let header = scene.dir.path().join("header").to_str().unwrap().to_owned();
    let secret = scene.file("secret", OLD.as_bytes());
    let mut command = Command::new(cryptsetup);
    command.args(["luksFormat", "-q", "--type", kind, "--header", &header]);
    command.args(["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
    run_ok(command.args([&scene.image, &secret]));
    Some((scene, header))
}

/// Whether cryptsetup opens the image with this secret.
fn opens(scene: &Scene, header: &str, secret: &str) -> bool {
    let key = scene.file("key", secret.as_bytes());
    let mut command = Command::new(peer("cryptsetup").unwrap());
    command.args(["open", "--test-passphrase", "--header", header, "--key-file"]);
    run(command.arg(key).arg(&scene.image)).status.success()
}

#[test]
fn keyslots_of_a_detached_header_change_with_and_without_the_image() {
    for kind in ["luks1", "luks2"] {
        let Some((scene, header)) = by_cryptsetup(kind) else { return };
        let with = ["--header", &header, "IMG"];
        let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW"];
        scene.done(&[&add[..], &FAST, &with].concat());
        assert!(opens(&scene, &header, NEW));
        let replace = ["replace", "--old-secret", "env:NEW", "--new-secret", "env:OTHER"];
        scene.done(&[&replace[..], &FAST, &["--header", &header]].concat());
        assert!(!opens(&scene, &header, NEW) && opens(&scene, &header, OLD));
        let check = ["check", "--secret", "env:OTHER", "--header", &header, "IMG"];
        assert_eq!(scene.json(&check)["secret-opens"], json!([1]));
        scene.done(&["erase", "--keyslot", "1", "--secret", "env:OLD", "--header", &header]);
        assert_eq!(scene.json(&["info", "--header", &header, "IMG"])["virtual-size"], 1 << 20);
        assert_eq!(scene.bytes(), vec![0; 1 << 20], "the payload is left alone");
    }
}

#[test]
fn a_header_that_create_detaches_is_one_to_cryptsetup() {
    for kind in ["luks1", "luks2"] {
        let scene = Scene::without_image();
        let header = scene.dir.path().join("header").to_str().unwrap().to_owned();
        let create = ["create", "-f", kind, "--new-secret", "env:OLD", "--header", &header];
        let create = [&create[..], &FAST].concat();
        scene.refused(
            &[&create[..], &["IMG"]].concat(),
            1,
            &["Image creation needs a size parameter"],
        );
        let made = scene.json(&[&create[..], &["IMG", "1M"]].concat());
        assert_eq!((&made["header"], &made["virtual-size"]), (&json!(header), &json!(1 << 20)));
        assert_eq!(scene.bytes().len(), 1 << 20);
        if peer("cryptsetup").is_some() {
            assert!(opens(&scene, &header, OLD) && !opens(&scene, &header, NEW));
        }

        // Data goes in, and comes out again.
        let plain = scene.file("plain", &vec![0x5a; 1 << 20]);
        let target =
            format!("driver=luks,file.filename={},header.filename={header}", scene.image.display());
        let into = ["convert", "-n", "--target-image-opts", "--new-secret", "env:OLD"];
        scene.done(&[&into[..], &[plain.to_str().unwrap(), &target]].concat());
        let out = scene.dir.path().join("out").to_str().unwrap().to_owned();
        scene.done(&["convert", "--secret", "env:OLD", "--header", &header, "IMG", &out]);
        assert!(fs::read(&out).unwrap() == vec![0x5a; 1 << 20]);
        assert!(scene.bytes() != fs::read(&plain).unwrap());

        // The payload exists now, and is left as it is.
        let second = scene.dir.path().join("second").to_str().unwrap().to_owned();
        let create = ["create", "-f", kind, "--new-secret", "env:NEW", "--header", &second];
        let create = [&create[..], &FAST].concat();
        scene.refused(&[&create[..], &["IMG", "2M"]].concat(), 1, &["omit SIZE"]);
        let before = scene.bytes();
        scene.done(&[&create[..], &["IMG"]].concat());
        assert_eq!(scene.bytes(), before);
    }
}

#[test]
fn qemu_reads_through_a_detached_header_what_keyslot_wrote() {
    let (Some(img), Some(io)) = (peer("qemu-img"), peer("qemu-io")) else { return };
    let Some((scene, header)) = by_cryptsetup("luks1") else { return };
    let image = scene.image.to_str().unwrap().to_owned();
    let node = json!({
        "driver": "luks",
        "file": { "driver": "file", "filename": image },
        "header": { "driver": "file", "filename": header },
    });
    let name = format!("json:{node}");
    for output in ["human", "json"] {
        let info = ["info", "--output", output, &name];
        let theirs = run_ok(Command::new(&img).args(info)).stdout;
        assert_eq!(scene.done(&info), String::from_utf8(theirs).unwrap());
    }
    let plain = scene.file("plain", &vec![0x42; 1 << 20]);
    let target = format!("driver=luks,file.filename={image},header.filename={header}");
    let into = ["convert", "-n", "--target-image-opts", "--new-secret", "env:OLD"];
    scene.done(&[&into[..], &[plain.to_str().unwrap(), &target]].concat());
    let object = format!("secret,id=s,data={OLD}");
    let opened = format!("{target},key-secret=s");
    let amend = ["amend", "--object", &object, "--object", "secret,id=n,data=second"];
    let options = ["--image-opts", &opened, "-o", "state=active,new-secret=n,iter-time=10"];
    scene.done(&[&amend[..], &options].concat());
    for secret in [OLD, "second"] {
        let object = format!("secret,id=s,data={secret}");
        let mut read = Command::new(&io);
        read.args(["-r", "--object", &object, "--image-opts", &opened]);
        run_ok(read.args(["-c", "read -q -P 0x42 0 1048576"]));
    }
}

/// An amendment keeps everybody from both files, and is refused while either is in use.
#[test]
fn both_files_are_locked() {
    let Some(nbd) = peer("qemu-nbd") else { return };
    let Some((scene, header)) = by_cryptsetup("luks1") else { return };
    let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--header", &header];
    let add = [&add[..], &FAST, &["IMG"]].concat();
    let bytes = fs::read(&header).unwrap();
    for held in [&header, scene.image.to_str().unwrap()] {
        let socket = scene.dir.path().join("socket");
        let mut serve = Command::new(&nbd);
        serve.args(["--read-only", "--format", "raw", "--persistent", "--socket"]);
        let server = Running::spawn(serve.arg(&socket).arg(held));
        let held_file = Path::new(held);
        eventually("the locks of qemu-nbd", || socket.exists() && !locks(held_file).is_empty());
        let text = scene.command_refused(&mut scene.command(&add), 5, &["qemu-nbd"]);
        assert!(text.contains(held), "{text}");
        drop(server);
        fs::remove_file(&socket).ok();
    }
    assert_eq!(fs::read(&header).unwrap(), bytes);
    scene.done(&add);
}

/// As that of an image in one file.
#[test]
fn a_detached_header_is_amended_while_its_volume_is_in_use() {
    let scene = Scene::without_image();
    let header = scene.dir.path().join("header").to_str().unwrap().to_owned();
    let create = ["create", "-f", "luks", "--new-secret", "env:OLD", "--header", &header];
    scene.done(&[&create[..], &FAST, &["IMG", "1M"]].concat());
    for (sharing, new) in [(Sharing::WriteAlone, "one"), (Sharing::ReadData, "two")] {
        let options = OpenOptions::new().sharing(sharing).write(true).header(&header);
        let mut image = options.open(&scene.image).unwrap();
        let unlocked = image.unlock(&passphrase("OLD")).unwrap();
        let _volume = image.volume(&unlocked).unwrap();
        let new = Passphrase::new(new.as_bytes()).unwrap();
        let plan = image.plan(Request::one(Change::add(&new, Cost::Iterations(1000)))).unwrap();
        image.amend(&plan, Some(&unlocked)).unwrap();
        image.unlock(&new).unwrap();
    }
}

/// No override lets a new header replace its image.
#[test]
fn a_new_header_does_not_take_the_place_of_its_image() {
    let scene = Scene::of(&[7; 4096]);
    let link = scene.dir.path().join("link");
    fs::hard_link(&scene.image, &link).unwrap();
    let create = ["create", "-f", "luks", "--new-secret", "env:OLD", "--overwrite"];
    let create = [&create[..], &FAST].concat();
    let same = "the header and the image are the same file";
    for header in [scene.image.to_str().unwrap(), link.to_str().unwrap()] {
        scene.refused(&[&create[..], &["--header", header, "IMG"]].concat(), 1, &[same]);
        assert_eq!(scene.bytes(), [7; 4096]);
    }
    fs::remove_file(&scene.image).unwrap();
    let header = scene.image.to_str().unwrap();
    scene.refused(&[&create[..], &["--header", header, "IMG", "1M"]].concat(), 1, &[same]);
    assert!(!fs::exists(header).unwrap(), "nothing is left");
}

/// A disk image that holds a header and its payload, one behind the other.
#[test]
fn a_header_and_its_payload_are_two_parts_of_one_file() {
    for kind in ["luks1", "luks2"] {
        let Some((scene, header)) = by_cryptsetup(kind) else { return };
        let plain = scene.file("plain", &vec![0x5a; 1 << 20]);
        let target =
            format!("driver=luks,file.filename={},header.filename={header}", scene.image.display());
        let into = ["convert", "-n", "--target-image-opts", "--new-secret", "env:OLD"];
        scene.done(&[&into[..], &[plain.to_str().unwrap(), &target]].concat());
        let payload = scene.bytes();
        let header = fs::read(&header).unwrap();
        let start = header.len().next_multiple_of(1 << 20);
        let gap = vec![0; start - header.len()];
        fs::write(&scene.image, [&header[..], &gap, &payload].concat()).unwrap();

        let offset = start.to_string();
        let parts = ["--header", "IMG", "--offset", &offset, "IMG"];
        let parts = scene.args(&parts);
        let parts: Vec<_> = parts.iter().map(|it| it.to_str().unwrap()).collect();
        let add = ["add", "--secret", "env:OLD", "--new-secret", "env:NEW", "--wait", "0"];
        scene.done(&[&add[..], &FAST, &parts].concat());
        let check = [&["check", "--secret", "env:NEW"][..], &parts].concat();
        assert_eq!(scene.json(&check)["secret-opens"], json!([1]));
        let out = scene.dir.path().join("out").to_str().unwrap().to_owned();
        let convert = [&["convert", "--secret", "env:NEW"][..], &parts, &[&out]].concat();
        scene.done(&convert);
        assert!(fs::read(&out).unwrap() == vec![0x5a; 1 << 20]);
        assert_eq!(scene.bytes()[start..], payload);

        // A VM's disk: the one lock is that of the whole file.
        let options = OpenOptions::new().sharing(Sharing::WriteAlone).header(&scene.image);
        let options = options.range(start as u64, None);
        let image = options.open(&scene.image).unwrap();
        let volume = image.volume(&image.unlock(&passphrase("OLD")).unwrap()).unwrap();
        volume.write_all_at(&[7; 512], 0).unwrap();
        assert!(options.open(&scene.image).is_err_and(|it| it.kind() == ErrorKind::InUse));
        drop((volume, image));

        // What the two have in common is refused, as far as the header uses it.
        let overlap = ["check", "--header", parts[1], "--offset", "8192", parts[1]];
        scene.refused(&overlap, 1, &["the header and the image overlap: bytes 0 to "]);
        let open = OpenOptions::new().header(&scene.image).header_range(4096, Some(4096));
        let error = open.range(0, Some(4608)).open(&scene.image).unwrap_err();
        let text = "the header and the image overlap: bytes 4096 to 8192 and 0 to 4608 of the file";
        assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, text));
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let Some((scene, header)) = by_cryptsetup("luks2") else { return };
    let convert = ["convert", "--secret", "env:OLD", &header, "out"];
    scene.command_refused(
        &mut scene.command(&convert),
        4,
        &["its payload is in another file", "--header"],
    );
    scene.refused(
        &["info", "--header", "IMG", "IMG"],
        1,
        &["the header and the image are the same file"],
    );
    scene.refused(&["check", "--header", "IMG", &header], 4, &["not in LUKS format"]);
    let two = ["check", "--header", &header, "IMG", "IMG"];
    scene.command_refused(
        &mut scene.command(&two),
        1,
        &["--header applies to one image, not to 2"],
    );
    let twice =
        format!("driver=luks,file.filename={},header.filename={header}", scene.image.display());
    let twice = ["info", "--header", &header, "--image-opts", &twice];
    scene.command_refused(&mut scene.command(&twice), 1, &["the header is given twice"]);
}
