//! keyslot, with each kernel that this CPU can run.

use keyslot::crypto::{CipherSpec, SectorCipher};

use crate::Work;
use crate::contender::{Contender, Entry, Kind, entry};

pub fn entries(work: Work) -> Vec<Entry> {
    vec![entry("keyslot", Kind::Keyslot { width: None }, ours(work))]
}

struct Keyslot {
    cipher: SectorCipher,
    encrypt: bool,
}

impl Contender for Keyslot {
    fn pass(&mut self, data: &mut [u8]) -> usize {
        if self.encrypt {
            self.cipher.encrypt(Work::FIRST_SECTOR, data);
        } else {
            self.cipher.decrypt(Work::FIRST_SECTOR, data);
        }
        data.len()
    }
}

fn ours(work: Work) -> Keyslot {
    let spec = CipherSpec::parse("aes", "xts-plain64", work.key_size).expect("it is supported");
    let cipher = spec.sector_cipher(&work.key()).expect("the key fits");
    let cipher = cipher.with_sector_size(work.sector_size).expect("it is supported");
    Keyslot { cipher, encrypt: work.encrypt }
}
