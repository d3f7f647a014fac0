//! Images go both ways between cryptsetup and keyslot, in everything cryptsetup 2.6.1 can write
//! without device-mapper: no Serpent, Twofish or CAST5, and XTS of 128 and 256 bits alone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;

use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen};
use support::amending::{
    active, add, command, create, directory, erase, has_pattern, opener, replace,
};
use support::cryptsetup::Cryptsetup;
use support::parallel::in_parallel;
use support::run_ok;

const HASHES: [HashAlg; 8] = [
    HashAlg::Ripemd160,
    HashAlg::Sha1,
    HashAlg::Sha224,
    HashAlg::Sha256,
    HashAlg::Sha384,
    HashAlg::Sha512,
    HashAlg::Sm3,
    HashAlg::Whirlpool,
];
const IVGENS: [IvGen; 7] = [
    IvGen::Null,
    IvGen::Plain,
    IvGen::Plain64,
    IvGen::Plain64be,
    IvGen::Essiv(HashAlg::Sha256),
    IvGen::Essiv(HashAlg::Sm3),
    IvGen::Essiv(HashAlg::Md5),
];

/// Each with a hash, and all hashes with the first.
fn cases() -> Vec<(CipherSpec, HashAlg)> {
    let mut specs = Vec::new();
    for cipher in [Cipher::Aes, Cipher::Camellia] {
        for mode in [CipherMode::Cbc, CipherMode::Ctr, CipherMode::Xts] {
            let sizes: &[usize] = match (cipher, mode) {
                (Cipher::Aes, CipherMode::Xts) => &[32, 64],
                (_, CipherMode::Xts) => &[],
                _ => &[16, 24, 32],
            };
            for &size in sizes {
                for ivgen in IVGENS {
                    specs.push(CipherSpec::new(cipher, mode, ivgen, None, size).unwrap());
                }
            }
        }
        for size in [16, 24, 32] {
            specs.push(CipherSpec::parse(cipher.name(), "ecb", size).unwrap());
        }
    }
    assert_eq!(specs.len(), 2 * 2 * 3 * 7 + 2 * 7 + 2 * 3);
    let mut cases: Vec<_> = HASHES.iter().map(|&hash| (specs[0].clone(), hash)).collect();
    let turn = HASHES.iter().cycle();
    cases.extend(specs.into_iter().zip(turn).map(|(spec, &hash)| (spec, hash)));
    cases
}

/// `luksFormat`'s options for it.
fn options(spec: &CipherSpec, hash: HashAlg) -> [String; 6] {
    let cipher = format!("{}-{}", spec.cipher_name(), spec.cipher_mode());
    let bits = (8 * spec.key_size()).to_string();
    ["--cipher".into(), cipher, "--key-size".into(), bits, "--hash".into(), hash.name().into()]
}

#[test]
fn what_cryptsetup_makes_we_amend_and_it_opens() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    in_parallel(cases(), |(spec, hash)| {
        let directory = directory();
        let image = &directory.path().join("image.luks");
        let options = options(spec, *hash);
        cryptsetup.format(image, b"one", &options.each_ref().map(String::as_str));
        let opened = keyslot::Image::open(image).unwrap();
        assert_eq!(opened.header().cipher(), Some(spec));
        assert_eq!(opened.keyslots().next().unwrap().af_hash, *hash);
        drop(opened);
        amend_all_ways(&cryptsetup, image);
    });
}

#[test]
fn what_we_make_and_amend_cryptsetup_opens() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    in_parallel(cases(), |(spec, hash)| {
        let directory = directory();
        let image = &directory.path().join("image.luks");
        create(image, spec, *hash, "one");
        assert!(cryptsetup.accepts(image));
        amend_all_ways(&cryptsetup, image);
        let secret = opener(image, "three").map(|_| "three");
        assert!(has_pattern(image, secret.unwrap()));
    });
}

