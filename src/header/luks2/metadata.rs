//! The metadata: the JSON value, which is authoritative, and typed views of it.
//!
//! [`Metadata::parse`] makes all checks that cryptsetup makes when it loads a header. It also makes some
//! checks that cryptsetup makes only later or never (`tests/header_luks2` has the list). Malformed metadata
//! is refused. An unknown type of keyslot or an unknown hash only makes that keyslot unusable, and is
//! preserved.

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

/// Valid metadata of a header.
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

/// A token, which describes a source of a passphrase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Token {
    /// Number of the token
    pub number: u32,
    /// Type, such as `luks2-keyring` or `systemd-tpm2`
    pub kind: String,
    /// Keyslots that its passphrase opens
    pub keyslots: Vec<u32>,
}

impl Metadata {
    /// Parses the JSON area of a copy of `hdr_size` bytes.
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

    /// Text that the metadata was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// All members, including unknown ones, in the order of the text.
    pub fn value(&self) -> &Object {
        &self.value
    }

    /// Keyslots, by number.
    pub fn keyslots(&self) -> &[Slot] {
        &self.keyslots
    }

    /// Tokens, by number.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// Segments, by number. Backup segments of a reencryption come after the others.
    pub fn segments(&self) -> &[DataSegment] {
        &self.segments
    }

    /// Segments that make up the volume.
    pub(super) fn regular_segments(&self) -> impl Iterator<Item = &DataSegment> {
        self.segments.iter().filter(|segment| !segment.is_backup())
    }

    /// Digests, by number.
    pub fn digests(&self) -> &[KeyDigest] {
        &self.digests
    }

    /// Configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Digest of the key in a keyslot.
    pub fn digest_of_keyslot(&self, number: u32) -> Option<&KeyDigest> {
        self.digests.iter().find(|digest| digest.keyslots.contains(&number))
    }

    /// Digest of the key of a segment.
    pub fn digest_of_segment(&self, number: u32) -> Option<&KeyDigest> {
        self.digests.iter().find(|digest| digest.segments.contains(&number))
    }

    /// Token that contains or derives the random secret of a keyslot.
    pub fn opener_of(&self, keyslot: u32) -> Option<&Token> {
        let is_it = |token: &&Token| is_opener(&token.kind) && token.keyslots.contains(&keyslot);
        self.tokens.iter().find(is_it)
    }

    /// Checks that all references are valid, and that keyslots and encrypted segments have a digest.
    fn check_references(&self) -> Result<()> {
        let has_slot = |number: &u32| self.keyslots.iter().any(|slot| slot.number == *number);
        let has_segment = |number: &u32| self.segments.iter().any(|it| it.number == *number);
        let unknown = |list: &str, of: u32, what: &str, number: u32| {
            let text = format!("{list}.\"{of}\".{what} has \"{number}\", which does not exist");
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
                let text = format!(
                    "keyslots.\"{number}\" is in {count} digests: it must be in exactly one"
                );
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

    /// Checks that the areas of keyslots lie between the header and the data, without overlaps.
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
                    "keyslots.\"{number}\".area.size is \"{size}\": the area at byte {offset} must not be empty and must end by byte {end}"
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

    /// Checks that a reencryption has all of its parts, or none.
    fn check_reencryption(&self) -> Result<()> {
        let requirements = self.config.reencryptions();
        let keyslots = self.keyslots.iter().filter(|slot| slot.kind == REENCRYPT).count();
        if requirements > 1 || keyslots != requirements {
            let text = format!(
                "config.requirements.mandatory has {requirements} reencryptions, but there are {keyslots} keyslots of type reencrypt"
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

/// Hides the members of tokens, which may contain secrets.
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
    /// Whether the token contains or derives the random secret of its keyslots.
    pub fn holds_secret(&self) -> bool {
        is_opener(&self.kind)
    }

    fn parse(number: u32, member: &Member<'_>) -> Result<Self> {
        let kind = member.member("type")?.name()?.to_owned();
        Ok(Self { number, kind, keyslots: member.member("keyslots")?.numbers()? })
    }
}

/// Whether a token of this type contains or derives the random secret of its keyslots.
pub(super) fn is_opener(kind: &str) -> bool {
    OPENERS.contains(&kind)
}

/// Types of tokens whose keyslots have a random secret: those of systemd-cryptenroll and clevis.
/// Recovery keys are not among them, because they are meant to be typed.
const OPENERS: [&str; 4] = ["clevis", "systemd-fido2", "systemd-pkcs11", "systemd-tpm2"];

fn numbered<T>(
    metadata: &Object,
    name: &str,
    parse: impl Fn(u32, &Member<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let members = Member::top(metadata, name)?.numbered()?;
    members.iter().map(|(number, member)| parse(*number, member)).collect()
}
