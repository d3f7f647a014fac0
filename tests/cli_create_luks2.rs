//! `create -f luks2` and `convert -O luks2`: what they say, what they refuse and leave nothing
//! behind of, and that what is in the image is what was put into it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
#[path = "support/converting.rs"]
mod converting;
mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use cipher::{Array, KeyInit};
use command::{KEYSLOT, Scene};
use converting::{Desk, noise, volume_key};
use keyslot::Image;
use keyslot::header::luks2::Crypt;
use serde_json::json;
use support::{run, stderr};
use xts_mode::Xts128;

const CHEAP: &str = "--new-secret env:NEW --pbkdf pbkdf2 --iterations 1000";

/// `create -f luks2` with a cheap secret and these words in an empty directory.
fn create(words: &str) -> (Scene, Command) {
    let scene = Scene::without_image();
    let given: Vec<_> = words.split_whitespace().collect();
    let is_given = |names: &[&str]| given.iter().any(|word| names.contains(word));
    let mut command = scene.command(&["create"]);
    if !is_given(&["-f", "--type"]) {
        command.args(["-f", "luks2"]);
    }
    // What is cheap, unless it is said otherwise.
    let cheap: Vec<_> = CHEAP.split_whitespace().collect();
    for option in cheap.chunks(2).filter(|option| !is_given(&option[..1])) {
        command.args(option);
    }
    command.args(given);
    command.current_dir(scene.dir.path());
    (scene, command)
}

