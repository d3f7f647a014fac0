//! LUKS headers, with a view of keyslots and ciphers that does not depend on the format.
//!
//! Code for one format stays in that format's module. Callers do not match on the format.

mod backup;
mod change;
mod cipher;
mod digest;
mod edit;
pub mod luks1;
pub mod luks2;
mod restore;
mod segment;
mod step;
mod view;

use std::io;

pub use backup::Backup;
pub(crate) use backup::{Present, digest as digest_of_start};
pub use digest::OwnedDigest;
pub use edit::Edit;
pub use restore::Fate;
pub(crate) use restore::{Lowered, lower_restore};
pub use segment::Segment;
pub use step::Staging;
#[doc(hidden)]
pub use step::{Fill, Scheme, Sealed, SlotChange, Stage, Step};
pub use view::{Area, Digest, Kdf, Keyslot, Priority};
#[doc(hidden)]
pub use view::{HeldKey, Occupant, Template};

use crate::crypto::{CipherSpec, SectorCipher, af};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::transfer::length;
use crate::storage::{Storage, zeroed};

/// The header of a LUKS image.
#[derive(Clone, Debug)]
#[non_exhaustive]
#[allow(clippy::large_enum_variant, reason = "an image has one")]
pub enum Header {
    /// LUKS1
    Luks1(luks1::Luks1Header),
    /// LUKS2
    Luks2(luks2::Luks2Header),
}

/// Trace of an interrupted amendment in a header. The image still opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Leftover {
    /// The keyslot is inactive, but its key material is not fully overwritten.
    Wipe {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The keyslot is inactive and waits for the secret that the staging keyslot holds.
    Replace {
        /// Index of the keyslot
        keyslot: usize,
        /// Index of the keyslot that holds its new secret
        staging: usize,
    },
    /// LUKS1: two active keyslots hold the same key material.
    Twins {
        /// Index of the keyslot to keep
        keyslot: usize,
        /// Index of the staging copy
        staging: usize,
    },
    /// LUKS1: a replacement was interrupted before the old secret was removed from its keyslot, so
    /// both secrets open the image.
    Staging {
        /// Index of the keyslot with the old secret
        keyslot: usize,
        /// Index of the keyslot that holds the new secret
        staging: usize,
    },
    /// LUKS2: an area that no keyslot uses any more is not fully overwritten.
    Area(Area),
}

impl Header {
    /// Reads and checks the header of an image to repair. Accepts a header with an erased magic.
    pub fn read_to_repair(storage: &dyn Storage) -> Result<Self> {
        Self::read(storage).or_else(|error| {
            luks2::Luks2Header::read_erased(storage)?.map(Self::Luks2).ok_or(error)
        })
    }

