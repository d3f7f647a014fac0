//! What cryptsetup 2.6.1 makes of LUKS2 without device-mapper, we open: every keyslot with its
//! secret and no other, with the volume key that cryptsetup takes out of it, and `info` says what
//! `luksDump` says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use keyslot::crypto::HashAlg;
use keyslot::{ErrorKind, Image};
use serde_json::Value;
use support::amending::{command, directory, passphrase};
use support::cryptsetup::Cryptsetup;
use support::parallel::in_parallel;
use support::run_ok;

const PBKDF2: &str = "--pbkdf pbkdf2 --pbkdf-force-iterations 1000";

fn argon2(variant: &str, time: u32, memory: u32, parallel: u32) -> String {
    format!(
        "--pbkdf {variant} --pbkdf-force-iterations {time} --pbkdf-memory {memory} --pbkdf-parallel {parallel}"
    )
}

/// Options of `luksFormat`, and those of further keyslots by their numbers.
type Case = (String, Vec<(usize, String)>);

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut format = |options: String| cases.push((options, Vec::new()));
    for (cipher, sizes) in [
        ("aes-xts-plain64", &[256, 512][..]),
        ("aes-xts-plain", &[256, 512]),
        ("aes-xts-essiv:sha256", &[512]),
        ("aes-cbc-essiv:sha256", &[128, 192, 256]),
        ("aes-cbc-plain64", &[128, 192, 256]),
        ("aes-cbc-plain64be", &[256]),
        ("aes-cbc-null", &[256]),
        ("aes-ctr-plain64", &[128]),
        ("aes-ecb", &[256]),
        ("camellia-cbc-plain64", &[128, 192, 256]),
        ("camellia-cbc-essiv:sha256", &[256]),
        ("camellia-ctr-plain64", &[192]),
    ] {
        for size in sizes {
            format(format!("-c {cipher} -s {size} {PBKDF2}"));
        }
    }
    for hash in HashAlg::ALL.iter().filter(|hash| **hash != HashAlg::Md5) {
        let name = hash.name();
        // As hash of the KDF, of the splitter and of the digest.
        format(format!("-h {name} -s 256 {PBKDF2}"));
    }
    for (variant, time, memory, parallel) in [
        ("argon2i", 4, 32, 1),
        ("argon2i", 5, 1000, 3),
        ("argon2id", 4, 32, 1),
        ("argon2id", 4, 32, 4),
        ("argon2id", 7, 65536, 2),
    ] {
        format(argon2(variant, time, memory, parallel));
        format(format!("-s 256 -h sha512 {}", argon2(variant, time, memory, parallel)));
    }
    for sector in [512, 1024, 2048, 4096] {
        format(format!("--sector-size {sector} {PBKDF2}"));
        format(format!("--sector-size {sector} -c aes-cbc-essiv:sha256 -s 256 {PBKDF2}"));
    }
    for keyslot in [1, 7, 31] {
        format(format!("-S {keyslot} {PBKDF2}"));
    }
    format(format!("--label l --subsystem s --uuid 12345678-1234-1234-1234-123456789abc {PBKDF2}"));
    format(format!("--keyslot-cipher aes-cbc-plain64 --keyslot-key-size 192 {PBKDF2}"));
    format(format!(
        "-c aes-cbc-plain64 -s 128 --keyslot-cipher aes-xts-plain64 --keyslot-key-size 512 {PBKDF2}"
    ));

    let mixed = |keyslot: usize| match keyslot % 4 {
        0 => argon2("argon2id", 4, 64, 2),
        1 => PBKDF2.to_owned(),
        2 => format!("-h sha1 {PBKDF2}"),
        _ => argon2("argon2i", 4, 32, 1),
    };
    for keyslots in [vec![1], vec![5, 2, 9], (1..8).collect(), (1..32).collect()] {
        let more = keyslots.into_iter().map(|keyslot| (keyslot, mixed(keyslot))).collect();
        cases.push((format!("-s 256 {PBKDF2}"), more));
    }
    let unbound = |size: usize| format!("--unbound --key-size {size} {PBKDF2}");
    cases.push((PBKDF2.to_owned(), vec![(3, unbound(128)), (1, unbound(512)), (2, mixed(0))]));
    let other = format!("--keyslot-cipher aes-cbc-essiv:sha256 --keyslot-key-size 128 {PBKDF2}");
    cases.push((PBKDF2.to_owned(), vec![(1, other)]));
    cases
}

