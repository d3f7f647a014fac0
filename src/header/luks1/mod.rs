//! LUKS1: one header of 592 bytes, eight keyslots, no checksum and no second copy.
//!
//! A [`Header`] can only be made by [parsing](Header::parse) a valid one or by
//! [building](Header::build) one. The bytes it was parsed from stay with it: what nobody
//! understands (behind a string's NUL, in the UUID) is what a rewrite writes again.

mod marks;
mod raw;
mod restore;
mod steps;
mod validate;

pub(super) use self::restore::HEAD;
use zerocopy::{FromBytes, IntoBytes};

use self::raw::{ACTIVE, HEADER_SIZE, INACTIVE, KEYSLOTS, MAGIC, RawHeader, RawKeyslot, SECTOR};
use self::validate::validate;
use super::{
    Area, Digest, Kdf, Keyslot, NewDigest, Priority, Segment, Template, material_len, text,
};
use crate::crypto::{CipherSpec, HashAlg, KdfAlg, KdfKind, SectorCipher, af};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// A valid LUKS1 header.
#[derive(Clone)]
pub struct Header {
    raw: RawHeader,
    cipher: CipherSpec,
    hash: HashAlg,
}

impl Header {
    /// Parses the first bytes of an image of `image_len` bytes.
    ///
    /// Fails with [`ErrorKind::NotLuks`], [`ErrorKind::Corrupt`] or [`ErrorKind::Unsupported`];
    /// the text names the keyslot and the value.
    pub fn parse(bytes: &[u8], image_len: u64) -> Result<Self> {
        let Ok((raw, _)) = RawHeader::read_from_prefix(bytes) else {
            let len = bytes.len();
            return Err(if bytes.starts_with(&MAGIC) {
                let text =
                    format!("LUKS header is truncated: {len} bytes, LUKS1 has {HEADER_SIZE}");
                Error::new(ErrorKind::Corrupt, text)
            } else {
                Error::new(ErrorKind::NotLuks, "Volume is not in LUKS format")
            });
        };
        let meaning = validate(&raw, image_len)?;
        Ok(Self { raw, cipher: meaning.cipher, hash: meaning.hash })
    }

    /// A header without an active keyslot, laid out as QEMU does: key material from byte 4096 on,
    /// each area and the payload at a multiple of 4096 bytes.
    pub fn build(
        cipher: CipherSpec,
        hash: HashAlg,
        digest: &NewDigest,
        uuid: &str,
    ) -> Result<Self> {
        let key_bytes = u32::try_from(cipher.key_size()).map_err(|_| too_long("key size"))?;
        let step = u32::try_from(material_len(key_bytes).next_multiple_of(ALIGNMENT) / SECTOR)
            .map_err(|_| too_long("key size"))?;
        let first = u32::try_from(ALIGNMENT / SECTOR).map_err(|_| too_long("alignment"))?;

        let slot = |i: u32| RawKeyslot {
            state: INACTIVE.into(),
            iterations: 0.into(),
            salt: [0; 32],
            key_material_offset: (first + i * step).into(),
            stripes: af::STRIPES.into(),
        };
        let raw = RawHeader {
            magic: MAGIC,
            version: 1.into(),
            cipher_name: field(cipher.cipher_name(), "cipher name")?,
            cipher_mode: field(&cipher.cipher_mode(), "cipher mode")?,
            hash_spec: field(hash.name(), "hash spec")?,
            payload_offset: (first + 8 * step).into(),
            key_bytes: key_bytes.into(),
            mk_digest: digest.value,
            mk_digest_salt: digest.salt,
            mk_digest_iterations: digest.iterations.into(),
            uuid: field(uuid, "uuid")?,
            keyslots: [0, 1, 2, 3, 4, 5, 6, 7].map(slot),
        };
        validate(&raw, u64::MAX)?;
        Ok(Self { raw, cipher, hash })
    }

    /// The header's 592 bytes as they are on disk.
    pub fn as_bytes(&self) -> &[u8] {
        self.raw.as_bytes()
    }

    /// Cipher, mode and IV generator, of key material and payload alike.
    pub fn cipher(&self) -> &CipherSpec {
        &self.cipher
    }

    /// Hash of PBKDF2, of the anti-forensic split and of the digest.
    pub fn hash(&self) -> HashAlg {
        self.hash
    }

