//! `Image::resize`: the payload gets the length asked for, or the image stays as it was.
#![cfg(feature = "file")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use keyslot::kdf::Cost;
use keyslot::{
    CreateOptions, ErrorKind, Image, OpenOptions, Passphrase, Preallocation, Result, Sharing,
};
use support::luks2::Luks2;
use tempfile::TempDir;

const LEN: u64 = 1 << 16;

fn secret() -> Passphrase {
    Passphrase::new(b"xyzzy").unwrap()
}

fn options() -> CreateOptions {
    CreateOptions::new().unwrap().cost(Cost::Iterations(1000))
}

fn image() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image");
    options().create(&path, LEN, &secret()).unwrap();
    (directory, path)
}

fn amended(path: &Path) -> Image {
    OpenOptions::new().sharing(Sharing::Amend).open(path).unwrap()
}

/// Refused with an error of this kind, and with the file as it was.
#[track_caller]
fn refused(path: &Path, image: Result<Image>, len: u64, kind: ErrorKind, text: &str) {
    let before = fs::read(path).unwrap();
    let error = image.and_then(|mut it| it.resize(len, Preallocation::Off)).unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.to_string().contains(text), "{error}");
    assert!(fs::read(path).unwrap() == before);
}

#[test]
fn the_payload_has_the_length_asked_for() {
    let (_directory, path) = image();
    let mut image = amended(&path);
    let unlocked = image.unlock(&secret()).unwrap();
    image.volume(&unlocked).unwrap().write_all_at(&[7; 4096], LEN - 4096).unwrap();
    for (len, space) in [
        (2 * LEN, Preallocation::Off),
        (3 * LEN, Preallocation::Falloc),
        (4 * LEN, Preallocation::Full),
        (LEN, Preallocation::Off),
        (LEN, Preallocation::Full),
    ] {
        image.resize(len, space).unwrap();
        let volume = image.volume(&unlocked).unwrap();
        assert_eq!(volume.len(), len);
        let mut bytes = vec![0; 4096];
        volume.read_exact_at(&mut bytes, LEN - 4096).unwrap();
        assert!(bytes == [7; 4096]);
    }
    // The last sector is a whole one, as everywhere.
    image.resize(LEN + 1, Preallocation::Off).unwrap();
    assert_eq!(image.volume(&unlocked).unwrap().len(), LEN + 512);
    assert!(image.unlock(&secret()).is_ok());
}

#[test]
fn what_cannot_be_resized_is_refused() {
    let (directory, path) = image();
    let opened = |options: OpenOptions| options.sharing(Sharing::Amend).open(&path);
    let reader = OpenOptions::new().sharing(Sharing::ReadData).open(&path);
    refused(&path, reader, LEN, ErrorKind::InvalidInput, "reading only");
    let part = opened(OpenOptions::new().range(0, Some(fs::metadata(&path).unwrap().len())));
    refused(&path, part, LEN, ErrorKind::Unsupported, "fixed length");
    let whole = || opened(OpenOptions::new());
    refused(&path, whole(), u64::MAX, ErrorKind::InvalidInput, "too large");
    refused(&path, whole(), i64::MAX.cast_unsigned() - 1000, ErrorKind::InvalidInput, "too large");

    let luks2 = directory.path().join("luks2");
    fs::write(&luks2, Luks2::testdata("luks2_keyslots.img").bytes).unwrap();
    let image = OpenOptions::new().sharing(Sharing::Amend).open(&luks2);
    refused(&luks2, image, LEN, ErrorKind::Unsupported, "only LUKS1");

    let header = directory.path().join("header");
    options().detached(true).create(&header, LEN, &secret()).unwrap();
    let image = OpenOptions::new().sharing(Sharing::Amend).open(&header);
    refused(&header, image, LEN, ErrorKind::Unsupported, "another file");
}

/// With a detached header it is the payload's file that changes.
#[test]
fn the_payload_of_a_detached_header_is_resized() {
    let directory = tempfile::tempdir().unwrap();
    let (header, payload) = (directory.path().join("header"), directory.path().join("payload"));
    options().detached(true).create(&header, LEN, &secret()).unwrap();
    fs::write(&payload, vec![1; 512]).unwrap();
    let before = fs::read(&header).unwrap();
    let options = OpenOptions::new().sharing(Sharing::Amend).header(&header);
    options.open(&payload).unwrap().resize(LEN, Preallocation::Off).unwrap();
    assert_eq!(fs::metadata(&payload).unwrap().len(), LEN);
    assert!(fs::read(&header).unwrap() == before);
}

/// A program without locks wrote another header meanwhile.
#[test]
fn another_header_is_not_resized() {
    let (_directory, path) = image();
    let mut image = amended(&path);
    let mut bytes = fs::read(&path).unwrap();
    bytes[170] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = image.resize(2 * LEN, Preallocation::Off).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert!(fs::read(&path).unwrap() == bytes);
}

/// Space that is not there leaves the length as it was.
#[test]
fn a_length_that_cannot_be_had_changes_nothing() {
    let (_directory, path) = image();
    let before = fs::metadata(&path).unwrap().len();
    // More than any file system of a test has.
    let error = amended(&path).resize(1 << 58, Preallocation::Falloc).unwrap_err();
    assert!(error.to_string().contains("cannot resize the file"), "{error}");
    assert_eq!(fs::metadata(&path).unwrap().len(), before);
}
