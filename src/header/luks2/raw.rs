//! The binary header at the start of each copy, 4096 bytes, big endian (LUKS2 On-Disk Format
//! Specification 1.1.3, section 2.1).
//!
//! ```text
//!    0    6  8         16      24          72             104      168      208         256
//!    +----+--+---------+-------+-----------+--------------+--------+--------+-----------+
//!    |magi|ve| hdr-size| seqid |   label   | checksum-alg |  salt  |  uuid  | subsystem |
//!    +----+--+---------+-------+-----------+--------------+--------+--------+-----------+
//!  256          264              448            512                                 4096
//!    +----------+----------------+--------------+--------------------------------------+
//!    |hdr-offset|    padding     |   checksum   |               padding                |
//!    +----------+----------------+--------------+--------------------------------------+
//! 4096                                                                           hdr-size
//!    +---------------------------------------------------------------------------------+
//!    | the JSON area: text, and NULs to its end                                        |
//!    +---------------------------------------------------------------------------------+
//! ```
//!
//! The primary copy is at byte 0, the secondary at byte `hdr-size`. The areas of keyslots begin at
//! byte 2 × `hdr-size`.

use std::mem::offset_of;
use std::ops::Range;

use zerocopy::byteorder::big_endian::{U16, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::corrupt;
use crate::crypto::HashAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::text;

/// The binary header as it is on disk.
#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    /// [`MAGIC`] of the copy
    pub magic: [u8; 6],
    /// 2
    pub version: U16,
    /// Length of a copy in bytes, including its JSON area
    pub hdr_size: U64,
    /// Sequence number, incremented by every write of the metadata
    pub seqid: U64,
    /// NUL padded
    pub label: [u8; 48],
    /// `sha256`, NUL padded
    pub checksum_alg: [u8; 32],
    /// Random bytes, different in each copy
    pub salt: [u8; 64],
    /// 36 characters, NUL padded
    pub uuid: [u8; 40],
    /// NUL padded
    pub subsystem: [u8; 48],
    /// Offset of this copy, in bytes from the start of the device
    pub hdr_offset: U64,
    /// Unused
    pub padding: [u8; 184],
    /// Hash of the whole copy, with zeros in place of the checksum
    pub checksum: [u8; 64],
    /// Unused
    pub padding4096: [u8; 3584],
}

/// One of the two copies of the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Which {
    /// Copy at byte 0
    Primary,
    /// Copy after the primary one
    Secondary,
}

impl Which {
    /// Name of the copy: `primary` or `secondary`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Secondary => "secondary",
        }
    }

    /// The other copy.
    pub(super) fn other(self) -> Self {
        match self {
            Self::Primary => Self::Secondary,
            Self::Secondary => Self::Primary,
        }
    }

    pub(super) fn magic(self) -> &'static [u8; 6] {
        match self {
            Self::Primary => b"LUKS\xba\xbe",
            Self::Secondary => b"SKUL\xba\xbe",
        }
    }
}

impl RawHeader {
    /// Range of the checksum within a copy. It lies entirely in the first sector
    pub(super) const CHECKSUM: Range<usize> =
        offset_of!(Self, checksum)..offset_of!(Self, checksum) + 64;

    /// Salt in the bytes of a copy.
    pub(super) fn salt_of(copy: &[u8]) -> Option<[u8; 64]> {
        Self::ref_from_prefix(copy).ok().map(|(raw, _)| raw.salt)
    }

    /// Creates a blank binary header, to be completed and [sealed](Self::sealed).
    pub(super) fn blank(hdr_size: u64) -> Self {
        let mut raw = Self::new_zeroed();
        raw.version = VERSION.into();
        raw.hdr_size = hdr_size.into();
        raw.seqid = 1.into();
        raw.checksum_alg[..CHECKSUM_ALG.len()].copy_from_slice(CHECKSUM_ALG);
        raw
    }

    /// Parses the binary header at byte `offset` of the image, with all checks except the checksum.
    pub(super) fn parse(bytes: &[u8], which: Which, offset: u64) -> Result<Self> {
        let Ok((raw, _)) = Self::read_from_prefix(bytes) else {
            return Err(corrupt("the image is truncated"));
        };
        if raw.magic != *which.magic() {
            return Err(corrupt("the magic is wrong"));
        }
        let (version, size, at) = (raw.version.get(), raw.hdr_size.get(), raw.hdr_offset.get());
        if version != VERSION {
            let text = format!("LUKS version {version} is not supported");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        if at != offset {
            return Err(corrupt(format!("hdr_offset is {at}, but the copy is at byte {offset}")));
        }
        if !HDR_SIZES.contains(&size) {
            let text = format!("hdr_size is {size}: it must be a power of 2 from 16384 to 4194304");
            return Err(corrupt(text));
        }
        if which == Which::Secondary && size != offset {
            return Err(corrupt(format!("hdr_size is {size}, but the copy is at byte {offset}")));
        }
        Ok(raw)
    }

    /// Completes the header for this copy, including the checksum of the header and `json_area`.
    pub(super) fn sealed(
        &self,
        which: Which,
        salt: [u8; 64],
        json_area: &[u8],
    ) -> Result<Box<Self>> {
        let mut raw = Box::new(self.clone());
        raw.magic = *which.magic();
        raw.salt = salt;
        raw.hdr_offset = match which {
            Which::Primary => 0.into(),
            Which::Secondary => self.hdr_size,
        };
        raw.checksum = [0; 64];
        let digest = raw.checksum_alg()?.digest(&[raw.as_bytes(), json_area]);
        raw.checksum[..digest.len()].copy_from_slice(&digest);
        Ok(raw)
    }

    /// Verifies the checksum of the copy that consists of this header and `json_area`.
    pub(super) fn verify(&self, json_area: &[u8]) -> Result<()> {
        let alg = self.checksum_alg()?;
        let mut zeroed = self.clone();
        zeroed.checksum = [0; 64];
        let digest = alg.digest(&[zeroed.as_bytes(), json_area]);
        // The bytes after a shorter digest are unused.
        if self.checksum.starts_with(&digest) {
            return Ok(());
        }
        Err(corrupt("the checksum is wrong"))
    }

    fn checksum_alg(&self) -> Result<HashAlg> {
        let name = text(&self.checksum_alg);
        HashAlg::parse(&name.to_ascii_lowercase()).map_err(|_| {
            let text = format!("checksum_alg '{}' is not supported", name.escape_debug());
            Error::new(ErrorKind::Unsupported, text)
        })
    }
}

const VERSION: u16 = 2;
const CHECKSUM_ALG: &[u8] = b"sha256";
/// Length of the binary header
pub(super) const BINARY_SIZE: usize = 4096;
/// Possible lengths of a copy, which are also the possible offsets of the secondary copy.
pub(crate) const HDR_SIZES: [u64; 9] =
    [0x4000, 0x8000, 0x1_0000, 0x2_0000, 0x4_0000, 0x8_0000, 0x10_0000, 0x20_0000, 0x40_0000];

const _: () = assert!(size_of::<RawHeader>() == BINARY_SIZE);
const _: () = assert!(RawHeader::CHECKSUM.end == 512);
