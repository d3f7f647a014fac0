//! Edits the metadata. The JSON value is changed in place, written as text, and parsed again. Unknown
//! members therefore stay, and the result has passed every check.

use std::ops::Range;

use base64ct::{Base64, Encoding};

use super::metadata::{Metadata, is_opener};
use super::{BINARY_SIZE, corrupt};
use crate::crypto::{CipherSpec, HashAlg, KdfAlg, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Scheme, Sealed};
use crate::json::{Object, Value};

/// The outermost object of the metadata while it is edited.
pub(super) struct Draft(Object);

impl Metadata {
    /// Applies a change to the metadata of a header with copies of `hdr_size` bytes.
    pub(super) fn edited(
        &self,
        hdr_size: u64,
        change: impl FnOnce(&mut Draft) -> Result<()>,
    ) -> Result<Self> {
        let mut draft = Draft(self.value().clone());
        change(&mut draft)?;
        draft.drop_unused_digests();
        // The metadata was valid before the edit, so the edit is at fault.
        draft.finish(hdr_size).map_err(|error| match error.kind() {
            ErrorKind::Corrupt => Error::new(ErrorKind::InvalidInput, error.message()),
            _ => error,
        })
    }
}

impl Draft {
    /// Creates the metadata of a new image without keyslots.
    pub fn new(digest: Object, segment: Object, hdr_size: u64, keyslots_size: u64) -> Self {
        let json_size = hdr_size - BINARY_SIZE as u64;
        let config =
            [("json_size", json_size.to_string()), ("keyslots_size", keyslots_size.to_string())];
        Self(Object::from([
            ("keyslots", Object::new()),
            ("tokens", Object::new()),
            ("segments", Object::from([("0", segment)])),
            ("digests", Object::from([("0", digest)])),
            ("config", Object::from(config)),
        ]))
    }

    /// Writes the metadata as text and parses it.
    pub fn finish(self, hdr_size: u64) -> Result<Metadata> {
        let text = self.0.to_string();
        let area_len = usize::try_from(hdr_size).unwrap_or(usize::MAX) - BINARY_SIZE;
        // At least one NUL ends the text.
        if text.len() >= area_len {
            let len = text.len();
            let text = format!("metadata of {len} bytes does not fit its area of {area_len} bytes");
            return Err(Error::new(ErrorKind::Refused, text)
                .with_hint("remove a keyslot or a token to make room; --force does not help"));
        }
        let mut area = text.into_bytes();
        area.resize(area_len, 0);
        Metadata::parse(&area, hdr_size)
    }

    /// Adds a keyslot in a new area, for the key of this digest.
    pub fn add_keyslot(
        &mut self,
        number: usize,
        digest: u32,
        sealed: &Sealed,
        area: &Range<u64>,
    ) -> Result<()> {
        let splitter = [("type", Value::from("luks1")), ("stripes", af::STRIPES.into())];
        let mut slot = Object::from([
            ("type", Value::from("luks2")),
            ("key_size", (sealed.key_size as u64).into()),
            ("af", Object::from(splitter).into()),
            ("area", Object::from([("type", "raw")]).into()),
        ]);
        // Set the area first, which gives cryptsetup's order of members.
        set_area(&mut slot, area)?;
        set_key(&mut slot, sealed)?;
        self.object("keyslots")?.insert(&number.to_string(), slot);
        let number = Value::from(number.to_string());
        self.list("digests", &digest.to_string(), "keyslots")?.push(number);
        Ok(())
    }

    /// Replaces the key material of a keyslot, in a new area or in its present one.
    pub fn replace_keyslot(
        &mut self,
        number: usize,
        sealed: &Sealed,
        area: Option<&Range<u64>>,
    ) -> Result<()> {
        let slot = self.member("keyslots", &number.to_string())?;
        set_key(slot, sealed)?;
        area.map_or(Ok(()), |area| set_area(slot, area))
    }

    /// Moves a keyslot to another area that contains the same key material.
    pub fn move_keyslot(&mut self, number: u32, area: &Range<u64>) -> Result<()> {
        set_area(self.member("keyslots", &number.to_string())?, area)
    }

    /// Removes the keyslot and every reference to it from digests and tokens.
    pub fn remove_keyslot(&mut self, number: usize) -> Result<()> {
        let number = number.to_string();
        self.object("keyslots")?.remove(&number);
        for name in ["digests", "tokens"] {
            for member in self.object(name)?.values_mut() {
                if let Some(keyslots) = list_of(member) {
                    keyslots.retain(|other| other.as_str() != Some(&number));
                }
            }
        }
        Ok(())
    }

    /// Detaches a keyslot whose secret is replaced from the tokens that hold the old secret.
    pub fn release_openers(&mut self, number: usize) -> Result<()> {
        let number = number.to_string();
        for token in self.object("tokens")?.values_mut() {
            let is_opener = token.get("type").and_then(Value::as_str).is_some_and(is_opener);
            if let (true, Some(keyslots)) = (is_opener, list_of(token)) {
                keyslots.retain(|other| other.as_str() != Some(&number));
            }
        }
        Ok(())
    }

