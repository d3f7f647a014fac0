//! Amendments, edits, repairs and restorations of an image in memory, one after the other, some on
//! a storage that fails half way. After each, the image opens with every secret that nothing
//! touched, and `repair` leaves nothing to repair.

use arbitrary::Arbitrary;
use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Backup, Edit, Header, Priority};
use keyslot::json::{Object, Value};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::{Limits, Overrides, Restoration, Unlocked};

use super::memory::{self, Memory, SECRETS, passphrase};
use super::memory_luks2;
use super::model_luks2::Slot;

/// An image and what is done to it.
#[derive(Arbitrary, Debug)]
pub struct Run {
    is_luks2: bool,
    acts: Vec<Act>,
}

#[derive(Arbitrary, Debug)]
struct Act {
    what: What,
    fault: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum What {
    Save,
    Restore { force: bool },
    Repair { force: bool },
    Add { keyslot: u8, secret: u8 },
    Erase { keyslot: u8 },
    Replace { keyslot: u8, secret: u8 },
    Priority { keyslot: u8, which: u8 },
    Label { length: u8 },
    Uuid { bytes: [u8; 16] },
    Token { number: u8, keyslot: u8, replace: bool },
    RemoveToken { number: u8 },
}

/// The keyslot that nothing here touches, and its secret.
const KEPT: (usize, usize) = (0, 0);

pub fn check(run: &Run) {
    let memory = beginning(run.is_luks2);
    let unlocked = if run.is_luks2 { memory_luks2::unlocked(true) } else { memory::unlocked() };
    let payload = memory.bytes().len() - 512;
    let payload_before = memory.bytes()[payload..].to_vec();
    let mut saved = memory.bytes();
    for act in run.acts.iter().take(MOST_ACTS) {
        let before = memory.bytes();
        let fault = act.fault.map(|after| after & 63);
        if matches!(act.what, What::Save) {
            saved = before;
            continue;
        }
        let result = apply(&act.what, &memory, unlocked, &saved, fault);
        memory.set_fault(None);
        let bytes = memory.bytes();
        assert!(bytes[payload..] == payload_before, "{act:?}: the payload");
        assert!(result.is_some() || bytes == before, "{act:?}: refused, and changed");
        assert!(opens(&memory), "{act:?}: the secret that nothing touched is lost");
        if result == Some(true) && matches!(act.what, What::Repair { .. }) {
            let header = Header::read(&memory).expect("a valid header");
            assert!(header.leftovers().is_empty(), "{act:?}: {:?}", header.leftovers());
        }
    }
    let mut image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
    image.repair(Overrides::ALL).expect("no fault");
    assert!(image.header().leftovers().is_empty() && image.header().warning().is_none());
    assert!(!image.repair(Overrides::ALL).expect("no fault"), "there is something to repair still");
    assert!(opens(&memory));
}

/// `None` if it was refused before anything was written, else whether it was done.
fn apply(
    what: &What,
    memory: &Memory,
    unlocked: &Unlocked,
    saved: &[u8],
    fault: Option<u8>,
) -> Option<bool> {
    if let What::Restore { force } = *what {
        let saved = Backup::read(&memory::memory(saved.to_vec())).expect("it was a valid image");
        let restoration =
            Restoration::on_storage(memory.clone(), saved, Overrides::all_if(force)).ok()?;
        // What is forced may lose all if it is interrupted, and says so.
        memory.set_fault(fault.filter(|_| !force));
        return Some(restoration.run().is_ok());
    }
    let mut image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
    if let What::Repair { force } = *what {
        memory.set_fault(fault);
        return Some(image.repair(Overrides::all_if(force)).is_ok());
    }
    if let Some(edit) = edit(what) {
        memory.set_fault(fault);
        let result = image.edit(&[edit]);
        return (result.is_ok() || fault.is_some()).then_some(result.is_ok());
    }
    let plan = image.plan(Request::one(change(what)?)).ok()?;
    memory.set_fault(fault);
    let result = image.amend(&plan, Some(unlocked));
    Some(result.is_ok())
}

fn change(what: &What) -> Option<Change> {
    let pbkdf = Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2);
    let secret = |secret: u8| Ok(passphrase(usize::from(secret) % SECRETS.len()));
    Some(match *what {
        What::Add { keyslot, secret: new } => {
            Change::Add { keyslot: Some(other(keyslot)), new_secret: secret(new), pbkdf }
        }
        What::Erase { keyslot } => {
            Change::Erase { keyslot: Some(other(keyslot)), old_secret: None }
        }
        What::Replace { keyslot, secret: new } => Change::Replace {
            keyslot: Some(other(keyslot)),
            old_secret: None,
            new_secret: secret(new),
            pbkdf,
        },
        _ => return None,
    })
}

fn edit(what: &What) -> Option<Edit> {
    Some(match *what {
        What::Priority { keyslot, which } => {
            let priorities = [Priority::Ignore, Priority::Normal, Priority::Prefer];
            let priority = priorities[usize::from(which) % 3];
            Edit::SetPriority { keyslot: usize::from(keyslot & 7), priority }
        }
        What::Label { length } => Edit::SetLabel("x".repeat(usize::from(length & 63))),
        What::Uuid { bytes } => Edit::SetUuid(uuid::Uuid::from_bytes(bytes)),
        What::Token { number, keyslot, replace } => {
            let keyslots: Value = [(keyslot & 7).to_string()].into_iter().collect();
            let token = Object::from([
                ("type", "fuzz".into()),
                ("keyslots", keyslots),
                ("nobody", ["knows"].into_iter().collect()),
            ]);
            let number = (number < 250).then_some(usize::from(number & 31));
            Edit::PutToken { number, token, replace }
        }
        What::RemoveToken { number } => Edit::RemoveToken { number: usize::from(number & 31) },
        _ => return None,
    })
}

/// Any keyslot but the one that is kept.
fn other(keyslot: u8) -> i64 {
    i64::from(keyslot % 7) + 1
}

fn opens(memory: &Memory) -> bool {
    let image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
    image.opens(KEPT.0, &passphrase(KEPT.1)).expect("no fault")
}

fn beginning(is_luks2: bool) -> Memory {
    if is_luks2 {
        let mut slots = [None; 32];
        for (place, secret) in [KEPT.1, 1].into_iter().enumerate() {
            slots[place] = Some(Slot { secret, is_bound: true, start: place * UNITS });
        }
        memory_luks2::image(&slots, 6 * UNITS)
    } else {
        memory::image([Some(KEPT.1), Some(1), None, None, None, None, None, None])
    }
}

/// Units of an area for a key of 16 bytes
const UNITS: usize = 16;
const MOST_ACTS: usize = 8;
