//! Opening keyslots of LUKS2: what they may cost, in which order they are tried, and ciphers for
//! which cryptsetup needs device-mapper.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use base64ct::{Base64, Encoding};
use keyslot::crypto::{CipherSpec, HashAlg};
use keyslot::header::Priority;
use keyslot::storage::ReadOnlyBytes;
use keyslot::unlock::seal;
use keyslot::{ErrorKind, Image, Limits, VolumeKey};
use serde_json::json;
use support::amending::passphrase;
use support::luks2::{Change, Luks2};
use support::memory::scheme;

fn open(image: &Luks2, limits: Limits) -> Image {
    support::open_on(ReadOnlyBytes(image.bytes.clone()), limits).unwrap()
}

/// What unlocking says, of which keyslot or in which words.
fn unlock(image: &Luks2, secret: &str, limits: Limits) -> Result<usize, (ErrorKind, String)> {
    let unlocked = open(image, limits).unlock(&passphrase(secret));
    unlocked
        .map(|unlocked| unlocked.keyslot().unwrap())
        .map_err(|error| (error.kind(), error.message().to_owned()))
}

fn kdf(members: &[(&'static str, u32)]) -> Change {
    Change::Set(members.iter().map(|&(pointer, value)| (pointer, json!(value))).collect())
}

/// Far more than there is: it is refused before any of it is had.
#[test]
fn absurd_costs_are_refused_before_they_are_paid() {
    let base = Luks2::testdata("luks2_argon2id.img");
    let [time, memory, cpus] =
        ["/keyslots/0/kdf/time", "/keyslots/0/kdf/memory", "/keyslots/0/kdf/cpus"];
    for (change, text) in [
        (
            kdf(&[(memory, u32::MAX)]),
            "keyslot 0 asks for 4294967295 KiB of memory, the limit is 4194304",
        ),
        (
            kdf(&[(memory, (4 << 20) + 1)]),
            "keyslot 0 asks for 4194305 KiB of memory, the limit is 4194304",
        ),
        (
            kdf(&[(time, u32::MAX)]),
            "keyslot 0 asks for 26 hours of work (4294967295 passes over 64 KiB), the limit is 2 minutes",
        ),
        (
            kdf(&[(time, 129), (memory, 4 << 20)]),
            "keyslot 0 asks for 3 minutes of work (129 passes over 4194304 KiB), the limit is 2 minutes",
        ),
        (kdf(&[(memory, 1 << 20), (cpus, 17)]), "keyslot 0 asks for 17 lanes, the limit is 16"),
        (
            kdf(&[("/digests/0/iterations", u32::MAX)]),
            "the volume key digest asks for 5 minutes of work (4294967295 iterations), the limit is 2 minutes",
        ),
    ] {
        let image = base.with(&change);
        let error = unlock(&image, "hunter0", Limits::default());
        assert_eq!(error, Err((ErrorKind::Limit, text.to_owned())));
        let opened = open(&image, Limits::default()).opens(0, &passphrase("hunter0"));
        assert_eq!(opened.unwrap_err().kind(), ErrorKind::Limit);
    }
    let base = Luks2::testdata("luks2_keyslots.img");
    let image = base.with(&kdf(&[("/keyslots/0/kdf/iterations", u32::MAX)]));
    let text =
        "keyslot 0 asks for 22 minutes of work (4294967295 iterations), the limit is 2 minutes";
    let refused = Err((ErrorKind::Limit, text.to_owned()));
    assert_eq!(unlock(&image, "hunter0", Limits::default()), refused);
    // Another one opens all the same.
    assert_eq!(unlock(&image, "hunter5", Limits::default()), Ok(5));
}

#[test]
fn limits_are_the_callers() {
    let base = Luks2::testdata("luks2_argon2id.img");
    let kind = |limits| unlock(&base, "hunter0", limits).map_err(|(kind, _)| kind);
    assert_eq!(kind(Limits::default().with_memory(64)), Ok(0));
    assert_eq!(kind(Limits::default().with_memory(63)), Err(ErrorKind::Limit));
    assert_eq!(kind(Limits::NONE), Ok(0));
    // What no limit keeps back may still be more than there is.
    let image =
        base.with(&kdf(&[("/keyslots/0/kdf/memory", u32::MAX), ("/keyslots/0/kdf/time", 1)]));
    let opened = open(&image, Limits::NONE);
    if cfg!(target_pointer_width = "32") {
        assert!(opened.unlock(&passphrase("hunter0")).is_err());
    }
}

#[test]
fn keyslots_have_priorities_and_may_be_unbound() {
    let base = Luks2::testdata("luks2_keyslots.img");
    let image = open(&base, Limits::default());
    let found: Vec<_> = image.keyslots().map(|it| (it.index, it.priority, it.is_bound)).collect();
    assert_eq!(
        found,
        [
            (0, Priority::Normal, true),
            (3, Priority::Ignore, true),
            (5, Priority::Prefer, true),
            (7, Priority::Normal, false),
        ]
    );
    for (secret, opener) in
        [("hunter0", Some(0)), ("hunter3", None), ("hunter5", Some(5)), ("hunter7", None)]
    {
        let unlocked =
            image.unlock(&passphrase(secret)).ok().map(|unlocked| unlocked.keyslot().unwrap());
        assert_eq!(unlocked, opener, "{secret}");
    }
    for index in [0, 3, 5, 7] {
        let opens =
            |secret: usize| image.opens(index, &passphrase(format!("hunter{secret}"))).unwrap();
        let opened: Vec<_> = (0..8).filter(|&secret| opens(secret)).collect();
        assert_eq!(opened, [index]);
    }
    for absent in [1, 2, 4, 6, 8, 31, 32, usize::MAX] {
        assert!(!image.opens(absent, &passphrase("hunter0")).unwrap());
    }
}

#[test]
fn what_is_unknown_stands_in_nobodys_way() {
    let base = Luks2::testdata("luks2_keyslots.img");
    for (pointer, value, why) in [
        ("/keyslots/0/type", "luks3", "keyslots of type \"luks3\" are not supported"),
        ("/keyslots/0/kdf/type", "scrypt", "the KDF \"scrypt\" is not supported"),
        ("/keyslots/0/kdf/hash", "md6", "Hash algorithm 'md6' not supported"),
        ("/keyslots/0/af/hash", "md6", "Hash algorithm 'md6' not supported"),
        (
            "/keyslots/0/area/encryption",
            "cipher_null-ecb",
            "the cipher \"cipher_null-ecb\" with a key of 16 bytes is not supported",
        ),
        (
            "/keyslots/0/area/encryption",
            "aes",
            "the cipher \"aes\" with a key of 16 bytes is not supported",
        ),
    ] {
        let image =
            open(&base.with(&Change::Set(vec![(pointer, json!(value))])), Limits::default());
        assert_eq!(image.header().unusable(), [(0, why)]);
        assert_eq!(image.keyslots().map(|it| it.index).collect::<Vec<_>>(), [3, 5, 7]);
        assert_eq!(image.unlock(&passphrase("hunter5")).unwrap().keyslot(), Some(5));
        assert!(!image.opens(0, &passphrase("hunter0")).unwrap());
        let error = image.unlock(&passphrase("hunter0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongSecret);
        assert_eq!(error.hint(), Some(format!("keyslot 0 was not tried: {why}").as_str()));
    }
}

/// Sealed by this crate: cryptsetup leaves these ciphers to device-mapper.
#[test]
fn keyslots_in_other_ciphers() {
    let base = Luks2::testdata("luks2_keyslots.img");
    let unlocked = open(&base, Limits::default()).unlock(&passphrase("hunter0")).unwrap();
    let key: &VolumeKey = unlocked.volume_key();
    for (name, mode, sizes) in [
        ("serpent", "xts-plain64", &[32, 64][..]),
        ("serpent", "cbc-essiv:sha256", &[16, 24, 32]),
        ("twofish", "xts-plain64", &[32, 64]),
        ("twofish", "cbc-plain64", &[16, 24, 32]),
        ("camellia", "xts-plain64", &[32, 64]),
        ("aes", "xts-plain64", &[48]),
    ] {
        for &size in sizes {
            // As long a key as that of its cipher goes into the keyslot; its digest is another.
            let spec = CipherSpec::parse(name, mode, size).unwrap();
            let (secret, hash) = (passphrase("new"), HashAlg::Sha256);
            let candidate = VolumeKey::random(size).unwrap();
            let sealed = seal(&scheme(&spec, hash, 10), &candidate, &secret).unwrap();
            let digest = keyslot::unlock::new_digest(hash, &candidate, 10).unwrap();
            let base64 = |bytes: &[u8]| json!(Base64::encode_string(bytes));
            let change = Change::Set(vec![
                (
                    "/keyslots",
                    json!({ "0": {
                        "type": "luks2",
                        "key_size": size,
                        "af": { "type": "luks1", "stripes": 4000, "hash": "sha256" },
                        "area": { "type": "raw", "offset": "32768", "size": "262144",
                            "encryption": format!("{name}-{mode}"), "key_size": size },
                        "kdf": { "type": "pbkdf2", "hash": "sha256", "iterations": 10,
                            "salt": base64(&sealed.salt) },
                    }}),
                ),
                ("/tokens", json!({})),
                (
                    "/digests",
                    json!({ "0": {
                        "type": "pbkdf2", "keyslots": ["0"], "segments": ["0"], "hash": "sha256",
                        "iterations": 10, "salt": base64(&digest.salt), "digest": base64(&digest.value),
                    }}),
                ),
                ("/segments/0/encryption", json!(format!("{name}-{mode}"))),
            ]);
            let mut image = base.with(&change);
            image.bytes[32768..32768 + sealed.material.len()].copy_from_slice(&sealed.material);
            let opened = open(&image, Limits::default());
            let unlocked = opened.unlock(&secret).unwrap();
            assert_eq!(unlocked.volume_key().as_bytes(), candidate.as_bytes(), "{name} {mode}");
            assert_eq!(opened.volume(&unlocked).unwrap().len(), 16384);
            assert!(opened.unlock(&passphrase("hunter0")).is_err());
            assert_ne!(unlocked.volume_key().as_bytes(), key.as_bytes());
        }
    }
}