    /// Removes the tokens that lost their last keyslot.
    pub fn drop_stale_tokens(&mut self, before: &Metadata) -> Result<()> {
        let tokens = self.object("tokens")?;
        for token in before.tokens().iter().filter(|token| !token.keyslots.is_empty()) {
            let number = token.number.to_string();
            let keyslots = tokens.get(&number).and_then(|token| token.get("keyslots")?.as_array());
            if keyslots.is_some_and(<[_]>::is_empty) {
                tokens.remove(&number);
            }
        }
        Ok(())
    }

    /// Records the areas that are not overwritten yet.
    pub fn set_unwiped(&mut self, areas: &[Range<u64>]) -> Result<()> {
        let config = self.object("config")?;
        if areas.is_empty() {
            config.remove(UNWIPED);
            return Ok(());
        }
        let areas = areas.iter().map(|area| {
            let (offset, size) = (area.start.to_string(), (area.end - area.start).to_string());
            Object::from([("offset", offset), ("size", size)])
        });
        config.insert(UNWIPED, areas.collect::<Value>());
        Ok(())
    }

    /// Returns one of the five objects of the metadata.
    pub fn object(&mut self, name: &str) -> Result<&mut Object> {
        let object = self.0.get_mut(name).and_then(Value::as_object_mut);
        object.ok_or_else(|| corrupt(format!("{name} is missing")))
    }

    /// Returns a numbered member of one of the five objects.
    pub fn member(&mut self, name: &str, number: &str) -> Result<&mut Object> {
        let member = self.object(name)?.get_mut(number).and_then(Value::as_object_mut);
        member.ok_or_else(|| corrupt(format!("{name}.\"{number}\" is missing")))
    }

    fn list(&mut self, name: &str, number: &str, list: &str) -> Result<&mut Vec<Value>> {
        let member = self.member(name, number)?;
        let list = member.get_mut(list).and_then(Value::as_array_mut);
        list.ok_or_else(|| corrupt(format!("{name}.\"{number}\" has no list")))
    }

    /// Drops digests without keyslots and segments, as cryptsetup does.
    fn drop_unused_digests(&mut self) {
        let Ok(digests) = self.object("digests") else { return };
        let is_empty =
            |list: Option<&Value>| list.and_then(Value::as_array).is_none_or(<[_]>::is_empty);
        digests.retain(|_, digest| {
            !is_empty(digest.get("keyslots")) || !is_empty(digest.get("segments"))
        });
    }
}

/// Sets the members that describe how a keyslot is opened. Unknown members stay.
fn set_key(slot: &mut Object, sealed: &Sealed) -> Result<()> {
    let Scheme { kdf, encryption, af_hash } = &sealed.scheme;
    part(slot, "af")?.insert("hash", af_hash.name());
    let area = part(slot, "area")?;
    area.insert("encryption", encryption_text(encryption));
    area.insert("key_size", encryption.key_size() as u64);
    slot.insert("kdf", kdf_object(*kdf, &sealed.salt));
    Ok(())
}

fn set_area(slot: &mut Object, area: &Range<u64>) -> Result<()> {
    let place = part(slot, "area")?;
    place.insert("offset", area.start.to_string());
    place.insert("size", (area.end - area.start).to_string());
    Ok(())
}

/// Returns an object of a keyslot.
fn part<'a>(slot: &'a mut Object, name: &str) -> Result<&'a mut Object> {
    let part = slot.get_mut(name).and_then(Value::as_object_mut);
    part.ok_or_else(|| corrupt(format!("a keyslot has no {name}")))
}

/// Returns the keyslots of a digest or a token.
fn list_of(member: &mut Value) -> Option<&mut Vec<Value>> {
    member.as_object_mut()?.get_mut("keyslots")?.as_array_mut()
}

fn kdf_object(kdf: KdfAlg, salt: &[u8]) -> Object {
    let mut object = Object::from([("type", kdf.kind().name())]);
    match kdf {
        KdfAlg::Pbkdf2 { hash, iterations } => {
            object.insert("hash", hash.name());
            object.insert("iterations", iterations);
        }
        KdfAlg::Argon2 { time, memory, parallelism, .. } => {
            object.insert("time", time);
            object.insert("memory", memory);
            object.insert("cpus", parallelism);
        }
    }
    object.insert("salt", Base64::encode_string(salt));
    object
}

/// Creates a digest of the key of segment 0.
pub(super) fn digest_object(hash: HashAlg, iterations: u32, salt: &[u8], value: &[u8]) -> Object {
    let none: [&str; 0] = [];
    Object::from([
        ("type", Value::from("pbkdf2")),
        ("keyslots", none.into_iter().collect()),
        ("segments", ["0"].into_iter().collect()),
        ("hash", hash.name().into()),
        ("iterations", iterations.into()),
        ("salt", Base64::encode_string(salt).into()),
        ("digest", Base64::encode_string(value).into()),
    ])
}

/// Formats a cipher as in the metadata: `aes-xts-plain64`.
pub(super) fn encryption_text(encryption: &CipherSpec) -> String {
    format!("{}-{}", encryption.cipher_name(), encryption.cipher_mode())
}

/// Member of `config` that lists the areas not overwritten yet. It is an extension of this crate.
pub(super) const UNWIPED: &str = "unwiped_areas";