#[test]
fn what_cryptsetup_makes_we_open() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let cases = cases();
    assert!(cases.len() > 65, "{}", cases.len());
    in_parallel(cases, |(format, more)| {
        let directory = directory();
        let image = &directory.path().join("image.luks");
        let words = |options: &str| -> Vec<String> {
            options.split_whitespace().map(str::to_owned).collect()
        };
        let options = words(format);
        let options: Vec<_> = options.iter().map(String::as_str).collect();
        cryptsetup.format_luks2(image, b"first", 1 + more.len(), &options);
        let first = Image::open(image).unwrap().keyslots().next().unwrap().index;
        let mut secrets = vec![(first, b"first".to_vec(), true)];
        for (keyslot, options) in more {
            let secret = format!("secret {keyslot}\n\0").into_bytes();
            let options = words(options);
            let options: Vec<_> = options.iter().map(String::as_str).collect();
            cryptsetup.add_luks2(image, [b"first", &secret], *keyslot, &options);
            secrets.push((*keyslot, secret, !options.contains(&"--unbound")));
        }
        secrets.sort();
        opens_as_it_should(&cryptsetup, image, &secrets);
        says_what_they_say(&cryptsetup, image);
    });
}

/// Each secret opens its keyslot and no other.
fn opens_as_it_should(cryptsetup: &Cryptsetup, image: &Path, secrets: &[(usize, Vec<u8>, bool)]) {
    let opened = Image::open(image).unwrap();
    assert_eq!(opened.header().format(), "LUKS2");
    let found: Vec<_> = opened.keyslots().map(|it| (it.index, it.is_bound)).collect();
    let wanted: Vec<_> = secrets.iter().map(|(index, _, is_bound)| (*index, *is_bound)).collect();
    assert_eq!(found, wanted);
    // With many keyslots not each with each.
    let few = secrets.len() < 10;
    let volume_key = cryptsetup.volume_key(image, b"first", None);
    for (index, secret, is_bound) in secrets {
        let secret = passphrase(secret);
        for &(other, ..) in secrets.iter().filter(|(other, ..)| few || other % 8 == index % 8) {
            assert_eq!(opened.opens(other, &secret).unwrap(), other == *index);
        }
        if *is_bound {
            let unlocked = opened.unlock(&secret).unwrap();
            assert_eq!(unlocked.keyslot(), Some(*index));
            assert_eq!(unlocked.volume_key().as_bytes(), volume_key);
        } else {
            let error = opened.unlock(&secret).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongSecret);
            let keyslot = opened.header().keyslot(*index).unwrap();
            let limits = keyslot::Limits::default();
            let key = keyslot::unlock::opens(opened.storage(), &keyslot, &secret, limits);
            let theirs = cryptsetup.volume_key(image, secret.as_bytes(), Some(*index));
            assert_eq!(key.unwrap().unwrap().as_bytes(), theirs);
        }
    }
    for wrong in [&b"wrong"[..], b"first\n", b"firs", b""] {
        let error = opened.unlock(&passphrase(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongSecret, "{error}");
    }
}

/// `info` has the numbers that are in the metadata, and the metadata itself.
fn says_what_they_say(cryptsetup: &Cryptsetup, image: &Path) {
    let theirs = cryptsetup.run("luksDump", &["--dump-json-metadata"], image);
    let ours = run_ok(&mut command("info --metadata", image)).stdout;
    assert_eq!(String::from_utf8(ours).unwrap().trim_end(), theirs.trim_end());

    let theirs: Value = serde_json::from_str(&theirs).unwrap();
    let document = run_ok(&mut command("info --output json", image)).stdout;
    let document: Value = serde_json::from_slice(&document).unwrap();
    let data = &document["format-specific"]["data"];
    assert_eq!((&document["format"], &data["metadata"]), (&"luks2".into(), &theirs));

    let number = |text: &Value| -> Value { text.as_str().unwrap().parse::<u64>().unwrap().into() };
    for slot in data["keyslots"].as_array().unwrap() {
        let raw = &theirs["keyslots"][slot["keyslot"].to_string()];
        for (ours, theirs) in [
            ("type", &raw["type"]),
            ("cipher", &raw["area"]["encryption"]),
            ("kdf", &raw["kdf"]["type"]),
            ("hash", &raw["kdf"]["hash"]),
            ("iterations", &raw["kdf"]["iterations"]),
            ("time", &raw["kdf"]["time"]),
            ("memory-kib", &raw["kdf"]["memory"]),
            ("cpus", &raw["kdf"]["cpus"]),
            ("af-hash", &raw["af"]["hash"]),
            ("stripes", &raw["af"]["stripes"]),
        ] {
            assert_eq!(&slot[ours], theirs, "{ours}");
        }
        let bits = |bytes: &Value| Value::from(8 * bytes.as_u64().unwrap());
        assert_eq!(slot["key-bits"], bits(&raw["key_size"]));
        assert_eq!(slot["cipher-key-bits"], bits(&raw["area"]["key_size"]));
        assert_eq!(slot["key-offset"], number(&raw["area"]["offset"]));
        assert_eq!(slot["area-size"], number(&raw["area"]["size"]));
    }
    let slots = theirs["keyslots"].as_object().unwrap().len();
    assert_eq!(data["keyslots"].as_array().unwrap().len(), slots);
    let (segment, raw) = (&data["segments"][0], &theirs["segments"]["0"]);
    for (ours, theirs) in [("cipher", "encryption"), ("sector-size", "sector_size")] {
        assert_eq!(segment[ours], raw[theirs]);
    }
    assert_eq!(segment["offset"], number(&raw["offset"]));
    assert_eq!(segment["iv-tweak"], number(&raw["iv_tweak"]));
    assert_eq!((&segment["size"], &raw["size"]), (&"dynamic".into(), &"dynamic".into()));
    assert_eq!(data["keyslots-size"], number(&theirs["config"]["keyslots_size"]));

    let dump = cryptsetup.run("luksDump", &[], image);
    let line = |name: &str| {
        let line = dump.lines().find(|line| line.starts_with(name)).unwrap();
        line[name.len()..].trim().to_owned()
    };
    let shown =
        |text: &str, none: &str| if text.is_empty() { none.into() } else { text.to_owned() };
    assert_eq!(line("Epoch:"), data["seqid"].to_string());
    assert_eq!(line("Metadata area:"), format!("{} [bytes]", data["header-size"]));
    assert_eq!(line("UUID:"), data["uuid"].as_str().unwrap());
    assert_eq!(line("Label:"), shown(data["label"].as_str().unwrap(), "(no label)"));
    assert_eq!(line("Subsystem:"), shown(data["subsystem"].as_str().unwrap(), "(no subsystem)"));
}

