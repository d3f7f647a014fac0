//! What interrupted amendments leave is found by marks that only keyslot makes, and whoever comes next
//! finishes it.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use keyslot::amend::{Change, PlannedChange, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Header, Leftover, Priority};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::ReadOnlyBytes;
use keyslot::storage::Storage;
use keyslot::{Error, ErrorKind, Image, Limits, Overrides, Passphrase};
use support::luks2::{Change as HeaderChange, roomy};
use support::memory::{self, Forgets, Memory, Op};
use support::opener::{Opener, erase, replace, secret, small_key};
use support::watched::Watched;

fn open(bytes: Vec<u8>, fails: Option<usize>) -> (Arc<Memory>, Image) {
    let memory = Memory::new(bytes, fails);
    let image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    (memory, image)
}

fn amend(bytes: &[u8], opener: &Passphrase, change: Change) -> Result<Vec<u8>, Error> {
    let (memory, mut image) = open(bytes.to_vec(), None);
    let unlocked = image.unlock(opener).unwrap();
    let plan = image.plan(Request::one(change))?;
    image.amend(&plan, Some(&unlocked))?;
    Ok(memory.bytes())
}

fn repair(bytes: &[u8]) -> Vec<u8> {
    let (memory, mut image) = open(bytes.to_vec(), None);
    assert!(image.repair(Overrides::NONE).unwrap());
    memory.bytes()
}

/// Every state of an amendment whose operations fail from some point on.
fn interrupted(bytes: &[u8], opener: &Passphrase, change: impl Fn() -> Change) -> Vec<Vec<u8>> {
    let whole = |fails| {
        let (memory, mut image) = open(bytes.to_vec(), fails);
        let unlocked = image.unlock(opener).unwrap();
        let plan = image.plan(Request::one(change())).unwrap();
        let result = image.amend(&plan, Some(&unlocked));
        (memory, result.is_ok())
    };
    let mut states = Vec::new();
    for fails in 0.. {
        let (memory, is_done) = whole(Some(fails));
        states.push(memory.bytes());
        if is_done {
            return states;
        }
    }
    unreachable!("it is done some time")
}

fn leftovers(bytes: &[u8]) -> Vec<Leftover> {
    Header::read(&ReadOnlyBytes(bytes.to_vec())).unwrap().leftovers()
}

/// A repair leaves each secret that is meant to open the image in the keyslot where it belongs.
#[test]
fn a_repair_finishes_or_takes_back_a_luks1_replacement() {
    let (a, b, new) = (secret("a"), secret("b"), secret("new"));
    for keyslot in [0, 5, 6, 7] {
        let other = (keyslot + 1) % 8;
        let image = memory::image(&small_key(), &[(keyslot, &a), (other, &b)]);
        let mut opener = Opener::new(&[&a, &b, &new]);
        let mut kinds = [0; 3];
        for state in interrupted(&image, &b, || replace(keyslot, &new)) {
            let left = leftovers(&state);
            let Some(first) = left.first() else { continue };
            let repaired = repair(&state);
            assert_eq!(leftovers(&repaired), []);
            let mut opened = opener.open(&repaired);
            opened.retain(|it| it.0 != other);
            let expected = match first {
                Leftover::Staging { .. } => 0,
                Leftover::Replace { .. } | Leftover::Twins { .. } => 2,
                Leftover::Wipe { .. } => opened[0].1[0],
                other => panic!("{other:?}"),
            };
            assert_eq!(opened, [(keyslot, vec![expected])], "{first:?}");
            kinds[match first {
                Leftover::Staging { .. } => 0,
                Leftover::Replace { .. } => 1,
                _ => 2,
            }] += 1;
        }
        assert!(kinds.iter().all(|&count| count > 0), "{kinds:?}");
    }
}

#[test]
fn a_luks1_replacement_that_is_run_again_leaves_no_second_copy() {
    let (a, b) = (secret("a"), secret("b"));
    let new = secret("new");
    let image = memory::image(&small_key(), &[(0, &a), (3, &b)]);
    let is_staged = |state: &Vec<u8>| matches!(leftovers(state)[..], [Leftover::Staging { .. }]);
    let states = interrupted(&image, &b, || replace(0, &new));
    let state = states.iter().find(|it| is_staged(it)).unwrap();
    let (_, opened) = open(state.clone(), None);
    let plan = opened.plan(Request::one(replace(0, &new))).unwrap();
    assert!(matches!(plan.changes()[0], PlannedChange::Erase { keyslot: 7 }), "{plan:?}");
    assert!(plan.warnings()[0].starts_with("keyslot 7 is erased too"), "{:?}", plan.warnings());
    let after = amend(state, &b, replace(0, &new)).unwrap();
    let mut opener = Opener::new(&[&a, &b, &new]);
    assert_eq!(opener.open(&after), [(0, vec![2]), (3, vec![1])]);
    assert_eq!(leftovers(&after), []);
}

