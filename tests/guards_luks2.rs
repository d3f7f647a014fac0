//! What is not lost by mistake: keys that only other programs can get at, copies that only they
//! can read, and memory to marks of a few bytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Backup, Leftover};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::{ReadOnlyBytes, Storage};
use keyslot::{Error, ErrorKind, Image, Limits, Override, Overrides, Passphrase, Restoration};
use serde_json::json;
use support::luks2::{Change as HeaderChange, Luks2, roomy};
use support::memory::{self, Memory};
use support::opener::{erase, secret, small_key};
use support::watched::{Watch, Watched};

fn set(values: Vec<(&'static str, serde_json::Value)>) -> HeaderChange {
    HeaderChange::Set(values)
}

fn open(image: &Luks2) -> Image {
    support::open_on(Memory::new(image.bytes.clone(), None), Limits::NONE).unwrap()
}

fn plan(image: &Luks2, changes: Vec<Change>) -> Result<Vec<String>, Error> {
    let plan = open(image).plan(Request::new(changes))?;
    Ok(plan.warnings().to_vec())
}

fn replace(keyslot: i64, new: &Passphrase) -> Change {
    let pbkdf = Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2);
    let (keyslot, new_secret) = (Some(keyslot), Ok(new.clone()));
    Change::Replace { keyslot, old_secret: None, new_secret, pbkdf }
}

fn add(keyslot: i64) -> Change {
    let pbkdf = Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2);
    Change::Add { keyslot: Some(keyslot), new_secret: Ok(secret("new")), pbkdf }
}

/// All keyslots but these are gone.
fn only(numbers: &[&str]) -> Luks2 {
    let image = roomy(1);
    let mut metadata = image.metadata(0);
    for name in ["keyslots", "digests", "tokens"] {
        for (number, member) in metadata[name].as_object_mut().unwrap().iter_mut() {
            let _ = number;
            if let Some(keyslots) = member.get_mut("keyslots") {
                keyslots
                    .as_array_mut()
                    .unwrap()
                    .retain(|it| numbers.contains(&it.as_str().unwrap()));
            }
        }
    }
    let slots = metadata["keyslots"].as_object_mut().unwrap();
    slots.retain(|number, _| numbers.contains(&number.as_str()));
    let digests = metadata["digests"].as_object_mut().unwrap();
    digests.retain(|_, it| it["keyslots"] != json!([]) || it["segments"] != json!([]));
    image.with(&set(vec![
        ("/keyslots", metadata["keyslots"].clone()),
        ("/digests", metadata["digests"].clone()),
        ("/tokens", metadata["tokens"].clone()),
    ]))
}

