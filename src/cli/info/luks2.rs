//! Members that `info` shows of a LUKS2 header.

use std::fmt::Write;

use keyslot::header::luks2::{DataSegment, KeyDigest, Luks2Header, Metadata, Slot};
use keyslot::json;
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::token::TokenReport;

/// A LUKS2 header, without its raw metadata.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Luks2Info {
    uuid: String,
    label: String,
    subsystem: String,
    seqid: u64,
    header_size: u64,
    keyslots_size: u64,
    checksum_alg: String,
    /// Copy in use
    copy: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
    flags: Vec<String>,
    requirements: Vec<String>,
    keyslots: Vec<KeyslotInfo>,
    tokens: Vec<TokenReport>,
    segments: Vec<SegmentInfo>,
    digests: Vec<DigestInfo>,
}

impl Luks2Info {
    pub fn new(header: &Luks2Header) -> Self {
        let metadata = header.metadata();
        let config = metadata.config();
        let unusable: Vec<_> = header.unusable().collect();
        let keyslot = |slot: &Slot| {
            let why = unusable.iter().find(|(index, _)| *index == slot.number as usize);
            KeyslotInfo::new(slot, metadata, why.map(|(_, why)| *why))
        };
        Self {
            uuid: header.uuid(),
            label: header.label(),
            subsystem: header.subsystem(),
            seqid: header.seqid(),
            header_size: header.hdr_size(),
            keyslots_size: config.keyslots_size,
            checksum_alg: header.checksum_alg(),
            copy: header.which().name(),
            warning: header.warning().map(str::to_owned),
            flags: config.flags.clone(),
            requirements: config.requirements.clone(),
            keyslots: metadata.keyslots().iter().map(keyslot).collect(),
            tokens: metadata.tokens().iter().map(TokenReport::new).collect(),
            segments: metadata.segments().iter().map(SegmentInfo::new).collect(),
            digests: metadata.digests().iter().map(|it| DigestInfo::new(it, metadata)).collect(),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct KeyslotInfo {
    keyslot: u32,
    #[serde(rename = "type")]
    kind: String,
    key_bits: u64,
    priority: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unusable: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    opened_by_token: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unbound: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher_key_bits: Option<u64>,
    #[serde(flatten)]
    parameters: Parameters,
    key_offset: u64,
    area_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<u32>,
}

/// Members copied from the metadata, which has been validated.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Parameters {
    #[serde(skip_serializing_if = "Option::is_none")]
    cipher: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kdf: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_kib: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpus: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    af_hash: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stripes: Option<Value>,
}

impl KeyslotInfo {
    fn new(slot: &Slot, metadata: &Metadata, unusable: Option<&str>) -> Self {
        let keyslots = metadata.value().get("keyslots");
        let raw = keyslots.and_then(|it| it.get(&slot.number.to_string()));
        let owner = metadata.digest_of_keyslot(slot.number);
        let is_unbound = owner.is_some_and(|digest| digest.segments.is_empty());
        let member = |object: &str, name: &str| raw.and_then(|it| it.get(object)?.get(name));
        let key_size = member("area", "key_size").and_then(json::Value::as_i64);
        let member = |object: &str, name: &str| member(object, name).map(printed);
        Self {
            keyslot: slot.number,
            kind: slot.kind.clone(),
            key_bits: 8 * u64::from(slot.key_size),
            priority: slot.priority.name(),
            unusable: unusable.map(str::to_owned),
            opened_by_token: metadata.opener_of(slot.number).map(|token| token.number),
            unbound: is_unbound && slot.kind == "luks2",
            cipher_key_bits: key_size.and_then(|it| u64::try_from(it).ok()?.checked_mul(8)),
            parameters: Parameters {
                cipher: member("area", "encryption"),
                kdf: member("kdf", "type"),
                hash: member("kdf", "hash"),
                iterations: member("kdf", "iterations"),
                time: member("kdf", "time"),
                memory_kib: member("kdf", "memory"),
                cpus: member("kdf", "cpus"),
                af_hash: member("af", "hash"),
                stripes: member("af", "stripes"),
            },
            key_offset: slot.offset,
            area_size: slot.size,
            digest: owner.map(|digest| digest.number),
        }
    }
}

#[derive(Serialize)]
struct SegmentInfo {
    segment: u32,
    #[serde(rename = "type")]
    kind: String,
    offset: u64,
    size: Size,
    #[serde(flatten)]
    crypt: Option<CryptInfo>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    flags: Vec<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Size {
    Bytes(u64),
    /// `dynamic`: to the end of the image
    Word(&'static str),
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct CryptInfo {
    cipher: String,
    sector_size: u32,
    iv_tweak: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    integrity: Option<String>,
}

impl SegmentInfo {
    fn new(segment: &DataSegment) -> Self {
        Self {
            segment: segment.number,
            kind: segment.kind.clone(),
            offset: segment.offset,
            size: segment.size.map_or(Size::Word("dynamic"), Size::Bytes),
            crypt: segment.crypt.as_ref().map(|crypt| CryptInfo {
                cipher: crypt.encryption.clone(),
                sector_size: crypt.sector_size,
                iv_tweak: crypt.iv_tweak,
                integrity: crypt.integrity.clone(),
            }),
            flags: segment.flags.clone(),
        }
    }
}

#[derive(Serialize)]
struct DigestInfo {
    digest: u32,
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hash: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iterations: Option<Value>,
    keyslots: Vec<u32>,
    segments: Vec<u32>,
}

impl DigestInfo {
    fn new(digest: &KeyDigest, metadata: &Metadata) -> Self {
        let digests = metadata.value().get("digests");
        let raw = digests.and_then(|it| it.get(&digest.number.to_string()));
        let member = |name: &str| raw.and_then(|it| it.get(name)).map(printed);
        Self {
            digest: digest.number,
            kind: digest.kind.clone(),
            hash: member("hash"),
            iterations: member("iterations"),
            keyslots: digest.keyslots.clone(),
            segments: digest.segments.clone(),
        }
    }
}

/// The metadata as `cryptsetup luksDump --dump-json-metadata` prints it.
pub fn pretty(metadata: &Metadata) -> String {
    let mut out = String::new();
    write_object(&mut out, metadata.value(), 0);
    out.push('\n');
    out
}

/// Converts a value of the metadata for printing. A number that `serde_json` cannot hold becomes a
/// string.
pub fn printed(value: &json::Value) -> Value {
    if let Some(members) = value.as_object() {
        return Value::Object(printed_members(members));
    }
    if let Some(items) = value.as_array() {
        return items.iter().map(printed).collect();
    }
    if let Some(text) = value.as_str() {
        return Value::from(text);
    }
    let text = value.to_string();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}

/// Converts members of the metadata for printing.
pub fn printed_members(members: &json::Object) -> Map<String, Value> {
    members.iter().map(|(key, value)| (key.to_owned(), printed(value))).collect()
}

fn write_object(out: &mut String, members: &json::Object, depth: usize) {
    let mut separator = "{";
    for (key, value) in members.iter() {
        let key = json::Value::from(key);
        let _ = write!(out, "{separator}\n{}{key}:", INDENT.repeat(depth + 1));
        write_value(out, value, depth + 1);
        separator = ",";
    }
    out.push_str(if members.is_empty() { "{\n" } else { "\n" });
    let _ = write!(out, "{}}}", INDENT.repeat(depth));
}

fn write_value(out: &mut String, value: &json::Value, depth: usize) {
    if let Some(members) = value.as_object() {
        return write_object(out, members, depth);
    }
    let Some(items) = value.as_array() else {
        let _ = write!(out, "{value}");
        return;
    };
    let mut separator = "[";
    for item in items {
        let _ = write!(out, "{separator}\n{}", INDENT.repeat(depth + 1));
        write_value(out, item, depth + 1);
        separator = ",";
    }
    out.push_str(if items.is_empty() { "[\n" } else { "\n" });
    let _ = write!(out, "{}]", INDENT.repeat(depth));
}

const INDENT: &str = "  ";
