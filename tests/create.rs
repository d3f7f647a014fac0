//! `create` takes what `qemu-img create` takes for LUKS, and refuses the rest in its words.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/side_by_side.rs"]
mod side_by_side;
mod support;

use std::fs;
use std::path::Path;

use side_by_side::{Outcome, Pair, for_each, opened, secret, secret_objects};

/// Behind `create -f luks --object ...`; `KEY` stands for `key-secret=sec0,iter-time=10`.
const SAME: &[&[&str]] = &[
    &["-o", "KEY", "f", "64k"],
    &["-q", "-o", "KEY", "f", "64k"],
    &["-o", "key-secret=sec1", "-o", "KEY,key-secret=sec0", "it's ü.luks", "0x10000"],
    &[
        "-o",
        "KEY,cipher-alg=aes-128,cipher-mode=cbc,ivgen-alg=essiv,hash-alg=sha1,ivgen-hash-alg=sha256",
        "f",
        "64k",
    ],
    &["-o", "KEY,preallocation=falloc,size=64k", "f"],
    &["-o", "KEY", "f"],
    &["-o", "KEY"],
    &["-o", "KEY", "f", "1M", "2M"],
    &["-o", "KEY,size=64k", "f", "128k"],
    &["-o", "KEY,size=x", "f"],
    &["-o", "KEY", "f", "1x"],
    &["-o", "KEY", "f", "10E"],
    &["-o", "KEY", "nosuch/f", "1M"],
    &["-o", "iter-time=10", "f", "1M"],
    &["f", "1M"],
    &["-o", "key-secret=nosuch", "f", "1M"],
    &["-o", "KEY,foo=1", "f", "1M"],
    &["-o", "KEY,encrypt.format=luks", "f", "1M"],
    &["-o", "KEY,detached-header=maybe", "f", "1M"],
    &["-o", "KEY,cipher-alg=aes-256-xts", "f", "1M"],
    &["-o", "KEY,cipher-alg=des", "f", "1M"],
    &["-o", "KEY,cipher-alg=cast5-128", "f", "1M"],
    &["-o", "KEY,cipher-mode=foo", "f", "1M"],
    &["-o", "KEY,hash-alg=foo", "f", "1M"],
    &["-o", "KEY,hash-alg=SHA256", "f", "1M"],
    &["-o", "KEY,ivgen-alg=benbi", "f", "1M"],
    &["-o", "KEY,ivgen-alg=essiv,ivgen-hash-alg=foo", "f", "1M"],
    &["-o", "KEY,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha512", "f", "1M"],
    &["-o", "KEY,preallocation=foo", "f", "1M"],
    &["-o", "key-secret=sec0,iter-time=x", "f", "1M"],
    &["-o", "", "f", "1M"],
    &["-o", "help"],
    &["--foo", "f", "1M"],
];

#[test]
fn as_qemu_img_does_it() {
    let Some(pair) = Pair::find() else { return };
    for_each(SAME, |row| {
        let theirs = Made::by(&pair.theirs, row, None);
        let ours = Made::by(&pair.ours, row, None);
        if theirs == ours {
            Ok(())
        } else {
            Err(format!("{row:?}\n  theirs: {theirs:?}\n  ours:   {ours:?}"))
        }
    });
}

/// Under the name qemu-img it is replaced as qemu-img does it, but only by a complete image.
#[test]
fn an_existing_file_stays_until_its_successor_is_complete() {
    let Some(pair) = Pair::find() else { return };
    let before = Some(b"precious".as_slice());
    let same = [("f".to_owned(), 8)];
    let row = ["-q", "-o", "KEY", "f", "64k"];
    assert_eq!(Made::by(&pair.ours, &row, before), Made::by(&pair.theirs, &row, before));
    // QEMU deletes it when it finds that it cannot make the other.
    let row = ["-q", "-o", "KEY,cipher-alg=cast5-128", "f", "64k"];
    assert_ne!(Made::by(&pair.theirs, &row, before).files, same);
    let ours = Made::by(&pair.ours, &row, before);
    assert_eq!((ours.outcome.status, ours.files.as_slice()), (Some(1), same.as_slice()));
    let forced = Made::by(&pair.ours, &["--force", "-q", "-o", "KEY", "f", "64k"], before);
    assert_eq!(forced.outcome.status, Some(0));
    assert_eq!(forced.opened, [0]);
}

/// What came of it: the files with their lengths, and the keyslots that the secret opens.
#[derive(Debug, Eq, PartialEq)]
struct Made {
    outcome: Outcome,
    files: Vec<(String, u64)>,
    opened: Vec<usize>,
}

impl Made {
    /// Runs the program in a directory with a file `f` of these contents, if any.
    fn by(program: &Path, row: &[&str], contents: Option<&[u8]>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        if let Some(contents) = contents {
            fs::write(directory.path().join("f"), contents).unwrap();
        }
        let mut arguments = ["create", "-f", "luks"].map(str::to_owned).to_vec();
        arguments.extend(secret_objects(2));
        let key = "key-secret=sec0,iter-time=10";
        arguments.extend(row.iter().map(|argument| argument.replace("KEY", key)));
        let outcome = Outcome::of(program, &arguments, directory.path());
        let entries = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap());
        let files: Vec<_> = entries
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, entry.metadata().unwrap().len())
            })
            .collect();
        let opened = match files.as_slice() {
            [(name, _)] if outcome.status == Some(0) => {
                opened(&directory.path().join(name), &secret(0))
            }
            _ => Vec::new(),
        };
        Self { outcome, files, opened }
    }
}
