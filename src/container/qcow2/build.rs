//! A new qcow2 image with a LUKS header.
//!
//! ```text
//! +--------+----------------+-----------------+----------+-------------+----------+------+
//! | header | refcount table | refcount blocks | L1 table | LUKS header | L2 tables| data |
//! +--------+----------------+-----------------+----------+-------------+----------+------+
//! ```
//!
//! Each part begins at a cluster. The refcount table has room for the whole disk, so it never moves.
//! L2 tables and data exist only if they are preallocated.

use std::ops::Range;

use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::{U32, U64};

use super::data::COPIED;
#[cfg(feature = "file")]
use super::data::set_count;
use super::extension;
use super::layout::{LARGEST_L1, LARGEST_REFCOUNT_TABLE};
use super::raw::{LEN, MAGIC, RawHeader, V2_LEN};
use crate::error::{Error, ErrorKind, Result};
#[cfg(feature = "file")]
use crate::storage::{Storage, pieces, transfer::put, zeroed};

/// Options of a new qcow2 image. The defaults are QEMU's.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Qcow2Options {
    /// Size of a cluster in bytes: a power of two from 512 to 2 MiB
    pub cluster_size: u64,
    /// Format version: 2 (QEMU's `compat=0.10`) or 3 (`compat=1.1`)
    pub version: u32,
    /// Bits of a reference count: 1, 2, 4, 8, 16, 32 or 64. Version 2 has 16
    pub refcount_bits: u32,
    /// Whether QEMU may update reference counts lazily. Not in version 2
    pub lazy_refcounts: bool,
    /// Name of the backing file, and its format
    pub backing_file: Option<(Vec<u8>, Vec<u8>)>,
    /// Whether clusters are allocated for the whole disk
    pub preallocated: bool,
}

impl Default for Qcow2Options {
    fn default() -> Self {
        Self {
            cluster_size: 65536,
            version: 3,
            refcount_bits: 16,
            lazy_refcounts: false,
            backing_file: None,
            preallocated: false,
        }
    }
}

/// Layout of a new image. Its tables are made when they are written.
#[derive(Debug)]
#[cfg_attr(not(feature = "file"), expect(dead_code, reason = "only files are created"))]
pub(crate) struct NewQcow2 {
    /// Length of the file in bytes
    pub len: u64,
    /// The place of the LUKS header
    pub crypto: Range<u64>,
    header: Vec<u8>,
    cluster: u64,
    tables: Vec<Table>,
    /// Place of the refcount blocks
    counts: u64,
    /// Binary logarithm of the bits of a reference count
    refcount_order: u32,
}

/// A table whose entries refer to clusters in a row.
#[derive(Debug)]
#[cfg_attr(not(feature = "file"), expect(dead_code, reason = "only files are created"))]
struct Table {
    /// Place of the table
    at: u64,
    /// Place of the first cluster
    first: u64,
    /// Number of clusters
    count: u64,
    flags: u64,
}