/// Words behind `create -f luks2`, the exit status, and what is said. `LONG` is 48 bytes.
const WRONG: &[(&str, i32, &str)] = &[
    (
        "--sector-size 4096 new 1536",
        1,
        "sector size 4096: the image size 1536 is not a multiple of it",
    ),
    ("--sector-size 1000 new 1M", 1, "sector size 1000: must be 512, 1024, 2048 or 4096"),
    ("--sector-size 8192 new 1M", 1, "sector size 8192: must be"),
    ("--sector-size x new 1M", 1, "'x' for '--sector-size <BYTES>'"),
    (
        "--metadata-size 17k new 1M",
        1,
        "metadata size 17408: it must be a power of 2 from 16384 to 4194304",
    ),
    ("--metadata-size 8M new 1M", 1, "metadata size 8388608: it must be"),
    ("--luks2-metadata-size x new 1M", 1, "metadata size specified: 'x'"),
    (
        "--keyslots-size 258049 new 1M",
        1,
        "keyslots size 258049: it must be a multiple of 4096, up to 134217728",
    ),
    (
        "--keyslots-size 129M new 1M",
        1,
        "keyslots size 135266304: it must be a multiple of 4096, up to",
    ),
    (
        "--keyslots-size 248k new 1M",
        1,
        "keyslots size 253952: the area of one keyslot takes 258048 bytes",
    ),
    ("--luks2-keyslots-size 0 new 1M", 1, "keyslots size 0: the area of one keyslot"),
    ("--label LONG new 1M", 1, "label of 48 bytes: must have at most 47"),
    ("--subsystem LONG new 1M", 1, "subsystem of 48 bytes: must have at most 47"),
    ("--label a\u{7f} new 1M", 1, "label \"a\\u{7f}\": must not contain control characters"),
    (
        "--uuid 12345678abcd4bcd89ab123456789abc new 1M",
        1,
        "'12345678abcd4bcd89ab123456789abc' is not a UUID",
    ),
    ("--uuid {12345678-abcd-4bcd-89ab-123456789abc} new 1M", 1, "is not a UUID"),
    ("--cipher aes new 1M", 1, "cipher 'aes': must be a cipher, a mode and an IV generator"),
    ("--cipher cipher_null-ecb new 1M", 1, "cipher 'cipher_null-ecb': Algorithm 'cipher_null'"),
    ("--cipher null-ecb new 1M", 1, "cipher 'null-ecb': Algorithm 'null'"),
    ("--cipher capi:xts(aes)-plain64 new 1M", 1, "cipher 'capi:xts(aes)-plain64': "),
    (
        "--cipher aes-lrw-plain64 new 1M",
        1,
        "cipher 'aes-lrw-plain64': Cipher mode 'lrw' not supported",
    ),
    ("--cipher aes-xts-plain64:sha256 new 1M", 1, "plain64 takes no hash, so sha256 has no effect"),
    ("-o ivgen-hash-alg=sha1 new 1M", 1, "plain64 takes no hash, so sha1 has no effect"),
    (
        "--cipher aes-xts-plain64 --key-size 128 new 1M",
        1,
        "Algorithm 'aes' with key size 8 bytes not supported",
    ),
    ("--key-size 513 new 1M", 1, "key size 513: must be a multiple of 8 bits"),
    (
        "--cipher aes-xts-plain64 -o cipher-alg=aes-128 new 1M",
        1,
        "cannot be used with cipher-alg in -o",
    ),
    ("--key-size 512 -o ivgen-alg=plain new 1M", 1, "cannot be used with ivgen-alg in -o"),
    ("--hash sha256 -o hash-alg=sha256 new 1M", 1, "--hash cannot be used with hash-alg in -o"),
    ("--hash foo new 1M", 1, "Hash algorithm 'foo' not supported"),
    ("--hash md5 new 1M", 1, "hash md5: a digest of 16 bytes: must have 20 to 64"),
    ("-o hash-alg=md5 new 1M", 1, "hash md5: a digest of 16 bytes"),
    ("-o color=red new 1M", 1, "Invalid parameter 'color'"),
    ("-o cipher-alg=rot13 new 1M", 1, "'cipher-alg' does not accept value 'rot13'"),
    ("-o iter-time=10 new 1M", 1, "cannot be used with iter-time in -o"),
    ("--iterations 999 new 1M", 1, "999 iterations: the minimum is 1000"),
    ("--pbkdf argon2id --iterations 3 new 1M", 1, "3 passes: the minimum is 4"),
    ("--pbkdf-memory 100 new 1M", 1, "memory and lanes apply only to Argon2"),
    ("--pbkdf argon2i --pbkdf-memory 31 new 1M", 1, "31 KiB of memory: must be 32"),
    ("--pbkdf argon2id --pbkdf-parallel 5 new 1M", 1, "5 Argon2 lanes: must be 1 to 4"),
    ("new", 1, "needs a size parameter"),
    ("new 1x", 1, "'1x'"),
    ("new 9223372036854775807", 1, "image size 9223372036854775807 is too large"),
    ("new 18446744073709551615", 1, "Must be between 0 and 9223372036854775807"),
    ("nowhere/new 1M", 1, "cannot create a file in nowhere: No such file or directory"),
    ("--new-secret env:NOSUCH new 1M", 1, "NOSUCH"),
    // What LUKS1 does not have
    ("-f luks --label x new 1M", 1, "--label applies only to LUKS2"),
    ("-f luks1 --subsystem x new 1M", 1, "--subsystem applies only to LUKS2"),
    ("-f luks --sector-size 512 new 1M", 1, "--sector-size applies only to LUKS2"),
    ("-f luks --luks2-metadata-size 16k new 1M", 1, "--metadata-size applies only to LUKS2"),
    ("--type luks --keyslots-size 1M new 1M", 1, "--keyslots-size applies only to LUKS2"),
    ("-f luks --pbkdf argon2id --iterations 4 new 1M", 1, "LUKS1 supports only pbkdf2"),
    ("-f luks --pbkdf-parallel 1 new 1M", 1, "memory and lanes apply only to Argon2"),
    ("-f luks3 new 1M", 1, "Unknown file format 'luks3'"),
];

#[test]
#[allow(clippy::too_many_lines, reason = "a table")]
fn whatever_is_wrong_is_one_line_and_no_file() {
    for (words, status, text) in WRONG {
        let (scene, mut command) = create(&words.replace("LONG", &"x".repeat(48)));
        scene.command_refused(&mut command, *status, &[text]);
        let left: Vec<_> = fs::read_dir(scene.dir.path()).unwrap().collect();
        assert!(left.is_empty(), "{words}: {left:?}");
    }
    // The least that there can be.
    let (scene, mut command) = create("--keyslots-size 128k --key-size 256 disk.img 1M");
    assert_eq!(stderr(&run(&mut command)), "");
    assert_eq!(scene.opened_by("NEW"), [0]);
}

