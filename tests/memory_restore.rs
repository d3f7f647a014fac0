//! The memory of a header restore with as large an area for keyslots as there can be.
//!
//! The only test here: the system counts all children of the process together.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

use nix::sys::resource::{UsageWho, getrusage};

/// Areas of keyslots in a LUKS2 image, in MiB: cryptsetup's and our limit.
const AREAS: i64 = 128;

/// Everything but the backup, in MiB.
const REST: i64 = 32;

#[test]
fn a_restore_holds_the_backup_once_and_the_image_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &str| -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
        command.args(arguments.split(' ')).current_dir(directory.path());
        command.env("A", "first secret").env("B", "second secret");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{arguments}: {output:?}");
        output
    };
    run(
        "create -f luks2 --iterations 1000 --pbkdf pbkdf2 --keyslots-size 128M a.img 1M --new-secret env:A",
    );
    run("header backup a.img a.hdr");
    run("add --iterations 1000 --pbkdf pbkdf2 --secret env:A --new-secret env:B a.img");
    // As an amendment, and over an image whose header is gone.
    run("header restore --yes a.hdr a.img");
    let file = std::fs::OpenOptions::new().write(true).open(directory.path().join("a.img"));
    std::os::unix::fs::FileExt::write_all_at(&file.unwrap(), &vec![0; 1 << 20], 0).unwrap();
    run("header restore --yes --force a.hdr a.img");
    run("check --secret env:A a.img");
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() >> 10;
    eprintln!("{peak} MiB");
    assert!(peak < AREAS + REST, "{peak} MiB");
}
