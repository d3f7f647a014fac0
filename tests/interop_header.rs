//! Headers saved by cryptsetup are restored by us, and ours by cryptsetup; both are the same bytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use keyslot::header::Backup;
use keyslot::{Error, ErrorKind, Image, OpenOptions, Overrides, Restoration};
use support::amending::{directory, erase, opener};
use support::cryptsetup::Cryptsetup;

const CHEAP: [&str; 4] = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];

fn restore(file: &Path, image: &Path, force: bool) -> Result<Vec<String>, Error> {
    let restoration = Restoration::open(
        image,
        Backup::open(file)?,
        Overrides::all_if(force),
        &OpenOptions::new(),
    )?;
    let warnings = restoration.warnings().to_vec();
    restoration.run()?;
    Ok(warnings)
}

/// Images of both formats by cryptsetup, which `one` and `two` open.
fn images(cryptsetup: &Cryptsetup, mut check: impl FnMut(&Path, &Path)) {
    for is_luks2 in [false, true] {
        let directory = directory();
        let image = &directory.path().join("disk.img");
        if is_luks2 {
            cryptsetup.format_luks2(image, b"one", 8, &CHEAP);
            cryptsetup.add_luks2(image, [b"one", b"two"], 1, &CHEAP);
        } else {
            cryptsetup.format(image, b"one", &[]);
            cryptsetup.add(image, b"one", b"two", 1);
        }
        check(image, directory.path());
    }
}

#[test]
fn they_save_and_we_restore() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    images(&cryptsetup, |image, directory| {
        let [theirs, ours] = ["theirs.hdr", "ours.hdr"].map(|name| directory.join(name));
        cryptsetup.run(
            "luksHeaderBackup",
            &["--header-backup-file", theirs.to_str().unwrap()],
            image,
        );
        Image::open(image).unwrap().backup_header(&ours).unwrap();
        assert!(fs::read(&theirs).unwrap() == fs::read(&ours).unwrap());

        // Two goes and three comes in its place; then all goes; then the header does.
        erase(image, 1);
        cryptsetup.add_luks2(image, [b"one", b"three"], 1, &CHEAP);
        let warnings = restore(&theirs, image, false).unwrap();
        assert!(warnings[0].contains("keyslot 1; "), "{warnings:?}");
        is_as_then(&cryptsetup, image);

        cryptsetup.run("luksErase", &[], image);
        assert_eq!(opener(image, "one"), None);
        restore(&theirs, image, false).unwrap();
        is_as_then(&cryptsetup, image);

        let mut bytes = fs::read(image).unwrap();
        bytes[..1 << 20].fill(0);
        fs::write(image, bytes).unwrap();
        restore(&theirs, image, false).unwrap();
        is_as_then(&cryptsetup, image);
    });
}

#[test]
fn we_save_and_they_restore() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    images(&cryptsetup, |image, directory| {
        let ours = directory.join("ours.hdr");
        Image::open(image).unwrap().backup_header(&ours).unwrap();
        let options = ["--header-backup-file", ours.to_str().unwrap()];
        cryptsetup.kill(image, 0);
        cryptsetup.run("luksHeaderRestore", &options, image);
        is_as_then(&cryptsetup, image);

        let mut bytes = fs::read(image).unwrap();
        bytes[..1 << 20].fill(0);
        fs::write(image, bytes).unwrap();
        cryptsetup.run("luksHeaderRestore", &options, image);
        is_as_then(&cryptsetup, image);
    });
}

/// Of the same size and layout, but with another volume key.
#[test]
fn the_header_of_another_image() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let mut all = Vec::new();
    images(&cryptsetup, |image, directory| {
        let (file, other) = (directory.join("disk.hdr"), directory.join("other.img"));
        let is_luks2 = fs::read(image).unwrap()[7] == 2;
        if is_luks2 {
            cryptsetup.format_luks2(&other, b"other", 8, &CHEAP);
        } else {
            cryptsetup.format(&other, b"other", &[]);
        }
        let backup = Image::open(image).unwrap().backup_header(&file).unwrap();
        all.push((fs::read(&other).unwrap(), backup.as_bytes().to_vec()));
        let error = restore(&file, &other, false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.message().contains("another volume key"), "{error}");
        assert_eq!(opener(&other, "other"), Some(0));

        // Of LUKS2 it is one commit all the same.
        let warnings = restore(&file, &other, true).unwrap();
        assert!(warnings[0].contains("another volume key"), "{warnings:?}");
        assert_eq!(warnings.iter().any(|it| it.contains("in place")), !is_luks2, "{warnings:?}");
        is_as_then(&cryptsetup, &other);
        assert_eq!(opener(&other, "other"), None);
    });
    // And each format by the other.
    let directory = directory();
    let (image, file) = (directory.path().join("disk.img"), directory.path().join("disk.hdr"));
    let [(luks1, luks1_header), (luks2, luks2_header)] = &all[..] else { return };
    for (bytes, header) in [(luks1, luks2_header), (luks2, luks1_header)] {
        fs::write(&image, bytes).unwrap();
        fs::write(&file, header).unwrap();
        let error = restore(&file, &image, false).unwrap_err();
        assert!(error.message().contains("the backup a LUKS"), "{error}");
        restore(&file, &image, true).unwrap();
        is_as_then(&cryptsetup, &image);
    }
}

#[track_caller]
fn is_as_then(cryptsetup: &Cryptsetup, image: &Path) {
    for (secret, keyslot) in [("one", 0), ("two", 1)] {
        assert!(cryptsetup.opens_keyslot(image, secret.as_bytes(), keyslot));
        assert_eq!(opener(image, secret), Some(keyslot));
    }
    assert!(!cryptsetup.opens(image, b"three"));
    assert_eq!(opener(image, "three"), None);
    let header = Image::open(image).unwrap().header().clone();
    assert_eq!((header.warning(), header.leftovers()), (None, Vec::new()));
}