impl Qcow2Options {
    /// Checks the options, with QEMU's texts.
    pub(crate) fn check(&self) -> Result<()> {
        let text = if !self.cluster_size.is_power_of_two()
            || !(512..=2 << 20).contains(&self.cluster_size)
        {
            "Cluster size must be a power of two between 512 and 2048k"
        } else if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            "Refcount width must be a power of two and may not exceed 64 bits"
        } else if !(2..=3).contains(&self.version) {
            "a qcow2 image has version 2 or 3"
        } else if self.version == 2 && self.lazy_refcounts {
            "Lazy refcounts only supported with compatibility level 1.1 and above (use version=v3 or greater)"
        } else if self.version == 2 && self.refcount_bits != 16 {
            "Different refcount widths than 16 bits require compatibility level 1.1 or above (use version=v3 or greater)"
        } else if self.preallocated && self.backing_file.is_some() {
            "Backing file and preallocation can only be used at the same time if extended_l2 is on"
        } else {
            return Ok(());
        };
        Err(invalid(text))
    }

    /// Lays out an image with a disk of `size` bytes, and a LUKS header of `luks_len` bytes.
    pub(crate) fn build(&self, size: u64, luks_len: u64) -> Result<NewQcow2> {
        self.check()?;
        let cluster = self.cluster_size;
        let too_large = || invalid(format!("image size {size} is too large for qcow2"));
        let clusters = size.div_ceil(cluster);
        let l2_tables = clusters.div_ceil(cluster / 8);
        let l1_len = l2_tables.checked_mul(8).filter(|&len| len <= LARGEST_L1);
        let l1_len = l1_len.ok_or_else(too_large)?;
        let (l1, crypto) = (l1_len.div_ceil(cluster), luks_len.div_ceil(cluster));
        let allocated = if self.preallocated { l2_tables + clusters } else { 0 };
        let per_block = cluster * 8 / u64::from(self.refcount_bits);
        // Blocks and table count themselves; every round adds less than the one before.
        let (mut table, mut blocks) = (1, 1);
        loop {
            let fixed = 1 + table + blocks + l1 + crypto;
            let (needs, most) = (fixed + allocated, fixed + l2_tables + clusters);
            let needs_blocks = needs.div_ceil(per_block);
            let table_of = |blocks: u64| blocks.div_ceil(cluster / 8);
            // The largest disks do not fit a table of the length that QEMU permits.
            let longest = LARGEST_REFCOUNT_TABLE / cluster;
            let needs_table = table_of(most.div_ceil(per_block)).min(longest);
            let needs_table = needs_table.max(table_of(needs_blocks));
            if needs_blocks <= blocks && needs_table <= table {
                break;
            }
            (blocks, table) = (blocks.max(needs_blocks), table.max(needs_table));
            if table * cluster > LARGEST_REFCOUNT_TABLE {
                return Err(too_large());
            }
        }
        let at = |clusters: u64| clusters * cluster;
        let table_at = at(1);
        let blocks_at = table_at + at(table);
        let l1_at = blocks_at + at(blocks);
        let crypto_at = l1_at + at(l1);
        let l2_at = crypto_at + at(crypto);
        let used = 1 + table + blocks + l1 + crypto + allocated;
        let len = at(used);
        if i64::try_from(len).is_err() {
            return Err(too_large());
        }
        let crypto = crypto_at..crypto_at + luks_len;
        let mut raw = self.header(size, &crypto);
        raw.l1_size = U32::new(u32::try_from(l2_tables).map_err(|_| too_large())?);
        raw.l1_table_offset = U64::new(l1_at);
        raw.refcount_table_offset = U64::new(table_at);
        raw.refcount_table_clusters = U32::new(u32::try_from(table).map_err(|_| too_large())?);
        let mut tables = vec![Table { at: table_at, first: blocks_at, count: blocks, flags: 0 }];
        if self.preallocated {
            let data_at = l2_at + at(l2_tables);
            tables.push(Table { at: l1_at, first: l2_at, count: l2_tables, flags: COPIED });
            tables.push(Table { at: l2_at, first: data_at, count: clusters, flags: COPIED });
        }
        let header = self.header_bytes(raw, &crypto)?;
        let refcount_order = self.refcount_bits.ilog2();
        Ok(NewQcow2 { len, crypto, header, cluster, tables, counts: blocks_at, refcount_order })
    }

    fn header(&self, size: u64, crypto: &Range<u64>) -> RawHeader {
        debug_assert!(crypto.start.is_multiple_of(self.cluster_size));
        RawHeader {
            magic: MAGIC,
            version: U32::new(self.version),
            backing_file_offset: U64::new(0),
            backing_file_size: U32::new(0),
            cluster_bits: U32::new(self.cluster_size.ilog2()),
            size: U64::new(size),
            crypt_method: U32::new(2),
            l1_size: U32::new(0),
            l1_table_offset: U64::new(0),
            refcount_table_offset: U64::new(0),
            refcount_table_clusters: U32::new(0),
            nb_snapshots: U32::new(0),
            snapshots_offset: U64::new(0),
            incompatible_features: U64::new(0),
            compatible_features: U64::new(u64::from(self.lazy_refcounts)),
            autoclear_features: U64::new(0),
            refcount_order: U32::new(self.refcount_bits.ilog2()),
            header_length: U32::new(if self.version == 2 { 72 } else { 112 }),
            compression_type: 0,
            padding: [0; 7],
        }
    }

    /// The header with its extensions and the backing file's name.
    fn header_bytes(&self, mut raw: RawHeader, crypto: &Range<u64>) -> Result<Vec<u8>> {
        let mut extensions = Vec::new();
        let mut extension = |kind: u32, data: &[u8]| {
            extensions.extend_from_slice(&kind.to_be_bytes());
            extensions.extend_from_slice(&u32::try_from(data.len()).unwrap_or(0).to_be_bytes());
            extensions.extend_from_slice(data);
            extensions.resize(extensions.len().next_multiple_of(8), 0);
        };
        if let Some((_, format)) = &self.backing_file {
            extension(extension::BACKING_FORMAT, format);
        }
        let place = [crypto.start.to_be_bytes(), (crypto.end - crypto.start).to_be_bytes()];
        extension(extension::CRYPTO, place.as_flattened());
        extension(0, &[]);
        let start = if self.version == 2 { V2_LEN } else { LEN };
        let name: &[u8] = self.backing_file.as_ref().map_or(&[], |(name, _)| name);
        let name_at = start + extensions.len();
        if !name.is_empty() {
            if name.len() > 1023 || (name_at + name.len()) as u64 > self.cluster_size {
                return Err(invalid("Backing file name too long"));
            }
            raw.backing_file_offset = U64::new(name_at as u64);
            raw.backing_file_size = U32::new(u32::try_from(name.len()).unwrap_or(0));
        }
        let mut bytes = raw.as_bytes()[..start].to_vec();
        bytes.extend_from_slice(&extensions);
        bytes.extend_from_slice(name);
        Ok(bytes)
    }
}

#[cfg(feature = "file")]
impl NewQcow2 {
    /// Writes everything but the LUKS header to a file of zeros.
    pub fn write(&self, storage: &dyn Storage) -> Result<()> {
        put(storage, &self.header, 0)?;
        self.tables.iter().try_for_each(|table| table.write(storage, self.cluster))?;
        // Every cluster of the file is used once.
        let order = self.refcount_order;
        let mut buffer = zeroed(PIECE * 8).map_err(|e| Error::io("allocate the refcounts", e))?;
        for (first, count) in pieces(0..self.len / self.cluster, PIECE) {
            let bytes = &mut buffer[..(count << order).div_ceil(8)];
            bytes.fill(0);
            (0..count).for_each(|index| set_count(bytes, index, order, 1));
            put(storage, bytes, self.counts + ((first << order) >> 3))?;
        }
        Ok(())
    }
}

#[cfg(feature = "file")]
impl Table {
    fn write(&self, storage: &dyn Storage, cluster: u64) -> Result<()> {
        pieces(0..self.count, PIECE).try_for_each(|(start, count)| {
            let entries = (start..start + count as u64).map(|it| self.first + it * cluster);
            let bytes: Vec<u8> =
                entries.flat_map(|offset| (offset | self.flags).to_be_bytes()).collect();
            put(storage, &bytes, self.at + 8 * start)
        })
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Entries or counts written at once: a multiple of 8, so that they are whole bytes
#[cfg(feature = "file")]
const PIECE: usize = 1 << 16;
