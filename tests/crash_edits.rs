//! The promise of changes that touch no key, and of a repair: in every state that a crash can leave
//! the header is the old one or the new one, and every secret opens the image.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::path::Path;
use std::sync::Arc;

use keyslot::header::{Edit, Header, Priority};
use keyslot::json::{Object, Value};
use keyslot::storage::ReadOnlyBytes;
use keyslot::{Error, Image, Limits, Overrides, Passphrase};
use support::crash;
use support::luks2::{Change, Luks2, roomy};
use support::memory::Memory;
use support::opener::{Opener, erase, secret};

/// What a header says, whichever copy says it.
fn says(image: &[u8]) -> (String, String) {
    let header =
        Header::read(&ReadOnlyBytes(image.to_vec())).expect("a valid header in every state");
    let text = header.luks2().map_or(String::new(), |header| {
        format!("{} {} {}", header.label(), header.subsystem(), header.metadata().text())
    });
    (header.uuid(), text)
}

/// Makes the change, and looks at every state that a crash or a failure can leave.
fn check(
    before: &[u8],
    secrets: &[&Passphrase],
    change: impl Fn(&mut Image) -> Result<(), Error>,
) -> (Vec<u8>, usize) {
    let run = |fails| {
        let memory = Memory::new(before.to_vec(), fails);
        let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
        let result = change(&mut image);
        (memory, result)
    };
    let (recorded, result) = run(None);
    result.unwrap();
    let after = recorded.bytes();
    let (first, last) = (says(before), says(&after));
    let mut opener = Opener::new(secrets);
    let opened = opener.open(before);
    let mut hold = |state: &[u8]| {
        let now = says(state);
        assert!(now == first || now == last, "half of it: {now:?}");
        assert_eq!(opener.open(state), opened);
    };
    let log = recorded.log();
    let mut states = crash::states(before, &log, &mut hold);
    for fails in 0..log.len() {
        let (broken, result) = run(Some(fails));
        let error = result.expect_err("a failure of the storage is reported");
        assert!(error.message().contains("; "), "the state is not said: {error}");
        hold(&broken.bytes());
        states += 1 + crash::last_states(before, &broken.log(), &mut hold);
    }
    (after, states)
}

#[test]
fn edits_of_luks2() {
    let secrets = [0, 3, 5, 7].map(|number| secret(&format!("hunter{number}")));
    let secrets: Vec<_> = secrets.iter().collect();
    let keyslots: Value = ["0", "5"].into_iter().collect();
    let token = Object::from([("type", "a".into()), ("keyslots", keyslots)]);
    let uuid = "01234567-89ab-4def-8123-456789abcdef".parse().unwrap();
    for edits in [
        vec![Edit::PutToken { number: None, token, replace: false }],
        vec![Edit::RemoveToken { number: 4 }],
        vec![
            Edit::SetPriority { keyslot: 5, priority: Priority::Normal },
            Edit::SetLabel("another".into()),
            Edit::SetSubsystem(String::new()),
            Edit::SetUuid(uuid),
        ],
    ] {
        let before = roomy(0).bytes;
        let (after, states) = check(&before, &secrets, |image| image.edit(&edits));
        assert_ne!(says(&before), says(&after));
        let after = Luks2::new(after);
        assert_eq!(after.text(0), after.text(1));
        println!("{edits:?}: {states} states");
    }
}

#[test]
fn the_uuid_of_luks1() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/luks1_qemu.img");
    let before = std::fs::read(path).unwrap();
    let uuid = "01234567-89ab-4def-8123-456789abcdef".parse().unwrap();
    let hunter = secret("hunter0");
    let (after, states) = check(&before, &[&hunter], |image| image.edit(&[Edit::SetUuid(uuid)]));
    assert_eq!(says(&after).0, uuid.to_string());
    let differ = (0..before.len()).filter(|&i| before[i] != after[i]);
    assert!(differ.into_iter().all(|i| (168..208).contains(&i)));
    println!("uuid of LUKS1: {states} states");
}

#[test]
fn repairs() {
    let secrets = [0, 3, 5, 7].map(|number| secret(&format!("hunter{number}")));
    let secrets: Vec<_> = secrets.iter().collect();
    let older = Change::Binary(16, 1_u64.to_be_bytes().to_vec());
    for change in [
        Change::Only(0, Box::new(older.clone())),
        Change::Only(1, Box::new(older)),
        Change::Bytes(6000, vec![0; 4]),
        Change::Bytes(16384 + 6000, vec![0; 4]),
        Change::Bytes(0, vec![0; 4096]),
    ] {
        let before = roomy(0).with(&change).bytes;
        let (after, states) =
            check(&before, &secrets, |image| image.repair(Overrides::ALL).map(|_| ()));
        assert_eq!(says(&before), says(&after));
        let whole = Luks2::new(after.clone());
        assert_eq!(whole.text(0), whole.text(1));
        assert_eq!(Header::read(&ReadOnlyBytes(after)).unwrap().warning(), None);
        println!("repair: {states} states");
    }
}

/// A repair of what an interrupted erase left overwrites it.
#[test]
fn a_repair_finishes_an_erase() {
    let secrets = [0, 5, 7].map(|number| secret(&format!("hunter{number}")));
    let secrets: Vec<_> = secrets.iter().collect();
    let memory = Memory::new(roomy(0).bytes, Some(10));
    let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let plan = image.plan(keyslot::amend::Request::one(erase(3))).unwrap();
    image.amend(&plan, None).unwrap_err();
    let before = memory.bytes();
    let left = Header::read(&ReadOnlyBytes(before.clone())).unwrap().leftovers();
    assert_eq!(left.len(), 1);
    let memory = Memory::new(before, None);
    let mut image = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    assert!(image.repair(Overrides::NONE).unwrap());
    assert!(!image.repair(Overrides::NONE).unwrap());
    let after = memory.bytes();
    assert!(Header::read(&ReadOnlyBytes(after.clone())).unwrap().leftovers().is_empty());
    assert!(after[98304..98304 + 65536].iter().all(|&byte| byte == 0));
    let opened = Opener::new(&secrets).open(&after);
    assert!(opened.iter().all(|(_, by)| by.len() == 1) && opened.len() == 3);
}