    /// Reads and checks the header of an image. The payload need not be in the storage.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        Self::read_start(storage, true)
    }

    /// Reads and checks a header. The areas of all LUKS1 keyslots must be in the storage if it
    /// `has_areas`. A header backup may lack those of inactive keyslots.
    fn read_start(storage: &dyn Storage, has_areas: bool) -> Result<Self> {
        let len = length(storage)?;
        let mut bytes = [0; HEADER_READ];
        let bytes = match usize::try_from(len) {
            Ok(short) if short < HEADER_READ => &mut bytes[..short],
            _ => &mut bytes[..],
        };
        read_steady(storage, bytes).map_err(|e| Error::failed(Operation::Read, "the header", e))?;
        // Checked first, so that the remains of a LUKS2 header behind a qcow2 header do not count.
        if bytes.starts_with(b"QFI\xfb") {
            return Err(Error::new(ErrorKind::NotLuks, "Volume is not in LUKS format"));
        }
        if bytes.starts_with(b"LUKS\xba\xbe\0\x02") {
            return luks2::Luks2Header::read(storage).map(Self::Luks2);
        }
        match luks1::Luks1Header::parse(bytes, has_areas.then_some(len)) {
            // The secondary copy may have survived the primary one.
            Err(error) if !is_luks1(bytes) => {
                if luks2::Luks2Header::is_behind(storage, error.kind() != ErrorKind::NotLuks)? {
                    return luks2::Luks2Header::read(storage).map(Self::Luks2);
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

    /// Keyslots, by index: all eight of LUKS1, or the existing ones of LUKS2. Leaves out keyslots that
    /// are [unusable](Self::unusable) or [damaged](Self::damaged).
    pub fn keyslots(&self) -> impl ExactSizeIterator<Item = Keyslot<'_>> {
        let keyslots: Vec<_> = match self {
            Self::Luks1(header) => header.keyslots().collect(),
            Self::Luks2(header) => header.keyslots().collect(),
        };
        keyslots.into_iter()
    }

    /// Keyslot with this index, if it exists.
    pub fn keyslot(&self, index: usize) -> Option<Keyslot<'_>> {
        self.keyslots().find(|keyslot| keyslot.index == index)
    }

    /// Index of the keyslot whose area contains this byte.
    pub(crate) fn keyslot_at(&self, offset: u64) -> Option<usize> {
        let holds = |area: &Area| {
            offset.checked_sub(area.offset).is_some_and(|within| within < area.len as u64)
        };
        self.keyslots().find(|keyslot| holds(&keyslot.area)).map(|keyslot| keyslot.index)
    }

    /// Keyslots that this crate cannot open, by index, with the reasons.
    pub fn unusable(&self) -> Vec<(usize, &str)> {
        match self {
            Self::Luks1(header) => header.unusable(),
            Self::Luks2(header) => header.unusable().collect(),
        }
    }

    /// LUKS1: inactive keyslots whose entries are damaged, by index, with the faults.
    pub fn damaged(&self) -> Vec<(usize, &str)> {
        match self {
            Self::Luks1(header) => header.damaged().collect(),
            Self::Luks2(_) => Vec::new(),
        }
    }

    /// Checks the cipher and hash of a LUKS1 header, which apply to all of its keyslots.
    ///
    /// Fails with [`ErrorKind::Unsupported`] if this crate does not support them.
    pub fn check_supported(&self) -> Result<()> {
        match self {
            Self::Luks1(header) => header.check_supported(),
            Self::Luks2(_) => Ok(()),
        }
    }

    /// Digest of the volume key, if it is of a supported type.
    pub fn digest(&self) -> Option<Digest<'_>> {
        match self {
            Self::Luks1(header) => header.digest(),
            Self::Luks2(header) => header.digest().ok(),
        }
    }

    /// Digests that this crate supports, by number. The only digest of LUKS1 has the number 0.
    pub fn digests(&self) -> Vec<(u32, Digest<'_>)> {
        match self {
            Self::Luks1(header) => header.digest().map(|digest| (0, digest)).into_iter().collect(),
            Self::Luks2(header) => {
                let digests = header.metadata().digests().iter();
                digests.filter_map(|it| Some((it.number, it.digest().ok()?))).collect()
            }
        }
    }

    /// UUID as stored in the header.
    pub fn uuid(&self) -> String {
        match self {
            Self::Luks1(header) => header.uuid(),
            Self::Luks2(header) => header.uuid(),
        }
    }

    /// Cipher of the payload, if supported. In LUKS2, the cipher of the first segment.
    pub fn cipher(&self) -> Option<&CipherSpec> {
        match self {
            Self::Luks1(header) => header.cipher(),
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

    /// Whether the header is detached. The encrypted data of a detached header begins at byte 0 of
    /// another storage.
    pub fn is_detached(&self) -> bool {
        self.payload_offset() == 0
    }

    /// Traces of interrupted amendments.
    pub fn leftovers(&self) -> Vec<Leftover> {
        match self {
            Self::Luks1(header) => header.leftovers(),
            Self::Luks2(header) => header.leftovers(),
        }
    }

    /// Warning about a header that is usable but has a damaged or older copy.
    pub fn warning(&self) -> Option<&str> {
        match self {
            Self::Luks1(_) => None,
            Self::Luks2(header) => header.warning(),
        }
    }

    /// LUKS1 header, for details of that format.
    pub fn luks1(&self) -> Option<&luks1::Luks1Header> {
        match self {
            Self::Luks1(header) => Some(header),
            Self::Luks2(_) => None,
        }
    }

    /// LUKS2 header, for details of that format.
    pub fn luks2(&self) -> Option<&luks2::Luks2Header> {
        match self {
            Self::Luks1(_) => None,
            Self::Luks2(header) => Some(header),
        }
    }

    /// Whether the keyslot's area is in the state that an erase leaves.
    pub fn is_blank(&self, index: usize, storage: &dyn Storage) -> Result<bool> {
        match self {
            Self::Luks1(header) => header.is_blank(index, storage),
            Self::Luks2(_) => Ok(false),
        }
    }

    /// Whether two reads found the same header: the same bytes in every copy, the same valid copy, and
    /// the same fault in the other. Decisions made on one header then hold for the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // An area outside the file is damage, although the header's bytes are the same.
            (Self::Luks1(one), Self::Luks1(other)) => {
                one.as_bytes() == other.as_bytes() && one.damaged().eq(other.damaged())
            }
            (Self::Luks2(one), Self::Luks2(other)) => one.is_same(other),
            _ => false,
        }
    }
}

/// Text of a NUL padded field, with control characters replaced.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(&field[..end]).chars().map(printable).collect()
}

/// Length of one keyslot's key material in bytes: `key_size` times 4000 stripes, rounded up to a
/// sector.
pub(crate) fn material_len(key_size: u32) -> u64 {
    let sector = SectorCipher::SECTOR_SIZE as u64;
    (u64::from(key_size) * u64::from(af::STRIPES)).next_multiple_of(sector)
}

fn is_luks1(bytes: &[u8]) -> bool {
    bytes.starts_with(b"LUKS\xba\xbe\0\x01")
}

/// Reads the start of the image until two reads agree, because a reader without a lock may run during
/// a write.
fn read_steady(storage: &dyn Storage, bytes: &mut [u8]) -> io::Result<()> {
    storage.read_exact_at(bytes, 0)?;
    let mut again = zeroed(bytes.len().min(PIECE))?;
    for _ in 0..STEADY_READS {
        let (mut is_steady, mut offset) = (true, 0);
        for piece in bytes.chunks_mut(PIECE) {
            let again = &mut again[..piece.len()];
            storage.read_exact_at(again, offset)?;
            if again != piece {
                piece.copy_from_slice(again);
                is_steady = false;
            }
            offset += piece.len() as u64;
        }
        if is_steady {
            return Ok(());
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing"))
}

/// Bytes to read, enough for every probe and for a LUKS1 header.
const HEADER_READ: usize = 1024;
/// Bytes that are compared at once.
const PIECE: usize = 1 << 16;
/// Reads after which a header that keeps changing is an error.
const STEADY_READS: usize = 16;
