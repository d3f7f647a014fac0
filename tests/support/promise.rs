//! The promise of an amendment, looked at in every state that a crash or a failure can leave.

use std::sync::Arc;

use keyslot::amend::{Change, Request};
use keyslot::header::Header;
use keyslot::storage::ReadOnlyBytes;
use keyslot::{Error, Limits, OpenOptions, Overrides, Passphrase, Sharing};

use super::crash;
use super::memory::Memory;
use super::opener::Opener;
use super::partition;

/// What must hold in every state: the secrets that open the image are one of these sets at least.
pub struct Promise<'a> {
    /// Open it in every state
    pub untouched: &'a [&'a Passphrase],
    /// Of each pair one opens it in every state
    pub either: &'a [(&'a Passphrase, &'a Passphrase)],
    /// The states in which they are active are the first and the last only
    pub atomic: bool,
}

pub struct Amended {
    pub before: Vec<u8>,
    pub after: Vec<u8>,
    pub states: usize,
}

fn amend(
    before: Vec<u8>,
    fails: Option<usize>,
    opener: &Passphrase,
    changes: Vec<Change>,
) -> (Arc<Memory>, Result<(), Error>) {
    let memory = Memory::new(before, fails);
    let options = OpenOptions::new().sharing(Sharing::Amend).limits(Limits::NONE);
    let options = match partition::area(&memory.bytes()) {
        Some(_) => options.partition(partition::NUMBER),
        None => options,
    };
    let mut image = options.open_storage(Arc::<Memory>::clone(&memory)).unwrap();
    let unlocked = image.unlock(opener).unwrap();
    let plan = image.plan(Request::new(changes).overrides(Overrides::ALL)).unwrap();
    let result = image.amend(&plan, Some(&unlocked)).map(|done| assert!(!done.is_empty()));
    (memory, result)
}

/// Amends, and looks at every state that a crash can leave and at every failing operation. `all`
/// are the secrets that may open anything, the first of them the one that opens the image.
pub fn check(
    before: Vec<u8>,
    all: &[&Passphrase],
    changes: impl Fn() -> Vec<Change>,
    promise: &Promise,
) -> Amended {
    let opener_secret = all[0];
    let (recorded, result) = amend(before.clone(), None, opener_secret, changes());
    result.unwrap();
    let after = recorded.bytes();

    let mut opener = Opener::new(all);
    let first = opener.open(&before);
    let last = opener.open(&after);
    let part = partition::area(&before);
    let mut hold = |state: &[u8]| {
        if let Some(part) = &part {
            assert!(state[..part.start] == before[..part.start], "the disk before the partition");
            assert!(state[part.end..] == before[part.end..], "the disk after the partition");
        }
        let opened = opener.open(state);
        let any = |secret: &Passphrase| {
            opened.iter().any(|(_, by)| by.iter().any(|&i| *all[i] == *secret))
        };
        for (slot, by) in &opened {
            assert!(!by.is_empty(), "keyslot {slot} is active and opens with nothing");
        }
        for (i, secret) in promise.untouched.iter().enumerate() {
            assert!(any(secret), "untouched secret {i} does not open it");
        }
        for (i, (old, new)) in promise.either.iter().enumerate() {
            assert!(any(old) || any(new), "neither secret of pair {i} opens it");
        }
        if promise.atomic {
            assert!(opened == first || opened == last, "half of it: {opened:?}");
        }
    };
    let log = recorded.log();
    let mut states = crash::states(&before, &log, &mut hold);
    for fails in 0..log.len() {
        let (broken, result) = amend(before.clone(), Some(fails), opener_secret, changes());
        let error = result.expect_err("a failure of the storage is reported");
        assert!(error.message().contains("; "), "the state is not said: {error}");
        hold(&broken.bytes());
        // What was durable before is what the states above began with.
        states += 1 + crash::last_states(&before, &broken.log(), &mut hold);
    }
    let header = ReadOnlyBytes(after[super::luks_area(&after)].to_vec());
    assert!(Header::read(&header).unwrap().leftovers().is_empty());
    Amended { before, after, states }
}
