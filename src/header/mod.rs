//! LUKS headers: one view of keyslots and ciphers, whatever the format.
//!
//! Code that is particular to a format stays in its module; nothing above asks which one it is.

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
pub(crate) use backup::Present;
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
    /// LUKS1: two active keyslots hold the same key material.
    Twins {
        /// Index of the keyslot that stays
        keyslot: usize,
        /// Index of the staging copy
        staging: usize,
    },
    /// LUKS1: a replacement was interrupted before the old secret was taken out of its keyslot, so
    /// both secrets open the image.
    Staging {
        /// Index of the keyslot that was to be replaced
        keyslot: usize,
        /// Index of the keyslot that holds the new secret
        staging: usize,
    },
    /// LUKS2: an area that no keyslot has any more was not overwritten to the end.
    Area(Area),
}

impl Header {
    /// Reads and checks the header of an image that is to be repaired: one whose magic is erased, too.
    pub fn read_to_repair(storage: &dyn Storage) -> Result<Self> {
        Self::read(storage).or_else(|error| {
            luks2::Luks2Header::read_erased(storage)?.map(Self::Luks2).ok_or(error)
        })
    }

    /// Reads and checks the header of an image, whether or not its payload is in the storage.
    pub fn read(storage: &dyn Storage) -> Result<Self> {
        Self::read_start(storage, Some(length(storage)?))
    }

