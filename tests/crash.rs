//! The promise: at every instant of an amendment, whatever reached the disk, the image opens with
//! every secret that is not touched, and with the old or the new one where one is; after it, what
//! was erased is gone. The same holds in a qcow2 image.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use keyslot::Passphrase;
use keyslot::amend::Change;
use keyslot::crypto::CipherSpec;
use support::memory;
use support::opener::{Opener, add, erase, replace, secret, small_key};
use support::promise::{self, Amended, Promise};
use support::qcow2;

/// Amends an image with these secrets in these keyslots; `new` are those that may come.
fn check(
    cipher: &CipherSpec,
    slots: &[(usize, &Passphrase)],
    changes: impl Fn() -> Vec<Change>,
    promise: &Promise,
    new: &[&Passphrase],
) -> Amended {
    let all: Vec<_> = slots.iter().map(|slot| slot.1).chain(new.iter().copied()).collect();
    let image = memory::image(cipher, slots);
    let in_qcow2 = promise::check(qcow2::around(&image), &all, &changes, promise);
    assert_only_luks_changed(&in_qcow2);
    let amended = promise::check(image, &all, changes, promise);
    Amended { states: amended.states + in_qcow2.states, ..amended }
}

/// In a qcow2 image, only the LUKS header and the features change.
fn assert_only_luks_changed(amended: &Amended) {
    let Amended { before, after, .. } = amended;
    let area = qcow2::area(before);
    let features = qcow2::AUTOCLEAR..qcow2::AUTOCLEAR + 8;
    assert_eq!(before.len(), after.len());
    let changed = (0..before.len()).filter(|&at| before[at] != after[at]);
    let outside: Vec<_> =
        changed.filter(|at| !area.contains(at) && !features.contains(at)).collect();
    assert!(outside.is_empty(), "{outside:?}");
    assert_eq!(after[features], [0; 8], "the unknown feature is cleared");
}

/// The key material is gone: the old header on top of it opens nothing.
fn assert_gone(amended: &Amended, keyslot: usize, old: &Passphrase) {
    let mut restored = amended.after.clone();
    restored[..592].copy_from_slice(&amended.before[..592]);
    let opened = Opener::new(&[old]).open(&restored);
    assert!(opened.iter().all(|(slot, by)| *slot != keyslot || by.is_empty()));
}

#[test]
fn add_to_any_keyslot() {
    let (a, b, new) = (secret("a"), secret("b"), secret("new"));
    let mut states = 0;
    for keyslot in 0..8 {
        let slots = [((keyslot + 1) % 8, &a), ((keyslot + 3) % 8, &b)];
        let promise = Promise { untouched: &[&a, &b], either: &[], atomic: true };
        states +=
            check(&small_key(), &slots, || vec![add(keyslot, &new)], &promise, &[&new]).states;
    }
    println!("add: {states} states");
}

#[test]
fn erase_any_keyslot() {
    let (a, old) = (secret("a"), secret("old"));
    let mut states = 0;
    for keyslot in 0..8 {
        let slots = [((keyslot + 1) % 8, &a), (keyslot, &old)];
        let promise = Promise { untouched: &[&a], either: &[], atomic: true };
        let amended = check(&small_key(), &slots, || vec![erase(keyslot)], &promise, &[]);
        assert_gone(&amended, keyslot, &old);
        states += amended.states;
    }
    println!("erase: {states} states");
}

#[test]
fn replace_any_keyslot_by_way_of_a_free_one() {
    let (a, old, new) = (secret("a"), secret("old"), secret("new"));
    let mut states = 0;
    for keyslot in 0..8 {
        let slots = [((keyslot + 1) % 8, &a), (keyslot, &old)];
        let promise = Promise { untouched: &[&a], either: &[(&old, &new)], atomic: false };
        let change = || vec![replace(keyslot, &new)];
        let amended = check(&small_key(), &slots, change, &promise, &[&new]);
        assert_gone(&amended, keyslot, &old);
        states += amended.states;
    }
    println!("replace: {states} states");
}

#[test]
fn replace_the_only_secret_there_is() {
    let (old, new) = (secret("old"), secret("new"));
    let mut states = 0;
    for keyslot in 0..8 {
        let promise = Promise { untouched: &[], either: &[(&old, &new)], atomic: false };
        let change = || vec![replace(keyslot, &new)];
        let amended = check(&small_key(), &[(keyslot, &old)], change, &promise, &[&new]);
        assert_gone(&amended, keyslot, &old);
        states += amended.states;
    }
    println!("replace the only one: {states} states");
}

