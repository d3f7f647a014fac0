//! What `create -f luks2` makes is what `cryptsetup luksFormat` makes of the same options, and
//! cryptsetup 2.6.1 takes it, opens it, and changes it.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/command.rs"]
mod command;
mod support;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use command::Scene;
use keyslot::Image;
use serde_json::{Value, json};
use support::amending::{directory, passphrase};
use support::cryptsetup::Cryptsetup;
use support::luks2::{Change, Luks2};
use support::parallel::in_parallel;

const CIPHERS: [&str; 11] = [
    "",
    "--key-size 256",
    "--cipher aes-xts-plain64 --key-size 512",
    "--cipher aes-xts-plain",
    "--cipher aes-xts-essiv:sha256",
    "--cipher aes-cbc-essiv:sha256",
    "--cipher aes-cbc-plain64 --key-size 128",
    "--cipher aes-cbc-plain64be --key-size 192",
    "--cipher aes-ctr-plain64",
    "--cipher aes-ecb",
    "--cipher camellia-cbc-plain64 --key-size 256",
];
/// With `{iterations}`, as it is called here and there.
const KDFS: [&str; 5] = [
    "--pbkdf pbkdf2 {iterations} 1000",
    "--pbkdf argon2id {iterations} 4 --pbkdf-memory 32 --pbkdf-parallel 1",
    "--pbkdf argon2i {iterations} 5 --pbkdf-memory 100 --pbkdf-parallel 1",
    "{iterations} 4 --pbkdf-memory 64 --pbkdf-parallel 2",
    "--pbkdf pbkdf2 {iterations} 1234",
];
// Not MD5: cryptsetup opens what it makes with that with any secret.
const HASHES: [&str; 7] =
    ["", "sha1", "sha512", "sha3-256", "ripemd160", "whirlpool", "blake2b-512"];
const SECTORS: [&str; 4] = ["", "512", "1024", "4096"];
const METADATA: [&str; 9] = ["", "32k", "64k", "128k", "256k", "512k", "1m", "2m", "4m"];
const KEYSLOTS: [&str; 3] = ["", "1032192", "128m"];
const NAMES: [&str; 2] =
    ["", "--label l\u{fc} --subsystem s --uuid 12345678-ABCD-1234-1234-123456789ABC"];

/// Options that both programs have, every two of them together at least once.
fn cases() -> Vec<String> {
    let of = |name: &str, values: &[&str], i: usize| match values[i % values.len()] {
        "" => String::new(),
        value => format!(" {name} {value}"),
    };
    let case = |i: usize| {
        let mut words = format!("{} {}", CIPHERS[i % 11], KDFS[i % 5]);
        words += &of("--hash", &HASHES, i);
        words += &of("--sector-size", &SECTORS, i);
        words += &of("--luks2-metadata-size", &METADATA, i);
        words += &of("--luks2-keyslots-size", &KEYSLOTS, i / 9);
        words + " " + NAMES[i / 5 % 2]
    };
    (0..99).map(case).collect()
}

#[test]
fn cryptsetup_makes_the_same_of_the_same_options() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    in_parallel(cases(), |case| {
        let (scene, ours) = created(case, "64k");
        let theirs = scene.dir.path().join("theirs.img");
        let len = fs::metadata(&ours).unwrap().len();
        File::create(&theirs).unwrap().set_len(len).unwrap();
        let options = case.replace("{iterations}", "--pbkdf-force-iterations");
        let mut options: Vec<_> = options.split_whitespace().collect();
        options.extend(["--type", "luks2", "--key-file"]);
        let key = scene.file("key", b"xyzzy-one");
        options.push(key.to_str().unwrap());
        cryptsetup.run("luksFormat", &options, &theirs);

        assert_eq!(described(&cryptsetup, &ours), described(&cryptsetup, &theirs));
        assert_eq!(metadata(&cryptsetup, &ours), metadata(&cryptsetup, &theirs));
        is_sound(&cryptsetup, &ours);
    });
}

/// An image of this size.
fn created(case: &str, size: &str) -> (Scene, PathBuf) {
    let dir = directory();
    let scene = Scene { image: dir.path().join("disk.img"), dir };
    let options = case.replace("{iterations}", "--iterations");
    let mut words = vec!["create", "-f", "luks2", "--new-secret", "env:NEW"];
    words.extend(options.split_whitespace());
    scene.done(&[&words[..], &["IMG", size]].concat());
    let image = scene.image.clone();
    (scene, image)
}

/// What `luksDump` says, but for what is random and for the count of writes.
fn described(cryptsetup: &Cryptsetup, image: &Path) -> Vec<String> {
    let text = cryptsetup.run("luksDump", &[], image);
    let is_hex = |word: &str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
    let is_random = |line: &str| {
        line.starts_with("Epoch:")
            || (line.starts_with("UUID:")
                && !line.ends_with("12345678-abcd-1234-1234-123456789abc"))
            || line.split_whitespace().filter(|word| is_hex(word)).count() > 3
    };
    let lines: Vec<_> = text.lines().filter(|line| !is_random(line)).map(str::to_owned).collect();
    assert!(lines.len() > 20, "{text}");
    lines
}

