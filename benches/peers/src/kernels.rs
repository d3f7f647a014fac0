//! keyslot, with each kernel that this CPU can run.

use keyslot::crypto::{AesKernel, CipherSpec, SectorCipher};

use crate::Work;
use crate::contender::{Contender, Entry, Kind, entry};

pub fn entries(work: Work) -> Vec<Entry> {
    let entry = |kernel: AesKernel| {
        let width = match kernel {
            AesKernel::AesNi => Some(128),
            AesKernel::Vaes256 => Some(256),
            AesKernel::Vaes512 => Some(512),
            _ => None,
        };
        entry(kernel.name(), Kind::Keyslot { width }, ours(work, kernel))
    };
    AesKernel::available().map(entry).collect()
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

fn ours(work: Work, kernel: AesKernel) -> Keyslot {
    let spec = CipherSpec::parse("aes", "xts-plain64", work.key_size).expect("it is supported");
    let cipher = SectorCipher::with_kernel(spec, &work.key(), kernel).expect("the CPU has it");
    let cipher = cipher.with_sector_size(work.sector_size).expect("it is supported");
    Keyslot { cipher, encrypt: work.encrypt }
}
