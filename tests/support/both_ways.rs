//! Keyslots of LUKS2 changed by the library as cryptsetup would be asked to, and what opens them in
//! the eyes of both.

use std::fs;
use std::path::Path;

use keyslot::amend::Change;
use keyslot::crypto::KdfKind;
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::{Done, ErrorKind, Image};

use super::amending::{amend, passphrase};
use super::cryptsetup::Cryptsetup;

/// As cheap as cryptsetup makes it.
pub fn pbkdf(kind: KdfKind) -> Pbkdf {
    let argon2 = |value| (kind != KdfKind::Pbkdf2).then_some(value);
    let cost = Cost::Iterations(if kind == KdfKind::Pbkdf2 { 1000 } else { 4 });
    Pbkdf::from(cost).kind(kind).memory(argon2(32)).parallelism(argon2(1))
}

/// The same for cryptsetup.
pub fn kdf_options(kind: KdfKind) -> Vec<&'static str> {
    match kind {
        KdfKind::Pbkdf2 => "--pbkdf pbkdf2 --pbkdf-force-iterations 1000".split(' ').collect(),
        argon2 => {
            let options = "--pbkdf-force-iterations 4 --pbkdf-memory 32 --pbkdf-parallel 1 --pbkdf";
            options.split(' ').chain([argon2.name()]).collect()
        }
    }
}

/// Adds a secret and says where.
pub fn add(image: &Path, [secret, new]: [&str; 2], keyslot: Option<usize>, pbkdf: Pbkdf) -> usize {
    let keyslot = keyslot.map(|keyslot| i64::try_from(keyslot).unwrap());
    let change = Change::Add { keyslot, new_secret: Ok(passphrase(new)), pbkdf };
    match amend(image, Some(passphrase(secret)), change)[..] {
        [Done::Added { keyslot, .. }] => keyslot,
        ref other => panic!("{other:?}"),
    }
}

/// By the old secret, or by index with any secret.
pub fn replace(
    image: &Path,
    [secret, new]: [&str; 2],
    keyslot: Option<usize>,
    pbkdf: Pbkdf,
) -> usize {
    let old_secret = keyslot.is_none().then(|| Ok(passphrase(secret)));
    let keyslot = keyslot.map(|keyslot| i64::try_from(keyslot).unwrap());
    let change = Change::Replace { keyslot, old_secret, new_secret: Ok(passphrase(new)), pbkdf };
    match amend(image, Some(passphrase(secret)), change)[..] {
        [Done::Replaced { keyslot, .. }] => keyslot,
        ref other => panic!("{other:?}"),
    }
}

/// Which secret opens which keyslot, in the eyes of both, and none that is gone opens anything.
pub fn opens_as_it_should(
    cryptsetup: &Cryptsetup,
    image: &Path,
    open: &[(usize, &str)],
    gone: &[&str],
) {
    let before = fs::read(image).unwrap();
    assert!(cryptsetup.finds_no_fault(image));
    let opened = Image::open(image).unwrap();
    let mut found: Vec<_> = opened.keyslots().map(|it| it.index).collect();
    let mut wanted: Vec<_> = open.iter().map(|(keyslot, _)| *keyslot).collect();
    found.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(found, wanted);
    for &(keyslot, secret) in open {
        assert!(cryptsetup.opens_keyslot(image, secret.as_bytes(), keyslot), "{keyslot} {secret}");
        assert!(opened.opens(keyslot, &passphrase(secret)).unwrap(), "{keyslot} {secret}");
        let other =
            found.iter().find(|&&other| other != keyslot && !open.contains(&(other, secret)));
        if let Some(&other) = other {
            assert!(!cryptsetup.opens_keyslot(image, secret.as_bytes(), other));
            assert!(!opened.opens(other, &passphrase(secret)).unwrap());
        }
    }
    for secret in gone {
        assert!(!cryptsetup.opens(image, secret.as_bytes()), "{secret}");
        let error = opened.unlock(&passphrase(secret)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongSecret);
    }
    assert!(fs::read(image).unwrap() == before, "somebody repaired it");
}
