//! What a change of keyslots is made of: the slots' net changes going in, and the writes coming
//! out.
//!
//! The format says which steps and in which order ([`Header::lower`](super::Header::lower)), the
//! executor in `amend` runs them, and the crash tests enumerate over the same list.

use std::fmt;
use std::sync::Arc;

/// Key material of a keyslot, ready to be written.
#[derive(Clone)]
pub struct Sealed {
    /// PBKDF2 iterations
    pub iterations: u32,
    /// PBKDF2 salt
    pub salt: [u8; 32],
    /// The volume key, split and encrypted; as long as the keyslot's area
    pub material: Arc<[u8]>,
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
        /// An inactive keyslot that holds the new secret while the old one is overwritten;
        /// without it a crash loses both.
        staging: Option<usize>,
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
        bytes: Arc<[u8]>,
    },
    /// Make all writes so far durable.
    Sync,
    /// Read these bytes back, past the caches, and compare.
    Verify {
        /// Bytes from the start of the header
        offset: u64,
        /// What must be there
        bytes: Arc<[u8]>,
    },
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
            .field("iterations", &self.iterations)
            .field("material_len", &self.material.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, bytes } => write!(f, "Write({offset}, {} bytes)", bytes.len()),
            Self::Sync => f.write_str("Sync"),
            Self::Verify { offset, bytes } => write!(f, "Verify({offset}, {} bytes)", bytes.len()),
        }
    }
}
