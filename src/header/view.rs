//! Views of a keyslot that do not depend on the format.

use super::OwnedDigest;
use crate::crypto::{CipherSpec, HashAlg, KdfAlg, KdfKind};

/// One keyslot. LUKS2 keyslots are always active.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Keyslot<'a> {
    /// Index, from 0
    pub index: usize,
    /// Whether it holds a key
    pub active: bool,
    /// Whether and when the keyslot is tried if none is named
    pub priority: Priority,
    /// KDF of the keyslot
    pub kdf: Kdf<'a>,
    /// Length in bytes of the key that it holds, not of the area's encryption key
    pub key_size: usize,
    /// Area of its key material
    pub area: Area,
    /// Cipher of its key material
    pub encryption: &'a CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
    /// Stripes of the anti-forensic split
    pub stripes: u32,
    /// Digest that confirms its key
    pub digest: Digest<'a>,
    /// Whether it holds the volume key
    pub is_bound: bool,
}

/// Whether and when a keyslot is tried if none is named.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Tried before all others
    Prefer,
    /// Tried. All LUKS1 keyslots have this priority
    Normal,
    /// Tried only if named
    Ignore,
}

impl Priority {
    /// Name of the priority: `prefer`, `normal` or `ignore`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefer => "prefer",
            Self::Normal => "normal",
            Self::Ignore => "ignore",
        }
    }
}

/// Key derivation from a passphrase.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Kdf<'a> {
    /// The function and its cost
    pub alg: KdfAlg,
    /// Salt
    pub salt: &'a [u8],
}

/// Occupant of a keyslot, as an amendment sees it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Occupant {
    /// Key in the keyslot
    pub key: HeldKey,
    /// Whether this crate can open it
    pub is_usable: bool,
}

/// Purpose of the key in a keyslot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeldKey {
    /// Volume key, which decrypts the first segment
    Volume,
    /// Key of other segments, by the number of its digest
    Segments(u32),
    /// Key that decrypts nothing
    Unbound,
}

impl Occupant {
    /// Whether the keyslot holds the volume key and this crate can open it.
    pub fn is_volume_key(&self) -> bool {
        self.key == HeldKey::Volume && self.is_usable
    }
}

/// Parameters for a new key in a keyslot, except for the cost of its KDF.
#[derive(Clone, Debug)]
pub struct Template {
    /// Cipher of the key material
    pub encryption: CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
    /// Length in bytes of the key
    pub key_size: usize,
    /// Default KDF
    pub kdf: KdfKind,
    /// Default hash of PBKDF2
    pub hash: HashAlg,
    /// Digest of the key, if known yet
    pub digest: Option<OwnedDigest>,
}

/// A range of the image.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Area {
    /// Bytes from the start of the header
    pub offset: u64,
    /// Length in bytes
    pub len: usize,
}

/// PBKDF2 digest that confirms a volume key.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Digest<'a> {
    /// Hash of the HMAC
    pub hash: HashAlg,
    /// Iteration count
    pub iterations: u32,
    /// Salt
    pub salt: &'a [u8],
    /// The PBKDF2 output
    pub value: &'a [u8],
}