/// The keyslot that was to be replaced was erased and used again: the other one is nobody's copy.
#[test]
fn a_staging_keyslot_is_one_as_long_as_the_old_secret_is_there() {
    let [a, b, c, new] = ["a", "b", "c", "new"].map(secret);
    let image = memory::image(&small_key(), &[(0, &a), (3, &b)]);
    let states = interrupted(&image, &b, || replace(0, &new));
    let is_staged = |state: &&Vec<u8>| matches!(leftovers(state)[..], [Leftover::Staging { .. }]);
    let state = states.iter().find(is_staged).unwrap();
    let erased = amend(state, &b, erase(0)).unwrap();
    assert_eq!(leftovers(&erased), []);
    let added = amend(&erased, &b, support::opener::add(0, &c)).unwrap();
    assert_eq!(leftovers(&added), []);
    let mut opener = Opener::new(&[&a, &b, &c, &new]);
    assert_eq!(opener.open(&added), [(0, vec![2]), (3, vec![1]), (7, vec![3])]);
}

/// Other programs leave counts and salts in entries of keyslots that are not in use.
#[test]
fn what_others_leave_in_an_inactive_entry_is_no_mark() {
    let a = secret("a");
    let mut image = memory::image(&small_key(), &[(0, &a)]);
    image[208 + 3 * 48 + 4..][..4].copy_from_slice(&1000_u32.to_be_bytes());
    image[208 + 3 * 48 + 8..][..32].fill(7);
    image[208 + 4 * 48 + 4..][..4].copy_from_slice(&1_u32.to_be_bytes());
    assert_eq!(leftovers(&image), []);
}

#[test]
fn an_erase_that_is_run_again_overwrites_what_is_left() {
    let (a, b) = (secret("a"), secret("b"));
    for (image, opener, keyslot) in [
        (memory::image(&small_key(), &[(0, &a), (6, &b)]), &a, 6),
        (roomy(0).bytes, &secret("hunter0"), 5),
    ] {
        let mut found = 0;
        for state in interrupted(&image, opener, || erase(keyslot)) {
            if leftovers(&state).is_empty() {
                continue;
            }
            found += 1;
            let after = amend(&state, opener, erase(keyslot)).unwrap();
            assert_eq!(leftovers(&after), []);
            // By the secret that is gone, it cannot; but the error says what to do.
            let old = if keyslot == 6 { b.clone() } else { secret("hunter5") };
            let error = amend(&state, opener, Change::erase_secret(&old)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongSecret);
            assert!(error.hint().unwrap().contains("keyslot repair"), "{error:?}");
        }
        assert!(found > 3, "{found}");
        let done = amend(&image, opener, erase(keyslot)).unwrap();
        let error = amend(&done, opener, erase(keyslot)).unwrap_err();
        assert!(error.message().contains("already erased"), "{error}");
    }
}

/// A replacement cannot be run again by a secret that is gone: the errors say what finishes it.
#[test]
fn what_an_interrupted_replacement_took_is_told_of_the_repair() {
    let (a, b, new) = (secret("a"), secret("b"), secret("new"));
    let (hunter0, hunter5) = (secret("hunter0"), secret("hunter5"));
    for (image, opener, old, keyslot) in [
        (memory::image(&small_key(), &[(0, &a), (3, &b)]), &b, &a, 0),
        (roomy(1).bytes, &hunter0, &hunter5, 5),
    ] {
        let (mut gone, mut inactive) = (0, 0);
        for state in interrupted(&image, opener, || replace(keyslot, &new)) {
            let (_, opened) = open(state.clone(), None);
            let is_left = !leftovers(&state).is_empty();
            if let Err(error) = opened.unlock(old) {
                gone += u32::from(is_left);
                let is_told = error.hint().is_some_and(|hint| hint.contains("keyslot repair"));
                assert_eq!(is_told, is_left, "{error:?}");
            }
            if let Err(error) = opened.plan(Request::one(replace(keyslot, &new))) {
                inactive += 1;
                assert!(error.hint().unwrap().contains("keyslot repair"), "{error:?}");
            }
        }
        assert!(gone > 3, "{gone}");
        // A keyslot of LUKS2 is replaced at once.
        assert_eq!(inactive > 0, keyslot == 0);
    }
}