/// Adds, replaces and erases on an image that opens with `one`, in turn with cryptsetup, and asks
/// it each time.
fn amend_all_ways(cryptsetup: &Cryptsetup, image: &Path) {
    let peer_opens = |secret: &str| cryptsetup.opens(image, secret.as_bytes());
    assert_eq!(add(image, "one", "two", None), 1);
    assert!(peer_opens("one") && peer_opens("two"));
    assert_eq!(replace(image, "one", "three"), 0);
    assert!(!peer_opens("one") && peer_opens("two") && peer_opens("three"));
    erase(image, 1);
    assert!(!peer_opens("two") && peer_opens("three"));

    cryptsetup.add(image, b"three", b"four", 6);
    assert_eq!((active(image), opener(image, "four")), (vec![0, 6], Some(6)));
    cryptsetup.kill(image, 0);
    assert_eq!((active(image), opener(image, "three")), (vec![6], None));
    // Its erase leaves random bytes in the area of keyslot 0, which is free all the same.
    assert_eq!(add(image, "four", "three", None), 0);
    assert!(peer_opens("three") && peer_opens("four"));
    assert_eq!(cryptsetup.active(image), [0, 6]);
}

/// All eight keyslots, by the command, with secrets that are no text.
#[test]
fn eight_binary_secrets_in_keyslots_3_and_the_others() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let directory = directory();
    let image = &directory.path().join("image.luks");
    let secret = |i: u8| [&[0, b'\n', 0xff, 0xc3, 0x28, i][..], &[0x80; 64], b"\r\n"].concat();
    let file = |i: u8| {
        let path = directory.path().join(format!("key{i}"));
        std::fs::write(&path, secret(i)).unwrap();
        path.display().to_string()
    };
    let options = ["--key-slot", "3", "--cipher", "aes-cbc-essiv:sha256", "--key-size", "128"];
    cryptsetup.format(image, &secret(3), &options);
    assert_eq!((active(image), opener(image, secret(3))), (vec![3], Some(3)));

    for i in [0, 1, 2, 4, 5, 6, 7] {
        let secrets = format!("--secret file:{} --new-secret file:{}", file(3), file(i));
        run_ok(&mut command(&format!("add -q --iterations 1000 {secrets}"), image));
    }
    assert_eq!(cryptsetup.active(image), [0, 1, 2, 3, 4, 5, 6, 7]);
    for i in 0..8 {
        assert!(cryptsetup.opens_keyslot(image, &secret(i), usize::from(i)));
        assert!(!cryptsetup.opens_keyslot(image, &secret(i), usize::from((i + 1) % 8)));
    }
    run_ok(&mut command("erase -q --keyslot 3", image));
    for i in [0, 6] {
        let secrets = format!("--old-secret file:{} --new-secret file:{}", file(i), file(10 + i));
        run_ok(&mut command(&format!("replace -q --iterations 1000 {secrets}"), image));
    }
    assert_eq!(cryptsetup.active(image), [0, 1, 2, 4, 5, 6, 7]);
    for i in [0, 3, 6] {
        assert!(!cryptsetup.opens(image, &secret(i)));
        assert_eq!(opener(image, secret(i)), None);
    }
    for (keyslot, i) in [(0, 10), (1, 1), (2, 2), (4, 4), (5, 5), (6, 16), (7, 7)] {
        assert!(cryptsetup.opens_keyslot(image, &secret(i), keyslot));
    }
}

/// Longer than a block of the hash, and as long as a key file may be. (An empty one it refuses to
/// read; QEMU takes it.)
#[test]
fn long_secrets() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let directory = directory();
    let image = &directory.path().join("image.luks");
    let spec = CipherSpec::parse("aes", "xts-plain64", 32).unwrap();
    create(image, &spec, HashAlg::Sha512, "one");
    assert!(cryptsetup.opens(image, b"one"));
    for (i, len) in [1, 127, 128, 129, 513, 8 << 20].into_iter().enumerate() {
        let secret = vec![0xa5; len];
        assert_eq!(add(image, "one", &secret, None), i + 1);
        assert!(cryptsetup.opens_keyslot(image, &secret, i + 1), "{len}");
        assert!(!cryptsetup.opens(image, &[&secret[1..], b"b"].concat()), "{len}");
    }
}
