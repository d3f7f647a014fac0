//! LUKS2: a binary header and JSON metadata, in two copies, with up to 32 keyslots.
//!
//! A [`Luks2Header`] is either [read](Luks2Header::read) from an image with at least one valid copy, or
//! [built](Luks2Header::build). It keeps the metadata as it was read, so a rewrite preserves unknown
//! members.

mod amendable;
mod areas;
mod build;
mod config;
mod copies;
mod digest;
mod edit;
mod edits;
mod json;
mod keyslot;
mod metadata;
mod raw;
mod restore;
mod segment;
mod steps;
mod write;

#[doc(hidden)]
pub use build::{Layout, NewHeader};
pub(crate) use build::{check_cipher, check_digest_size};
pub use config::Config;
pub(crate) use copies::secondary_copies;
pub use digest::KeyDigest;
pub(crate) use edits::name;
pub use keyslot::Slot;
pub use metadata::{Metadata, Token};
pub(crate) use raw::HDR_SIZES;
pub use raw::Which;
pub use segment::{Crypt, DataSegment};

use zerocopy::IntoBytes;

use self::copies::{Chosen, Trace};
use self::raw::{BINARY_SIZE, RawHeader};
use super::{Area, Digest, Keyslot, Leftover, Segment, text};
use crate::crypto::{CipherSpec, af};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::transfer::length;
use crate::storage::{SharedBytes, Storage};

/// A valid LUKS2 header.
#[derive(Clone)]
pub struct Luks2Header {
    which: Which,
    raw: Box<RawHeader>,
    metadata: Metadata,
    /// Cipher of the first segment
    cipher: std::result::Result<CipherSpec, String>,
    warning: Option<String>,
    /// Bytes of the primary and the secondary copy, if their checksums are right
    copies: [Option<SharedBytes>; 2],
    /// Whether the image does not begin with a primary copy
    is_foreign: bool,
    /// Whether the magic of both copies is erased
    is_erased: bool,
    /// Warning about the other copy, if that copy may be newer
    unread: Option<String>,
}

