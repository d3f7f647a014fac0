//! LUKS2 images in memory, quick to open: copies of 16 KiB, keys of 16 bytes, one iteration.

use std::fmt::Write as _;
use std::sync::{LazyLock, OnceLock};

use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen, KdfAlg};
use keyslot::header::{Header, OwnedDigest, Scheme, Sealed};
use keyslot::unlock::{new_digest, seal, unlock_keyslot};
use keyslot::{Limits, Unlocked, VolumeKey};
use serde_json::{Map, Value, json};

use super::memory::{Memory, SECRETS, memory, passphrase};
use super::model_luks2::{Slot, Slots};

/// Bytes of a copy of the header
pub const HDR_SIZE: usize = 16384;
/// Where the areas of keyslots begin
pub const AREAS: usize = 2 * HDR_SIZE;
/// What areas are multiples of
pub const UNIT: usize = 4096;
/// What is where nothing has been written
pub const FILLER: u8 = 0x5a;

/// The volume key of every [`image`], or the other key, that of its unbound keyslots.
pub fn unlocked(is_bound: bool) -> &'static Unlocked {
    static ALL: LazyLock<[Unlocked; 2]> = LazyLock::new(|| {
        [false, true].map(|is_bound| {
            let mut slots = [None; 32];
            slots[0] = Some(Slot { secret: 0, is_bound, start: 0 });
            let image = image(&slots, 32);
            let header = Header::read(&image).expect("a header");
            unlock_keyslot(&image, &header, 0, &passphrase(0), Limits::NONE).expect("its secret")
        })
    });
    &ALL[usize::from(is_bound)]
}

/// An image with one sector of payload, these keyslots, and areas of so many units.
pub fn image(slots: &Slots, units: usize) -> Memory {
    let mut keyslots = Map::new();
    let mut bytes = vec![FILLER; AREAS + units * UNIT + 512];
    for (number, slot) in slots.iter().enumerate() {
        let Some(slot) = slot else { continue };
        let sealed = sealed(slot);
        let (offset, size) = (AREAS + slot.start * UNIT, slot.units() * UNIT);
        bytes[offset..offset + sealed.material.len()].copy_from_slice(&sealed.material);
        let member = json!({
            "type": "luks2",
            "key_size": sealed.key_size,
            "nobody": { "knows": u64::MAX },
            "af": { "type": "luks1", "stripes": 4000, "hash": "sha256" },
            "area": { "type": "raw", "offset": offset.to_string(), "size": size.to_string(),
                "encryption": "aes-cbc-plain64", "key_size": 16 },
            "kdf": { "type": "pbkdf2", "hash": "sha256", "iterations": 1,
                "salt": base64(&sealed.salt) },
        });
        keyslots.insert(number.to_string(), member);
    }
    let of = |is_bound| -> Vec<String> {
        let is_it = |it: &usize| slots[*it].is_some_and(|slot| slot.is_bound == is_bound);
        (0..32).filter(is_it).map(|it| it.to_string()).collect()
    };
    let mut digests = Map::new();
    digests.insert("0".into(), digest(&keys()[1].1, &of(true), &["0"]));
    if !of(false).is_empty() {
        digests.insert("1".into(), digest(&keys()[0].1, &of(false), &[]));
    }
    let metadata = json!({
        "keyslots": keyslots,
        "tokens": {
            "7": { "type": "one", "keyslots": of(true), "nobody": ["knows"] },
            "1": { "type": "other", "keyslots": of(false) },
        },
        "segments": { "0": {
            "type": "crypt", "offset": (AREAS + units * UNIT).to_string(), "size": "dynamic",
            "iv_tweak": "0", "encryption": "aes-cbc-plain64", "sector_size": 512,
        }},
        "digests": digests,
        "config": { "nobody": "knows", "json_size": (HDR_SIZE - 4096).to_string(),
            "keyslots_size": (units * UNIT).to_string() },
        "nobody": null,
    });
    write_copies(&mut bytes, &metadata.to_string());
    memory(bytes)
}

fn write_copies(bytes: &mut [u8], text: &str) {
    for (copy, magic) in [b"LUKS\xba\xbe", b"SKUL\xba\xbe"].into_iter().enumerate() {
        let offset = copy * HDR_SIZE;
        let header = &mut bytes[offset..offset + HDR_SIZE];
        header.fill(0);
        header[..6].copy_from_slice(magic);
        header[7] = 2;
        header[8..16].copy_from_slice(&(HDR_SIZE as u64).to_be_bytes());
        header[72..78].copy_from_slice(b"sha256");
        header[256..264].copy_from_slice(&(offset as u64).to_be_bytes());
        header[4096..4096 + text.len()].copy_from_slice(text.as_bytes());
        let checksum = HashAlg::Sha256.digest(&[&*header]);
        header[448..480].copy_from_slice(&checksum);
    }
}

/// The other key and the volume key, with their digests.
fn keys() -> &'static [(VolumeKey, OwnedDigest); 2] {
    static KEYS: LazyLock<[(VolumeKey, OwnedDigest); 2]> = LazyLock::new(|| {
        [32, 16].map(|len| {
            let key = VolumeKey::random(len).expect("random bytes");
            let digest = new_digest(HashAlg::Sha256, &key, 1).expect("random bytes");
            (key, digest)
        })
    });
    &KEYS
}

fn sealed(slot: &Slot) -> &'static Sealed {
    static SEALED: [[OnceLock<Sealed>; SECRETS.len()]; 2] =
        [const { [const { OnceLock::new() }; SECRETS.len()] }; 2];
    let seal = || {
        let cipher = CipherSpec::new(Cipher::Aes, CipherMode::Cbc, IvGen::Plain64, None, 16);
        let kdf = KdfAlg::Pbkdf2 { hash: HashAlg::Sha256, iterations: 1 };
        let encryption = cipher.expect("a cipher");
        let scheme = Scheme { kdf, encryption, af_hash: HashAlg::Sha256 };
        let (key, _) = &keys()[usize::from(slot.is_bound)];
        seal(&scheme, key, &passphrase(slot.secret)).expect("memory")
    };
    SEALED[usize::from(slot.is_bound)][slot.secret].get_or_init(seal)
}

fn digest(digest: &OwnedDigest, keyslots: &[String], segments: &[&str]) -> Value {
    json!({
        "type": "pbkdf2", "keyslots": keyslots, "segments": segments, "hash": "sha256",
        "iterations": digest.iterations, "salt": base64(&digest.salt),
        "digest": base64(&digest.value),
    })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0, |bits, &byte| bits << 8 | usize::from(byte));
        let bits = bits << (8 * (3 - group.len()));
        for i in 0..=group.len() {
            let digit = DIGITS[bits >> (18 - 6 * i) & 63];
            let _ = text.write_char(char::from(digit));
        }
        text.push_str(&"=="[..3 - group.len()]);
    }
    text
}
