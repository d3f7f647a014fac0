//! The promise on restored headers: between two headers of one volume, at every instant, whatever
//! reached the disk, the image opens with all secrets that are in both, and with all of the old or
//! all of the new ones; after it, what is not in the backup is gone. Without a valid header it
//! ends as the backup, and can be begun again wherever it was interrupted.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;

use keyslot::ErrorKind;
use keyslot::header::{Fate, Header};
use keyslot::storage::ReadOnlyBytes;
use support::luks2::{Change as HeaderChange, Luks2, roomy};
use support::opener::erase;
use support::restoring::{Scene, add, changed, luks1, replace, set};

#[test]
fn luks1_keyslots_that_came_and_went() {
    // In one sector of the header, and in both.
    for (then, erased, added, is_atomic) in [
        (vec![(0, "a"), (2, "b")], 2, 3, true),
        (vec![(0, "a"), (6, "b")], 6, 1, false),
        (vec![(7, "a"), (1, "b")], 1, 6, false),
        (vec![(2, "a"), (0, "b")], 0, 7, false),
    ] {
        let then = luks1(&then);
        let now = changed(&then, "a", vec![erase(erased), add(added, "c")]);
        let scene = Scene::new(then, now, &["a", "b", "c"]);
        let fates = scene.fates();
        assert!(fates.contains(&(erased, Fate::Added)), "{fates:?}");
        assert!(fates.contains(&(usize::try_from(added).unwrap(), Fate::Erased)), "{fates:?}");
        scene.check(is_atomic);
    }
}

#[test]
fn luks1_keyslots_that_were_replaced() {
    for keyslot in [0, 3, 6, 7] {
        let then = luks1(&[(keyslot, "a"), ((keyslot + 1) % 8, "b")]);
        let number = i64::try_from(keyslot).unwrap();
        let now = changed(&then, "a", vec![replace(number, "c")]);
        let scene = Scene::new(then, now, &["a", "b", "c"]);
        assert!(scene.fates().contains(&(keyslot, Fate::Replaced)));
        scene.check(false);
    }
    let then = luks1(&[(6, "a")]);
    let now = changed(&then, "a", vec![replace(6, "b")]);
    Scene::new(then, now, &["a", "b"]).check(false);
}

/// Both are in both: none may be missing for a moment.
#[test]
fn luks1_secrets_that_changed_places() {
    let then = luks1(&[(0, "a"), (6, "b")]);
    let now = changed(&then, "a", vec![add(1, "a"), replace(0, "b"), replace(6, "a"), erase(1)]);
    Scene::new(then, now, &["a", "b"]).check(false);
}

#[test]
fn luks1_all_secrets_gone() {
    let then = luks1(&[(0, "a"), (6, "b")]);
    let now = changed(&then, "a", vec![erase(6), erase(0)]);
    Scene::new(then, now, &["a", "b"]).check(false);
}

#[test]
fn luks1_without_enough_free_keyslots() {
    let names = ["0", "1", "2", "3", "4", "5", "6", "7"];
    let then = luks1(&names.into_iter().enumerate().collect::<Vec<_>>());
    let now = changed(&then, "0", vec![replace(3, "new")]);
    let scene = Scene::new(then, now, &[&names[..], &["new"]].concat());
    let error = scene.open(scene.now.clone(), None).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoFreeKeyslot, "{error}");
    let scene = scene.forced();
    let restoration = scene.open(scene.now.clone(), None).1.unwrap();
    assert!(restoration.warnings()[0].starts_with("keyslot 3: overwritten in place; "));
    let mut opener = scene.opener();
    // All others open it in between.
    let others: BTreeSet<_> = [0, 1, 2, 4, 5, 6, 7].into();
    let after = scene.each_state(|state| {
        assert!(set(&opener.open(state)).is_superset(&others));
    });
    scene.assert_gone(&after, &(0..8).collect());
}

#[test]
fn luks1_uuid_and_what_an_interruption_left() {
    let then = luks1(&[(0, "a"), (6, "b")]);
    let mut now = changed(&then, "a", vec![erase(6)]);
    now[168..176].copy_from_slice(b"12345678");
    // Keyslot 3 was erased, but its area was not overwritten.
    now[208 + 3 * 48 + 8..][..32].copy_from_slice(b"keyslot: area to be overwritten\0");
    let area = 4096 + 3 * 65536;
    now[area..area + 4096].fill(7);
    let scene = Scene::new(then, now, &["a", "b"]);
    let after = scene.check(false);
    assert!(after[area..area + 4096].iter().all(|&byte| byte == 0));
    // Nothing to be done, and nothing but that is done.
    let (again, result) = scene.restore(after.clone(), None);
    result.unwrap();
    assert!(again.bytes() == after);
}

