//! LUKS1: one header of 592 bytes with eight keyslots, without a checksum or a second copy.
//!
//! A [`Luks1Header`] is either [parsed](Luks1Header::parse) from a valid header or
//! [built](Luks1Header::build). It keeps the bytes that it was parsed from, so a rewrite preserves bytes
//! without a meaning, such as those after a string's NUL.

mod check;
mod entries;
mod marks;
mod raw;
mod repair;
mod restore;
mod steps;
mod validate;

pub use self::entries::Entry;
pub(super) use self::restore::HEAD;
use zerocopy::{FromBytes, IntoBytes};

use self::raw::{ACTIVE, HEADER_SIZE, INACTIVE, KEYSLOTS, MAGIC, RawHeader, RawKeyslot, SECTOR};
use self::validate::{Fault, Meaning, validate};
use super::{
    Area, Digest, Kdf, Keyslot, OwnedDigest, Priority, Segment, Template, material_len, text,
};
use crate::crypto::{CipherSpec, HashAlg, KdfAlg, KdfKind, SectorCipher, af};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::Storage;

/// A valid LUKS1 header.
#[derive(Clone)]
pub struct Luks1Header {
    raw: RawHeader,
    meaning: Meaning,
}

impl Luks1Header {
    /// Parses the first bytes of a storage. If `storage_len` is given, areas must end within it.
    ///
    /// Fails with [`ErrorKind::NotLuks`], [`ErrorKind::Corrupt`] or [`ErrorKind::Unsupported`]. The
    /// text names the keyslot and the value.
    pub fn parse(bytes: &[u8], storage_len: Option<u64>) -> Result<Self> {
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
        let meaning = validate(&raw, storage_len)?;
        Ok(Self { raw, meaning })
    }

