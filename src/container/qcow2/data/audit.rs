//! Comparison of the tables with the reference counts, before the first write.
//!
//! A write trusts both: it writes in place to a cluster whose entry has the flag `copied`, and takes
//! clusters that are not counted. In a damaged image, that would overwrite tables or other data.

use std::collections::HashSet;

use super::super::corrupt;
use super::entry::{self, Entry};
use super::refcount::Refcounts;
use super::tables::{Tables, words};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::transfer::fetch;

/// Checks that every cluster in use is counted, and that those which a write may overwrite have one
/// use.
pub(super) fn audit(image: &dyn Storage, tables: &Tables, refcounts: &mut Refcounts) -> Result<()> {
    let cluster = tables.geometry.cluster();
    let mut audit = Audit { tables, refcounts, used: HashSet::new() };
    for (name, range) in &tables.reserved {
        for used in range.start / cluster..range.end.div_ceil(cluster) {
            // The end of one table and the start of another may share no cluster either.
            audit.metadata(used, name)?;
        }
    }
    for index in 0..audit.refcounts.table.len() as u64 {
        if let Some(block) = audit.refcounts.block(index)? {
            audit.metadata(block / cluster, "refcount block")?;
        }
    }
    let mut own = Vec::new();
    for &word in &tables.l1 {
        let table = entry::table(word, &tables.geometry);
        let table = table.map_err(|what| corrupt(format!("the L1 entry {word:#018x} {what}")))?;
        if let Some((table, is_copied)) = table {
            if is_copied {
                audit.metadata(table / cluster, "L2 table")?;
            } else {
                audit.counted(table / cluster, "L2 table")?;
            }
            own.push((table, is_copied));
        }
    }
    for (table, is_own) in own {
        audit.l2_table(image, table, is_own)?;
    }
    audit.snapshots(image)
}

struct Audit<'a> {
    tables: &'a Tables,
    refcounts: &'a mut Refcounts,
    /// Clusters of which nothing else may be a part
    used: HashSet<u64>,
}

impl Audit<'_> {
    /// A cluster with metadata that may be written in place.
    fn metadata(&mut self, cluster: u64, name: &str) -> Result<()> {
        self.counted(cluster, name)?;
        if self.used.insert(cluster) {
            return Ok(());
        }
        Err(self.twice(cluster, name))
    }

    fn counted(&mut self, cluster: u64, name: &str) -> Result<u64> {
        match self.refcounts.get(cluster)? {
            0 => {
                let at = cluster * self.tables.geometry.cluster();
                let text = format!("the reference count of the {name} at byte {at} is 0");
                Err(repairable(corrupt(text)))
            }
            count => Ok(count),
        }
    }

    fn twice(&self, cluster: u64, name: &str) -> Error {
        let at = cluster * self.tables.geometry.cluster();
        repairable(corrupt(format!("the cluster of the {name} at byte {at} has another use")))
    }

    /// The entries of an L2 table. `is_own` says whether the active disk alone uses it.
    fn l2_table(&mut self, image: &dyn Storage, table: u64, is_own: bool) -> Result<()> {
        let geometry = self.tables.geometry;
        let bytes = fetch(image, table, geometry.cluster_len())?;
        for entry in words(&bytes).chunks_exact(geometry.entry_words()) {
            let wrong = |what| corrupt(format!("the L2 entry {:#018x} {what}", entry[0]));
            let (host, is_copied) = match Entry::parse(entry, &geometry).map_err(wrong)? {
                Entry::Unallocated | Entry::Zeros { host: None, .. } => continue,
                Entry::Compressed { offset, len } => {
                    let last = (offset + len - 1) / geometry.cluster();
                    for cluster in offset / geometry.cluster()..=last {
                        self.counted(cluster, "compressed data")?;
                        if self.used.contains(&cluster) {
                            return Err(self.twice(cluster, "compressed data"));
                        }
                    }
                    continue;
                }
                Entry::Zeros { host: Some(host), is_copied }
                | Entry::Data { host, is_copied }
                | Entry::Subclusters { host, is_copied, .. } => (host, is_copied),
            };
            if geometry.has_data_file {
                continue;
            }
            let cluster = host / geometry.cluster();
            let count = self.counted(cluster, "data")?;
            let is_first = if is_own && is_copied {
                count == 1 && self.used.insert(cluster)
            } else {
                !self.used.contains(&cluster)
            };
            if !is_first {
                return Err(self.twice(cluster, "data"));
            }
        }
        Ok(())
    }

    /// The tables of all internal snapshots.
    fn snapshots(&mut self, image: &dyn Storage) -> Result<()> {
        let header = &self.tables.header;
        let (geometry, cluster) = (self.tables.geometry, self.tables.geometry.cluster());
        let mut at = header.raw.snapshots_offset.get();
        let mut seen = HashSet::new();
        for _ in 0..header.snapshots() {
            let entry = fetch(image, at, SNAPSHOT)?;
            let field = |i: usize, len: usize| {
                entry[i..i + len].iter().fold(0_u64, |word, &byte| word << 8 | u64::from(byte))
            };
            let (l1, entries) = (field(0, 8), field(8, 4));
            if entries > MOST_L1 || !l1.is_multiple_of(cluster) {
                let text = format!("the snapshot at byte {at} has a wrong L1 table");
                return Err(corrupt(text));
            }
            let len = usize::try_from(8 * entries).unwrap_or(usize::MAX);
            for used in l1 / cluster..(l1 + 8 * entries).div_ceil(cluster) {
                self.counted(used, "snapshot's L1 table")?;
                if self.used.contains(&used) {
                    return Err(self.twice(used, "snapshot's L1 table"));
                }
            }
            for word in words(&fetch(image, l1, len)?) {
                let wrong = |what| corrupt(format!("the L1 entry {word:#018x} {what}"));
                let Some((table, _)) = entry::table(word, &geometry).map_err(wrong)? else {
                    continue;
                };
                let used = table / cluster;
                self.counted(used, "snapshot's L2 table")?;
                if self.used.contains(&used) {
                    return Err(self.twice(used, "snapshot's L2 table"));
                }
                if seen.insert(table) {
                    self.l2_table(image, table, false)?;
                }
            }
            let names = field(12, 2) + field(14, 2) + field(36, 4);
            at = (at + SNAPSHOT as u64).saturating_add(names).next_multiple_of(8);
        }
        Ok(())
    }
}

fn repairable(error: Error) -> Error {
    error.with_hint("repair the image first: qemu-img check -r all")
}

/// Length in bytes of a snapshot's entry without its names
const SNAPSHOT: usize = 40;
/// Most entries of an L1 table
const MOST_L1: u64 = 4 << 20;