    /// Start of the encrypted data in bytes.
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.raw.payload_offset.get()) * SECTOR
    }

    /// Where the encrypted data is: from the payload offset to the end of the storage.
    ///
    /// As with QEMU the last sector counts even if the storage ends in the middle of it.
    pub(super) fn segment(&self, storage_len: u64) -> Result<Segment> {
        let offset = self.payload_offset();
        let end = storage_len.checked_next_multiple_of(SECTOR);
        let Some(len) = end.and_then(|end| end.checked_sub(offset)) else {
            let text = format!("no payload from byte {offset} on in {storage_len} bytes");
            return Err(Error::new(ErrorKind::Corrupt, text).with_hint("the image is truncated"));
        };
        let (sector_size, encryption) = (SectorCipher::SECTOR_SIZE, self.cipher.clone());
        Ok(Segment { offset, len, iv_tweak: 0, sector_size, encryption })
    }

    /// The UUID as it is written, at most 40 characters.
    pub fn uuid(&self) -> String {
        text(&self.raw.uuid)
    }

    /// What a candidate for the volume key is checked against.
    pub fn digest(&self) -> Digest<'_> {
        Digest {
            hash: self.hash,
            iterations: self.raw.mk_digest_iterations.get(),
            salt: &self.raw.mk_digest_salt,
            value: &self.raw.mk_digest,
        }
    }

    /// All eight keyslots, by index.
    pub fn keyslots(&self) -> impl ExactSizeIterator<Item = Keyslot<'_>> {
        (0..KEYSLOTS).map(|i| self.keyslot(i))
    }

    /// The keyslot of an index below 8.
    pub(super) fn keyslot(&self, index: usize) -> Keyslot<'_> {
        let slot = &self.raw.keyslots[index];
        Keyslot {
            index,
            active: slot.state.get() == ACTIVE,
            priority: Priority::Normal,
            kdf: Kdf {
                alg: KdfAlg::Pbkdf2 { hash: self.hash, iterations: slot.iterations.get() },
                salt: &slot.salt,
            },
            key_size: self.cipher.key_size(),
            area: self.area(index),
            encryption: &self.cipher,
            af_hash: self.hash,
            stripes: slot.stripes.get(),
            digest: self.digest(),
            is_bound: true,
        }
    }

    fn area(&self, index: usize) -> Area {
        Area {
            offset: u64::from(self.raw.keyslots[index].key_material_offset.get()) * SECTOR,
            len: (self.cipher.key_size() * af::STRIPES as usize)
                .next_multiple_of(SectorCipher::SECTOR_SIZE),
        }
    }

    /// What a key in any of its keyslots is made by.
    pub(super) fn template(&self) -> Template<'_> {
        Template {
            encryption: self.cipher.clone(),
            af_hash: self.hash,
            key_size: self.cipher.key_size(),
            kdf: KdfKind::Pbkdf2,
            hash: self.hash,
            digest: Some(self.digest()),
        }
    }

    /// Whether the area of a keyslot is all zeros, as an erase leaves it and as it is before its
    /// first use in an image that QEMU or keyslot made.
    pub(super) fn is_blank(&self, index: usize, storage: &dyn Storage) -> Result<bool> {
        if index >= KEYSLOTS {
            let text = format!("there is no keyslot {index}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let area = self.area(index);
        let mut bytes = vec![0; area.len];
        storage
            .read_exact_at(&mut bytes, area.offset)
            .map_err(|e| Error::io(format_args!("read the area of keyslot {index}"), e))?;
        Ok(bytes.iter().all(|&byte| byte == 0))
    }
}

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let active: Vec<_> = self.keyslots().filter(|k| k.active).map(|k| k.index).collect();
        f.debug_struct("Header")
            .field("cipher", &self.cipher)
            .field("hash", &self.hash)
            .field("uuid", &self.uuid())
            .field("active", &active)
            .finish_non_exhaustive()
    }
}

fn field<const N: usize>(value: &str, what: &str) -> Result<[u8; N]> {
    let mut field = [0; N];
    match field.get_mut(..value.len()) {
        Some(start) if value.len() < N => start.copy_from_slice(value.as_bytes()),
        _ => return Err(too_long(what)),
    }
    Ok(field)
}

fn too_long(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("{what} does not fit a LUKS1 header"))
}

/// Alignment of key material and payload in bytes (QEMU, and cryptsetup since 1.1).
const ALIGNMENT: u64 = 4096;