#[test]
fn overwriting_an_active_keyslot_by_force_is_a_replacement() {
    let (old, new) = (secret("old"), secret("new"));
    let promise = Promise { untouched: &[], either: &[(&old, &new)], atomic: false };
    let amended = check(&small_key(), &[(0, &old)], || vec![add(0, &new)], &promise, &[&new]);
    assert_gone(&amended, 0, &old);
    println!("forced overwrite: {} states", amended.states);
}

#[test]
fn replace_in_place_when_all_keyslots_are_used() {
    let secrets: Vec<_> = (0..8).map(|i| secret(&format!("s{i}"))).collect();
    let new = secret("new");
    let slots: Vec<_> = secrets.iter().enumerate().collect();
    let mut states = 0;
    for keyslot in [1, 6, 7] {
        let untouched: Vec<_> =
            slots.iter().filter(|slot| slot.0 != keyslot).map(|slot| slot.1).collect();
        let promise = Promise { untouched: &untouched, either: &[], atomic: false };
        let change = || vec![replace(keyslot, &new)];
        let amended = check(&small_key(), &slots, change, &promise, &[&new]);
        assert_gone(&amended, keyslot, &secrets[keyslot]);
        states += amended.states;
    }
    println!("replace in place: {states} states");
}

#[test]
fn several_changes_in_one_sector_happen_all_or_not_at_all() {
    let (a, old, new, newer) = (secret("a"), secret("old"), secret("new"), secret("newer"));
    let promise = Promise { untouched: &[&a], either: &[(&old, &new)], atomic: true };
    let changes = || vec![add(4, &new), erase(0), add(1, &newer)];
    let slots = [(3, &a), (0, &old)];
    let amended = check(&small_key(), &slots, changes, &promise, &[&new, &newer]);
    assert_gone(&amended, 0, &old);
    println!("several in one sector: {} states", amended.states);
}

#[test]
fn several_changes_in_two_sectors_keep_the_image_open() {
    let (a, b, new, newer) = (secret("a"), secret("b"), secret("new"), secret("newer"));
    let mut states = 0;
    // The last secrets of one sector go while the first of the other come.
    for (from, to) in [([0, 7], [6, 2]), ([6, 7], [0, 1]), ([0, 1], [6, 7]), ([6, 0], [7, 2])] {
        let promise =
            Promise { untouched: &[], either: &[(&a, &new), (&b, &newer)], atomic: false };
        let changes = || vec![add(to[0], &new), add(to[1], &newer), erase(from[0]), erase(from[1])];
        let slots = [(from[0], &a), (from[1], &b)];
        let amended = check(&small_key(), &slots, changes, &promise, &[&new, &newer]);
        assert_gone(&amended, from[0], &a);
        assert_gone(&amended, from[1], &b);
        states += amended.states;
    }
    println!("several in two sectors: {states} states");
}

#[test]
fn erase_add_and_replace_in_one_full_image() {
    let secrets: Vec<_> = (0..8).map(|i| secret(&format!("s{i}"))).collect();
    let (new, newer) = (secret("new"), secret("newer"));
    let slots: Vec<_> = secrets.iter().enumerate().collect();
    let untouched: Vec<_> = secrets[..5].iter().collect();
    let promise = Promise {
        untouched: &untouched,
        either: &[(&secrets[6], &new), (&secrets[7], &newer)],
        atomic: false,
    };
    let changes = || vec![erase(5), replace(6, &new), replace(7, &newer)];
    let amended = check(&small_key(), &slots, changes, &promise, &[&new, &newer]);
    for keyslot in [5, 6, 7] {
        assert_gone(&amended, keyslot, &secrets[keyslot]);
    }
    println!("erase and replace in a full image: {} states", amended.states);
}

#[test]
fn the_default_layout_with_its_longer_areas() {
    let cipher = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
    let (a, old, new) = (secret("a"), secret("old"), secret("new"));
    let slots = [(0, &a), (6, &old)];
    let promise = Promise { untouched: &[&a], either: &[(&old, &new)], atomic: false };
    let amended = check(&cipher, &slots, || vec![replace(6, &new)], &promise, &[&new]);
    assert_gone(&amended, 6, &old);
    println!("replace, 64-byte key: {} states", amended.states);
}
