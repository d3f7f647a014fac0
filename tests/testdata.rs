//! The images in `testdata`, which need no peer: each opens with its secrets, says what it is, and
//! can be amended.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::{Path, PathBuf};

use keyslot::Image;
use support::amending::{
    active, add, directory, erase, has_pattern, opener, passphrase, read_payload, replace,
};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn secret(name: &str, keyslot: usize) -> Vec<u8> {
    match std::fs::read(testdata().join(name).with_extension("key")) {
        Ok(key) => key,
        Err(_) => format!("hunter{keyslot}").into_bytes(),
    }
}

#[test]
fn they_are_what_their_names_say() {
    for (name, algorithm, mode, hash, slots) in [
        ("luks1_qemu.img", "aes-256", "xts-plain64", "sha256", &[0][..]),
        ("luks1_cryptsetup_aes128_cbc_essiv.img", "aes-128", "cbc-essiv:sha256", "sha1", &[3]),
        ("luks1_cryptsetup_ripemd160.img", "aes-128", "xts-plain", "ripemd160", &[0]),
        ("luks1_cryptsetup_whirlpool.img", "camellia-192", "cbc-plain64be", "whirlpool", &[0]),
        ("luks1_cryptsetup_binary_key.img", "aes-128", "ctr-plain64", "sha512", &[0]),
        (
            "luks1_cryptsetup_all_slots.img",
            "aes-128",
            "cbc-plain64",
            "sha256",
            &[0, 1, 2, 3, 4, 5, 6, 7],
        ),
        ("luks1_old_layout.img", "aes-128", "cbc-essiv:sha256", "sha1", &[0, 7]),
    ] {
        let path = testdata().join(name);
        let image = Image::open(&path).unwrap();
        assert_eq!(image.header().cipher().unwrap().algorithm(), algorithm);
        assert_eq!(image.header().cipher().unwrap().cipher_mode(), mode);
        assert_eq!(image.keyslots().next().unwrap().af_hash.name(), hash);
        assert_eq!(active(&path), slots);
        for &slot in slots {
            assert!(image.opens(slot, &passphrase(secret(name, slot))).unwrap(), "{name} {slot}");
        }
        assert_eq!(opener(&path, "hunter"), None);
        let same_key = |&slot: &usize| read_payload(&path, secret(name, slot));
        assert!(slots.iter().map(same_key).all(|payload| payload == same_key(&slots[0])));
    }
}

/// Those of LUKS2 say what their names say, too.
#[test]
fn they_are_luks2() {
    for (name, algorithm, mode, slots) in [
        ("luks2_argon2id.img", "aes-128", "xts-plain64", &[0][..]),
        ("luks2_keyslots.img", "aes-128", "cbc-essiv:sha256", &[0, 3, 5, 7]),
    ] {
        let path = testdata().join(name);
        let image = Image::open(&path).unwrap();
        assert_eq!((image.header().format(), image.header().warning()), ("LUKS2", None));
        assert_eq!(image.header().cipher().unwrap().algorithm(), algorithm);
        assert_eq!(image.header().cipher().unwrap().cipher_mode(), mode);
        assert_eq!(active(&path), slots);
        for &slot in slots {
            assert!(image.opens(slot, &passphrase(secret(name, slot))).unwrap(), "{name} {slot}");
        }
        let unlocked = image.unlock(&passphrase("hunter0")).unwrap();
        assert_eq!(image.volume(&unlocked).unwrap().len(), 16384);
    }
}

#[test]
fn payloads_decrypt() {
    for name in ["luks1_qemu.img", "luks1_old_layout.img"] {
        assert!(has_pattern(&testdata().join(name), "hunter0"), "{name}");
    }
}

#[test]
fn the_layout_of_cryptsetup_1_0_is_amended_as_it_is() {
    let directory = directory();
    let image = &directory.path().join("image");
    std::fs::copy(testdata().join("luks1_old_layout.img"), image).unwrap();
    let areas = |image: &Path| -> Vec<_> {
        Image::open(image).unwrap().keyslots().map(|keyslot| keyslot.area).collect()
    };
    let before = areas(image);
    assert_eq!((before[0].offset, before[1].offset), (1024, 1024 + 64000));
    assert_eq!(Image::open(image).unwrap().header().digest().unwrap().iterations, 10);
    for keyslot in 1..7 {
        assert_eq!(add(image, "hunter0", format!("hunter{keyslot}"), None), keyslot);
    }
    erase(image, 3);
    assert_eq!(replace(image, "hunter6", "new"), 6);
    for (keyslot, secret) in [(0, "hunter0"), (2, "hunter2"), (6, "new"), (7, "hunter7")] {
        assert_eq!(opener(image, secret), Some(keyslot));
    }
    assert_eq!((opener(image, "hunter3"), opener(image, "hunter6")), (None, None));
    assert_eq!(areas(image), before);
    assert!(has_pattern(image, "hunter7"));
    let peer = support::cryptsetup::Cryptsetup::find();
    assert!(peer.is_none_or(|cryptsetup| cryptsetup.opens(image, b"new")));
}
