//! Builds a new header without keyslots.

use std::ops::RangeInclusive;

use uuid::Uuid;

use super::Luks2Header;
use super::areas::area_len;
use super::config::{ALIGNMENT, MAX_KEYSLOTS_SIZE};
use super::edit::{Draft, digest_object, encryption_text};
use super::edits::name;
use super::raw::{HDR_SIZES, RawHeader, Which};
use crate::crypto::{CipherSpec, IvGen};
use crate::error::{Error, ErrorKind, Result};
use crate::header::OwnedDigest;
use crate::json::{Object, Value};

/// Contents of a new header.
#[derive(Clone, Debug)]
pub struct NewHeader<'a> {
    /// Layout of the image
    pub layout: Layout,
    /// Cipher of the only segment, which extends to the end of the image
    pub cipher: &'a CipherSpec,
    /// Sector size of the encryption in bytes
    pub sector_size: u32,
    /// Digest of the volume key
    pub digest: &'a OwnedDigest,
    /// UUID
    pub uuid: Uuid,
    /// Label, up to 47 bytes. May be empty
    pub label: &'a str,
    /// Subsystem, up to 47 bytes. May be empty
    pub subsystem: &'a str,
}

/// Layout of a new image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Layout {
    hdr_size: u64,
    keyslots_size: u64,
    data_offset: u64,
    is_detached: bool,
}

impl Layout {
    /// Computes a layout with header copies of `metadata_size` bytes and `keyslots_size` bytes for the
    /// areas of keyslots, each of which holds a key of `key_size` bytes.
    ///
    /// The defaults are those of `cryptsetup luksFormat`: 16 KiB, and the rest of 16 MiB. The data
    /// begins at the next MiB. Fails with [`ErrorKind::InvalidInput`] if a size is out of range or
    /// leaves no room for a keyslot.
    pub fn new(
        metadata_size: Option<u64>,
        keyslots_size: Option<u64>,
        key_size: usize,
    ) -> Result<Self> {
        let hdr_size = metadata_size.unwrap_or(HDR_SIZES[0]);
        if !HDR_SIZES.contains(&hdr_size) {
            let [least, .., most] = HDR_SIZES;
            let text = format!("it must be a power of 2 from {least} to {most}");
            return Err(invalid(format!("metadata size {hdr_size}: {text}")));
        }
        let keyslots_size = keyslots_size.unwrap_or(DEFAULT_DATA_OFFSET - 2 * hdr_size);
        if !keyslots_size.is_multiple_of(ALIGNMENT) || keyslots_size > MAX_KEYSLOTS_SIZE {
            let text = format!("it must be a multiple of {ALIGNMENT}, up to {MAX_KEYSLOTS_SIZE}");
            return Err(invalid(format!("keyslots size {keyslots_size}: {text}")));
        }
        let area = area_len(u32::try_from(key_size).unwrap_or(u32::MAX));
        if keyslots_size < area {
            let text = format!("the area of one keyslot takes {area} bytes");
            return Err(invalid(format!("keyslots size {keyslots_size}: {text}")));
        }
        let data_offset = (2 * hdr_size + keyslots_size).next_multiple_of(DATA_ALIGNMENT);
        Ok(Self { hdr_size, keyslots_size, data_offset, is_detached: false })
    }

    /// Makes the header detached, if `is_detached`: the data begins at byte 0 of another storage.
    #[must_use]
    pub fn detached(self, is_detached: bool) -> Self {
        Self { is_detached, ..self }
    }

    /// Length in bytes of the header with the areas of its keyslots, rounded up to the next possible
    /// start of data.
    pub fn header_len(self) -> u64 {
        self.data_offset
    }

    /// Start of the encrypted data in bytes.
    pub fn data_offset(self) -> u64 {
        if self.is_detached { 0 } else { self.data_offset }
    }
}

impl Luks2Header {
    /// Builds a header without keyslots. Its metadata passes the same checks as metadata read from an
    /// image. No copy of it is on disk until a change is written.
    #[doc(hidden)]
    pub fn build(new: &NewHeader<'_>) -> Result<Self> {
        let NewHeader { layout, cipher, sector_size, digest, uuid, label, subsystem } = *new;
        check_cipher(cipher)?;
        let Layout { hdr_size, keyslots_size, .. } = layout;
        let data_offset = layout.data_offset();
        check_digest_size(digest.value.len())?;
        let mut raw = RawHeader::blank(hdr_size);
        raw.label = name(label, "label")?;
        raw.subsystem = name(subsystem, "subsystem")?;
        let uuid = uuid.hyphenated().to_string();
        raw.uuid[..uuid.len()].copy_from_slice(uuid.as_bytes());

        let segment = Object::from([
            ("type", Value::from("crypt")),
            ("offset", data_offset.to_string().into()),
            ("size", "dynamic".into()),
            ("iv_tweak", "0".into()),
            ("encryption", encryption_text(cipher).into()),
            ("sector_size", sector_size.into()),
        ]);
        let OwnedDigest { hash, iterations, salt, value } = digest;
        let digest = digest_object(*hash, *iterations, salt, value);
        let metadata = Draft::new(digest, segment, hdr_size, keyslots_size).finish(hdr_size)?;
        Ok(Self {
            which: Which::Primary,
            raw: Box::new(raw),
            metadata,
            cipher: Ok(cipher.clone()),
            warning: None,
            copies: [None, None],
            is_foreign: false,
            is_erased: false,
            unread: None,
        })
    }
}

/// Checks the length of a digest in bytes. With a shorter digest, such as that of MD5, cryptsetup accepts
/// any secret as the right one.
pub(crate) fn check_digest_size(size: usize) -> Result<()> {
    if DIGEST_SIZES.contains(&size) {
        return Ok(());
    }
    let (least, most) = (DIGEST_SIZES.start(), DIGEST_SIZES.end());
    Err(invalid(format!("a digest of {size} bytes: must have {least} to {most}")))
}

/// Refuses a hash for an IV generator that takes none. QEMU would write it after any IV generator, but
/// does not support LUKS2, and cryptsetup does not accept such a name.
pub(crate) fn check_cipher(cipher: &CipherSpec) -> Result<()> {
    match (cipher.ivgen(), cipher.ivgen_hash()) {
        (IvGen::Essiv(_), _) | (_, None) => Ok(()),
        (ivgen, Some(hash)) => {
            let (ivgen, hash) = (ivgen.name(), hash.name());
            Err(invalid(format!("the IV generator {ivgen} takes no hash, so {hash} has no effect")))
        }
    }
}

fn invalid(text: String) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Lengths in bytes of a digest that cryptsetup verifies
const DIGEST_SIZES: RangeInclusive<usize> = 20..=64;
/// Default start of the data, as in cryptsetup
const DEFAULT_DATA_OFFSET: u64 = 16 << 20;
/// Alignment of the data in a file, as in cryptsetup
const DATA_ALIGNMENT: u64 = 1 << 20;
