//! The metadata: the JSON value, which is the truth, and typed views over it.
//!
//! [`Metadata::parse`] makes all checks that cryptsetup makes when it loads a header, and some that
//! it makes when it uses one or not at all (`tests/header_luks2` has the list). What is malformed is
//! refused. What is only unknown (a type of keyslot, a hash) makes that keyslot one that cannot be
//! opened, and stays where it is.

use std::fmt;

use super::areas::without;
use super::config::Config;
use super::corrupt;
use super::digest::KeyDigest;
use super::json::{Member, parse_area};
use super::keyslot::{KIND, REENCRYPT, Slot};
use super::segment::{DataSegment, check_order};
use crate::error::Result;
use crate::json::Object;

/// The valid metadata of a header.
#[derive(Clone)]
pub struct Metadata {
    text: String,
    value: Object,
    keyslots: Vec<Slot>,
    tokens: Vec<Token>,
    segments: Vec<DataSegment>,
    digests: Vec<KeyDigest>,
    config: Config,
}

/// A token: how somebody comes by a passphrase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Token {
    /// Its number
    pub number: u32,
    /// `luks2-keyring`, `systemd-tpm2` and so on
    pub kind: String,
    /// The keyslots that it is for
    pub keyslots: Vec<u32>,
}

impl Metadata {
    /// The metadata in the JSON area of a copy of `hdr_size` bytes.
    pub(super) fn parse(area: &[u8], hdr_size: u64) -> Result<Self> {
        let (text, value) = parse_area(area)?;
        let keyslots = numbered(&value, "keyslots", Slot::parse)?;
        let tokens = numbered(&value, "tokens", Token::parse)?;
        let segments = numbered(&value, "segments", DataSegment::parse)?;
        let digests = numbered(&value, "digests", KeyDigest::parse)?;
        let mut config = Config::parse(&value, hdr_size)?;
        let used: Vec<_> = keyslots.iter().map(Slot::range).collect();
        config.unwiped = without(&config.unwiped, &used);
        let text = text.to_owned();
        let metadata = Self { text, value, keyslots, tokens, segments, digests, config };
        metadata.check_references()?;
        check_order(&metadata.segments)?;
        metadata.check_areas(hdr_size)?;
        metadata.check_reencryption()?;
        Ok(metadata)
    }

    /// The text that it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All members, unknown ones included, in their order.
    pub fn value(&self) -> &Object {
        &self.value
    }

    /// The keyslots, by number.
    pub fn keyslots(&self) -> &[Slot] {
        &self.keyslots
    }

    /// The tokens, by number.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The segments, by number, those of a reencryption's beginning and end behind the others.
    pub fn segments(&self) -> &[DataSegment] {
        &self.segments
    }

    /// The segments that are the volume.
    pub(super) fn regular_segments(&self) -> impl Iterator<Item = &DataSegment> {
        self.segments.iter().filter(|segment| !segment.is_backup())
    }