/// Wherever a restoration is interrupted, key material that came back has a keyslot or a mark.
#[test]
fn key_material_of_an_interrupted_restoration_is_marked() {
    use keyslot::Restoration;
    use keyslot::header::Backup;
    let luks1 = memory::image(&small_key(), &[(0, &secret("a")), (6, &secret("b"))]);
    for (then, opener, keyslot) in [(luks1, secret("a"), 6), (roomy(1).bytes, secret("hunter0"), 5)]
    {
        let area = {
            let header = Header::read(&ReadOnlyBytes(then.clone())).unwrap();
            header.keyslot(keyslot).unwrap().area
        };
        let start = usize::try_from(area.offset).unwrap();
        let material = then[start..start + area.len].to_vec();
        let now = amend(&then, &opener, erase(keyslot)).unwrap();
        for fails in 0.. {
            let memory = Memory::new(now.clone(), Some(fails));
            let backup = Backup::read(&ReadOnlyBytes(then.clone())).unwrap();
            let result = Restoration::on_storage(Arc::clone(&memory), backup, Overrides::NONE)
                .unwrap()
                .run();
            let state = memory.bytes();
            let header = Header::read(&ReadOnlyBytes(state.clone())).unwrap();
            let is_used = header.keyslots().any(|it| it.active && it.index == keyslot);
            let has_it = state.windows(512).any(|it| it == &material[..512]);
            assert!(!has_it || is_used || !header.leftovers().is_empty(), "at operation {fails}");
            if result.is_ok() {
                assert!(is_used);
                break;
            }
        }
    }
}

/// The same where keyslots are too few to bring all of it back at once.
#[test]
fn key_material_of_an_interrupted_forced_restoration_is_marked() {
    use keyslot::Restoration;
    use keyslot::header::Backup;
    use support::restoring::{changed, luks1, replace};
    let then = luks1(&[(0, "a"), (1, "b"), (2, "c"), (3, "d"), (4, "e"), (5, "f")]);
    let now = changed(
        &then,
        "d",
        vec![erase(5), replace(0, "x"), replace(1, "y"), replace(2, "z"), erase(3)],
    );
    let header = Header::read(&ReadOnlyBytes(then.clone())).unwrap();
    let ranges: Vec<_> = header
        .keyslots()
        .map(|it| usize::try_from(it.area.offset).unwrap()..)
        .map(|it| it.start..it.start + 512)
        .collect();
    for fails in 0.. {
        let memory = Memory::new(now.clone(), Some(fails));
        let backup = Backup::read(&ReadOnlyBytes(then.clone())).unwrap();
        let result =
            Restoration::on_storage(Arc::clone(&memory), backup, Overrides::ALL).unwrap().run();
        let state = memory.bytes();
        let header = Header::read(&ReadOnlyBytes(state.clone())).unwrap();
        let left = header.leftovers();
        let is_marked = |keyslot: usize| {
            left.iter().any(|it| match *it {
                Leftover::Wipe { keyslot: of } | Leftover::Replace { keyslot: of, .. } => {
                    of == keyslot
                }
                _ => false,
            })
        };
        for (keyslot, range) in ranges.iter().enumerate() {
            let came_back =
                ranges.iter().take(6).any(|of| then[of.clone()] == state[range.clone()]);
            let is_active = header.keyslot(keyslot).unwrap().active;
            assert!(!came_back || is_active || is_marked(keyslot), "{keyslot} at {fails}");
        }
        if result.is_ok() {
            break;
        }
    }
}

/// Entries that no amendment leaves: two that wait for the same keyslot, three copies of one.
#[test]
fn a_repair_of_marks_that_contradict_each_other_loses_nothing() {
    let (a, b) = (secret("a"), secret("b"));
    let image = memory::image(&small_key(), &[(0, &a), (2, &b)]);
    let entry = |keyslot: usize| 208 + 48 * keyslot..208 + 48 * keyslot + 40;
    let mut opener = Opener::new(&[&a, &b]);
    let header = Header::read(&ReadOnlyBytes(image.clone())).unwrap();
    for is_active in [false, true] {
        let mut image = image.clone();
        for copy in [3, 4] {
            image.copy_within(entry(2), entry(copy).start);
            let areas = [2, copy].map(|it| header.keyslot(it).unwrap().area);
            let [from, to] = areas.map(|it| usize::try_from(it.offset).unwrap());
            if is_active {
                image.copy_within(from..from + areas[0].len, to);
            } else {
                image[entry(copy).start..][..4].copy_from_slice(&0xdead_u32.to_be_bytes());
            }
        }
        assert_eq!(leftovers(&image).len(), 2);
        let repaired = repair(&image);
        assert_eq!(leftovers(&repaired), []);
        let opened = opener.open(&repaired);
        assert_eq!(opened.iter().map(|it| it.1.clone()).collect::<Vec<_>>(), [[0], [1]]);
    }
}

