//! `info` prints what `qemu-img info` prints, byte for byte.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs::{self, OpenOptions};
use std::path::Path;

use keyslot::CreateOptions;
use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen};
use keyslot::kdf::Cost;
use side_by_side::{Outcome, Pair, for_each, image, secret};

/// Behind `info`, and again with `--output=json`.
const SAME: &[&[&str]] = &[
    &["a.luks"],
    &["./a.luks"],
    &["sub/../a.luks"],
    &["-U", "a.luks"],
    &["a.luks", "-f", "luks"],
    &["--backing-chain", "a.luks"],
    &["essiv.luks"],
    &["plain.luks"],
    &["odd.luks"],
    &["it's \"q\", ü\\.luks"],
    &["./x:y.luks"],
    &["x:y.luks"],
    &["file:a.luks"],
    &["file:nosuch"],
    &["nosuch", "a.luks"],
    &["--image-opts", "driver=luks,file.filename=a.luks"],
    &["--image-opts", "driver=luks,file.filename=a.luks,key-secret=sec0"],
    &["--image-opts", "file.filename=a.luks,key-secret=nosuch"],
    &["--image-opts", "driver=luks,file.filename=it's \"q\",, ü\\.luks,key-secret=sec0"],
    &["--image-opts", "driver=luks,file.filename=a.luks,read-only=on"],
    &["--image-opts", "driver=luks,file.filename=a.luks,file.locking=off"],
    &["--image-opts", "driver=luks,file.filename=a.luks,node-name=x,force-share=on"],
    &["--image-opts", "driver=luks,file.driver=file,file.filename=a.luks,file.foo=1"],
    &["--image-opts", "driver=luks,file.filename=a.luks,read-only=maybe"],
    &["json:{\"driver\":\"luks\",\"file\":{\"filename\":\"a.luks\"}}"],
    &["json:{\"driver\":\"luks\",\"file.filename\":\"a.luks\",\"key-secret\":\"s\\u00fc\"}"],
    &["json:{\"driver\":\"luks\",\"file\":{\"driver\":\"file\",\"filename\":\"nosuch\"}}"],
    &["json:bad"],
    &["text"],
    &["-f", "raw", "a.luks"],
    &["-f", "luks", "text"],
    &["-f", "luks", "nosuch"],
    &["-f", "nosuch", "a.luks"],
    &["nosuch"],
    &["-x", "a.luks"],
    &[],
];

/// What ours prints where qemu-img prints something else.
const DIFFERENT: &[(&[&str], &str)] = &[(
    &["--output=foo", "a.luks"],
    "invalid value 'foo' for '--output <FORMAT>' [possible values: human, json]\nTry 'qemu-img info --help' for more info\n",
)];

#[test]
fn as_qemu_img_prints_it() {
    let Some(pair) = Pair::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    images(directory.path());
    for_each(SAME, |row| {
        for output in [&["info"][..], &["info", "--output=json"]] {
            let arguments = [output, row].concat();
            let theirs = Outcome::of(&pair.theirs, &arguments, directory.path());
            let ours = Outcome::of(&pair.ours, &arguments, directory.path());
            if theirs != ours {
                return Err(format!("{row:?}\n  theirs: {theirs:?}\n  ours:   {ours:?}"));
            }
        }
        Ok(())
    });
}

#[test]
fn where_it_differs() {
    let Some(pair) = Pair::find() else { return };
    let directory = tempfile::tempdir().unwrap();
    images(directory.path());
    for &(row, text) in DIFFERENT {
        let arguments = [&["info"], row].concat();
        let theirs = Outcome::of(&pair.theirs, &arguments, directory.path());
        let ours = Outcome::of(&pair.ours, &arguments, directory.path());
        assert_ne!(theirs, ours, "{row:?}");
        assert_eq!((ours.status, ours.stderr.as_str()), (Some(1), text), "{row:?}");
    }
}

fn images(directory: &Path) {
    let at = |name: &str| directory.join(name);
    image(&at("a.luks"), &[0, 1]);
    for name in ["it's \"q\", ü\\.luks", "x:y.luks", "odd.luks"] {
        fs::copy(at("a.luks"), at(name)).unwrap();
    }
    // QEMU counts in sectors.
    let odd = OpenOptions::new().write(true).open(at("odd.luks")).unwrap();
    odd.set_len(odd.metadata().unwrap().len() + 100).unwrap();
    fs::create_dir(at("sub")).unwrap();
    fs::write(at("text"), "not an image").unwrap();
    for (name, mode, ivgen, hash) in [
        ("essiv.luks", CipherMode::Cbc, IvGen::Essiv(HashAlg::Sha256), HashAlg::Sha1),
        ("plain.luks", CipherMode::Ctr, IvGen::Plain, HashAlg::Sha512),
    ] {
        let cipher = CipherSpec::new(Cipher::Aes, mode, ivgen, None, 32).unwrap();
        let options = CreateOptions::new().unwrap().cipher(cipher).hash(hash);
        let options = options.cost(Cost::Iterations(1000));
        options.create(at(name), 12345, &secret(0)).unwrap();
    }
}
