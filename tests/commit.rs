//! What a commit does when the storage, the header or the file is not as it should be.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use keyslot::amend::{PlannedChange, Request};
use keyslot::header::Staging;
use keyslot::storage::Storage;
use keyslot::{Error, ErrorKind, Limits, OpenOptions, Passphrase, Sharing};
use support::crash;
use support::memory::{self, Forgets, Memory, Op};
use support::opener::{Opener, add, erase, secret, small_key};
use support::watched::{Watch, Watched};

fn amend(memory: &Arc<Memory>, opener: &Passphrase, request: Request) -> Result<(), Error> {
    amend_on(Arc::clone(memory), opener, request)
}

fn amend_on(
    storage: impl Storage + 'static,
    opener: &Passphrase,
    request: Request,
) -> Result<(), Error> {
    let mut image = support::open_on(storage, Limits::NONE)?;
    let unlocked = image.unlock(opener)?;
    let plan = image.plan(request)?;
    image.amend(&plan, Some(&unlocked)).map(drop)
}

#[test]
fn what_others_wrote_and_did_not_sync_is_made_durable_first() {
    let (a, b) = (secret("a"), secret("b"));
    let durable = memory::image(&small_key(), &[(0, &a)]);
    let memory = Memory::new(durable.clone(), None);
    amend(&memory, &a, Request::one(add(7, &b))).unwrap();
    // The same addition, as by a program that never syncs.
    let pending: Vec<_> =
        memory.log().into_iter().filter(|op| matches!(op, Op::Write { .. })).collect();

    let memory = Memory::new(memory.bytes(), None);
    amend(&memory, &b, Request::one(erase(0))).unwrap();
    let log: Vec<_> = pending.into_iter().chain(memory.log()).collect();
    let mut opener = Opener::new(&[&a, &b]);
    let mut dead = 0;
    let states = crash::states(&durable, &log, |state| {
        dead += usize::from(opener.open(state).iter().all(|(_, by)| by.is_empty()));
    });
    assert_eq!(dead, 0, "of {states} states, in these nothing opens the image");
}

#[test]
fn what_a_failed_sync_left_is_written_again() {
    let (a, b) = (secret("a"), secret("b"));
    let durable = memory::image(&small_key(), &[(0, &a)]);
    let memory = Memory::new(durable.clone(), None);
    amend(&memory, &a, Request::one(add(7, &b))).unwrap();
    // Its last sync fails, and the system forgets that the entry was never written: only what is
    // written again can still arrive.
    let log = memory.log();
    let last_sync = log.iter().rposition(|op| matches!(op, Op::Sync)).unwrap();
    let mut on_disk = memory.bytes();
    let Op::Write { offset, bytes } = &log[last_sync - 1] else { panic!("no write") };
    on_disk[*offset..offset + bytes.len()].copy_from_slice(&durable[*offset..offset + bytes.len()]);

    let memory = Memory::new(memory.bytes(), None);
    amend(&memory, &b, Request::one(erase(0))).unwrap();
    let mut opener = Opener::new(&[&a, &b]);
    crash::states(&on_disk, &memory.log(), |state| {
        assert!(opener.open(state).iter().any(|(_, by)| !by.is_empty()), "nothing opens it");
    });
}

#[test]
fn a_change_that_failed_later_says_what_was_done_before() {
    let (a, b, c) = (secret("a"), secret("b"), secret("c"));
    let image = memory::image(&small_key(), &[(0, &a), (1, &b)]);
    let changes = || {
        let replace = support::opener::replace(0, &c);
        Request::new(vec![erase(1), replace])
    };
    let whole = Memory::new(image.clone(), None);
    amend(&whole, &a, changes()).unwrap();
    let texts: Vec<_> = (0..whole.log().len())
        .map(|fails| {
            let memory = Memory::new(image.clone(), Some(fails));
            amend(&memory, &a, changes()).unwrap_err().message().to_owned()
        })
        .collect();
    let said = |end: &str| texts.iter().filter(|text| text.ends_with(end)).count();
    // Settling the header, and reserving the staging area.
    assert_eq!(said("; nothing has changed"), 5, "{texts:#?}");
    assert_eq!(
        said("; keyslot 1 may or may not have changed, and nothing else has"),
        2,
        "{texts:#?}"
    );
    assert_eq!(said("; keyslot 1 changed as asked; keyslot 0 is unchanged"), 4, "{texts:#?}");
    let half = "; keyslot 1 changed as asked; keyslot 0 is half replaced: \
                the new secret opens keyslot 7";
    assert_eq!(said(half), 6, "{texts:#?}");
}

