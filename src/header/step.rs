//! What a change of keyslots is made of: the slots' net changes going in, and the writes coming
//! out.
//!
//! The format says which steps and in which order ([`Header::lower`](super::Header::lower)), the
//! executor in `amend` runs them, and the crash tests enumerate over the same list.

use std::fmt;

use crate::crypto::{CipherSpec, HashAlg, KdfAlg};
use crate::storage::SharedBytes;

/// How a key is put into a keyslot.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Scheme {
    /// How the key of its cipher is derived from a passphrase
    pub kdf: KdfAlg,
    /// How its key material is encrypted
    pub encryption: CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
}

/// Key material of a keyslot, ready to be written.
#[derive(Clone)]
pub struct Sealed {
    /// How it was made
    pub scheme: Scheme,
    /// Salt of the KDF
    pub salt: [u8; 32],
    /// Length in bytes of the key in it
    pub key_size: usize,
    /// The key, split and encrypted, to the end of the last sector
    pub material: SharedBytes,
}

/// What keeps a key at hand while the key material of its keyslot is replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Staging {
    /// LUKS1: an inactive keyslot holds the new secret while the old one is overwritten.
    Keyslot(usize),
    /// LUKS2: the new key material goes to an area of its own, the old one stays where it is.
    Area,
    /// Nothing: a crash in the wrong moment loses both secrets.
    InPlace,
}

/// What becomes of one keyslot in an amendment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SlotChange {
    /// An inactive keyslot becomes active.
    Activate {
        /// Index of the keyslot
        keyslot: usize,
        /// What it will hold
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
        /// What it will hold
        sealed: Sealed,
        /// What keeps the image openable meanwhile
        staging: Staging,
        /// LUKS2: the old keyslot was erased first, so the new one has none of its tokens, nor its
        /// priority. LUKS1 keyslots have neither.
        is_new: bool,
    },
}

/// One step of a commit.
#[derive(Clone)]
#[non_exhaustive]
pub enum Step {
    /// Write these bytes at this offset.
    Write {
        /// Bytes from the start of the header
        offset: u64,
        /// What to write
        bytes: SharedBytes,
    },
    /// Write the bytes of one range to another that does not overlap it.
    Copy {
        /// Start of the source, in bytes from the start of the header
        from: u64,
        /// Start of the destination
        to: u64,
        /// Length in bytes
        len: usize,
    },
    /// Make all writes so far durable.
    Sync,
    /// Read these bytes back, past the caches, and compare.
    Verify {
        /// Bytes from the start of the header
        offset: u64,
        /// What must be there
        bytes: SharedBytes,
    },
    /// Read two ranges back, past the caches, and compare.
    VerifyCopy {
        /// Start of the source, in bytes from the start of the header
        from: u64,
        /// Start of the destination
        to: u64,
        /// Length in bytes
        len: usize,
    },
    /// Compare with what the plan assumes: other programs that take no lock may have written it since.
    Expect {
        /// Bytes from the start of the header
        offset: u64,
        /// What must be there
        bytes: SharedBytes,
    },
    /// Fill an area, make that durable, read it back past the caches, and compare.
    Wipe {
        /// Bytes from the start of the header
        offset: u64,
        /// Length in bytes
        len: u64,
        /// What to fill it with
        fill: Fill,
    },
    /// Make sure that this range can be overwritten later without the disk running full.
    Reserve {
        /// Bytes from the start of the header
        offset: u64,
        /// Length in bytes
        len: u64,
    },
}

impl Step {
    /// Bytes written, durable, and read back.
    pub(super) fn overwrite(offset: u64, bytes: &SharedBytes) -> [Self; 3] {
        let (written, expected) = (bytes.clone(), bytes.clone());
        [
            Self::Write { offset, bytes: written },
            Self::Sync,
            Self::Verify { offset, bytes: expected },
        ]
    }

    /// An area of which nothing stays: random bytes over it, because zeros may be stored as a hole and
    /// leave the old bytes on the medium; then zeros, so that the area is blank.
    pub(super) fn wipe(offset: u64, len: u64) -> [Self; 2] {
        [Fill::Noise, Fill::Zeros].map(|fill| Self::Wipe { offset, len, fill })
    }
}

/// The bytes that an area is wiped with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fill {
    /// Random bytes, chosen when the step runs
    Noise,
    /// Zeros
    Zeros,
}

/// Steps with one answer to "what if it fails here".
#[derive(Clone, Debug)]
pub struct Stage {
    /// The steps in their order
    pub steps: Vec<Step>,
    /// The state of the image when one of them fails, as a clause for an error text
    pub on_failure: String,
}

/// Key material is a quarter of a megabyte: its length will do.
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

/// What waits for later stages, as a clause after others: `; keyslot 3 is unchanged`. Nothing for none.
pub(super) fn unchanged(keyslots: &[usize]) -> String {
    match keyslots {
        [] => String::new(),
        [_] => format!("; {} is unchanged", list(keyslots)),
        _ => format!("; {} are unchanged", list(keyslots)),
    }
}

/// `keyslot 3`, `keyslots 1, 4`
pub(super) fn list(keyslots: &[usize]) -> String {
    let numbers: Vec<_> = keyslots.iter().map(ToString::to_string).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("keyslot{plural} {}", numbers.join(", "))
}