/// With a hash that is not known here, somebody else can still open it.
#[test]
fn the_last_keyslot_is_the_last_even_if_we_cannot_open_it() {
    let unknown = set(vec![("/keyslots/0/kdf/hash", json!("streebog256"))]);
    let image = only(&["0"]).with(&unknown);
    let error = plan(&image, vec![erase(0)]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    // Beside one that opens, either may go, but not the one that opens.
    let image = only(&["0", "5"]).with(&unknown);
    plan(&image, vec![erase(0)]).unwrap();
    assert_eq!(plan(&image, vec![erase(5)]).unwrap_err().kind(), ErrorKind::Refused);
    let error = plan(&image, vec![replace(0, &secret("new"))]).unwrap_err();
    assert_eq!(
        error.message(),
        "keyslot 0 cannot be overwritten: Hash algorithm 'streebog256' not supported"
    );
}

/// What counts is the first digest of a segment, as with cryptsetup.
#[test]
fn a_second_digest_that_claims_the_segment_is_not_that_of_the_volume_key() {
    let image = only(&["0", "7"]);
    let digest = if image.metadata(0)["digests"]["1"]["keyslots"] == json!(["7"]) {
        "/digests/1/segments"
    } else {
        "/digests/2/segments"
    };
    let image = image.with(&set(vec![(digest, json!(["0"]))]));
    assert!(open(&image).keyslots().all(|it| it.is_bound == (it.index == 0)));
    assert_eq!(plan(&image, vec![erase(0)]).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(plan(&image, vec![erase(7)]).unwrap_err().kind(), ErrorKind::Refused);
}

/// Whoever revokes a secret has to know where it may still be.
#[test]
fn a_search_names_what_it_could_not_try() {
    let image = roomy(1).with(&set(vec![("/keyslots/5/kdf/hash", json!("streebog256"))]));
    let warnings = plan(&image, vec![Change::erase_secret(&secret("hunter3"))]).unwrap();
    let text = "keyslot 5 was not tried, but the secret may open it: Hash algorithm 'streebog256' not supported";
    assert_eq!(warnings, [text]);
    assert!(plan(&image, vec![erase(3)]).unwrap().is_empty());
}

/// A copy whose checksum is right, but whose metadata is refused here, may be the newer one to
/// cryptsetup, and is not written over.
#[test]
fn a_newer_copy_that_we_do_not_read_stays() {
    let newer = HeaderChange::Binary(16, 1000_u64.to_be_bytes().to_vec());
    let trailing_comma = HeaderChange::Text("{\"keyslots\"", "{ ,\"keyslots\"");
    let unknown_checksum = HeaderChange::Binary(72, b"streebog256\0".to_vec());
    for change in [trailing_comma, unknown_checksum] {
        let both = HeaderChange::Both(Box::new(newer.clone()), Box::new(change));
        for copy in [0, 1] {
            let image = roomy(1).with(&HeaderChange::Only(copy, Box::new(both.clone())));
            let mut opened = open(&image);
            let error = opened.check_amendable().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
            assert!(error.message().contains("it may be newer"), "{error}");
            assert_eq!(plan(&image, vec![erase(3)]).unwrap_err().kind(), ErrorKind::Refused);
            assert_eq!(opened.repair(Overrides::NONE).unwrap_err().kind(), ErrorKind::Refused);
            assert!(opened.repair(Overrides::ALL).unwrap());
            opened.check_amendable().unwrap();
        }
    }
    // One that is older than the one that counts is no loss.
    let older = HeaderChange::Binary(16, 1_u64.to_be_bytes().to_vec());
    let change = HeaderChange::Both(
        Box::new(older),
        Box::new(HeaderChange::Text("{\"keyslots\"", "{ ,\"keyslots\"")),
    );
    let image = roomy(1).with(&HeaderChange::Only(1, Box::new(change)));
    assert!(open(&image).repair(Overrides::NONE).unwrap());
}

/// A backup does not take the place of what may be newer than the header it was compared with.
#[test]
fn a_newer_copy_that_we_do_not_read_is_not_restored_over() {
    let newer = HeaderChange::Binary(16, 1000_u64.to_be_bytes().to_vec());
    let trailing_comma = HeaderChange::Text("{\"keyslots\"", "{ ,\"keyslots\"");
    let both = HeaderChange::Both(Box::new(newer), Box::new(trailing_comma));
    let then = roomy(1);
    for copy in [0, 1] {
        let now = then.with(&HeaderChange::Only(copy, Box::new(both.clone())));
        let restore = |overrides| {
            let backup = Backup::read(&ReadOnlyBytes(then.bytes.clone())).unwrap();
            Restoration::on_storage(Memory::new(now.bytes.clone(), None), backup, overrides)
        };
        let error = restore(Overrides::NONE).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
        assert!(error.message().contains("it may be newer"), "{error}");
        assert_eq!(error.reason(), Some(&Override::NewerCopy));
        assert!(restore(Override::ForeignHeader.into()).is_err());
        let forced = restore(Override::NewerCopy.into()).unwrap();
        assert!(forced.warnings()[0].contains("it may be newer"), "{:?}", forced.warnings());
        forced.run().unwrap();
    }
}

/// A header that lacks its magic only is still one that can be put back.
#[test]
fn a_header_without_its_magic_is_not_replaced_by_that_of_another_volume() {
    let then = roomy(1);
    let mut now = then.bytes.clone();
    for copy in [0, 16384] {
        now[copy..copy + 6].fill(0);
    }
    let salt = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let other = then.with(&set(vec![("/digests/0/salt", json!(salt))]));
    let restore = |backup: &Luks2, overrides| {
        let backup = Backup::read(&ReadOnlyBytes(backup.bytes.clone())).unwrap();
        Restoration::on_storage(Memory::new(now.clone(), None), backup, overrides)
    };
    let error = restore(&other, Overrides::NONE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let another = "the backup has the digest of another volume key";
    assert_eq!(error.message(), another);
    assert_eq!(restore(&other, Override::ForeignHeader.into()).unwrap().warnings()[0], another);
    restore(&then, Overrides::NONE).unwrap().run().unwrap();
}

/// Only the keyslots that this crate knows say how long the volume key is.
#[test]
fn a_keyslot_of_an_unknown_type_does_not_size_the_volume_key() {
    let image = roomy(1).with(&set(vec![
        ("/keyslots/0/type", json!("unknown")),
        ("/keyslots/0/key_size", json!(u32::MAX)),
    ]));
    let mut opened = open(&image);
    let unlocked = opened.unlock(&secret("hunter5")).unwrap();
    for keyslot in [9, 5] {
        let plan = opened.plan(Request::one(add(keyslot)).overrides(Overrides::ALL)).unwrap();
        opened.amend(&plan, Some(&unlocked)).unwrap();
        opened.unlock_keyslot(usize::try_from(keyslot).unwrap(), &secret("new")).unwrap();
    }
}

/// A replacement does not make a keyslot one that is tried.
#[test]
fn what_is_left_beside_an_erase_is_judged_with_replaced_keyslots() {
    let image = roomy(2);
    let new = secret("new");
    let rest = "no remaining keyslot opens with a secret alone: keyslot 3 is ignored";
    let warnings = plan(&image, vec![erase(0), erase(5), replace(3, &new)]).unwrap();
    assert!(warnings.iter().any(|it| it == rest), "{warnings:?}");
    for changes in [vec![erase(0), replace(5, &new)], vec![add(9), erase(0), erase(5), erase(3)]] {
        let warnings = plan(&image, changes).unwrap();
        assert!(!warnings.iter().any(|it| it.contains("is left")), "{warnings:?}");
    }
}

/// Where a header was, zeros are nobody's.
#[test]
fn a_start_of_zeros_is_written_again() {
    let image = roomy(1).with(&HeaderChange::Bytes(0, vec![0; 4096]));
    let mut opened = open(&image);
    opened.check_amendable().unwrap();
    assert!(opened.repair(Overrides::NONE).unwrap());
}

/// Marks are hints: as many as there are, no byte is overwritten twice for them.
#[test]
fn marks_that_overlap_are_one() {
    let areas =
        (0..64).map(|i| json!({ "offset": (360_448 + 512 * i).to_string(), "size": "1000000000" }));
    let marks = areas.collect::<Vec<_>>();
    let image = roomy(2).with(&set(vec![("/config/unwiped_areas", json!(marks))]));
    let opened = open(&image);
    let left = opened.header().leftovers();
    let [Leftover::Area(area)] = left.as_slice() else { panic!("{left:?}") };
    assert_eq!((area.offset, area.len), (360_448, 2 << 16));
}

/// Nobody knows what a requirement means for the areas, so they are left alone, and that is said.
#[test]
fn marks_beside_a_requirement() {
    let mark = json!([{ "offset": "360448", "size": "65536" }]);
    let image = roomy(1).with(&set(vec![
        ("/config/unwiped_areas", mark),
        ("/config/requirements", json!({ "mandatory": ["future"] })),
    ]));
    let memory = Memory::new(image.bytes.clone(), None);
    let mut opened = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    assert_eq!(opened.header().leftovers().len(), 1);
    assert!(!opened.repair(Overrides::ALL).unwrap());
    assert!(memory.bytes() == image.bytes);
}

/// A header in a log is no place for what opens a keyslot.
#[test]
fn tokens_are_not_in_debug_output() {
    let token = json!({ "type": "a", "keyslots": [], "passphrase": "xyzzy" });
    let image = roomy(1).with(&set(vec![("/tokens/0", token)]));
    let opened = open(&image);
    let plan = opened.plan(Request::one(erase(3))).unwrap();
    assert!(!format!("{opened:?} {plan:?} {:?}", opened.header()).contains("xyzzy"));
}

/// Whether the secrets of such a keyslot open the image afterwards cannot be known before.
#[test]
fn a_backup_warns_of_keyslots_that_cannot_be_tried() {
    let now = roomy(1);
    let then = now.with(&set(vec![("/keyslots/0/kdf/type", json!("unknown"))]));
    let backup = Backup::read(&ReadOnlyBytes(then.bytes.clone())).unwrap();
    let restoration =
        Restoration::on_storage(Memory::new(now.bytes.clone(), None), backup, Overrides::NONE)
            .unwrap();
    let warned =
        |it: &String| it.starts_with("keyslot 0 of the backup cannot be opened by this program: ");
    assert!(restoration.warnings().iter().any(warned), "{:?}", restoration.warnings());
}

/// Counts the reads that begin where an area does.
#[derive(Debug)]
struct Counting {
    memory: Arc<Memory>,
    area: u64,
    reads: Arc<AtomicUsize>,
}

impl Watch for Counting {
    fn below(&self) -> &dyn Storage {
        &self.memory
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.reads.fetch_add((offset == self.area).into(), Ordering::Relaxed);
        self.memory.read_exact_at(buf, offset)
    }
}

/// An area is as large as 512 KiB, and there are 32: what was found once is not read again.
#[test]
fn a_restoration_compares_each_area_once() {
    let luks1 = memory::image(&small_key(), &[(0, &secret("a")), (5, &secret("b"))]);
    for (image, keyslot) in [(luks1, 5), (roomy(1).bytes, 5)] {
        let backup = Backup::read(&ReadOnlyBytes(image.clone())).unwrap();
        let area = backup.header().keyslot(keyslot).unwrap().area.offset;
        let reads = Arc::new(AtomicUsize::new(0));
        let memory = Memory::new(image, None);
        let storage = Watched(Counting { memory, area, reads: Arc::clone(&reads) });
        Restoration::on_storage(storage, backup, Overrides::NONE).unwrap();
        assert_eq!(reads.load(Ordering::Relaxed), 1);
    }
}