impl Luks2Header {
    /// Reads both copies of an image's header and chooses the valid or newer one. Nothing is written.
    ///
    /// Fails with [`ErrorKind::Corrupt`] or [`ErrorKind::Unsupported`]. The text names the path and
    /// the value.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let len = length(storage)?;
        Self::new(copies::read(storage, len, super::STEADY_READS)?, len)
    }

    /// Reads a header that is intact except for an erased magic in one or both copies.
    pub(super) fn read_erased(storage: &dyn Storage) -> Result<Option<Self>> {
        let len = length(storage)?;
        copies::erased(storage, len)?.map(|chosen| Self::new(chosen, len)).transpose()
    }

    fn new(chosen: Chosen, len: u64) -> Result<Self> {
        let Chosen { which, raw, metadata, warning, bytes, is_foreign, is_erased, unread } = chosen;
        let end = 2 * raw.hdr_size.get() + metadata.config().keyslots_size;
        if end > len {
            let text = format!("the areas of keyslots end at byte {end}, the image at byte {len}");
            return Err(corrupt(text).with_hint("the image is truncated"));
        }
        let cipher = cipher_of_first_segment(&metadata);
        let copies = bytes;
        Ok(Self { which, raw, metadata, cipher, warning, copies, is_foreign, is_erased, unread })
    }

    /// Whether an image that does not begin with a primary copy has a secondary one.
    ///
    /// If the image `is_luks` of another version, a damaged copy does not count. If both copies are
    /// intact except for their magic, the error says how to restore it.
    pub(super) fn is_behind(storage: &dyn Storage, is_luks: bool) -> Result<bool> {
        let len = length(storage)?;
        match copies::trace(storage, len)? {
            Trace::Secondary => Ok(true),
            Trace::Damaged => Ok(!is_luks),
            Trace::Erased => Err(copies::erased_error()),
            Trace::None => Ok(false),
        }
    }

    /// Copy that the header was read from.
    pub fn which(&self) -> Which {
        self.which
    }

    /// Metadata of the header.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Length in bytes of each copy.
    pub fn hdr_size(&self) -> u64 {
        self.raw.hdr_size.get()
    }

    /// Sequence number of the metadata, which cryptsetup calls "epoch".
    pub fn seqid(&self) -> u64 {
        self.raw.seqid.get()
    }

    /// Label as stored in the header, at most 48 characters.
    pub fn label(&self) -> String {
        text(&self.raw.label)
    }

    /// Subsystem as stored in the header, at most 48 characters.
    pub fn subsystem(&self) -> String {
        text(&self.raw.subsystem)
    }

    /// UUID as stored in the header, at most 40 characters.
    pub fn uuid(&self) -> String {
        text(&self.raw.uuid)
    }

    /// Checksum algorithm as stored in the header.
    pub fn checksum_alg(&self) -> String {
        text(&self.raw.checksum_alg)
    }

    /// Binary header as it is on disk, 4096 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.raw.as_bytes()
    }

    /// Whether two reads found the same copies with the same faults.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.which == other.which
            && self.copies == other.copies
            && self.raw.as_bytes() == other.raw.as_bytes()
            && self.metadata.text() == other.metadata.text()
            && self.warning == other.warning
            && self.is_foreign == other.is_foreign
            && self.is_erased == other.is_erased
            && self.unread == other.unread
    }

    /// Warning about the other copy, if it is damaged or older.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Keyslots that this crate can open.
    pub fn keyslots(&self) -> impl Iterator<Item = Keyslot<'_>> {
        self.metadata.keyslots().iter().filter_map(|slot| self.view(slot).ok())
    }

    /// Keyslots that this crate cannot open, with the reasons.
    pub fn unusable(&self) -> impl Iterator<Item = (usize, &str)> {
        self.metadata.keyslots().iter().filter_map(|slot| {
            let why = self.view(slot).err()?;
            Some((slot.number as usize, why))
        })
    }

    fn view<'a>(&'a self, slot: &'a Slot) -> std::result::Result<Keyslot<'a>, &'a str> {
        let opening = slot.opening.as_ref().map_err(String::as_str)?;
        let digest = self.metadata.digest_of_keyslot(slot.number).ok_or("it has no digest")?;
        Ok(Keyslot {
            index: slot.number as usize,
            active: true,
            priority: slot.priority,
            kdf: opening.kdf(),
            key_size: slot.key_size as usize,
            area: slot.material(),
            encryption: &opening.encryption,
            af_hash: opening.af_hash,
            stripes: af::STRIPES,
            digest: digest.digest()?,
            is_bound: Some(digest.number) == self.volume_key_digest().ok(),
        })
    }

    /// Number of the first encrypted segment, whose key is the volume key. While an image is encrypted
    /// in place, that may be a backup segment, which describes the final state.
    fn first_segment(&self) -> u32 {
        let segments = self.metadata.segments();
        let encrypted = segments.iter().find(|segment| segment.crypt.is_some());
        encrypted.or(segments.first()).map_or(0, |segment| segment.number)
    }

    /// Digest of the key of the first segment.
    pub(super) fn digest(&self) -> std::result::Result<Digest<'_>, &str> {
        self.metadata.digest_of_segment(self.first_segment()).ok_or("it has no digest")?.digest()
    }

    /// Cipher of the first segment, or the reason why it is not supported.
    pub(super) fn cipher(&self) -> std::result::Result<&CipherSpec, &str> {
        self.cipher.as_ref().map_err(String::as_str)
    }

    /// Areas that an interrupted amendment did not overwrite.
    pub(super) fn leftovers(&self) -> Vec<Leftover> {
        let unwiped = self.metadata.config().unwiped.iter();
        let area = |it: &std::ops::Range<u64>| {
            let len = usize::try_from(it.end - it.start).unwrap_or(usize::MAX);
            Leftover::Area(Area { offset: it.start, len })
        };
        unwiped.map(area).collect()
    }

    /// Start of the encrypted data in bytes.
    pub fn payload_offset(&self) -> u64 {
        self.metadata.regular_segments().map(|segment| segment.offset).min().unwrap_or(0)
    }

    /// Length in bytes of all segments together.
    pub(super) fn volume_len(&self, storage_len: u64) -> Option<u64> {
        self.metadata.regular_segments().try_fold(0_u64, |sum, segment| {
            let len = segment.end(storage_len)?.checked_sub(segment.offset)?;
            sum.checked_add(len)
        })
    }

    /// Ranges of the encrypted data in a storage of this length.
    ///
    /// A segment that extends to the end of the storage excludes an incomplete sector of 512 bytes, as a
    /// loop device does.
    pub(super) fn segments(
        &self,
        storage_len: u64,
        key_size: &dyn Fn(u32) -> Option<usize>,
    ) -> Result<Vec<Segment>> {
        self.check_requirements()?;
        let segments = self.metadata.regular_segments();
        segments.map(|it| self.segment(it, storage_len, key_size)).collect()
    }

    fn segment(
        &self,
        segment: &DataSegment,
        storage_len: u64,
        known_size: &dyn Fn(u32) -> Option<usize>,
    ) -> Result<Segment> {
        let DataSegment { number, ref kind, offset, .. } = *segment;
        let Some(crypt) = segment.crypt.as_ref().filter(|_| kind == "crypt") else {
            let kind = keyslot::quoted(kind);
            return Err(unsupported(format!("segment {number} is of type {kind}")));
        };
        if let Some(integrity) = &crypt.integrity {
            let integrity = keyslot::quoted(integrity);
            let text = format!("segment {number} has the integrity protection {integrity}");
            return Err(unsupported(text));
        }
        let Some(len) = segment.end(storage_len).and_then(|end| end.checked_sub(offset)) else {
            let range = match segment.size {
                Some(size) => format!("from byte {offset} to byte {}", offset + size),
                None => format!("from byte {offset} on"),
            };
            let text = format!("segment {number} is {range}, the image ends at byte {storage_len}");
            return Err(corrupt(text).with_hint("the image is truncated"));
        };
        if !len.is_multiple_of(crypt.sector_size.into()) {
            let size = crypt.sector_size;
            let text = format!(
                "segment {number} has {len} bytes, which is not a multiple of the sector size {size}"
            );
            return Err(corrupt(text).with_hint("the image is truncated or has trailing bytes"));
        }
        let key = self.metadata.digest_of_segment(number).map_or(0, |digest| digest.number);
        let key_size = match key_size(&self.metadata, number) {
            0 => known_size(key).unwrap_or(0),
            size => size,
        };
        if key_size == 0 {
            let text = format!("segment {number}: no keyslot holds its key any more");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let encryption = keyslot::cipher(&crypt.encryption, key_size).map_err(|why| {
            Error::new(ErrorKind::Unsupported, format!("segment {number}: {why}"))
        })?;
        let sector_size = usize::try_from(crypt.sector_size).unwrap_or(usize::MAX);
        Ok(Segment { offset, len, iv_tweak: crypt.iv_tweak, sector_size, encryption, key })
    }

    /// Refuses an image with requirements, because this crate supports none.
    pub(super) fn check_requirements(&self) -> Result<()> {
        let config = self.metadata.config();
        let Some(requirement) = config.requirements.first() else { return Ok(()) };
        let name = keyslot::quoted(requirement);
        let error = unsupported(format!("the image has the requirement {name}"));
        Err(if config.is_reencrypting() || requirement == "offline-reencrypt" {
            error.with_hint("use 'cryptsetup reencrypt --resume-only' to finish the reencryption")
        } else {
            error
        })
    }
}

impl std::fmt::Debug for Luks2Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("which", &self.which)
            .field("seqid", &self.seqid())
            .field("uuid", &self.uuid())
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

fn cipher_of_first_segment(metadata: &Metadata) -> std::result::Result<CipherSpec, String> {
    let first = metadata.segments().first().ok_or("there is no segment")?;
    let crypt = first.crypt.as_ref().ok_or("the first segment is not encrypted")?;
    keyslot::cipher(&crypt.encryption, key_size(metadata, first.number))
}

/// Length in bytes of a segment's key, as recorded in the keyslots that hold it. The length in a keyslot
/// of an unknown type is not checked against its area, so it is used only if there is no other.
fn key_size(metadata: &Metadata, segment: u32) -> usize {
    let keyslots = metadata.digest_of_segment(segment).map_or(&[][..], |it| &it.keyslots);
    let holds_it = |slot: &&Slot| keyslots.contains(&slot.number);
    let holders: Vec<_> = metadata.keyslots().iter().filter(holds_it).collect();
    let known = holders.iter().find(|slot| slot.kind == keyslot::KIND);
    known.or(holders.first()).map_or(0, |slot| slot.key_size as usize)
}

fn corrupt(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

fn unsupported(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, format!("{}, which is not supported", what.into()))
}