    /// Builds a header without an active keyslot, with QEMU's layout: key material starts at byte 4096,
    /// and each area and the payload start at a multiple of 4096 bytes.
    pub fn build(
        cipher: CipherSpec,
        hash: HashAlg,
        digest: &OwnedDigest,
        uuid: &str,
    ) -> Result<Self> {
        let key_bytes = u32::try_from(cipher.key_size()).map_err(|_| too_long("key size"))?;
        let step = u32::try_from(material_len(key_bytes).next_multiple_of(ALIGNMENT) / SECTOR)
            .map_err(|_| too_long("key size"))?;
        let first = u32::try_from(ALIGNMENT / SECTOR).map_err(|_| too_long("alignment"))?;

        let short = || Error::new(ErrorKind::InvalidInput, "the digest or its salt is too short");
        let mk_digest = *digest.value.first_chunk().ok_or_else(short)?;
        let mk_digest_salt = *digest.salt.first_chunk().ok_or_else(short)?;

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
            mk_digest,
            mk_digest_salt,
            mk_digest_iterations: digest.iterations.into(),
            uuid: field(uuid, "uuid")?,
            keyslots: [0, 1, 2, 3, 4, 5, 6, 7].map(slot),
        };
        let Meaning { damage, .. } = validate(&raw, None)?;
        let header = Self { raw, meaning: Meaning { cipher: Ok(cipher), hash: Ok(hash), damage } };
        header.check_strictly()?;
        Ok(header)
    }

    /// Makes the header detached: the payload begins at byte 0 of another storage.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.raw.payload_offset = 0.into();
        self
    }

    /// Header as it is on disk, 592 bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.raw.as_bytes()
    }

    /// Cipher, mode and IV generator of both key material and payload. `None` if unsupported.
    pub fn cipher(&self) -> Option<&CipherSpec> {
        self.meaning.cipher.as_ref().ok()
    }

    /// Hash of PBKDF2, of the anti-forensic split and of the digest. `None` if unsupported.
    pub fn hash(&self) -> Option<HashAlg> {
        self.meaning.hash.as_ref().ok().copied()
    }

    /// Cipher and hash, or the error of the unsupported one.
    fn scheme(&self) -> Result<(&CipherSpec, HashAlg)> {
        let cipher = self.meaning.cipher.as_ref().map_err(Fault::error)?;
        Ok((cipher, *self.meaning.hash.as_ref().map_err(Fault::error)?))
    }

    /// Start of the encrypted data in bytes.
    pub fn payload_offset(&self) -> u64 {
        u64::from(self.raw.payload_offset.get()) * SECTOR
    }

    /// Range of the encrypted data, from the payload offset to the end of the storage.
    ///
    /// As in QEMU, a last sector that the storage contains only in part counts as whole.
    pub(super) fn segment(&self, storage_len: u64) -> Result<Segment> {
        let encryption = self.scheme()?.0.clone();
        let (offset, sector_size) = (self.payload_offset(), SectorCipher::SECTOR_SIZE);
        let len = self.payload_len(storage_len)?;
        Ok(Segment { offset, len, iv_tweak: 0, sector_size, encryption, key: 0 })
    }

    /// Length of the encrypted data in bytes, whether or not its cipher is supported.
    pub(super) fn payload_len(&self, storage_len: u64) -> Result<u64> {
        let offset = self.payload_offset();
        let end = storage_len.checked_next_multiple_of(SECTOR);
        let len = end.filter(|_| offset <= storage_len).map(|end| end - offset);
        len.ok_or_else(|| {
            let text = format!(
                "the payload begins at byte {offset}, the image ends at byte {storage_len}"
            );
            Error::new(ErrorKind::Corrupt, text).with_hint("the image is truncated")
        })
    }

    /// UUID as stored in the header, at most 40 characters.
    pub fn uuid(&self) -> String {
        text(&self.raw.uuid)
    }

    /// Digest of the volume key. `None` if the hash is unsupported.
    pub fn digest(&self) -> Option<Digest<'_>> {
        Some(Digest {
            hash: self.hash()?,
            iterations: self.raw.mk_digest_iterations.get(),
            salt: &self.raw.mk_digest_salt,
            value: &self.raw.mk_digest,
        })
    }

    /// Keyslot with an index below 8, unless it is damaged or unsupported.
    pub(super) fn keyslot(&self, index: usize) -> Option<Keyslot<'_>> {
        if self.is_damaged(index) {
            return None;
        }
        let (encryption, hash) = self.scheme().ok()?;
        let slot = &self.raw.keyslots[index];
        Some(Keyslot {
            index,
            active: slot.state.get() == ACTIVE,
            priority: Priority::Normal,
            kdf: Kdf {
                alg: KdfAlg::Pbkdf2 { hash, iterations: slot.iterations.get() },
                salt: &slot.salt,
            },
            key_size: encryption.key_size(),
            area: self.area(index),
            encryption,
            af_hash: hash,
            stripes: slot.stripes.get(),
            digest: self.digest()?,
            is_bound: true,
        })
    }

    /// Area of a keyslot whose entry is not damaged.
    fn area(&self, index: usize) -> Area {
        Area {
            offset: u64::from(self.raw.keyslots[index].key_material_offset.get()) * SECTOR,
            len: usize::try_from(material_len(self.raw.key_bytes.get())).unwrap_or(usize::MAX),
        }
    }

    /// Parameters for a new key in any keyslot.
    pub(super) fn template(&self) -> Result<Template> {
        let (encryption, hash) = self.scheme()?;
        Ok(Template {
            encryption: encryption.clone(),
            af_hash: hash,
            key_size: encryption.key_size(),
            kdf: KdfKind::Pbkdf2,
            hash,
            digest: self.digest().map(Into::into),
        })
    }

    /// Whether the area of a keyslot is all zeros. It is after an erase, and before its first use in an
    /// image made by QEMU or keyslot.
    pub(super) fn is_blank(&self, index: usize, storage: &dyn Storage) -> Result<bool> {
        if index >= KEYSLOTS || self.is_damaged(index) {
            let text = format!("keyslot {index} does not exist");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let Area { offset, len } = self.area(index);
        let mut piece = [0; 4096];
        let mut done = 0;
        while done < len {
            let piece = &mut piece[..(len - done).min(4096)];
            storage.read_exact_at(piece, offset + done as u64).map_err(|e| {
                Error::failed(Operation::Read, format_args!("the area of keyslot {index}"), e)
                    .with_offset(offset + done as u64)
                    .with_keyslot(index)
            })?;
            if piece.iter().any(|&byte| byte != 0) {
                return Ok(false);
            }
            done += piece.len();
        }
        Ok(true)
    }
}

impl std::fmt::Debug for Luks1Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let active: Vec<_> = (0..KEYSLOTS).filter(|&index| self.is_active(index)).collect();
        f.debug_struct("Header")
            .field("cipher", &self.cipher_text())
            .field("hash", &self.hash_text())
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

/// Length in bytes of a new header with its areas, which is its payload offset.
pub(crate) fn header_len(cipher: &CipherSpec) -> u64 {
    let key_bytes = u32::try_from(cipher.key_size()).unwrap_or(u32::MAX);
    ALIGNMENT + KEYSLOTS as u64 * material_len(key_bytes).next_multiple_of(ALIGNMENT)
}

/// Alignment in bytes of key material and payload, in QEMU and since cryptsetup 1.1.
const ALIGNMENT: u64 = 4096;