/// A file that was cut short meanwhile does not grow again.
#[test]
fn an_area_that_is_gone_since_is_not_written() {
    let a = secret("a");
    let bytes = memory::image(&small_key(), &[(0, &a)]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    let mut image = keyslot::OpenOptions::new().write(true).open(file.path()).unwrap();
    let unlocked = image.unlock(&a).unwrap();
    let plan = image.plan(Request::one(support::opener::add(7, &secret("new")))).unwrap();
    let area = image.header().keyslot(7).unwrap().area;
    file.as_file().set_len(area.offset).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert_eq!(file.as_file().metadata().unwrap().len(), area.offset);
}

/// What was erased and then added has nothing of the old keyslot but its index.
#[test]
fn an_erased_and_added_keyslot_is_new() {
    let (opener, new) = (secret("hunter0"), secret("new"));
    let pbkdf = Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2);
    // Keyslot 3 is to be ignored, and a token is for it.
    let add = Change::Add { keyslot: Some(3), new_secret: Ok(new.clone()), pbkdf };
    for more in [0, 1] {
        let (memory, mut image) = open(roomy(more).bytes, None);
        let unlocked = image.unlock(&opener).unwrap();
        let request = Request::new(vec![erase(3), add.clone()]).overrides(Overrides::ALL);
        let plan = image.plan(request).unwrap();
        image.amend(&plan, Some(&unlocked)).unwrap();
        let header = Header::read(&ReadOnlyBytes(memory.bytes())).unwrap();
        assert_eq!(header.keyslot(3).unwrap().priority, Priority::Normal);
        assert_eq!(image.unlock(&new).unwrap().keyslot(), Some(3));
        let metadata = header.luks2().unwrap().metadata().text();
        let metadata: serde_json::Value = serde_json::from_str(metadata).unwrap();
        assert_eq!(metadata["tokens"]["0"]["keyslots"], serde_json::json!(["0"]));
    }
}

/// A header write that does not arrive is an error, not a success with which no secret opens.
#[test]
fn a_luks1_header_write_that_is_lost_is_reported() {
    let (a, new) = (secret("a"), secret("new"));
    let memory = Memory::new(memory::image(&small_key(), &[(0, &a)]), None);
    for change in [support::opener::add(1, &new), replace(0, &new)] {
        let storage = Watched(Forgets { memory: Arc::clone(&memory), forgets: 0..1024 });
        let mut image = support::open_on(storage, Limits::NONE).unwrap();
        let unlocked = image.unlock(&a).unwrap();
        let plan = image.plan(Request::one(change)).unwrap();
        let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Differs, "{error}");
    }
}

/// What was judged when the plan was made is compared before it is carried out.
#[test]
fn a_newer_copy_that_appeared_since_is_not_overwritten() {
    let before = roomy(1).bytes;
    let newer = HeaderChange::Only(
        1,
        Box::new(HeaderChange::Both(
            Box::new(HeaderChange::Binary(16, 99_u64.to_be_bytes().to_vec())),
            Box::new(HeaderChange::Text("{\"keyslots\"", "{ /* json-c */ \"keyslots\"")),
        )),
    );
    let changed = support::luks2::Luks2::new(before.clone()).with(&newer).bytes;
    let (memory, mut image) = open(before, None);
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let plan = image.plan(Request::one(erase(3))).unwrap();
    memory.write_all_at(&changed[16384..32768], 16384).unwrap();
    let log = memory.log().len();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed, "{error}");
    assert_eq!(memory.log().len(), log);
    // And not by another amendment on the same handle either.
    let error = image.edit(&[keyslot::header::Edit::SetLabel("x".into())]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(memory.log()[log..].iter().all(|op| !matches!(op, Op::Write { .. })));
}

#[test]
fn no_edit_writes_nothing() {
    let luks1 = memory::image(&small_key(), &[(0, &secret("a"))]);
    for bytes in [luks1, roomy(0).bytes] {
        let (memory, mut image) = open(bytes, None);
        image.edit(&[]).unwrap();
        let plan = image.plan(Request::default()).unwrap();
        assert_eq!(image.amend(&plan, None).unwrap(), []);
        assert!(memory.log().is_empty());
    }
}
