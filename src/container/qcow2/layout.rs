//! Checks of the header's fields against each other and against the length of the file.
//!
//! The checks and their texts are QEMU's (`qcow2_do_open` and `qcow2_read_extensions`), in 64-bit
//! arithmetic. QEMU does not compare the LUKS header's place with the other tables or with the end
//! of the file, and takes the last of several LUKS headers: these are refused here, because a
//! keyslot written there would destroy the image.

use std::ops::Range;

use super::extension::{self, Extension};
use super::raw::RawHeader;
use super::{corrupt, unsupported};
use crate::error::Result;

/// Incompatible features
pub(super) const DIRTY: u64 = 1;
pub(super) const CORRUPT: u64 = 1 << 1;
pub(super) const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
pub(super) const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | DATA_FILE | COMPRESSION | EXTENDED_L2;
/// Autoclear features
const BITMAPS: u64 = 1;
pub(super) const DATA_FILE_RAW: u64 = 1 << 1;
pub(super) const KNOWN_AUTOCLEAR: u64 = BITMAPS | DATA_FILE_RAW;

/// Checks the fields that the meaning of the others depends on.
pub(super) fn check_fixed(raw: &RawHeader) -> Result<()> {
    let bits = raw.cluster_bits.get();
    if !(9..=21).contains(&bits) {
        return Err(unsupported(format!("Unsupported cluster size: 2^{bits}")));
    }
    if u64::from(raw.header_length.get()) > 1 << bits {
        return Err(corrupt("qcow2 header exceeds cluster size"));
    }
    let unknown = raw.incompatible_features.get() & !KNOWN;
    if unknown != 0 {
        let text =
            format!("Unsupported qcow2 feature(s): Unknown incompatible feature: {unknown:x}");
        return Err(unsupported(text));
    }
    Ok(())
}

/// The LUKS header's place that the crypto extension names.
pub(super) fn crypto_area(
    raw: &RawHeader,
    extensions: &[Extension],
    data: Option<&[u8]>,
) -> Result<Option<Range<u64>>> {
    let method = raw.crypt_method.get();
    if method > 2 {
        return Err(unsupported(format!("Unsupported encryption method {method}")));
    }
    let Some(data) = data else {
        if method == 2 {
            return Err(corrupt("Missing CRYPTO header for crypt method 2"));
        }
        return Ok(None);
    };
    if method != 2 {
        let text = "CRYPTO header extension only expected with LUKS encryption method";
        return Err(corrupt(text));
    }
    let Ok([offset, len]) = <[u8; 16]>::try_from(data).map(|data| {
        let field = |i: usize| u64::from_be_bytes(std::array::from_fn(|byte| data[i + byte]));
        [field(0), field(8)]
    }) else {
        let len = data.len();
        let text = format!("CRYPTO header extension size {len}, but expected size 16");
        return Err(corrupt(text));
    };
    if extensions.iter().filter(|it| it.kind == extension::CRYPTO).count() > 1 {
        return Err(corrupt("the qcow2 header has two CRYPTO extensions"));
    }
    let cluster = 1_u64 << raw.cluster_bits.get();
    if !offset.is_multiple_of(cluster) {
        return Err(corrupt(format!(
            "Encryption header offset '{offset}' is not a multiple of cluster size '{cluster}'"
        )));
    }
    let end = offset.checked_add(len).ok_or_else(|| {
        corrupt(format!("the LUKS header has {len} bytes at byte {offset}, more than any file"))
    })?;
    Ok(Some(offset..end))
}

