//! What is a LUKS2 header and what is not: one header, changed, to us and to cryptsetup; and which
//! of its copies counts.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(clippy::too_many_lines, reason = "tables are long")]

mod binary;
mod copies;
mod keyslots;
mod others;
#[path = "../support/mod.rs"]
mod support;
mod table;

use keyslot::Image;
use support::amending::directory;
use support::cryptsetup::Cryptsetup;
use support::luks2::Luks2;
use support::parallel::in_parallel;
use table::{Case, Verdict};

fn all() -> Vec<Case> {
    [binary::table(), keyslots::table(), others::table()].into_iter().flatten().collect()
}

/// The literal texts, so nothing needs to be installed.
#[test]
fn we_say() {
    let base = Luks2::testdata("luks2_keyslots.img");
    let directory = directory();
    let path = &directory.path().join("image");
    let cases = all();
    assert!(cases.len() > 450);
    for case in cases {
        let image = base.with(&case.change).bytes;
        std::fs::write(path, &image).unwrap();
        let found = Image::open(path).err();
        let found = found.as_ref().map(|error| (error.kind(), error.message()));
        assert_eq!(found, case.ours, "{}", case.name);
        assert!(std::fs::read(path).unwrap() == image, "{}: it was written", case.name);
    }
}

/// What cryptsetup refuses, we refuse; what only we refuse has a reason.
#[test]
fn what_cryptsetup_takes_and_we_do_not_has_a_reason() {
    for case in all() {
        let (takes, name) = (case.cryptsetup == Verdict::Accepts, case.name);
        assert!(takes || case.ours.is_some(), "{name}");
        assert_eq!(takes && case.ours.is_some(), !case.because.is_empty(), "{name}");
    }
}

#[test]
fn cryptsetup_says() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let base = Luks2::testdata("luks2_keyslots.img");
    in_parallel(all(), |case| {
        let directory = directory();
        let path = &directory.path().join("image");
        std::fs::write(path, base.with(&case.change).bytes).unwrap();
        assert_eq!(cryptsetup.accepts_luks2(path), case.cryptsetup == Verdict::Accepts);
    });
}
