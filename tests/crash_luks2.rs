//! The promise on LUKS2: at every instant of an amendment one copy of the header at least is valid,
//! and the image opens with every secret that is not touched, and with the old or the new one
//! where one is; after it, what was erased is gone.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Area, Header, Leftover};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::ReadOnlyBytes;
use keyslot::{Limits, Overrides, Passphrase};
use serde_json::{Value, json};
use support::luks2::{Change as HeaderChange, Luks2, roomy};
use support::memory::{Memory, Op};
use support::opener::{Opener, erase, secret};
use support::promise::{Amended, Promise, check};

/// Both copies say the same, and nothing is left to be done.
fn assert_whole(amended: &Amended) {
    let after = Luks2::new(amended.after.clone());
    assert_eq!(after.text(0), after.text(1));
    assert!(!after.text(0).contains("unwiped"));
}

/// The key material is gone: the old header on top of it opens nothing.
fn assert_gone(amended: &Amended, keyslot: usize, old: &Passphrase) {
    assert_whole(amended);
    let mut restored = amended.after.clone();
    let header = 2 * Luks2::new(restored.clone()).hdr_size;
    restored[..header].copy_from_slice(&amended.before[..header]);
    let opened = Opener::new(&[old]).open(&restored);
    assert!(opened.iter().all(|(slot, by)| *slot != keyslot || by.is_empty()));
}

fn keyslot(image: &[u8], number: &str) -> Value {
    Luks2::new(image.to_vec()).metadata(0)["keyslots"][number].clone()
}

/// A new secret by PBKDF2, where Argon2 is what LUKS2 has otherwise.
fn pbkdf() -> Pbkdf {
    Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2)
}

fn add(keyslot: i64, new: &Passphrase) -> Change {
    Change::Add { keyslot: Some(keyslot), new_secret: Ok(new.clone()), pbkdf: pbkdf() }
}

fn replace(keyslot: i64, new: &Passphrase) -> Change {
    let (keyslot, new_secret) = (Some(keyslot), Ok(new.clone()));
    Change::Replace { keyslot, old_secret: None, new_secret, pbkdf: pbkdf() }
}

#[test]
fn add_to_any_keyslot() {
    let ([zero, three, five, seven], new) = (hunters(), secret("new"));
    let all = [&zero, &three, &five, &seven, &new];
    for keyslot in [1, 31] {
        let promise = Promise { untouched: &all[..4], either: &[], atomic: true };
        let amended = check(roomy(1).bytes, &all, || vec![add(keyslot, &new)], &promise);
        assert_whole(&amended);
        println!("add: {} states", amended.states);
    }
}

#[test]
fn erase_any_keyslot() {
    let all = hunters();
    for (i, number) in NUMBERS.into_iter().enumerate().skip(1) {
        let all: Vec<_> = all.iter().collect();
        let untouched: Vec<_> = all.iter().copied().filter(|&it| *it != *all[i]).collect();
        let promise = Promise { untouched: &untouched, either: &[], atomic: true };
        let amended = check(roomy(0).bytes, &all, || vec![erase(number)], &promise);
        assert_gone(&amended, number, all[i]);
        let after = Luks2::new(amended.after.clone()).metadata(0);
        assert_eq!(
            after["tokens"]["0"]["keyslots"],
            json!(
                ["0", "3"]
                    .map(str::to_owned)
                    .into_iter()
                    .filter(|it| *it != number.to_string())
                    .collect::<Vec<_>>()
            )
        );
        println!("erase: {} states", amended.states);
    }
}

#[test]
fn replace_keeps_all_but_the_key() {
    let ([zero, three, five, seven], new) = (hunters(), secret("new"));
    let all = [&zero, &three, &five, &seven, &new];
    for (number, old) in [(0, &zero), (3, &three), (5, &five)] {
        let untouched: Vec<_> = all[..4].iter().copied().filter(|&it| *it != *old).collect();
        let promise = Promise { untouched: &untouched, either: &[(old, &new)], atomic: true };
        let amended = check(roomy(1).bytes, &all, || vec![replace(number, &new)], &promise);
        let number = usize::try_from(number).unwrap();
        assert_gone(&amended, number, old);
        let slot = |image: &[u8]| keyslot(image, &number.to_string());
        let (before, after) = (slot(&amended.before), slot(&amended.after));
        assert_ne!(before["area"]["offset"], after["area"]["offset"]);
        for member in ["type", "key_size", "priority", "af"] {
            assert_eq!(before[member], after[member], "{member}");
        }
        let tokens = |image: &[u8]| Luks2::new(image.to_vec()).metadata(0)["tokens"].clone();
        assert_eq!(tokens(&amended.before), tokens(&amended.after));
        println!("replace: {} states", amended.states);
    }
}

#[test]
fn several_changes_happen_all_or_not_at_all() {
    let ([zero, three, five, seven], new, newer) = (hunters(), secret("new"), secret("newer"));
    let all = [&zero, &three, &five, &seven, &new, &newer];
    let promise = Promise { untouched: &[&zero, &seven], either: &[(&five, &newer)], atomic: true };
    let changes = || vec![add(9, &new), erase(3), replace(5, &newer)];
    let amended = check(roomy(2).bytes, &all, changes, &promise);
    assert_gone(&amended, 3, &three);
    assert_gone(&amended, 5, &five);
    println!("several: {} states", amended.states);
}

