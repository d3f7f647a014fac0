//! Secrets, changes, and what opens with what.

use std::collections::HashMap;

use keyslot::amend::Change;
use keyslot::crypto::CipherSpec;
use keyslot::header::Header;
use keyslot::kdf::Cost;
use keyslot::storage::ReadOnlyBytes;
use keyslot::unlock::opens;
use keyslot::{Limits, Passphrase};

/// Opens keyslots, each content once: most states differ in a few sectors only.
pub struct Opener {
    secrets: Vec<Passphrase>,
    /// By index and parameters: contents of areas, and what opens each
    known: HashMap<(usize, String), Vec<Known>>,
}

struct Known {
    area: Vec<u8>,
    secrets: Vec<usize>,
}

impl Opener {
    pub fn new(secrets: &[&Passphrase]) -> Self {
        Self { secrets: secrets.iter().map(|&s| s.clone()).collect(), known: HashMap::new() }
    }

    /// Which of the secrets opens each active keyslot of this image.
    pub fn open(&mut self, image: &[u8]) -> Vec<(usize, Vec<usize>)> {
        self.try_open(image).expect("a valid header in every state")
    }

    /// The same, and `None` for an image without a valid header.
    pub fn try_open(&mut self, image: &[u8]) -> Option<Vec<(usize, Vec<usize>)>> {
        let image = &image[super::luks_area(image)];
        let storage = ReadOnlyBytes(image);
        let header = Header::read(&storage).ok()?;
        let mut opened = Vec::new();
        for slot in header.keyslots().filter(|slot| slot.active) {
            let start = usize::try_from(slot.area.offset).unwrap();
            let area = &image[start..start + slot.area.len];
            let key = (slot.index, format!("{:?} {:?}", slot.kdf, slot.digest));
            let known = self.known.entry(key).or_default();
            if !known.iter().any(|it| it.area == area) {
                let opens =
                    |secret| opens(&storage, &slot, secret, Limits::NONE).unwrap().is_some();
                let secrets = (0..self.secrets.len()).filter(|&i| opens(&self.secrets[i]));
                known.push(Known { area: area.to_vec(), secrets: secrets.collect() });
            }
            let known = known.iter().find(|it| it.area == area).unwrap();
            opened.push((slot.index, known.secrets.clone()));
        }
        Some(opened)
    }
}

pub fn secret(name: &str) -> Passphrase {
    Passphrase::new(name.as_bytes()).unwrap()
}

pub fn small_key() -> CipherSpec {
    CipherSpec::parse("aes", "cbc-plain64", 16).unwrap()
}

pub fn add(keyslot: usize, new: &Passphrase) -> Change {
    let keyslot = Some(i64::try_from(keyslot).unwrap());
    Change::Add { keyslot, new_secret: Ok(new.clone()), pbkdf: Cost::Iterations(1).into() }
}

pub fn erase(keyslot: usize) -> Change {
    Change::Erase { keyslot: Some(i64::try_from(keyslot).unwrap()), old_secret: None }
}

pub fn replace(keyslot: usize, new: &Passphrase) -> Change {
    Change::Replace {
        keyslot: Some(i64::try_from(keyslot).unwrap()),
        old_secret: None,
        new_secret: Ok(new.clone()),
        pbkdf: Cost::Iterations(1).into(),
    }
}
