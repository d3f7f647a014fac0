//! Amendments of an image in memory, one after the other, against the [model](super::model): each
//! is refused exactly when the model refuses it, and the keyslots open with the model's secrets
//! after it. One whose storage fails half way leaves what the README promises.

use arbitrary::Arbitrary;
use keyslot::amend::{self, PlannedChange, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Header, Leftover};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::{Done, Error, ErrorKind, Image, Limits, Overrides, Passphrase};

use super::memory::{Memory, SECRETS, image, passphrase, unlocked};
use super::model::{Change, Fate, Missing, Outcome, Secret, Slots, judge};

/// An image and what is done to it.
#[derive(Arbitrary, Debug)]
pub struct Run {
    active: u8,
    secrets: [u8; 8],
    amendments: Vec<Amendment>,
}

#[derive(Arbitrary, Debug)]
struct Amendment {
    force: bool,
    fault: Option<u8>,
    changes: Vec<Wish>,
}

/// A change in bytes that mean something, whatever they are.
#[derive(Arbitrary, Debug)]
pub enum Wish {
    Add { keyslot: Option<u8>, new: u8, iterations: u8 },
    Erase { keyslot: Option<u8>, old: Option<u8> },
    Replace { keyslot: Option<u8>, old: Option<u8>, new: u8, iterations: u8 },
}

pub fn check(run: &Run) {
    let mut slots: Slots = std::array::from_fn(|i| {
        (run.active >> i & 1 == 1).then_some(usize::from(run.secrets[i]) % SECRETS.len())
    });
    let memory = image(slots);
    let mut image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
    for amendment in run.amendments.iter().take(MOST_AMENDMENTS) {
        let changes: Vec<_> =
            amendment.changes.iter().take(MOST_CHANGES).map(|it| meant(it, keyslot)).collect();
        let request = Request::new(changes.iter().copied().map(asked).collect())
            .overrides(Overrides::all_if(amendment.force));
        let before = Picture::of(&memory);
        let expected = judge(&slots, &changes, amendment.force);
        // A keyslot of no iterations cannot be written.
        let expected = expected
            .and_then(|it| if it.worthless { Err(ErrorKind::InvalidInput) } else { Ok(it) });
        let plan = image.plan(request);
        assert_eq!(plan.as_ref().map_err(Error::kind).err(), expected.as_ref().err().copied());
        let (Ok(plan), Ok(expected)) = (plan, expected) else {
            assert_eq!(memory.bytes(), before.bytes);
            continue;
        };
        assert_eq!(fates(plan.changes()), expected.fates);

        memory.set_fault(amendment.fault);
        let key = plan.needs_volume_key().then(unlocked);
        let result = image.amend(&plan, key);
        memory.set_fault(None);
        let after = Picture::of(&memory);
        assert!(same_header(image.header(), &after.header));
        match result {
            Ok(done) => {
                assert!(!expected.worthless, "a keyslot of no iterations");
                assert_eq!(done.len(), plan.changes().len());
                assert!(done.iter().all(|done| was_done(*done, &expected)));
                after.is_as_expected(&before, &expected);
                slots = expected.slots;
            }
            Err(error) if error.kind() == ErrorKind::Io => {
                assert!(amendment.fault.is_some(), "{error:?}");
                slots = after.keeps_the_promise(&before, &slots, &expected);
                slots = repaired(&mut image, &memory, &slots);
            }
            Err(error) => {
                assert!(expected.worthless && error.kind() == ErrorKind::InvalidInput, "{error:?}");
                assert_eq!(after.bytes, before.bytes);
            }
        }
    }
}

const MOST_AMENDMENTS: usize = 6;
const MOST_CHANGES: usize = 4;

fn keyslot(byte: u8) -> i64 {
    match byte & 31 {
        24 => -1,
        25 => 8,
        26 => 255,
        27 => 1 << 32,
        28 => (1 << 32) + 1,
        29 => i64::MIN,
        30 => i64::MAX,
        31 => i64::from(u32::MAX),
        byte => i64::from(byte & 7),
    }
}

