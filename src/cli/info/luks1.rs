//! Members that `info` shows of a LUKS1 header.

use keyslot::crypto::CipherSpec;
use keyslot::header::luks1::{Entry, Luks1Header};
use serde_json::{Map, Value, json};

/// All that is in it, under QEMU's names.
pub fn format_specific(header: &Luks1Header) -> Value {
    let mode = header.cipher_mode();
    let (chain, ivgen) = mode.split_once('-').unwrap_or((&mode, "null"));
    let (ivgen, ivgen_hash) = match ivgen.split_once(':') {
        Some((ivgen, hash)) => (ivgen, Some(hash)),
        None => (ivgen, None),
    };
    let mut data = Map::new();
    let mut put = |key: &str, value: Value| data.insert(key.to_owned(), value);
    put("ivgen-alg", json!(ivgen));
    put("detached-header", json!(header.is_detached()));
    put("hash-alg", json!(header.hash_text()));
    let algorithm = header.cipher().map(CipherSpec::algorithm);
    put("cipher-alg", json!(algorithm.unwrap_or_else(|| header.cipher_name())));
    put("uuid", json!(header.uuid()));
    if let Some(hash) = ivgen_hash.filter(|_| ivgen == "essiv") {
        put("ivgen-hash-alg", json!(hash));
    }
    put("cipher-mode", json!(chain));
    let slots = header.entries().map(|entry| {
        let Entry { iterations, offset, stripes, .. } = entry;
        if let Some(why) = entry.damage {
            return json!({ "active": false, "key-offset": offset, "damage": why });
        }
        if entry.active {
            json!({ "active": true, "iters": iterations, "key-offset": offset, "stripes": stripes })
        } else {
            json!({ "active": false, "key-offset": offset })
        }
    });
    put("slots", slots.collect());
    put("payload-offset", json!(header.payload_offset()));
    put("master-key-iters", json!(header.digest_iterations()));
    Value::Object(data)
}
