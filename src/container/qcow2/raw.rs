//! The start of a qcow2 image, big endian (QEMU `docs/interop/qcow2.txt`, "Header").
//!
//! ```text
//!   0    4   8            16  20   24    32  36  40            48
//!   +----+---+------------+---+----+-----+---+---+-------------+
//!   |magi|ver|backing off.|len|bits|size |cry|l1 |  l1 offset  |
//!   +----+---+------------+---+----+-----+---+---+-------------+
//!   48             56   60  64              72
//!   +--------------+----+---+----------------+
//!   |refcount table|clus|sna|snapshots offset|
//!   +--------------+----+---+----------------+
//!  72             80         88        96  100  104    112   version 3
//!   +--------------+----------+---------+---+----+-+------+
//!   | incompatible |compatible|autoclear|ref|len |c| pad  |
//!   +--------------+----------+---------+---+----+-+------+
//! ```
//!
//! Header extensions follow at byte 72 in version 2, and at the header length in version 3.

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header as it is on disk. Version 2 ends before `incompatible`.
#[derive(Clone, Debug, Eq, FromBytes, Immutable, IntoBytes, KnownLayout, PartialEq, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader {
    /// `QFI\xfb`
    pub magic: [u8; 4],
    /// 2 or 3
    pub version: U32,
    /// First byte of the backing file's name, 0 without one
    pub backing_file_offset: U64,
    /// Length of the backing file's name in bytes
    pub backing_file_size: U32,
    /// Binary logarithm of the cluster size
    pub cluster_bits: U32,
    /// Length of the guest's disk in bytes
    pub size: U64,
    /// 0 none, 1 AES, 2 LUKS
    pub crypt_method: U32,
    /// Entries of the active L1 table
    pub l1_size: U32,
    /// First byte of the active L1 table
    pub l1_table_offset: U64,
    /// First byte of the refcount table
    pub refcount_table_offset: U64,
    /// Clusters of the refcount table
    pub refcount_table_clusters: U32,
    /// Number of internal snapshots
    pub nb_snapshots: U32,
    /// First byte of the snapshot table
    pub snapshots_offset: U64,
    /// Features without which the image cannot be read
    pub incompatible_features: U64,
    /// Features that may be ignored
    pub compatible_features: U64,
    /// Features that a writer which does not know them must clear
    pub autoclear_features: U64,
    /// Binary logarithm of the bits of a reference count
    pub refcount_order: U32,
    /// Length of the header in bytes
    pub header_length: U32,
    /// 0 zlib, 1 zstd
    pub compression_type: u8,
    pub padding: [u8; 7],
}

pub(super) const MAGIC: [u8; 4] = *b"QFI\xfb";
/// Length of the header of version 2
pub(super) const V2_LEN: usize = 72;
/// Shortest header of version 3, which ends before the compression type
pub(super) const V3_LEN: usize = 104;
/// Length of the fields known here
pub(super) const LEN: usize = 112;
/// Offset of [`RawHeader::autoclear_features`]
pub(super) const AUTOCLEAR_OFFSET: u64 = 88;

const _: () = assert!(size_of::<RawHeader>() == LEN);
const _: () = assert!(std::mem::offset_of!(RawHeader, incompatible_features) == V2_LEN);
const _: () = assert!(std::mem::offset_of!(RawHeader, autoclear_features) == 88);
const _: () = assert!(std::mem::offset_of!(RawHeader, compression_type) == V3_LEN);
