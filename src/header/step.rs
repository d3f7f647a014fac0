//! Types of the lowering: the net changes of keyslots that go in, and the write steps that come out.
//!
//! Each format chooses the steps and their order ([`Header::lower`](super::Header::lower)). The
//! executor in `amend` runs them, and the crash tests enumerate the same list.

use std::fmt;

use crate::crypto::{CipherSpec, HashAlg, KdfAlg};
use crate::storage::SharedBytes;

/// Parameters that seal a key into a keyslot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scheme {
    /// KDF that derives the key of the area's cipher from a passphrase
    pub kdf: KdfAlg,
    /// Cipher of the key material
    pub encryption: CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
}

/// Key material of a keyslot, ready to be written.
#[derive(Clone)]
pub struct Sealed {
    /// Parameters that it was sealed with
    pub scheme: Scheme,
    /// Salt of the KDF
    pub salt: [u8; 32],
    /// Length in bytes of the sealed key
    pub key_size: usize,
    /// Split and encrypted key, padded to a whole sector
    pub material: SharedBytes,
}

/// Method that keeps a key available while the key material of its keyslot is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Staging {
    /// LUKS1: an inactive keyslot holds the new secret while the old one is overwritten.
    Keyslot(usize),
    /// LUKS2: the new key material goes to a new area, while the old material stays in its own.
    Area,
    /// None. A crash at the wrong moment loses both secrets.
    InPlace,
}

/// Net change of one keyslot in an amendment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SlotChange {
    /// An inactive keyslot becomes active.
    Activate {
        /// Index of the keyslot
        keyslot: usize,
        /// New key material
        sealed: Sealed,
    },
    /// A keyslot becomes inactive and its key material is overwritten. An inactive one is
    /// overwritten again.
    Deactivate {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// An active keyslot gets another secret.
    Replace {
        /// Index of the keyslot
        keyslot: usize,
        /// New key material
        sealed: Sealed,
        /// Method that keeps the image openable during the replacement
        staging: Staging,
        /// LUKS2: whether the old keyslot is erased first, so that the new one inherits neither tokens
        /// nor priority. LUKS1 keyslots have neither.
        is_new: bool,
    },
}

/// One step of a commit.
#[derive(Clone)]
#[non_exhaustive]
pub enum Step {
    /// Writes bytes at an offset.
    Write {
        /// Bytes from the start of the header
        offset: u64,
        /// Bytes to write
        bytes: SharedBytes,
    },
    /// Copies the bytes of one range to another that does not overlap it.
    Copy {
        /// Start of the source, in bytes from the start of the header
        from: u64,
        /// Start of the destination
        to: u64,
        /// Length in bytes
        len: usize,
    },
    /// Makes all writes so far durable.
    Sync,
    /// Reads bytes back, bypassing the caches, and compares them.
    Verify {
        /// Bytes from the start of the header
        offset: u64,
        /// Expected bytes
        bytes: SharedBytes,
    },
    /// Reads two ranges back, bypassing the caches, and compares them.
    VerifyCopy {
        /// Start of the source, in bytes from the start of the header
        from: u64,
        /// Start of the destination
        to: u64,
        /// Length in bytes
        len: usize,
    },
    /// Compares bytes with those that the plan assumes, because programs that take no lock may have
    /// changed them.
    Expect {
        /// Bytes from the start of the header
        offset: u64,
        /// Expected bytes
        bytes: SharedBytes,
    },
    /// Fills an area, makes that durable, and verifies it, bypassing the caches.
    Wipe {
        /// Bytes from the start of the header
        offset: u64,
        /// Length in bytes
        len: u64,
        /// Bytes to fill it with
        fill: Fill,
    },
    /// Reserves space for a range, so that overwriting it later cannot fail on a full disk.
    Reserve {
        /// Bytes from the start of the header
        offset: u64,
        /// Length in bytes
        len: u64,
    },
}

impl Step {
    /// Steps that write bytes, make them durable, and verify them.
    pub(super) fn overwrite(offset: u64, bytes: &SharedBytes) -> [Self; 3] {
        let (written, expected) = (bytes.clone(), bytes.clone());
        [
            Self::Write { offset, bytes: written },
            Self::Sync,
            Self::Verify { offset, bytes: expected },
        ]
    }

    /// Steps that destroy the contents of an area. Random bytes come first, because zeros may be stored as
    /// a hole and leave the old bytes on the medium. Zeros follow, so that the area ends blank.
    pub(super) fn wipe(offset: u64, len: u64) -> [Self; 2] {
        [Fill::Noise, Fill::Zeros].map(|fill| Self::Wipe { offset, len, fill })
    }
}

/// Bytes that an area is wiped with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fill {
    /// Random bytes, generated when the step runs
    Noise,
    /// Zeros
    Zeros,
}

/// Steps that leave the image in the same state if one of them fails.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Steps, in order
    pub steps: Vec<Step>,
    /// State of the image after a failure, as a clause for an error text
    pub on_failure: String,
}

/// Shows only the length of the key material, which is a quarter of a megabyte.
impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealed")
            .field("scheme", &self.scheme)
            .field("material_len", &self.material.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "Write({offset}, {} bytes)", bytes.len()),
            Self::Copy { from, to, len } => write!(f, "Copy({from} to {to}, {len} bytes)"),
            Self::Sync => f.write_str("Sync"),
            Self::Wipe { offset, len, fill } => write!(f, "Wipe({offset}, {len} bytes, {fill:?})"),
            Self::Verify { offset, bytes } => write!(f, "Verify({offset}, {} bytes)", bytes.len()),
            Self::VerifyCopy { from, to, len } => {
                write!(f, "VerifyCopy({from} to {to}, {len} bytes)")
            }
            Self::Expect { offset, bytes } => write!(f, "Expect({offset}, {} bytes)", bytes.len()),
            Self::Reserve { offset, len } => write!(f, "Reserve({offset}, {len} bytes)"),
        }
    }
}

/// Clause for the keyslots that wait for later stages: `; keyslot 3 is unchanged`. Empty for none.
pub(super) fn unchanged(keyslots: &[usize]) -> String {
    match keyslots {
        [] => String::new(),
        [_] => format!("; {} is unchanged", list(keyslots)),
        _ => format!("; {} are unchanged", list(keyslots)),
    }
}

/// Lists keyslots: `keyslot 3`, `keyslots 1, 4`.
pub(super) fn list(keyslots: &[usize]) -> String {
    let numbers: Vec<_> = keyslots.iter().map(ToString::to_string).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("keyslot{plural} {}", numbers.join(", "))
}
