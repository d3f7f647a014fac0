//! What `info` shows of a LUKS2 header.

use std::fmt::Write;

use keyslot::header::luks2::{DataSegment, KeyDigest, Luks2Header, Metadata, Slot, Token};
use serde_json::{Map, Value, json};

/// All that is in it, and the metadata itself.
pub fn format_specific(header: &Luks2Header) -> Value {
    let metadata = header.metadata();
    let config = metadata.config();
    let mut data = Map::new();
    let mut put = |key: &str, value: Value| data.insert(key.to_owned(), value);
    put("uuid", json!(header.uuid()));
    put("label", json!(header.label()));
    put("subsystem", json!(header.subsystem()));
    put("seqid", json!(header.seqid()));
    put("header-size", json!(header.hdr_size()));
    put("keyslots-size", json!(config.keyslots_size));
    put("checksum-alg", json!(header.checksum_alg()));
    put("copy", json!(header.which().name()));
    if let Some(warning) = header.warning() {
        put("warning", json!(warning));
    }
    put("flags", json!(config.flags));
    put("requirements", json!(config.requirements));
    let unusable: Vec<_> = header.unusable().collect();
    let slots = metadata.keyslots().iter().map(|slot| {
        let why = unusable.iter().find(|(index, _)| *index == slot.number as usize);
        keyslot(slot, metadata, why.map(|(_, why)| *why))
    });
    put("keyslots", slots.collect());
    put("tokens", metadata.tokens().iter().map(token).collect());
    put("segments", metadata.segments().iter().map(segment).collect());
    put("digests", metadata.digests().iter().map(|it| digest(it, metadata)).collect());
    put("metadata", Value::Object(metadata.value().clone()));
    Value::Object(data)
}

fn keyslot(slot: &Slot, metadata: &Metadata, unusable: Option<&str>) -> Value {
    let raw = &metadata.value()["keyslots"][slot.number.to_string()];
    let mut value = json!({
        "keyslot": slot.number,
        "type": slot.kind,
        "key-bits": 8 * u64::from(slot.key_size),
        "priority": slot.priority.name(),
    });
    if let Some(why) = unusable {
        value["unusable"] = json!(why);
    }
    if let Some(token) = metadata.opener_of(slot.number) {
        value["opened-by-token"] = json!(token.number);
    }
    let owner = metadata.digest_of_keyslot(slot.number);
    if owner.is_some_and(|digest| digest.segments.is_empty()) && slot.kind == "luks2" {
        value["unbound"] = json!(true);
    }
    let bits = raw["area"]["key_size"].as_u64().and_then(|bytes| bytes.checked_mul(8));
    if let Some(bits) = bits {
        value["cipher-key-bits"] = json!(bits);
    }
    // As the metadata has them: their meaning has been judged.
    let mut copy = |to: &str, object: &str, from: &str| {
        if let Some(found) = raw[object].get(from) {
            value[to] = found.clone();
        }
    };
    copy("cipher", "area", "encryption");
    copy("kdf", "kdf", "type");
    copy("hash", "kdf", "hash");
    copy("iterations", "kdf", "iterations");
    copy("time", "kdf", "time");
    copy("memory-kib", "kdf", "memory");
    copy("cpus", "kdf", "cpus");
    copy("af-hash", "af", "hash");
    copy("stripes", "af", "stripes");
    value["key-offset"] = json!(slot.offset);
    value["area-size"] = json!(slot.size);
    if let Some(digest) = owner {
        value["digest"] = json!(digest.number);
    }
    value
}

fn token(token: &Token) -> Value {
    json!({ "token": token.number, "type": token.kind, "keyslots": token.keyslots })
}

fn segment(segment: &DataSegment) -> Value {
    let mut value = json!({
        "segment": segment.number,
        "type": segment.kind,
        "offset": segment.offset,
        "size": segment.size.map_or_else(|| json!("dynamic"), |size| json!(size)),
    });
    if let Some(crypt) = &segment.crypt {
        value["cipher"] = json!(crypt.encryption);
        value["sector-size"] = json!(crypt.sector_size);
        value["iv-tweak"] = json!(crypt.iv_tweak);
        if let Some(integrity) = &crypt.integrity {
            value["integrity"] = json!(integrity);
        }
    }
    if !segment.flags.is_empty() {
        value["flags"] = json!(segment.flags);
    }
    value
}

fn digest(digest: &KeyDigest, metadata: &Metadata) -> Value {
    let raw = &metadata.value()["digests"][digest.number.to_string()];
    let mut value = json!({ "digest": digest.number, "type": digest.kind });
    for key in ["hash", "iterations"] {
        if let Some(found) = raw.get(key) {
            value[key] = found.clone();
        }
    }
    value["keyslots"] = json!(digest.keyslots);
    value["segments"] = json!(digest.segments);
    value
}

/// The metadata as `cryptsetup luksDump --dump-json-metadata` prints it.
pub fn pretty(metadata: &Metadata) -> String {
    let mut out = String::new();
    write_object(&mut out, metadata.value(), 0);
    out.push('\n');
    out
}

fn write_object(out: &mut String, members: &Map<String, Value>, depth: usize) {
    let mut separator = "{";
    for (key, value) in members {
        let key = Value::from(key.as_str());
        let _ = write!(out, "{separator}\n{}{key}:", INDENT.repeat(depth + 1));
        write_value(out, value, depth + 1);
        separator = ",";
    }
    out.push_str(if members.is_empty() { "{\n" } else { "\n" });
    let _ = write!(out, "{}}}", INDENT.repeat(depth));
}

fn write_value(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(members) => write_object(out, members, depth),
        Value::Array(items) if !items.is_empty() => {
            let mut separator = "[";
            for item in items {
                let _ = write!(out, "{separator}\n{}", INDENT.repeat(depth + 1));
                write_value(out, item, depth + 1);
                separator = ",";
            }
            let _ = write!(out, "\n{}]", INDENT.repeat(depth));
        }
        Value::Array(_) => {
            let _ = write!(out, "[\n{}]", INDENT.repeat(depth));
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

const INDENT: &str = "  ";