/// There is room for one area, so the second waits for that of the first.
#[test]
fn replacements_take_turns_where_there_is_little_room() {
    let ([zero, three, five, seven], new, newer) = (hunters(), secret("new"), secret("newer"));
    let all = [&zero, &three, &five, &seven, &new, &newer];
    let promise = Promise {
        untouched: &[&zero, &seven],
        either: &[(&three, &new), (&five, &newer)],
        atomic: false,
    };
    let changes = || vec![replace(3, &new), replace(5, &newer)];
    let amended = check(roomy(1).bytes, &all, changes, &promise);
    assert_gone(&amended, 3, &three);
    assert_gone(&amended, 5, &five);
    println!("in turn: {} states", amended.states);
}

/// An erased keyslot makes the room that a replacement needs.
#[test]
fn replace_after_an_erase_in_a_full_image() {
    let ([zero, three, five, seven], new) = (hunters(), secret("new"));
    let all = [&zero, &three, &five, &seven, &new];
    let promise = Promise { untouched: &[&zero, &seven], either: &[(&five, &new)], atomic: false };
    let changes = || vec![erase(3), replace(5, &new)];
    let amended = check(roomy(0).bytes, &all, changes, &promise);
    assert_gone(&amended, 3, &three);
    assert_gone(&amended, 5, &five);
    println!("replace after erase: {} states", amended.states);
}

/// Forced, it loses its own keyslot at worst, and never shows one that opens with nothing.
#[test]
fn replace_in_place_when_there_is_no_room() {
    let ([zero, three, five, seven], new) = (hunters(), secret("new"));
    let all = [&zero, &three, &five, &seven, &new];
    let promise = Promise { untouched: &[&zero, &three, &seven], either: &[], atomic: false };
    let amended = check(roomy(0).bytes, &all, || vec![replace(5, &new)], &promise);
    assert_gone(&amended, 5, &five);
    let (before, after) = (keyslot(&amended.before, "5"), keyslot(&amended.after, "5"));
    assert_eq!(before["area"], after["area"]);
    println!("in place: {} states", amended.states);
}

/// Whatever state the copies are in, an amendment begins by bringing them into order.
#[test]
fn amendments_of_a_header_with_one_good_copy() {
    let (all, new) = (hunters(), secret("new"));
    let all: Vec<_> = all.iter().chain([&new]).collect();
    let older = HeaderChange::Binary(16, 1_u64.to_be_bytes().to_vec());
    let damaged = HeaderChange::Bytes(6000, vec![0; 4]);
    let damaged_secondary = HeaderChange::Bytes(16384 + 6000, vec![0; 4]);
    for change in [
        HeaderChange::Only(0, Box::new(older.clone())),
        HeaderChange::Only(1, Box::new(older)),
        damaged,
        damaged_secondary,
    ] {
        let before = roomy(1).with(&change).bytes;
        let promise = Promise { untouched: &all[..4], either: &[], atomic: true };
        let amended = check(before, &all, || vec![add(1, &new)], &promise);
        assert_whole(&amended);
        println!("one good copy: {} states", amended.states);
    }
}

/// What a crash left is found, and the next amendment or a repair overwrites it.
#[test]
fn what_a_crash_left_is_overwritten() {
    let [zero, three, ..] = hunters();
    let before = roomy(0).bytes;
    let memory = Memory::new(before.clone(), None);
    let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let plan = image.plan(Request::one(erase(3))).unwrap();
    image.amend(&plan, None).unwrap();
    // Up to the second write of a whole copy: both say that it is erased.
    let log = memory.log();
    let is_copy = |op: &Op| matches!(op, Op::Write { bytes, .. } if bytes.len() == 16384);
    let copies: Vec<_> = (0..log.len()).filter(|&i| is_copy(&log[i])).collect();
    let mut crashed = before;
    for op in &log[..=copies[2]] {
        if let Op::Write { offset, bytes } = op {
            crashed[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
    }
    let area = Area { offset: 98304, len: 65536 };
    let left = |image: &[u8]| Header::read(&ReadOnlyBytes(image.to_vec())).unwrap().leftovers();
    assert_eq!(left(&crashed), [Leftover::Area(area)]);
    let is_blank = |image: &[u8]| image[98304..98304 + 65536].iter().all(|&byte| byte == 0);
    assert!(!is_blank(&crashed));

    let amend = |changes: Vec<Change>| {
        let memory = Memory::new(crashed.clone(), None);
        let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
        let unlocked = image.unlock(&zero).unwrap();
        let plan = image.plan(Request::new(changes).overrides(Overrides::ALL)).unwrap();
        image.amend(&plan, Some(&unlocked)).unwrap();
        assert_eq!(left(&memory.bytes()), []);
        memory.bytes()
    };
    assert!(is_blank(&amend(vec![erase(5)])));
    assert!(is_blank(&amend(vec![erase(3)])));
    // A new keyslot has the area now.
    let added = amend(vec![add(1, &three)]);
    assert_eq!(keyslot(&added, "1")["area"]["offset"], "98304");
    let opened = Opener::new(&[&three]).open(&added);
    assert!(opened.contains(&(1, vec![0])));
}

const NUMBERS: [usize; 4] = [0, 3, 5, 7];

/// The secrets of these keyslots; those of 7 open a key that is not the volume key.
fn hunters() -> [Passphrase; 4] {
    NUMBERS.map(|number| secret(&format!("hunter{number}")))
}
