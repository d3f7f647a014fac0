//! Members that `info` shows of a LUKS1 header.

use keyslot::crypto::CipherSpec;
use keyslot::header::luks1::{Entry, Luks1Header};
use serde::Serialize;

/// A LUKS1 header, under QEMU's names.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Luks1Info {
    ivgen_alg: String,
    detached_header: bool,
    hash_alg: String,
    cipher_alg: String,
    uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ivgen_hash_alg: Option<String>,
    /// Given only for a header in a qcow2 image
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<&'static str>,
    cipher_mode: String,
    slots: Vec<Slot>,
    payload_offset: u64,
    master_key_iters: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Slot {
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    iters: Option<u32>,
    key_offset: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stripes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
}

impl Luks1Info {
    pub fn new(header: &Luks1Header) -> Self {
        let mode = header.cipher_mode();
        let (chain, ivgen) = mode.split_once('-').unwrap_or((&mode, "null"));
        let (ivgen, ivgen_hash) = match ivgen.split_once(':') {
            Some((ivgen, hash)) => (ivgen, Some(hash)),
            None => (ivgen, None),
        };
        let algorithm = header.cipher().map(CipherSpec::algorithm);
        Self {
            ivgen_alg: ivgen.to_owned(),
            detached_header: header.is_detached(),
            hash_alg: header.hash_text(),
            cipher_alg: algorithm.unwrap_or_else(|| header.cipher_name()),
            uuid: header.uuid(),
            ivgen_hash_alg: ivgen_hash.filter(|_| ivgen == "essiv").map(str::to_owned),
            format: None,
            cipher_mode: chain.to_owned(),
            slots: header.entries().map(Slot::new).collect(),
            payload_offset: header.payload_offset(),
            master_key_iters: header.digest_iterations(),
        }
    }
}

impl Slot {
    fn new(entry: Entry) -> Self {
        let Entry { active, iterations, offset, stripes, damage, .. } = entry;
        let is_active = active && damage.is_none();
        Self {
            active: is_active,
            iters: is_active.then_some(iterations),
            key_offset: offset,
            stripes: is_active.then_some(stripes),
            damage,
        }
    }
}
