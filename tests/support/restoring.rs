//! A header restored, looked at in every state that a crash or a failure can leave.

use std::collections::BTreeSet;
use std::sync::Arc;

use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Backup, Fate, Header};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::ReadOnlyBytes;
use keyslot::{Error, Limits, Overrides, Passphrase, Restoration};

use super::crash;
use super::memory::{self, Memory};
use super::opener::{Opener, secret, small_key};

/// An image when its header was saved, and now.
pub struct Scene {
    pub then: Vec<u8>,
    pub now: Vec<u8>,
    pub secrets: Vec<Passphrase>,
    pub force: bool,
}

pub fn add(keyslot: i64, name: &str) -> Change {
    Change::Add { keyslot: Some(keyslot), new_secret: Ok(secret(name)), pbkdf: pbkdf() }
}

pub fn replace(keyslot: i64, name: &str) -> Change {
    let (keyslot, new_secret) = (Some(keyslot), Ok(secret(name)));
    Change::Replace { keyslot, old_secret: None, new_secret, pbkdf: pbkdf() }
}

fn pbkdf() -> Pbkdf {
    Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2)
}

/// The image after changes, one after the other.
pub fn changed(image: &[u8], opener: &str, changes: Vec<Change>) -> Vec<u8> {
    let memory = Memory::new(image.to_vec(), None);
    let mut image = super::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let unlocked = image.unlock(&secret(opener)).unwrap();
    for change in changes {
        let plan = image.plan(Request::one(change).overrides(Overrides::ALL)).unwrap();
        image.amend(&plan, Some(&unlocked)).unwrap();
    }
    memory.bytes()
}

pub fn luks1(slots: &[(usize, &str)]) -> Vec<u8> {
    let slots: Vec<_> = slots.iter().map(|&(slot, name)| (slot, secret(name))).collect();
    let slots: Vec<_> = slots.iter().map(|(slot, secret)| (*slot, secret)).collect();
    memory::image(&small_key(), &slots)
}

impl Scene {
    pub fn new(then: Vec<u8>, now: Vec<u8>, names: &[&str]) -> Self {
        let secrets = names.iter().map(|name| secret(name)).collect();
        Self { then, now, secrets, force: false }
    }

    pub fn forced(self) -> Self {
        Self { force: true, ..self }
    }

    pub fn opener(&self) -> Opener {
        Opener::new(&self.secrets.iter().collect::<Vec<_>>())
    }

    pub fn open(
        &self,
        image: Vec<u8>,
        fails: Option<usize>,
    ) -> (Arc<Memory>, Result<Restoration, Error>) {
        let memory = Memory::new(image, fails);
        let backup = Backup::read(&ReadOnlyBytes(self.then.clone())).unwrap();
        (
            Arc::clone(&memory),
            Restoration::on_storage(memory, backup, Overrides::all_if(self.force)),
        )
    }

    pub fn restore(
        &self,
        image: Vec<u8>,
        fails: Option<usize>,
    ) -> (Arc<Memory>, Result<(), Error>) {
        let (memory, restoration) = self.open(image, fails);
        (memory, restoration.unwrap().run())
    }

    pub fn fates(&self) -> Vec<(usize, Fate)> {
        self.open(self.now.clone(), None).1.unwrap().fates().to_vec()
    }

    /// Calls `hold` with each state that a crash or a failure can leave, and says what is there in
    /// the end.
    pub fn each_state(&self, mut hold: impl FnMut(&[u8])) -> Vec<u8> {
        let (recorded, result) = self.restore(self.now.clone(), None);
        result.unwrap();
        let log = recorded.log();
        let mut states = crash::states(&self.now, &log, &mut hold);
        for fails in 0..log.len() {
            let (broken, result) = self.restore(self.now.clone(), Some(fails));
            let error = result.expect_err("a failure of the storage is reported");
            assert!(error.message().contains("; "), "the state is not said: {error}");
            hold(&broken.bytes());
            states += 1 + crash::last_states(&self.now, &broken.log(), &mut hold);
            // What failed is begun again and comes to its end.
            let (again, result) = self.restore(broken.bytes(), None);
            result.unwrap();
            self.assert_restored(&again.bytes());
        }
        println!("{states} states");
        let after = recorded.bytes();
        self.assert_restored(&after);
        after
    }

    /// The keyslots are those of the backup, and so is the rest; nothing is left to be done.
    pub fn assert_restored(&self, after: &[u8]) {
        let mut opener = self.opener();
        assert_eq!(opener.open(after), opener.open(&self.then));
        let [after, then] =
            [after, &self.then].map(|it| Header::read(&ReadOnlyBytes(it.to_vec())).unwrap());
        assert_eq!(after.uuid(), then.uuid());
        assert_eq!(after.leftovers(), []);
        assert_eq!(after.warning(), None);
        if let (Some(after), Some(then)) = (after.luks2(), then.luks2()) {
            assert!(after.seqid() >= then.seqid());
            assert_eq!((after.label(), after.subsystem()), (then.label(), then.subsystem()));
            let tokens = |it: &keyslot::header::luks2::Luks2Header| {
                it.metadata().value().get("tokens").cloned()
            };
            assert!(tokens(after) == tokens(then));
        }
    }

    /// The whole promise.
    pub fn check(&self, is_atomic: bool) -> Vec<u8> {
        let mut opener = self.opener();
        let (first, last) = (opener.open(&self.now), opener.open(&self.then));
        let (old, new) = (set(&first), set(&last));
        let after = self.each_state(|state| {
            let opened = opener.open(state);
            for (slot, by) in &opened {
                assert!(!by.is_empty(), "keyslot {slot} is active and opens with nothing");
            }
            let open = set(&opened);
            assert!(open.is_superset(&old) || open.is_superset(&new), "{old:?} {new:?} {open:?}");
            assert!(open.is_superset(&(&old & &new)));
            if is_atomic {
                assert!(opened == first || opened == last, "half of it: {opened:?}");
            }
        });
        self.assert_gone(&after, &new);
        after
    }

    /// The old header on top of it opens with nothing that is not in the backup.
    pub fn assert_gone(&self, after: &[u8], new: &BTreeSet<usize>) {
        let mut under = after.to_vec();
        let head = if self.now[7] == 1 { 592 } else { 2 * 16384 };
        under[..head].copy_from_slice(&self.now[..head]);
        let opened = set(&self.opener().open(&under));
        assert!(opened.is_subset(new), "{opened:?} of {new:?}");
    }
}

pub fn set(opened: &[(usize, Vec<usize>)]) -> BTreeSet<usize> {
    opened.iter().flat_map(|(_, by)| by.clone()).collect()
}