#[test]
fn what_it_says() {
    let (scene, mut command) = create("disk.img 1000");
    let output = run(&mut command);
    let text = "disk.img: LUKS2 image of 1 KiB created, its secret is in keyslot 0\n";
    assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), output.stderr), (text, vec![]));
    assert_eq!(scene.json(&["info", "IMG"])["virtual-size"], 1024);
    assert_eq!(crypt(&scene).sector_size, 512);

    let options = "--label lab --subsystem sub --uuid 12345678-ABCD-4bcd-89ab-123456789abc";
    let (scene, mut command) = create(&format!("-o size=1M {options} --output json disk.img"));
    let output = run(&mut command);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let wanted = json!({
        "filename": "disk.img", "format": "luks2", "virtual-size": 1 << 20,
        "uuid": "12345678-abcd-4bcd-89ab-123456789abc",
        "keyslot": 0, "kdf": "pbkdf2", "iterations": 1000,
    });
    assert_eq!(said, wanted);
    let image = Image::open(&scene.image).unwrap();
    let header = image.header().luks2().unwrap();
    assert_eq!((header.label().as_str(), header.subsystem().as_str()), ("lab", "sub"));
    assert_eq!(header.uuid(), "12345678-abcd-4bcd-89ab-123456789abc");
    assert_eq!(scene.opened_by("NEW"), [0]);
    let check = scene.done(&["check", "--secret", "env:NEW", "IMG"]);
    assert!(check.ends_with("the secret opens keyslot 0\n"), "{check}");

    // LUKS1 has a UUID, a hash and a cipher too.
    let words = "--type luks --hash sha512 --cipher aes-cbc-essiv:sha256";
    let (scene, mut command) =
        create(&format!("{words} --uuid 12345678-ABCD-4bcd-89ab-123456789abc disk.img 1M"));
    assert!(run(&mut command).status.success());
    let check = scene.done(&["check", "IMG"]);
    assert!(check.contains("sound LUKS1 header, aes-cbc-essiv:sha256, 256-bit key, sha512"));
    let info = scene.json(&["info", "IMG"]);
    assert_eq!(info["format-specific"]["data"]["uuid"], "12345678-abcd-4bcd-89ab-123456789abc");

    for (format, file, first) in
        [("luks2", "", "Supported luks2 options:\n"), ("luks2", "new", "Supported options:\n")]
    {
        let (scene, mut command) = create(&format!("-f {format} -o help {file}"));
        let text = String::from_utf8(run(&mut command).stdout).unwrap();
        assert!(text.starts_with(first) && text.contains("cipher-alg"), "{text}");
        assert!(text.contains("detached-header"), "{text}");
        assert!(!scene.dir.path().join("new").exists());
    }
}

#[test]
fn an_existing_file_is_replaced_only_if_that_is_said() {
    let scene = Scene::new();
    let create: Vec<_> = "create -f luks2".split(' ').chain(CHEAP.split(' ')).collect();
    scene.refused(&[&create[..], &["IMG", "1M"]].concat(), 1, &["the file exists", "--overwrite"]);
    assert_eq!(scene.opened_by("OLD"), [0]);
    scene.done(&[&create[..], &["--force", "IMG", "1M"]].concat());
    assert_eq!((scene.opened_by("OLD"), scene.opened_by("NEW")), (vec![], vec![0]));
}

/// qemu-img has no such format.
#[test]
fn under_the_name_of_qemu_img() {
    let desk = Desk::new();
    let program = desk.path("qemu-img");
    symlink(KEYSLOT, &program).unwrap();
    let secret = "--object secret,id=s,data=x -o key-secret=s";
    for (words, text) in [
        ("create -f luks2 SECRET new 1M", "qemu-img: new: Unknown file format 'luks2'\n"),
        ("create -f luks1 SECRET new 1M", "qemu-img: new: Unknown file format 'luks1'\n"),
        ("create -f luks2 -o help", "qemu-img: Unknown file format 'luks2'\n"),
        ("convert -O luks2 SECRET plain.raw new", "qemu-img: Unknown file format 'luks2'\n"),
        ("convert -O luks2 -o help", "qemu-img: Unknown file format 'luks2'\n"),
    ] {
        let words = words.replace("SECRET", secret);
        let mut command = Command::new(&program);
        let output = run(command.args(words.split_whitespace()).current_dir(desk.dir.path()));
        assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(1), text), "{words}");
        assert!(!desk.path("new").exists());
    }
}