/// Which keyslot a secret comes out of that several have.
#[test]
fn priorities() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let directory = directory();
    let image = &directory.path().join("image.luks");
    let options: Vec<_> = PBKDF2.split_whitespace().collect();
    cryptsetup.format_luks2(image, b"same", 4, &options);
    for keyslot in [1, 2, 3] {
        cryptsetup.add_luks2(image, [b"same", b"same"], keyslot, &options);
    }
    let opener = || {
        let unlocked = Image::open(image).unwrap().unlock(&passphrase("same"));
        unlocked.map(|unlocked| unlocked.keyslot().unwrap()).map_err(|error| error.kind())
    };
    let set = |keyslot: usize, priority: &str| {
        let keyslot = keyslot.to_string();
        cryptsetup.run("config", &["--key-slot", &keyslot, "--priority", priority], image);
    };
    // Of the same priority they are tried side by side: any of them may be the first.
    assert!(opener().is_ok_and(|keyslot| keyslot < 4));
    set(2, "prefer");
    assert_eq!(opener(), Ok(2));
    set(0, "ignore");
    set(2, "ignore");
    assert!(opener().is_ok_and(|keyslot| [1, 3].contains(&keyslot)));
    set(1, "ignore");
    set(3, "ignore");
    assert_eq!(opener(), Err(ErrorKind::WrongSecret));
    assert!(Image::open(image).unwrap().opens(3, &passphrase("same")).unwrap());
    set(3, "prefer");
    set(2, "normal");
    assert_eq!(opener(), Ok(3));
}

/// With a header of 4 MiB, and one of which a copy is gone, which cryptsetup then repairs.
#[test]
fn sizes_and_copies() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let directory = directory();
    let image = &directory.path().join("image.luks");
    for size in ["16k", "32k", "64k", "128k", "256k", "512k", "1m", "2m", "4m"] {
        std::fs::File::create(image).unwrap().set_len(24 << 20).unwrap();
        let key = directory.path().join("key");
        std::fs::write(&key, "first").unwrap();
        let mut options = vec!["--type", "luks2", "--luks2-metadata-size", size];
        options.extend(["--luks2-keyslots-size", "512k", "--key-file", key.to_str().unwrap()]);
        options.extend(PBKDF2.split_whitespace());
        cryptsetup.run("luksFormat", &options, image);
        let whole = std::fs::read(image).unwrap();
        for range in [0..512, 4096..8192] {
            let mut damaged = whole.clone();
            damaged[range].fill(0);
            std::fs::write(image, &damaged).unwrap();
            let opened = Image::open(image).unwrap();
            assert!(opened.header().warning().unwrap().starts_with("the primary copy"));
            assert_eq!(opened.unlock(&passphrase("first")).unwrap().keyslot(), Some(0));
            assert!(std::fs::read(image).unwrap() == damaged);
        }
        cryptsetup.run("luksDump", &[], image);
        let repaired = Image::open(image).unwrap();
        assert_eq!(repaired.header().warning(), None);
    }
}