/// The text of the metadata, with nothing in it for what is random.
fn metadata(cryptsetup: &Cryptsetup, image: &Path) -> String {
    let text = cryptsetup.run("luksDump", &["--dump-json-metadata"], image);
    let mut value: Value = serde_json::from_str(&text).unwrap();
    for pointer in ["/keyslots/0/kdf/salt", "/digests/0/salt", "/digests/0/digest"] {
        let member = value.pointer_mut(pointer).unwrap();
        *member = json!(member.as_str().unwrap().len());
    }
    value.to_string()
}

/// cryptsetup has nothing to say against it, whichever copy is damaged, and opens it with its
/// secret alone. So do we.
fn is_sound(cryptsetup: &Cryptsetup, image: &Path) {
    let before = header(image);
    let debug = cryptsetup.run("luksDump", &["--debug"], image);
    let complaint = ["repair", "recover", "obsolete", "invalid", "not match", "wrong"];
    let mut lines = debug.lines().filter(|line| !line.contains("(repair disabled)"));
    let found = lines.find(|line| complaint.iter().any(|it| line.to_lowercase().contains(it)));
    assert_eq!(found, None);
    assert!(cryptsetup.opens(image, b"xyzzy-one"));
    assert!(!cryptsetup.opens(image, b"xyzzy-two"));
    assert!(header(image) == before, "there was something to repair");

    let dump = cryptsetup.run("luksDump", &[], image);
    let sound = Luks2::new(before);
    assert_eq!(sound.text(0), sound.text(1));
    assert_ne!(sound.bytes[104..168], sound.bytes[sound.hdr_size + 104..][..64], "salts differ");
    let damaged = image.with_extension("damaged");
    for copy in [0, 1] {
        let at = copy * sound.hdr_size + 448;
        let change = Change::Bytes(at, vec![sound.bytes[at] ^ 1]);
        let file = File::create(&damaged).unwrap();
        file.set_len(fs::metadata(image).unwrap().len()).unwrap();
        file.write_all_at(&sound.with(&change).bytes, 0).unwrap();
        assert_eq!(cryptsetup.run("luksDump", &["--disable-locks"], &damaged), dump);
        assert!(Image::open(&damaged).unwrap().header().warning().is_some());
    }
    opens_here(image, "xyzzy-one", 0);
}

/// Both copies.
fn header(image: &Path) -> Vec<u8> {
    let file = File::open(image).unwrap();
    let mut start = [0; 16];
    file.read_exact_at(&mut start, 0).unwrap();
    let hdr_size = u64::from_be_bytes(start[8..].try_into().unwrap());
    let mut bytes = vec![0; usize::try_from(2 * hdr_size).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// It is sound for us, and opens.
fn opens_here(image: &Path, secret: &str, keyslot: usize) {
    let image = Image::open(image).unwrap();
    assert_eq!(image.header().warning(), None);
    assert_eq!(image.header().leftovers(), []);
    assert_eq!(image.unlock(&passphrase(secret)).unwrap().keyslot(), Some(keyslot));
    assert!(image.unlock(&passphrase("xyzzy-three")).is_err());
}

#[test]
fn cryptsetup_goes_on_with_it() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let cases = cases().into_iter().step_by(9).collect();
    in_parallel(cases, |case| {
        let (scene, image) = created(case, "64k");
        let [old, new] = [&b"xyzzy-one"[..], b"xyzzy-two"];
        let cheap = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        cryptsetup.add_luks2(&image, [old, new], 2, &cheap);
        let token = json!({ "type": "mine", "keyslots": ["2"] }).to_string();
        let token = scene.file("token", token.as_bytes());
        cryptsetup.run("token", &["import", "--json-file", token.to_str().unwrap()], &image);
        cryptsetup.run("config", &["--label", "other", "--subsystem", "another"], &image);
        cryptsetup.run("config", &["--priority", "prefer", "--key-slot", "2"], &image);
        opens_here(&image, "xyzzy-one", 0);
        opens_here(&image, "xyzzy-two", 2);
        cryptsetup.kill(&image, 0);
        opens_here(&image, "xyzzy-two", 2);
        assert!(!cryptsetup.opens(&image, old));

        let info = scene.json(&["info", "IMG"]);
        assert_eq!(info["format"], "luks2");
        assert_eq!(info["format-specific"]["data"]["label"], "other");
        scene.done(&["check", "--secret", "env:OTHER", "IMG"]);

        // And we go on with what it left.
        let add = ["add", "--secret", "env:OTHER", "--new-secret", "env:NEW", "--pbkdf", "pbkdf2"];
        scene.done(&[&add[..], &["--iterations", "1000", "IMG"]].concat());
        assert!(cryptsetup.opens_keyslot(&image, old, 0));
    });
}

/// As people call it: a machine's own figures, and two seconds made shorter.
#[test]
fn a_default_image() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let (scene, image) = created("--iter-time 50", "8M");
    is_sound(&cryptsetup, &image);
    let info = scene.json(&["info", "IMG"]);
    assert_eq!((&info["virtual-size"], &info["format"]), (&json!(8 << 20), &json!("luks2")));
    let text = cryptsetup.run("luksDump", &["--dump-json-metadata"], &image);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(metadata["segments"]["0"]["sector_size"], 4096);
    assert_eq!(metadata["segments"]["0"]["offset"], "16777216");
    let kdf = &metadata["keyslots"]["0"]["kdf"];
    assert_eq!(kdf["type"], "argon2id");
    assert!(kdf["time"].as_u64() >= Some(4) && kdf["memory"].as_u64() >= Some(32), "{kdf}");
    assert!(metadata["digests"]["0"]["iterations"].as_u64() >= Some(1000));
}
