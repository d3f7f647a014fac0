//! A LUKS2 image at rest, its header parsed by this file alone, and what a change of a keyslot may
//! change of it.

use std::ops::Range;
use std::path::Path;

use keyslot::crypto::HashAlg;
use serde_json::{Value, json};

/// Both copies are sound and say the same.
#[derive(Clone, Debug)]
pub struct State {
    pub bytes: Vec<u8>,
    pub hdr_size: usize,
    pub seqid: u64,
    pub metadata: Value,
}

impl State {
    #[track_caller]
    pub fn of(image: &Path) -> Self {
        Self::new(std::fs::read(image).unwrap())
    }

    #[track_caller]
    pub fn new(bytes: Vec<u8>) -> Self {
        let hdr_size = usize::try_from(number(&bytes[8..16])).unwrap();
        let [primary, secondary] = [0, 1].map(|copy| &bytes[copy * hdr_size..][..hdr_size]);
        assert_eq!((&primary[..6], &secondary[..6]), (&b"LUKS\xba\xbe"[..], &b"SKUL\xba\xbe"[..]));
        for (copy, offset) in [(primary, 0), (secondary, hdr_size as u64)] {
            assert_eq!(copy[6..8], [0, 2]);
            assert_eq!(number(&copy[256..264]), offset);
            assert!(copy[72..].starts_with(b"sha256\0"));
            let mut summed = copy.to_vec();
            summed[448..512].fill(0);
            let sum = HashAlg::Sha256.digest(&[&summed]);
            assert_eq!(copy[448..480], **sum, "at byte {offset}");
            assert!(copy[480..4096].iter().all(|&byte| byte == 0));
        }
        // Everything but magic, salt, offset and checksum.
        for same in [6..104, 168..256, 264..448, 512..hdr_size] {
            assert!(primary[same.clone()] == secondary[same.clone()], "{same:?}");
        }
        assert_ne!(primary[104..168], secondary[104..168], "the salts");
        let seqid = number(&primary[16..24]);
        let json = &primary[4096..];
        let end = json.iter().position(|&byte| byte == 0).unwrap();
        assert!(json[end..].iter().all(|&byte| byte == 0), "something is behind the text");
        let metadata = serde_json::from_slice(&json[..end]).unwrap();
        Self { bytes, hdr_size, seqid, metadata }
    }

    pub fn has(&self, keyslot: usize) -> bool {
        self.metadata["keyslots"].get(keyslot.to_string()).is_some()
    }

    pub fn slot(&self, keyslot: usize) -> &Value {
        &self.metadata["keyslots"][keyslot.to_string()]
    }

    pub fn area(&self, keyslot: usize) -> Range<usize> {
        let area = &self.slot(keyslot)["area"];
        let [offset, size] = ["offset", "size"].map(|name| decimal(&area[name]));
        offset..offset + size
    }

    /// A new keyslot is all that is new.
    #[track_caller]
    pub fn assert_added_to(&self, before: &Self, keyslot: usize) {
        assert!(!before.has(keyslot));
        let without = without(&self.metadata, keyslot);
        assert_eq!(without.to_string(), before.metadata.to_string());
        self.assert_rest_of(before, &[self.area(keyslot)]);
    }

    /// A keyslot is gone, whoever refers to it does not, and its area is overwritten.
    #[track_caller]
    pub fn assert_erased_from(&self, before: &Self, keyslot: usize) {
        let without = without(&before.metadata, keyslot);
        assert_eq!(self.metadata.to_string(), without.to_string());
        self.assert_wiped(&before.area(keyslot));
        self.assert_rest_of(before, &[before.area(keyslot)]);
    }

