//! Any bytes as the backup of a header, restored to an image whose storage may fail: refused with
//! nothing changed, or restored so that the image has the backup's header; the payload stays. A
//! backup is as much as was read of it, and reading it again gives the same.

use arbitrary::Arbitrary;
use keyslot::header::{Backup, Header};
use keyslot::{ErrorKind, Overrides, Restoration};

use super::memory::{Memory, image, memory};
use super::memory_luks2;
use super::model_luks2::Slot;

/// A backup, and what it is restored to.
#[derive(Arbitrary, Debug)]
pub struct Run {
    /// Whose backup it is, before `changes`
    is_luks2: bool,
    secrets: [u8; 3],
    /// Places in it, and what is there instead
    changes: Vec<(u32, u8)>,
    cut: Option<u32>,
    onto: Onto,
    force: bool,
    fault: Option<u8>,
}

#[derive(Arbitrary, Debug)]
enum Onto {
    /// The image that it was made of
    Itself,
    /// The same volume with other secrets
    Later([u8; 3]),
    /// An image whose header is gone
    Nothing,
}

pub fn check(run: &Run) {
    let whole = sample(run.is_luks2, run.secrets);
    let backup = Backup::read(&whole).expect("a valid image");
    let mut bytes = backup.as_bytes().to_vec();
    for &(place, byte) in run.changes.iter().take(MOST_CHANGES) {
        let place = place as usize % bytes.len();
        bytes[place] = byte;
    }
    if let Some(cut) = run.cut {
        bytes.truncate(cut as usize % (bytes.len() + 1));
    }
    let backup = match Backup::read(&memory(bytes.clone())) {
        Ok(backup) => backup,
        Err(error) => {
            let kinds = [ErrorKind::Corrupt, ErrorKind::NotLuks, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error:?}");
            return;
        }
    };
    assert!(bytes.starts_with(backup.as_bytes()));
    let again = Backup::read(&memory(backup.as_bytes().to_vec())).expect("the same again");
    assert!(again.as_bytes() == backup.as_bytes());

    let memory = match run.onto {
        Onto::Itself => whole,
        Onto::Later(secrets) => sample(run.is_luks2, secrets),
        Onto::Nothing => memory(vec![0x5a; whole.bytes().len()]),
    };
    let before = memory.bytes();
    let payload = before.len() - 512;
    let restoration = Restoration::on_storage(memory.clone(), backup, Overrides::all_if(run.force));
    let Ok(restoration) = restoration else {
        assert!(memory.bytes() == before, "a refused backup changed something");
        return;
    };
    assert!(memory.bytes() == before, "planning wrote");
    let expected = header_text(restoration.backup().header());
    memory.set_fault(run.fault.map(|after| after & 63));
    let result = restoration.run();
    memory.set_fault(None);
    assert!(memory.bytes()[payload..] == before[payload..] || run.force);
    match result {
        Ok(()) => {
            let header = Header::read(&memory).expect("the header that was restored");
            assert_eq!(header_text(&header), expected);
        }
        Err(error) => assert!(
            run.fault.is_some() || [ErrorKind::Changed, ErrorKind::Differs].contains(&error.kind()),
            "{error:?}"
        ),
    }
}

/// Members that a restored header shares with its backup. The places of key material may differ.
fn header_text(header: &Header) -> (String, String, Vec<(usize, bool)>) {
    let keyslots = header.keyslots().filter(|it| it.active).map(|it| (it.index, it.is_bound));
    let cipher = header.cipher_text().unwrap_or_default();
    (header.uuid(), cipher, keyslots.collect())
}

/// An image with these secrets in its first keyslots, or none where a number is even.
fn sample(is_luks2: bool, secrets: [u8; 3]) -> Memory {
    let secrets = secrets.map(|it| (it % 2 == 1).then_some(usize::from(it / 2 % 4)));
    if is_luks2 {
        let mut slots = [None; 32];
        for (place, secret) in secrets.into_iter().enumerate() {
            let start = place * UNITS;
            slots[place] = secret.map(|secret| Slot { secret, is_bound: true, start });
        }
        memory_luks2::image(&slots, 5 * UNITS)
    } else {
        let mut slots = [None; 8];
        slots[..3].copy_from_slice(&secrets);
        image(slots)
    }
}

/// Units of an area for a key of 16 bytes
const UNITS: usize = 16;
const MOST_CHANGES: usize = 8;
