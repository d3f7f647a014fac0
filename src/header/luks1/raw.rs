//! The 592 bytes at the start of a LUKS1 image, big endian (LUKS On-Disk Format Specification
//! 1.2.3, figure 1; QEMU `docs/specs` and cryptsetup agree).
//!
//! ```text
//!   0    6  8            40            72           104 108 112      132      164 168       208
//!   +----+--+-------------+-------------+------------+---+---+--------+--------+---+---------+
//!   |magi|ve| cipher-name | cipher-mode | hash-spec  |pay|key| mk-dig | mk-salt|mki|  uuid   |
//!   +----+--+-------------+-------------+------------+---+---+--------+--------+---+---------+
//! 208 + 48 i, i = 0..7: a keyslot
//!   +------+----------+----------------------+-------------------+-------+
//!   |active|iterations|         salt         |key-material-offset|stripes|
//!   +------+----------+----------------------+-------------------+-------+
//! ```
//!
//! The entry of keyslot 6 is the only one that spans two sectors.

use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header as it is on disk.
#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    /// `LUKS\xba\xbe`
    pub magic: [u8; 6],
    /// 1
    pub version: U16,
    /// `aes`, NUL padded
    pub cipher_name: [u8; 32],
    /// `xts-plain64`, NUL padded
    pub cipher_mode: [u8; 32],
    /// Hash of PBKDF2 and of the anti-forensic split: `sha256`, NUL padded
    pub hash_spec: [u8; 32],
    /// Start of the encrypted data, in 512-byte sectors
    pub payload_offset: U32,
    /// Size of the volume key, in bytes
    pub key_bytes: U32,
    /// PBKDF2 digest that confirms the volume key
    pub mk_digest: [u8; 20],
    /// Salt of the digest
    pub mk_digest_salt: [u8; 32],
    /// PBKDF2 iterations of the digest
    pub mk_digest_iterations: U32,
    /// 36 characters, NUL padded
    pub uuid: [u8; 40],
    /// The keyslots
    pub keyslots: [RawKeyslot; KEYSLOTS],
}

/// One keyslot's entry in the header.
#[derive(Clone, FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct RawKeyslot {
    /// [`ACTIVE`] or [`INACTIVE`]
    pub state: U32,
    /// PBKDF2 iterations
    pub iterations: U32,
    /// PBKDF2 salt
    pub salt: [u8; 32],
    /// Start of the key material, in 512-byte sectors
    pub key_material_offset: U32,
    /// Anti-forensic stripes, 4000
    pub stripes: U32,
}

pub(super) const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";
pub(super) const ACTIVE: u32 = 0x00AC_71F3;
pub(super) const INACTIVE: u32 = 0x0000_DEAD;
pub(super) const KEYSLOTS: usize = 8;
pub(super) const HEADER_SIZE: usize = 592;
pub(super) const SECTOR: u64 = 512;

const _: () = assert!(size_of::<RawHeader>() == HEADER_SIZE);
const _: () = assert!(size_of::<RawKeyslot>() == 48);