/// Checks the places of all tables that the header names.
pub(super) fn check(raw: &RawHeader, crypto: Option<&Range<u64>>, file_len: u64) -> Result<()> {
    if raw.refcount_order.get() > 6 {
        let text = "Reference count entry width too large; may not exceed 64 bits";
        return Err(corrupt(text));
    }
    if raw.compression_type > 1 {
        let kind = raw.compression_type;
        return Err(unsupported(format!("unknown compression type {kind}")));
    }
    if raw.incompatible_features.get() & EXTENDED_L2 != 0 && raw.cluster_bits.get() < 14 {
        return Err(corrupt("clusters are too small for extended L2 entries"));
    }
    let tables = tables(raw)?;
    let Some(crypto) = crypto else { return Ok(()) };
    let (offset, end) = (crypto.start, crypto.end);
    if end > file_len {
        let text = format!("the LUKS header ends at byte {end}, the file at byte {file_len}");
        return Err(corrupt(text).with_hint("the image is truncated"));
    }
    for Table { name, range } in tables {
        if range.start < end && offset < range.end {
            return Err(corrupt(format!(
                "the LUKS header at byte {offset} overlaps the {name} at byte {}",
                range.start
            )));
        }
    }
    Ok(())
}

/// A table that the header names.
struct Table {
    name: &'static str,
    range: Range<u64>,
}

/// The ranges that the header names, which hold no guest data, each with its name.
pub(super) fn reserved(
    raw: &RawHeader,
    crypto: Option<Range<u64>>,
) -> Result<Vec<(&'static str, Range<u64>)>> {
    let tables = tables(raw)?.into_iter().map(|Table { name, range }| (name, range));
    Ok(tables.chain(crypto.map(|range| ("LUKS header", range))).collect())
}

/// The header and the tables that it names, with QEMU's checks of each.
fn tables(raw: &RawHeader) -> Result<Vec<Table>> {
    let cluster = 1_u64 << raw.cluster_bits.get();
    let table = |name: &'static str, title: &str, offset: u64, len: u64| {
        let end = offset.checked_add(len).filter(|&end| i64::try_from(end).is_ok());
        match end {
            Some(end) if offset.is_multiple_of(cluster) => Ok(Table { name, range: offset..end }),
            _ => Err(corrupt(format!("{title} offset invalid"))
                .with_hint(format!("it begins at byte {offset}"))),
        }
    };
    let refcount = u64::from(raw.refcount_table_clusters.get()) * cluster;
    if refcount == 0 {
        return Err(corrupt("Image does not contain a reference count table"));
    }
    if refcount > LARGEST_REFCOUNT_TABLE {
        return Err(corrupt("Reference count table too large"));
    }
    let l1_len = u64::from(raw.l1_size.get()) * 8;
    if l1_len > LARGEST_L1 {
        return Err(corrupt("Active L1 table too large"));
    }
    if u64::from(raw.l1_size.get()) < l1_entries(raw) {
        return Err(corrupt("L1 table is too small"));
    }
    let snapshots = u64::from(raw.nb_snapshots.get());
    if snapshots > MOST_SNAPSHOTS {
        return Err(corrupt("Snapshot table too large"));
    }
    let mut tables = vec![
        Table { name: "qcow2 header", range: 0..cluster },
        table(
            "refcount table",
            "Reference count table",
            raw.refcount_table_offset.get(),
            refcount,
        )?,
        table("L1 table", "Active L1 table", raw.l1_table_offset.get(), l1_len)?,
    ];
    if snapshots > 0 {
        let len = snapshots * SHORTEST_SNAPSHOT;
        let offset = raw.snapshots_offset.get();
        tables.push(table("snapshot table", "Snapshot table", offset, len)?);
    }
    Ok(tables)
}

/// Entries of the L1 table that the guest's disk needs.
fn l1_entries(raw: &RawHeader) -> u64 {
    let bits = raw.cluster_bits.get();
    let entry_bits = if raw.incompatible_features.get() & EXTENDED_L2 != 0 { 4 } else { 3 };
    raw.size.get().div_ceil(1 << (bits + bits - entry_bits))
}

/// QEMU's limits in bytes
pub(super) const LARGEST_REFCOUNT_TABLE: u64 = 8 << 20;
pub(super) const LARGEST_L1: u64 = 32 << 20;
const MOST_SNAPSHOTS: u64 = 65536;
/// Length in bytes of a snapshot's entry without its names
const SHORTEST_SNAPSHOT: u64 = 40;
