//! What all formats say of a keyslot.

use super::OwnedDigest;
use crate::crypto::{CipherSpec, HashAlg, KdfAlg, KdfKind};

/// One keyslot: active, or in LUKS1 maybe not. LUKS2 has none that are not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Keyslot<'a> {
    /// Index, from 0
    pub index: usize,
    /// Whether it holds a key
    pub active: bool,
    /// Whether it is tried where none is named
    pub priority: Priority,
    /// How its key is derived from a passphrase
    pub kdf: Kdf<'a>,
    /// Length in bytes of the key in it, which is not that of its own cipher
    pub key_size: usize,
    /// Where its key material is
    pub area: Area,
    /// How its key material is encrypted
    pub encryption: &'a CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
    /// Stripes of the anti-forensic split
    pub stripes: u32,
    /// What a candidate for the key in it is checked against
    pub digest: Digest<'a>,
    /// Whether the key in it is the volume key, and not one that nothing is encrypted with
    pub is_bound: bool,
}

/// Whether a keyslot is tried where none is named.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Priority {
    /// Before all others
    Prefer,
    /// As always in LUKS1
    Normal,
    /// Only where it is named
    Ignore,
}

impl Priority {
    /// `prefer`, `normal`, `ignore`
    pub fn name(self) -> &'static str {
        match self {
            Self::Prefer => "prefer",
            Self::Normal => "normal",
            Self::Ignore => "ignore",
        }
    }
}

/// How a key is derived from a passphrase.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Kdf<'a> {
    /// The function and its cost
    pub alg: KdfAlg,
    /// Salt
    pub salt: &'a [u8],
}

/// What is in a keyslot, for whoever is about to change it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Occupant {
    /// The key in it
    pub key: HeldKey,
    /// Whether this crate can open it
    pub is_usable: bool,
}

/// What the key in a keyslot is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HeldKey {
    /// The volume key: that of the first segment
    Volume,
    /// Other segments, by the number of its digest
    Segments(u32),
    /// Nothing is encrypted with it
    Unbound,
}

impl Occupant {
    /// Whether it is the volume key, and can be had.
    pub fn is_volume_key(&self) -> bool {
        self.key == HeldKey::Volume && self.is_usable
    }
}

/// What a new key in a keyslot is made by, but for its KDF's cost.
#[derive(Clone, Debug)]
pub struct Template {
    /// How its key material is encrypted
    pub encryption: CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
    /// Length in bytes of the key
    pub key_size: usize,
    /// The KDF, unless another one is asked for
    pub kdf: KdfKind,
    /// Hash of PBKDF2, if it is that
    pub hash: HashAlg,
    /// What the key is checked against, if that is known yet
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

/// What a candidate for the volume key is checked against: its PBKDF2.
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