/// The change that a wish comes to, where `keyslot` says what its numbers are.
pub fn meant(wish: &Wish, keyslot: impl Fn(u8) -> i64) -> Change {
    let secret = |byte: u8| -> Secret {
        if byte & 15 == 15 { Err(Missing) } else { Ok(usize::from(byte) % SECRETS.len()) }
    };
    let iterations = |byte: u8| if byte & 15 == 15 { 0 } else { u32::from(byte & 1) + 1 };
    match *wish {
        Wish::Add { keyslot: number, new, iterations: count } => Change::Add {
            keyslot: number.map(&keyslot),
            new: secret(new),
            iterations: iterations(count),
        },
        Wish::Erase { keyslot: number, old } => {
            Change::Erase { keyslot: number.map(&keyslot), old: old.map(secret) }
        }
        Wish::Replace { keyslot: number, old, new, iterations: count } => Change::Replace {
            keyslot: number.map(&keyslot),
            old: old.map(secret),
            new: secret(new),
            iterations: iterations(count),
        },
    }
}

/// The change as the library is asked for it.
pub fn asked(change: Change) -> amend::Change {
    let secret = |secret: Secret| -> keyslot::Result<Passphrase> {
        let missing = |Missing| Error::new(ErrorKind::InvalidInput, "No secret with id ''");
        secret.map(passphrase).map_err(missing)
    };
    // New keyslots of LUKS2 would have Argon2.
    let pbkdf = |iterations| {
        let cost = Cost::Iterations(iterations);
        Pbkdf::from(cost).kind(KdfKind::Pbkdf2)
    };
    match change {
        Change::Add { keyslot, new, iterations } => {
            amend::Change::Add { keyslot, new_secret: secret(new), pbkdf: pbkdf(iterations) }
        }
        Change::Erase { keyslot, old } => {
            amend::Change::Erase { keyslot, old_secret: old.map(secret) }
        }
        Change::Replace { keyslot, old, new, iterations } => amend::Change::Replace {
            keyslot,
            old_secret: old.map(secret),
            new_secret: secret(new),
            pbkdf: pbkdf(iterations),
        },
    }
}

fn fates(changes: &[PlannedChange]) -> [Fate; 8] {
    let mut fates = [Fate::Untouched; 8];
    for change in changes {
        let (keyslot, fate) = match *change {
            PlannedChange::Add { keyslot, .. } => (keyslot, Fate::Added),
            PlannedChange::Erase { keyslot } => (keyslot, Fate::Erased),
            PlannedChange::Replace { keyslot, .. } => (keyslot, Fate::Replaced),
            _ => continue,
        };
        assert_eq!(fates[keyslot], Fate::Untouched, "twice");
        fates[keyslot] = fate;
    }
    fates
}

/// The model knows of no leftovers: they are repaired. That loses no secret but one whose replacement
/// is taken back.
fn repaired(image: &mut Image, memory: &Memory, slots: &Slots) -> Slots {
    let is_staged = |keyslot: usize| {
        let leftovers = image.header().leftovers();
        leftovers
            .iter()
            .any(|it| matches!(it, Leftover::Staging { staging, .. } if *staging == keyslot))
    };
    let staged: [bool; 8] = std::array::from_fn(is_staged);
    image.repair(Overrides::NONE).expect("no fault");
    let after = Picture::of(memory);
    assert!(after.header.leftovers().is_empty());
    let found: Slots = std::array::from_fn(|keyslot| {
        (0..SECRETS.len()).find(|&secret| after.opens(keyslot, secret))
    });
    for (keyslot, secret) in slots.iter().enumerate() {
        assert!(secret.is_none() || staged[keyslot] || found.contains(secret), "{keyslot}");
    }
    found
}

fn was_done(done: Done, expected: &Outcome) -> bool {
    match done {
        Done::Added { keyslot, .. } => expected.fates[keyslot] == Fate::Added,
        Done::Erased { keyslot } => expected.fates[keyslot] == Fate::Erased,
        Done::Replaced { keyslot, .. } => expected.fates[keyslot] == Fate::Replaced,
        _ => false,
    }
}

fn same_header(one: &Header, other: &Header) -> bool {
    let (Header::Luks1(one), Header::Luks1(other)) = (one, other) else { return false };
    one.as_bytes() == other.as_bytes()
}

/// An image at rest.
struct Picture {
    bytes: Vec<u8>,
    header: Header,
    image: Image,
}

impl Picture {
    fn of(memory: &Memory) -> Self {
        let header = Header::read(memory).expect("a valid header");
        let image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
        Self { bytes: memory.bytes(), header, image }
    }