/// cryptsetup takes no lock on LUKS1, and its key material goes to the first keyslot that is free.
#[test]
fn a_replacement_is_staged_where_cryptsetup_does_not_add() {
    let (a, b, c) = (secret("a"), secret("b"), secret("c"));
    for (free, others, staged) in
        [(vec![7], vec![], 7), (vec![0, 2, 5], vec![], 5), (vec![1, 4], vec![4], 1)]
    {
        let slots: Vec<_> =
            (0..8).filter(|slot| !free.contains(slot)).map(|slot| (slot, &a)).collect();
        let memory = Memory::new(memory::image(&small_key(), &slots), None);
        let image = support::open_on(memory, Limits::NONE).unwrap();
        let others = others.into_iter().map(|slot| support::opener::add(slot, &b));
        let changes = others.chain([support::opener::replace(3, &c)]).collect();
        let plan = image.plan(Request::new(changes)).unwrap();
        let Some(PlannedChange::Replace { staging, .. }) = plan.changes().last() else {
            panic!("{plan:?}")
        };
        assert_eq!(*staging, Staging::Keyslot(staged), "{free:?}");
    }
}

#[test]
fn an_image_that_lost_its_name_is_not_amended() {
    let (a, b) = (secret("a"), secret("b"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    let bytes = memory::image(&small_key(), &[(0, &a)]);
    std::fs::write(&path, &bytes).unwrap();
    let mut image = OpenOptions::new().write(true).open(&path).unwrap();
    let unlocked = image.unlock(&a).unwrap();
    let plan = image.plan(Request::one(add(1, &b))).unwrap();
    std::fs::write(directory.path().join("new.img"), &bytes).unwrap();
    std::fs::rename(directory.path().join("new.img"), &path).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Changed);
}

#[test]
fn a_new_secret_over_the_limit_is_not_written() {
    use keyslot::amend::Change;
    use keyslot::kdf::Cost;
    let (a, b) = (secret("a"), secret("b"));
    let memory = Memory::new(memory::image(&small_key(), &[(0, &a)]), None);
    let limits = Limits::NONE.with_iterations(1000);
    let image = support::open_on(Arc::clone(&memory), limits).unwrap();
    // A count that is asked for by number is judged before anything is done.
    let add = Request::one(Change::add(&b, Cost::Iterations(1001)));
    assert_eq!(image.plan(add).unwrap_err().kind(), ErrorKind::Refused);
    // One that a time comes to, when it is known.
    let memory = Memory::new(memory::image(&small_key(), &[(0, &a)]), None);
    let mut image = support::open_on(Arc::clone(&memory), limits).unwrap();
    let unlocked = image.unlock(&a).unwrap();
    let cost = Cost::Time(std::time::Duration::from_secs(10));
    let plan = image.plan(Request::one(Change::add(&b, cost))).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(memory.log().is_empty());
    assert!(image.is_blank(8).is_err());
}

#[test]
fn an_image_is_locked_for_its_amendment_alone() {
    let (a, b) = (secret("a"), secret("b"));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    std::fs::write(&path, memory::image(&small_key(), &[(0, &a)])).unwrap();
    let mut image = OpenOptions::new().sharing(Sharing::ReadData).write(true).open(&path).unwrap();
    let unlocked = image.unlock(&a).unwrap();
    let plan = image.plan(Request::one(add(1, &b))).unwrap();

    let other = OpenOptions::new().sharing(Sharing::ReadData).open(&path).unwrap();
    let before = std::fs::read(&path).unwrap();
    assert_eq!(image.amend(&plan, Some(&unlocked)).unwrap_err().kind(), ErrorKind::InUse);
    assert!(std::fs::read(&path).unwrap() == before);
    drop(other);
    image.amend(&plan, Some(&unlocked)).unwrap();
    assert_eq!(image.file().unwrap().sharing(), Sharing::ReadData);
    assert_eq!(image.unlock(&b).unwrap().keyslot(), Some(1));
}

#[test]
fn what_reads_back_wrong_is_not_taken_for_written() {
    let (a, new) = (secret("a"), secret("new"));
    let memory = Memory::new(memory::image(&small_key(), &[(0, &a)]), None);
    let before = memory.bytes();
    // Key material does not arrive; the header would.
    let storage = Watched(Forgets { memory: Arc::clone(&memory), forgets: 4096..u64::MAX });
    let mut image = support::open_on(storage, Limits::NONE).unwrap();
    let unlocked = image.unlock(&a).unwrap();
    let plan = image.plan(Request::one(add(1, &new))).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert!(error.message().ends_with("differ from those written; nothing has changed"), "{error}");
    assert_eq!(memory.bytes(), before);
}

/// cryptsetup takes no lock on LUKS1: here it takes keyslot 1 during a sync of a change of that keyslot.
#[test]
fn a_keyslot_that_another_program_takes_meanwhile_is_not_overwritten() {
    let (a, b) = (secret("a"), secret("b"));
    let erase = (memory::image(&small_key(), &[(0, &a), (1, &b)]), Request::one(erase(1)));
    let add = (memory::image(&small_key(), &[(0, &a)]), Request::one(add(1, &b)));
    let mut taken = 0;
    for (image, request) in [erase, add] {
        for sync in 0.. {
            let memory = Memory::new(image.clone(), None);
            let syncs_left = Arc::new(AtomicUsize::new(sync));
            let other = Other { memory: Arc::clone(&memory), syncs_left: Arc::clone(&syncs_left) };
            let other = Watched(other);
            let result = amend_on(other, &a, request.clone());
            if syncs_left.load(Ordering::Relaxed) != TAKEN {
                break;
            }
            let now = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
            assert!(now.unlock(&secret("a")).is_ok());
            if now.unlock(&secret("theirs")).is_ok() {
                taken += 1;
                assert_eq!(result.unwrap_err().kind(), ErrorKind::Differs, "sync {sync}");
            } else {
                // It was not free then.
                result.unwrap();
            }
        }
    }
    assert_eq!(taken, 6);
}

/// A storage during one of whose syncs another program adds a secret to keyslot 1, if that is free.
#[derive(Debug)]
struct Other {
    memory: Arc<Memory>,
    /// Until then; [`TAKEN`] afterwards
    syncs_left: Arc<AtomicUsize>,
}

const TAKEN: usize = usize::MAX;

impl Watch for Other {
    fn below(&self) -> &dyn Storage {
        &self.memory
    }

    fn sync(&self) -> io::Result<()> {
        match self.syncs_left.load(Ordering::Relaxed) {
            TAKEN => {}
            0 => {
                self.syncs_left.store(TAKEN, Ordering::Relaxed);
                let _ = amend(&self.memory, &secret("a"), Request::one(add(1, &secret("theirs"))));
            }
            left => self.syncs_left.store(left - 1, Ordering::Relaxed),
        }
        self.memory.sync_data()
    }
}

#[test]
fn a_plan_for_another_header_is_refused() {
    let (a, new) = (secret("a"), secret("new"));
    let memory = Memory::new(memory::image(&small_key(), &[(0, &a)]), None);
    let open = || support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let (mut one, mut other) = (open(), open());
    let unlocked = one.unlock(&a).unwrap();
    let plan = one.plan(Request::one(add(1, &new))).unwrap();
    assert!(matches!(plan.changes(), [PlannedChange::Add { keyslot: 1, .. }]));
    let others = other.plan(Request::one(add(1, &new))).unwrap();
    other.amend(&others, Some(&unlocked)).unwrap();
    let before = memory.bytes();
    let error = one.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), keyslot::ErrorKind::Changed);
    assert_eq!(memory.bytes(), before);
}