#[test]
fn what_is_converted_a_model_decrypts() {
    for (len, options, sector) in [
        (192 * 1024, "", 4096),
        (192 * 1024, "--sector-size 512 --label l", 512),
        (192 * 1024 + 512, "", 512),
        (100 * 1024, "-o cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64", 4096),
        (70 * 1024, "--sector-size 2048 --metadata-size 64k --keyslots-size 1M", 2048),
        (1000, "", 512),
    ] {
        let desk = Desk::with(noise(len));
        let words = format!("-f raw plain.raw --verify -O luks2 {CHEAP} {options}");
        let said = desk.json(&format!("{words} new.img"));
        let size = len.next_multiple_of(512);
        assert_eq!((&said["format"], &said["virtual-size"]), (&json!("luks2"), &json!(size)));

        let image = desk.path("new.img");
        let start = Image::open(&image).unwrap().header().payload_offset();
        let mut payload = desk.bytes("new.img").split_off(usize::try_from(start).unwrap());
        decrypt(&volume_key(&image, "NEW"), sector, &mut payload);
        assert!(payload[..len] == desk.plain[..], "{options}");
        assert!(payload[len..].iter().all(|&byte| byte == 0) && payload.len() == size);

        desk.done("--secret env:NEW new.img back.raw");
        desk.assert_plain("back.raw");
    }
}

#[test]
fn what_convert_refuses() {
    let desk = Desk::new();
    let plain = "-f raw plain.raw";
    for (words, parts) in [
        ("-O luks2 --new-secret env:NEW --sector-size 4096", &["sector size 4096", "197120"][..]),
        ("-O luks2 --new-secret env:NEW --label \u{7f}", &["label", "control characters"]),
        ("-O luks2 --new-secret env:NEW -o color=red", &["'color'"]),
        ("-O luks --new-secret env:NEW --label x", &["--label applies only to LUKS2"]),
        ("-O raw --pbkdf argon2id", &["--pbkdf and its options apply only to a new LUKS target"]),
        ("-O raw --label x", &["--label applies only to a new LUKS target"]),
        ("-O raw --cipher aes-xts-plain64", &["--cipher applies only to a new LUKS target"]),
        ("-O luks2 --uuid x --new-secret env:NEW", &["'x' is not a UUID"]),
        ("-O luks2 --new-secret env:NOSUCH", &["NOSUCH"]),
    ] {
        desk.refused(&format!("{plain} {words} new"), 1, parts);
    }
    desk.refused(
        "-n --uuid x -f raw plain.raw -O luks disk.luks",
        1,
        &["--uuid applies only to a new"],
    );
}

/// What the one segment of an image says.
fn crypt(scene: &Scene) -> Crypt {
    let image = Image::open(&scene.image).unwrap();
    let segments = image.header().luks2().unwrap().metadata().segments().to_vec();
    assert_eq!(segments.len(), 1);
    segments[0].crypt.clone().unwrap()
}

/// AES-256-XTS: the number of a sector is that of its first 512 bytes.
fn decrypt(key: &[u8], sector_size: usize, bytes: &mut [u8]) {
    let (one, two) = key.split_at(32);
    let aes = |key| aes::Aes256::new_from_slice(key).unwrap();
    let xts = Xts128::new(aes(one), aes(two));
    for (i, sector) in bytes.chunks_mut(sector_size).enumerate() {
        let mut iv = [0; 16];
        iv[..8].copy_from_slice(&((i * sector_size / 512) as u64).to_le_bytes());
        xts.decrypt_sector(sector, Array(iv));
    }
}

/// Where there is one keyslot only, nobody is told to erase it.
#[test]
fn a_single_keyslot_is_not_to_be_erased_for_room() {
    let (scene, mut command) = create("--keyslots-size 256k --key-size 512 disk.img 1M");
    assert_eq!(stderr(&run(&mut command)), "");
    let rest = ["--pbkdf", "pbkdf2", "--iterations", "1000", "IMG"];
    for words in [
        ["add", "--secret", "env:NEW", "--new-secret", "env:OTHER"],
        ["replace", "--old-secret", "env:NEW", "--new-secret", "env:OTHER"],
    ] {
        let text = scene.refused(&[&words[..], &rest].concat(), 1, &["hint: "]);
        assert!(!text.contains("erase"), "{text}");
    }
}
