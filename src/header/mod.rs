//! LUKS headers: one view of keyslots and ciphers, whatever the format.
//!
//! Code that is particular to a format stays in its module; nothing above asks which one it is.

pub mod luks1;
mod segment;
mod step;

use std::io;

pub use segment::Segment;
pub use step::{Sealed, SlotChange, Stage, Step};

use crate::crypto::{CipherSpec, HashAlg};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The header of a LUKS image.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Header {
    /// LUKS1
    Luks1(luks1::Header),
}

/// One keyslot, active or not.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Keyslot<'a> {
    /// Index, from 0
    pub index: usize,
    /// Whether it holds the volume key
    pub active: bool,
    /// How its key is derived from a passphrase
    pub kdf: Kdf<'a>,
    /// Where its key material is
    pub area: Area,
    /// How its key material is encrypted
    pub encryption: &'a CipherSpec,
    /// Hash of the anti-forensic split
    pub af_hash: HashAlg,
    /// Stripes of the anti-forensic split
    pub stripes: u32,
}

/// How a key is derived from a passphrase.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Kdf<'a> {
    /// PBKDF2-HMAC (RFC 8018, section 5.2)
    Pbkdf2 {
        /// Hash of the HMAC
        hash: HashAlg,
        /// Iteration count
        iterations: u32,
        /// Salt
        salt: &'a [u8],
    },
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

/// A new volume key's digest, to [build](luks1::Header::build) a header with.
#[derive(Clone, Debug)]
pub struct NewDigest {
    /// Iteration count
    pub iterations: u32,
    /// Salt
    pub salt: [u8; 32],
    /// The first 20 bytes of the PBKDF2 output
    pub value: [u8; 20],
}

/// What an interrupted amendment left in a header. The image opens all the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Leftover {
    /// The keyslot is inactive, but its key material was not overwritten to the end.
    Wipe {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The keyslot was about to get the secret that the staging keyslot holds.
    Replace {
        /// Index of the keyslot
        keyslot: usize,
        /// Index of the keyslot that holds its new secret
        staging: usize,
    },
    /// Two active keyslots hold the same key material: one is a staging copy.
    Twins {
        /// Their indices, ascending
        keyslots: [usize; 2],
    },
}

impl Header {
    /// Reads and checks the header of an image.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        let len = storage.len().map_err(|e| Error::io("read the length", e))?;
        let mut bytes = [0; HEADER_READ];
        let bytes = match usize::try_from(len) {
            Ok(short) if short < HEADER_READ => &mut bytes[..short],
            _ => &mut bytes[..],
        };
        read_steady(storage, bytes).map_err(|e| Error::io("read the header", e))?;
        if bytes.starts_with(b"QFI\xfb") {
            return Err(Error::new(ErrorKind::Unsupported, "a qcow2 image is not supported yet"));
        }
        luks1::Header::parse(bytes, len).map(Self::Luks1)
    }

    /// `LUKS1`
    pub fn format(&self) -> &'static str {
        match self {
            Self::Luks1(_) => "LUKS1",
        }
    }

    /// All keyslots, by index.
    pub fn keyslots(&self) -> impl ExactSizeIterator<Item = Keyslot<'_>> {
        match self {
            Self::Luks1(header) => header.keyslots(),
        }
    }

    /// The keyslot of this index, if the format has so many.
    pub fn keyslot(&self, index: usize) -> Option<Keyslot<'_>> {
        self.keyslots().nth(index)
    }

    /// What a candidate for the volume key is checked against.
    pub fn digest(&self) -> Digest<'_> {
        match self {
            Self::Luks1(header) => header.digest(),
        }
    }

    /// The image's UUID, as it is written.
    pub fn uuid(&self) -> String {
        match self {
            Self::Luks1(header) => header.uuid(),
        }
    }

    /// Cipher of the payload.
    pub fn cipher(&self) -> &CipherSpec {
        match self {
            Self::Luks1(header) => header.cipher(),
        }
    }

    /// Start of the encrypted data in bytes.
    pub fn payload_offset(&self) -> u64 {
        match self {
            Self::Luks1(header) => header.payload_offset(),
        }
    }

    /// Where the encrypted data is in a storage of `storage_len` bytes, in the volume's order.
    pub fn segments(&self, storage_len: u64) -> Result<Vec<Segment>> {
        match self {
            Self::Luks1(header) => Ok(vec![header.segment(storage_len)?]),
        }
    }

    /// What an interrupted amendment left behind.
    pub fn leftovers(&self) -> Vec<Leftover> {
        match self {
            Self::Luks1(header) => header.leftovers(),
        }
    }

    /// Whether the keyslot's area is as an erase leaves it.
    pub fn is_blank(&self, index: usize, storage: &dyn Storage) -> Result<bool> {
        match self {
            Self::Luks1(header) => header.is_blank(index, storage),
        }
    }

    /// The writes that make `changes`, in stages, and the header as it is after them.
    ///
    /// Every keyslot may occur once, and must be in the state that its change starts from.
    pub fn lower(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        match self {
            Self::Luks1(header) => {
                let (stages, after) = header.lower(changes)?;
                Ok((stages, Self::Luks1(after)))
            }
        }
    }

    /// Whether two headers are the same, byte for byte.
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Luks1(one), Self::Luks1(other)) => one.as_bytes() == other.as_bytes(),
        }
    }
}

/// Reads the start of the image until two reads agree: an opening that takes no lock may meet a
/// writer half way.
fn read_steady(storage: &dyn Storage, bytes: &mut [u8]) -> io::Result<()> {
    storage.read_exact_at(bytes, 0)?;
    let mut again = vec![0; bytes.len()];
    for _ in 0..STEADY_READS {
        storage.read_exact_at(&mut again, 0)?;
        if again == bytes {
            return Ok(());
        }
        bytes.copy_from_slice(&again);
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing"))
}

/// As much as any probe or LUKS1 header needs.
const HEADER_READ: usize = 1024;
/// How often a header may change under us before we give up.
const STEADY_READS: usize = 16;