    /// The same, where the areas of LUKS1 keyslots must end by byte `areas_end`. A header backup need not
    /// have those of inactive keyslots, so it has no such end.
    fn read_start(storage: &dyn Storage, areas_end: Option<u64>) -> Result<Self> {
        let len = length(storage)?;
        let mut bytes = [0; HEADER_READ];
        let bytes = match usize::try_from(len) {
            Ok(short) if short < HEADER_READ => &mut bytes[..short],
            _ => &mut bytes[..],
        };
        read_steady(storage, bytes).map_err(|e| Error::failed(Operation::Read, "the header", e))?;
        // A LUKS2 header that was there before must not count.
        if bytes.starts_with(b"QFI\xfb") {
            return Err(Error::new(ErrorKind::Unsupported, "a qcow2 image is not supported yet"));
        }
        if bytes.starts_with(b"LUKS\xba\xbe\0\x02") {
            return luks2::Luks2Header::read(storage).map(Self::Luks2);
        }
        match luks1::Luks1Header::parse(bytes, areas_end) {
            // Where there was a primary copy, there is still a secondary one.
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

    /// The keyslots, by index: all eight of LUKS1, and of LUKS2 those that there are. Without
    /// those that cannot be [used](Self::unusable) and those that are [damaged](Self::damaged).
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

    /// Index of the keyslot whose area holds this byte.
    pub(crate) fn keyslot_at(&self, offset: u64) -> Option<usize> {
        let holds = |area: &Area| {
            offset.checked_sub(area.offset).is_some_and(|within| within < area.len as u64)
        };
        self.keyslots().find(|keyslot| holds(&keyslot.area)).map(|keyslot| keyslot.index)
    }

    /// The keyslots that this crate cannot open, by index, and why.
    pub fn unusable(&self) -> Vec<(usize, &str)> {
        match self {
            Self::Luks1(header) => header.unusable(),
            Self::Luks2(header) => header.unusable().collect(),
        }
    }

    /// LUKS1: keyslots whose entries are damaged, by index, and their faults. They are not active.
    pub fn damaged(&self) -> Vec<(usize, &str)> {
        match self {
            Self::Luks1(header) => header.damaged().collect(),
            Self::Luks2(_) => Vec::new(),
        }
    }

    /// Refuses a header whose keyslots this crate cannot open for their cipher or hash, which a
    /// LUKS1 header has one of.
    ///
    /// [`ErrorKind::Unsupported`]
    pub fn check_supported(&self) -> Result<()> {
        match self {
            Self::Luks1(header) => header.check_supported(),
            Self::Luks2(_) => Ok(()),
        }
    }

    /// What a candidate for the volume key is checked against, if that is anything known.
    pub fn digest(&self) -> Option<Digest<'_>> {
        match self {
            Self::Luks1(header) => header.digest(),
            Self::Luks2(header) => header.digest().ok(),
        }
    }

    /// The digests of keys that this crate can check, by number. LUKS1 has one, with the number 0.
    pub fn digests(&self) -> Vec<(u32, Digest<'_>)> {
        match self {
            Self::Luks1(header) => header.digest().map(|digest| (0, digest)).into_iter().collect(),
            Self::Luks2(header) => {
                let digests = header.metadata().digests().iter();
                digests.filter_map(|it| Some((it.number, it.digest().ok()?))).collect()
            }
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

    /// Whether the header is detached: the encrypted data begins at byte 0, so it is in another
    /// storage than the header.
    pub fn is_detached(&self) -> bool {
        self.payload_offset() == 0
    }

    /// Where the encrypted data is in a storage of `storage_len` bytes, in the volume's order. If the
    /// header is [detached](Self::is_detached), that is not the storage of the header.
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
            Self::Luks1(header) => header.payload_len(storage_len).ok(),
            Self::Luks2(header) => header.volume_len(storage_len),
        }
    }

    /// What an interrupted amendment left behind.
    pub fn leftovers(&self) -> Vec<Leftover> {
        match self {
            Self::Luks1(header) => header.leftovers(),
            Self::Luks2(header) => header.leftovers(),
        }
    }

    /// What is wrong with the header although it can be used: a damaged copy.
    pub fn warning(&self) -> Option<&str> {
        match self {
            Self::Luks1(_) => None,
            Self::Luks2(header) => header.warning(),
        }
    }

    /// What is particular to LUKS1, to show it.
    pub fn luks1(&self) -> Option<&luks1::Luks1Header> {
        match self {
            Self::Luks1(header) => Some(header),
            Self::Luks2(_) => None,
        }
    }

    /// What is particular to LUKS2, to show it.
    pub fn luks2(&self) -> Option<&luks2::Luks2Header> {
        match self {
            Self::Luks1(_) => None,
            Self::Luks2(header) => Some(header),
        }
    }

    /// Whether the keyslot's area is as an erase leaves it.
    pub fn is_blank(&self, index: usize, storage: &dyn Storage) -> Result<bool> {
        match self {
            Self::Luks1(header) => header.is_blank(index, storage),
            Self::Luks2(_) => Ok(false),
        }
    }

    /// Whether two readings found the same: every copy byte for byte, which of them counts, and what
    /// is wrong with the other. A judgement of one holds for the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            // Whether an area is in the file is part of the judgement.
            (Self::Luks1(one), Self::Luks1(other)) => {
                one.as_bytes() == other.as_bytes() && one.damaged().eq(other.damaged())
            }
            (Self::Luks2(one), Self::Luks2(other)) => one.is_same(other),
            _ => false,
        }
    }
}

/// The characters of a NUL padded field. What would not print on one line is replaced.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    let printable = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    String::from_utf8_lossy(&field[..end]).chars().map(printable).collect()
}

/// Length of one keyslot's key material in bytes: `key_size` times 4000 stripes, to the end of the
/// last sector.
pub(crate) fn material_len(key_size: u32) -> u64 {
    let sector = SectorCipher::SECTOR_SIZE as u64;
    (u64::from(key_size) * u64::from(af::STRIPES)).next_multiple_of(sector)
}

fn is_luks1(bytes: &[u8]) -> bool {
    bytes.starts_with(b"LUKS\xba\xbe\0\x01")
}

/// Reads the start of the image until two reads agree: an opening that takes no lock may meet a
/// writer half way.
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

/// As much as any probe or LUKS1 header needs.
const HEADER_READ: usize = 1024;
/// As much as is compared at once.
const PIECE: usize = 1 << 16;
/// How often a header may change under us before we give up.
const STEADY_READS: usize = 16;