#[test]
fn luks1_header_that_is_damaged_or_gone() {
    let then = luks1(&[(0, "a"), (6, "b")]);
    let end = then.len() - 512;
    for damage in [0..512, 512..592, 0..4096, 4..5, 0..end] {
        let mut now = then.clone();
        now[damage].fill(0xff);
        let scene = Scene::new(then.clone(), now, &["a", "b"]);
        assert_eq!(scene.fates(), [(0, Fate::Added), (6, Fate::Added)]);
        let mut opener = scene.opener();
        let after = scene.each_state(|state| {
            // What is a header is that of the backup, with its key material.
            if Header::read(&ReadOnlyBytes(state.to_vec())).is_ok() {
                assert_eq!(set(&opener.open(state)), [0, 1].into());
            }
        });
        assert!(after == scene.then);
    }
}

const HUNTERS: [&str; 7] = ["hunter0", "hunter3", "hunter5", "hunter7", "c", "d", "e"];

/// What came took the places of what went.
#[test]
fn luks2_keyslots_that_came_went_and_were_replaced() {
    let then = roomy(3).with(&HeaderChange::Binary(24, b"then\0".into())).bytes;
    let changes = vec![erase(5), add(9, "c"), replace(0, "d"), replace(3, "e")];
    let now = changed(&then, "hunter0", changes);
    let now = Luks2::new(now).with(&HeaderChange::Binary(24, b"now\0\0".into())).bytes;
    let scene = Scene::new(then, now, &HUNTERS);
    let mut fates = scene.fates();
    fates.sort_unstable_by_key(|it| it.0);
    assert_eq!(
        fates,
        [
            (0, Fate::Replaced),
            (3, Fate::Replaced),
            (5, Fate::Added),
            (7, Fate::Kept),
            (9, Fate::Erased),
        ]
    );
    let after = scene.check(true);
    let slot =
        |image: &[u8], n: &str| Luks2::new(image.to_vec()).metadata(0)["keyslots"][n].clone();
    // Keyslot 5 had to move, keyslot 7 stayed.
    assert_ne!(slot(&after, "5")["area"]["offset"], slot(&scene.then, "5")["area"]["offset"]);
    assert_eq!(slot(&after, "7"), slot(&scene.then, "7"));
    assert!(Luks2::new(after.clone()).text(0) == Luks2::new(after).text(1));
}

#[test]
fn luks2_with_a_damaged_copy() {
    let then = roomy(1).bytes;
    let changed = changed(&then, "hunter0", vec![erase(5)]);
    for copy in [0, 16384] {
        let mut now = changed.clone();
        now[copy + 4096..copy + 4104].fill(0xff);
        Scene::new(then.clone(), now, &HUNTERS).check(true);
    }
}

/// The backup's damaged copy is not restored.
#[test]
fn luks2_headers_that_are_gone() {
    let then = roomy(0).bytes;
    let end = 2 * 16384 + (320 << 10);
    for damage in [0..32768, 0..end] {
        for broken in [None, Some(0), Some(16384)] {
            let (mut then, mut now) = (then.clone(), then.clone());
            now[damage.clone()].fill(0);
            if let Some(copy) = broken {
                then[copy + 5000] = 1;
            }
            let scene = Scene::new(then, now, &HUNTERS);
            let mut opener = scene.opener();
            let new = set(&opener.open(&scene.then));
            let after = scene.each_state(|state| {
                // What is a header is that of the backup, with its key material.
                if Header::read(&ReadOnlyBytes(state.to_vec())).is_ok() {
                    assert_eq!(set(&opener.open(state)), new);
                }
            });
            assert!(broken.is_some() || after == scene.then);
        }
    }
}

#[test]
fn luks2_without_room_for_both() {
    let then = roomy(0).bytes;
    let now = changed(&then, "hunter5", vec![erase(0), add(9, "c")]);
    let scene = Scene::new(then, now, &HUNTERS);
    let error = scene.open(scene.now.clone(), None).1.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoFreeKeyslot, "{error}");
    let scene = scene.forced();
    let restoration = scene.open(scene.now.clone(), None).1.unwrap();
    let warnings = restoration.warnings().join("\n");
    assert!(warnings.starts_with("the header is overwritten in place: "), "{warnings}");
    let (recorded, result) = scene.restore(scene.now.clone(), None);
    result.unwrap();
    assert!(recorded.bytes() == scene.then);
}