    /// The digests, by number.
    pub fn digests(&self) -> &[KeyDigest] {
        &self.digests
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The digest of the key in a keyslot.
    pub fn digest_of_keyslot(&self, number: u32) -> Option<&KeyDigest> {
        self.digests.iter().find(|digest| digest.keyslots.contains(&number))
    }

    /// The digest of the key of a segment.
    pub fn digest_of_segment(&self, number: u32) -> Option<&KeyDigest> {
        self.digests.iter().find(|digest| digest.segments.contains(&number))
    }

    /// The token that a keyslot's secret is in, or comes from, so that nobody can type it.
    pub fn opener_of(&self, keyslot: u32) -> Option<&Token> {
        let is_it = |token: &&Token| is_opener(&token.kind) && token.keyslots.contains(&keyslot);
        self.tokens.iter().find(is_it)
    }

    /// What is named is there, and what needs a digest has one.
    fn check_references(&self) -> Result<()> {
        let has_slot = |number: &u32| self.keyslots.iter().any(|slot| slot.number == *number);
        let has_segment = |number: &u32| self.segments.iter().any(|it| it.number == *number);
        let unknown = |list: &str, of: u32, what: &str, number: u32| {
            let text = format!("{list}.\"{of}\".{what} has \"{number}\", and there is none such");
            Err(corrupt(text))
        };
        for token in &self.tokens {
            if let Some(&number) = token.keyslots.iter().find(|number| !has_slot(number)) {
                return unknown("tokens", token.number, "keyslots", number);
            }
        }
        for digest in &self.digests {
            if let Some(&number) = digest.keyslots.iter().find(|number| !has_slot(number)) {
                return unknown("digests", digest.number, "keyslots", number);
            }
            if let Some(&number) = digest.segments.iter().find(|number| !has_segment(number)) {
                return unknown("digests", digest.number, "segments", number);
            }
        }
        for slot in self.keyslots.iter().filter(|slot| slot.kind == KIND) {
            let of = |digest: &&KeyDigest| digest.keyslots.contains(&slot.number);
            let count = self.digests.iter().filter(of).count();
            if count != 1 {
                let number = slot.number;
                let text =
                    format!("keyslots.\"{number}\" is in {count} digests: it must be in one");
                return Err(corrupt(text));
            }
        }
        let mut encrypted = self.segments.iter().filter(|segment| segment.crypt.is_some());
        if let Some(segment) = encrypted.find(|it| self.digest_of_segment(it.number).is_none()) {
            let number = segment.number;
            return Err(corrupt(format!("segments.\"{number}\" is in no digest")));
        }
        Ok(())
    }

    /// The areas of keyslots are between the header and the data, and none is on another.
    fn check_areas(&self, hdr_size: u64) -> Result<()> {
        let start = 2 * hdr_size;
        let end = start + self.config.keyslots_size;
        let data = self.regular_segments().map(|it| it.offset).min();
        if let Some(data) = data.filter(|&data| data != 0 && data < end) {
            let size = self.config.keyslots_size;
            let text = format!(
                "config.keyslots_size is \"{size}\": the areas end at byte {end}, the data begins at byte {data}"
            );
            return Err(corrupt(text));
        }
        let mut slots: Vec<_> = self.keyslots.iter().collect();
        slots.sort_by_key(|slot| slot.offset);
        let mut last: Option<&Slot> = None;
        for slot in slots {
            let Slot { number, offset, size, .. } = *slot;
            if offset < start {
                let text = format!(
                    "keyslots.\"{number}\".area.offset is \"{offset}\": the header ends at byte {start}"
                );
                return Err(corrupt(text));
            }
            let slot_end = offset.checked_add(size);
            if size == 0 || slot_end.is_none_or(|slot_end| slot_end > end) {
                let text = format!(
                    "keyslots.\"{number}\".area.size is \"{size}\": from byte {offset} on there must be some, and byte {end} is the end"
                );
                return Err(corrupt(text));
            }
            if let Some(last) = last.filter(|last| last.offset + last.size > offset) {
                let (other, other_end) = (last.number, last.offset + last.size);
                let text = format!(
                    "keyslots.\"{number}\".area.offset is \"{offset}\": the area of keyslot {other} ends at byte {other_end}"
                );
                return Err(corrupt(text));
            }
            last = Some(slot);
        }
        Ok(())
    }

    /// A reencryption has all of its parts, or there is none of them.
    fn check_reencryption(&self) -> Result<()> {
        let requirements = self.config.reencryptions();
        let keyslots = self.keyslots.iter().filter(|slot| slot.kind == REENCRYPT).count();
        if requirements > 1 || keyslots != requirements {
            let text = format!(
                "config.requirements.mandatory has {requirements} reencryptions, and there are {keyslots} keyslots of type reencrypt"
            );
            return Err(corrupt(text));
        }
        if requirements == 0 {
            return Ok(());
        }
        for flag in ["backup-previous", "backup-final"] {
            if !self.segments.iter().any(|segment| segment.has_flag(flag)) {
                return Err(corrupt(format!("a reencryption has no segment with the flag {flag}")));
            }
        }
        Ok(())
    }
}

/// Tokens may hold what opens a keyslot, so their members are not shown.
impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("keyslots", &self.keyslots)
            .field("tokens", &self.tokens)
            .field("segments", &self.segments)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Token {
    /// Whether it holds, or comes by, the secret of its keyslots, so that nobody types it.
    pub fn holds_secret(&self) -> bool {
        is_opener(&self.kind)
    }

    fn parse(number: u32, member: &Member<'_>) -> Result<Self> {
        let kind = member.member("type")?.name()?.to_owned();
        Ok(Self { number, kind, keyslots: member.member("keyslots")?.numbers()? })
    }
}

/// Whether a token of this type holds the secret of its keyslots.
pub(super) fn is_opener(kind: &str) -> bool {
    OPENERS.contains(&kind)
}

/// Types of tokens whose keyslots have a random secret: those of systemd-cryptenroll and clevis. A
/// recovery key is for a person to type.
const OPENERS: [&str; 4] = ["clevis", "systemd-fido2", "systemd-pkcs11", "systemd-tpm2"];

fn numbered<T>(
    metadata: &Object,
    name: &str,
    parse: impl Fn(u32, &Member<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let members = Member::top(metadata, name)?.numbered()?;
    members.iter().map(|(number, member)| parse(*number, member)).collect()
}
