//! The names that `cryptsetup` has for hashes and ciphers: `--hash` of a new secret, `-c`, `-s` and `-h`
//! of a new image.
#![cfg(feature = "cli")]
#![allow(clippy::unwrap_used, reason = "a test")]

#[path = "support/desk_luks2.rs"]
mod desk;
mod support;

use desk::{ARGON2, Desk, PBKDF2};
use support::cryptsetup::Cryptsetup;

#[test]
fn a_new_secret_has_the_hash_that_is_asked_for() {
    let desk = Desk::roomy();
    let cryptsetup = Cryptsetup::find();
    desk.done(&format!(
        "add --secret env:S0 --new-secret env:S9 --keyslot 9 --hash sha512 {PBKDF2} image"
    ));
    desk.done(&format!(
        "add --secret env:S0 --new-secret env:S8 --keyslot 8 --hash sha384 {ARGON2} image"
    ));
    desk.done(&format!(
        "replace --keyslot 9 --old-secret env:S9 --secret env:S0 --new-secret env:S7 --hash sha1 {PBKDF2} image"
    ));
    let state = desk.state();
    assert_eq!(state.slot(9)["kdf"]["hash"], "sha1");
    assert_eq!(state.slot(9)["af"]["hash"], "sha1");
    assert_eq!(state.slot(8)["af"]["hash"], "sha384");
    assert_eq!(desk.opened_by(8), [8]);
    if let Some(cryptsetup) = cryptsetup {
        assert!(cryptsetup.opens_keyslot(&desk.path(), b"hunter7", 9));
        assert!(cryptsetup.opens_keyslot(&desk.path(), b"hunter8", 8));
    }
    let output =
        desk.output(&format!("add --secret env:S0 --new-secret env:S6 --hash none {PBKDF2} image"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn short_options_of_a_new_image_are_those_of_luks_format() {
    let desk = Desk::roomy();
    desk.done("create -f luks -q -c aes-cbc-essiv:sha256 -s 256 -h sha512 --iterations 1000 --new-secret env:S1 new 1M");
    let information = desk.json("info new");
    assert_eq!(information["format-specific"]["data"]["hash-alg"], "sha512", "{information}");
    assert_eq!(information["format-specific"]["data"]["cipher-mode"], "cbc");
    // One hash for all keyslots of LUKS1.
    let add = "add --secret env:S1 --new-secret env:S2 --iterations 1000";
    let output = desk.output(&format!("{add} --hash sha256 new"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    desk.done(&format!("{add} --hash sha512 new"));
    assert!(desk.done("create --help").contains("-h, --hash"));
}

/// Without a hash behind it, `-h` asks for help, unless it is a file's name.
#[test]
fn a_last_h_asks_for_help() {
    let desk = Desk::roomy();
    for words in ["create -h", "create -f luks -h", "uuid -h"] {
        assert!(desk.done(words).contains("\nUsage: keyslot "), "{words}");
    }
    std::fs::copy(desk.path(), desk.path().with_file_name("-h")).unwrap();
    assert_eq!(desk.done("uuid -- -h"), desk.done("uuid image"));
}