    /// A keyslot has another area and another KDF, and is otherwise as it was.
    #[track_caller]
    pub fn assert_replaced_in(&self, before: &Self, keyslot: usize) {
        assert_ne!(self.slot(keyslot)["kdf"]["salt"], before.slot(keyslot)["kdf"]["salt"]);
        let mut as_before = self.metadata.clone();
        let slot = &mut as_before["keyslots"][keyslot.to_string()];
        slot["kdf"] = before.slot(keyslot)["kdf"].clone();
        for name in ["offset", "size"] {
            slot["area"][name] = before.slot(keyslot)["area"][name].clone();
        }
        let mut expected = before.metadata.clone();
        release_openers(&mut expected, keyslot);
        assert_eq!(as_before.to_string(), expected.to_string());
        let [old, new] = [before, self].map(|it| it.area(keyslot));
        assert!(old.end <= new.start || new.end <= old.start, "{old:?} {new:?}");
        self.assert_wiped(&old);
        self.assert_rest_of(before, &[old, new]);
    }

    #[track_caller]
    fn assert_wiped(&self, area: &Range<usize>) {
        assert!(self.bytes[area.clone()].iter().all(|&byte| byte == 0), "{area:?} is not wiped");
    }

    /// Nothing else has changed: not the binary header but for its seqid, no other area, no payload.
    #[track_caller]
    fn assert_rest_of(&self, before: &Self, areas: &[Range<usize>]) {
        assert!(self.seqid > before.seqid);
        assert!(self.bytes.len() == before.bytes.len() && self.hdr_size == before.hdr_size);
        for same in [0..16, 24..448] {
            assert!(self.bytes[same.clone()] == before.bytes[same.clone()], "{same:?}");
        }
        let mut at = 2 * self.hdr_size;
        let mut areas = areas.to_vec();
        areas.sort_by_key(|area| area.start);
        let end = self.bytes.len();
        for area in areas.iter().chain([&(end..end)]) {
            let same = at..area.start;
            assert!(self.bytes[same.clone()] == before.bytes[same.clone()], "within {same:?}");
            at = area.end;
        }
    }
}

/// Tokens that hold the old secret of a keyslot are for it no longer, and those for nothing else go.
fn release_openers(metadata: &mut Value, keyslot: usize) {
    let openers = ["clevis", "systemd-fido2", "systemd-pkcs11", "systemd-tpm2"].map(Value::from);
    metadata["tokens"].as_object_mut().unwrap().retain(|_, token| {
        let keyslots = token["keyslots"].as_array().unwrap();
        let others: Vec<_> =
            keyslots.iter().filter(|it| **it != *keyslot.to_string()).cloned().collect();
        let is_stale = others.is_empty() && !keyslots.is_empty();
        if !openers.contains(&token["type"]) {
            return true;
        }
        token["keyslots"] = Value::Array(others);
        !is_stale
    });
}

/// The metadata without a keyslot, nor a digest that nothing has any more, nor a token that was for
/// that keyslot alone.
fn without(metadata_before: &Value, keyslot: usize) -> Value {
    let mut metadata = metadata_before.clone();
    let keyslot = keyslot.to_string();
    metadata["keyslots"].as_object_mut().unwrap().shift_remove(&keyslot).unwrap();
    for name in ["digests", "tokens"] {
        for member in metadata[name].as_object_mut().unwrap().values_mut() {
            member["keyslots"].as_array_mut().unwrap().retain(|it| *it != *keyslot);
        }
    }
    let had_some = |number: &str| metadata_before["tokens"][number]["keyslots"] != json!([]);
    let tokens = metadata["tokens"].as_object_mut().unwrap();
    tokens.retain(|number, it| it["keyslots"] != json!([]) || !had_some(number));
    let is_empty = |list: &Value| list.as_array().unwrap().is_empty();
    let digests = metadata["digests"].as_object_mut().unwrap();
    digests.retain(|_, it| !is_empty(&it["keyslots"]) || !is_empty(&it["segments"]));
    metadata
}

fn decimal(value: &Value) -> usize {
    value.as_str().unwrap().parse().unwrap()
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes.try_into().unwrap())
}