    fn is_as_expected(&self, before: &Self, expected: &Outcome) {
        self.has_the_rest_of(before);
        for keyslot in 0..8 {
            let same = self.keyslot(keyslot) == before.keyslot(keyslot);
            match (expected.slots[keyslot], expected.fates[keyslot]) {
                (Some(_), Fate::Untouched) => assert!(same, "keyslot {keyslot}"),
                (Some(secret), _) => {
                    // No other can: it would have to merge to the same volume key.
                    assert!(!same && self.opens(keyslot, secret), "keyslot {keyslot}");
                    assert!(!self.opens(keyslot, (secret + 1) % SECRETS.len()));
                }
                (None, fate) => {
                    // As it was, or overwritten: as the keyslot that was erased, or as the one
                    // by way of which another was replaced.
                    let [entry, material] = self.keyslot(keyslot);
                    let wiped = entry[..40] == WIPED && material.iter().all(|&byte| byte == 0);
                    assert!(wiped || same && fate == Fate::Untouched, "keyslot {keyslot}");
                }
            }
        }
        assert!(self.header.leftovers().len() <= before.header.leftovers().len());
    }

    /// Which secrets are where after a failure, if nothing is lost that must not be.
    fn keeps_the_promise(&self, before: &Self, slots: &Slots, expected: &Outcome) -> Slots {
        self.has_the_rest_of(before);
        let found: Slots = std::array::from_fn(|keyslot| {
            if self.keyslot(keyslot) == before.keyslot(keyslot) {
                return slots[keyslot];
            }
            let active = self.keyslot(keyslot)[0][..4] == ACTIVE;
            let secret = (0..SECRETS.len()).find(|&secret| self.opens(keyslot, secret));
            assert_eq!(active, secret.is_some(), "keyslot {keyslot}");
            secret
        });
        let replaced = |i: &usize| expected.fates[*i] == Fate::Replaced;
        for keyslot in 0..8 {
            let (old, new) = (slots[keyslot], expected.slots[keyslot]);
            let opens = |secret| found.contains(&secret);
            let kept = match expected.fates[keyslot] {
                Fate::Untouched if old.is_some() => {
                    self.keyslot(keyslot) == before.keyslot(keyslot)
                }
                Fate::Replaced => !expected.staged || opens(old) || opens(new),
                _ => true,
            };
            assert!(kept, "keyslot {keyslot}");
            // A keyslot that is inactive in the end may hold a copy for the time of a replacement.
            let is_copy = || (0..8).filter(replaced).any(|i| expected.slots[i] == found[keyslot]);
            let known = [None, old, new].contains(&found[keyslot]);
            assert!(known || new.is_none() && is_copy(), "keyslot {keyslot}");
        }
        found
    }

    /// What is in no keyslot is never written.
    fn has_the_rest_of(&self, before: &Self) {
        let mut at = FIRST_ENTRY + 8 * ENTRY;
        assert!(self.bytes.len() == before.bytes.len());
        assert!(self.bytes[..FIRST_ENTRY] == before.bytes[..FIRST_ENTRY]);
        for area in before.header.keyslots().map(|keyslot| keyslot.area) {
            let start = usize::try_from(area.offset).expect("small");
            assert!(self.bytes[at..start] == before.bytes[at..start]);
            at = start + area.len;
        }
        assert!(self.bytes[at..] == before.bytes[at..]);
    }

    /// The bytes of its entry and of its area.
    fn keyslot(&self, keyslot: usize) -> [&[u8]; 2] {
        let area = self.header.keyslot(keyslot).expect("eight keyslots").area;
        let (entry, start) =
            (FIRST_ENTRY + keyslot * ENTRY, usize::try_from(area.offset).expect("small"));
        [&self.bytes[entry..entry + ENTRY], &self.bytes[start..start + area.len]]
    }

    fn opens(&self, keyslot: usize, secret: usize) -> bool {
        self.image.opens(keyslot, &passphrase(secret)).expect("no fault")
    }
}

const FIRST_ENTRY: usize = 208;
const ENTRY: usize = 48;
const ACTIVE: [u8; 4] = 0x00AC_71F3_u32.to_be_bytes();
/// State, iterations and salt of a keyslot that is erased.
const WIPED: [u8; 40] = {
    let mut entry = [0; 40];
    (entry[2], entry[3]) = (0xde, 0xad);
    entry
};
