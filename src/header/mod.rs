//! LUKS headers: one view of keyslots and ciphers, whatever the format.
//!
//! Code that is particular to a format stays in its module; nothing above asks which one it is.

pub mod luks1;
pub mod luks2;
mod segment;
mod step;

use std::io;

pub use segment::Segment;
pub use step::{Sealed, SlotChange, Stage, Step};

use crate::crypto::{Argon2Variant, CipherSpec, HashAlg};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The header of a LUKS image.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "there is one for each image")]
pub enum Header {
    /// LUKS1
    Luks1(luks1::Header),
    /// LUKS2
    Luks2(luks2::Header),
}

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
    /// Argon2 (RFC 9106)
    Argon2 {
        /// Which one
        variant: Argon2Variant,
        /// Passes over the memory
        time: u32,
        /// Memory in KiB
        memory: u32,
        /// Lanes, which can be computed at once
        parallelism: u32,
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
        if bytes.starts_with(b"LUKS\xba\xbe\0\x02") {
            return luks2::Header::read(storage).map(Self::Luks2);
        }
        match luks1::Header::parse(bytes, len) {
            // Where there was a primary copy, there is still a secondary one.
            Err(error) if !is_luks1(bytes) => {
                if luks2::Header::is_behind(storage)? {
                    return luks2::Header::read(storage).map(Self::Luks2);
                }
                Err(error)
            }
            parsed => parsed.map(Self::Luks1),
        }
    }

    /// `LUKS1` or `LUKS2`
    pub fn format(&self) -> &'static str {
        match self {
            Self::Luks1(_) => "LUKS1",
            Self::Luks2(_) => "LUKS2",
        }
    }

    /// The keyslots, by index: all eight of LUKS1, and of LUKS2 those that there are. Without
    /// those that cannot be [used](Self::unusable).
    pub fn keyslots(&self) -> impl ExactSizeIterator<Item = Keyslot<'_>> {
        let keyslots: Vec<_> = match self {
            Self::Luks1(header) => header.keyslots().collect(),
            Self::Luks2(header) => header.keyslots().collect(),
        };
        keyslots.into_iter()
    }

    /// The keyslot of this index, if there is one.
    pub fn keyslot(&self, index: usize) -> Option<Keyslot<'_>> {
        self.keyslots().find(|keyslot| keyslot.index == index)
    }

    /// The keyslots that this crate cannot open, by index, and why.
    pub fn unusable(&self) -> Vec<(usize, &str)> {
        match self {
            Self::Luks1(_) => Vec::new(),
            Self::Luks2(header) => header.unusable().collect(),
        }
    }

    /// What a candidate for the volume key is checked against, if that is anything known.
    pub fn digest(&self) -> Option<Digest<'_>> {
        match self {
            Self::Luks1(header) => Some(header.digest()),
            Self::Luks2(header) => header.digest().ok(),
        }
    }

    /// The image's UUID, as it is written.
    pub fn uuid(&self) -> String {
        match self {
            Self::Luks1(header) => header.uuid(),
            Self::Luks2(header) => header.uuid(),
        }
    }

    /// Cipher of the payload; of LUKS2 that of its first segment, if it is any known.
    pub fn cipher(&self) -> Option<&CipherSpec> {
        match self {
            Self::Luks1(header) => Some(header.cipher()),
            Self::Luks2(header) => header.cipher().ok(),
        }
    }

    /// Start of the encrypted data in bytes.
    pub fn payload_offset(&self) -> u64 {
        match self {
            Self::Luks1(header) => header.payload_offset(),
            Self::Luks2(header) => header.payload_offset(),
        }
    }

    /// Where the encrypted data is in a storage of `storage_len` bytes, in the volume's order.
    pub fn segments(&self, storage_len: u64) -> Result<Vec<Segment>> {
        match self {
            Self::Luks1(header) => Ok(vec![header.segment(storage_len)?]),
            Self::Luks2(header) => header.segments(storage_len),
        }
    }

    /// How many bytes the volume in a storage of `storage_len` bytes has, whether or not it can be
    /// opened; `None` if the storage does not have them.
    pub fn volume_len(&self, storage_len: u64) -> Option<u64> {
        match self {
            Self::Luks1(header) => Some(header.segment(storage_len).ok()?.len),
            Self::Luks2(header) => header.volume_len(storage_len),
        }
    }

    /// What an interrupted amendment left behind.
    pub fn leftovers(&self) -> Vec<Leftover> {
        match self {
            Self::Luks1(header) => header.leftovers(),
            Self::Luks2(_) => Vec::new(),
        }
    }

    /// What is wrong with the header although it can be used: a damaged copy.
    pub fn warning(&self) -> Option<&str> {
        match self {
            Self::Luks1(_) => None,
            Self::Luks2(header) => header.warning(),
        }
    }

    /// What is particular to LUKS2, to show it.
    pub fn luks2(&self) -> Option<&luks2::Header> {
        match self {
            Self::Luks1(_) => None,
            Self::Luks2(header) => Some(header),
        }
    }

    /// Whether its keyslots can be changed.
    pub fn check_amendable(&self) -> Result<()> {
        match self {
            Self::Luks1(_) => Ok(()),
            Self::Luks2(_) => Err(not_amendable()),
        }
    }

    /// Whether the keyslot's area is as an erase leaves it.
    pub fn is_blank(&self, index: usize, storage: &dyn Storage) -> Result<bool> {
        match self {
            Self::Luks1(header) => header.is_blank(index, storage),
            Self::Luks2(_) => Ok(false),
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
            Self::Luks2(_) => Err(not_amendable()),
        }
    }

    /// Whether two headers are the same, byte for byte.
    pub(crate) fn same_bytes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Luks1(one), Self::Luks1(other)) => one.as_bytes() == other.as_bytes(),
            (Self::Luks2(one), Self::Luks2(other)) => {
                one.as_bytes() == other.as_bytes()
                    && one.metadata().text() == other.metadata().text()
            }
            _ => false,
        }
    }
}

fn is_luks1(bytes: &[u8]) -> bool {
    bytes.starts_with(b"LUKS\xba\xbe\0\x01")
}

fn not_amendable() -> Error {
    Error::new(ErrorKind::Unsupported, "amending LUKS2 images is not supported yet")
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
