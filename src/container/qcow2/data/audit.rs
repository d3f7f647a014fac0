//! Comparison of the tables with the reference counts, before the first write.
//!
//! A write trusts both: it writes in place to a cluster whose entry has the flag `copied`, and takes
//! clusters that are not counted. In a damaged image, that would overwrite tables or other data.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;

use super::super::corrupt;
use super::entry::{self, Entry};
use super::refcount::Refcounts;
use super::tables::{Tables, words};
use super::writer::{REPAIR, miscounted};
use crate::error::{Error, Result};
use crate::storage::Storage;
use crate::storage::transfer::fetch;

/// Checks that every cluster in use is counted, and that those which a write may overwrite have one
/// use.
pub(super) fn audit(image: &dyn Storage, tables: &Tables, refcounts: &mut Refcounts) -> Result<()> {
    let cluster = tables.geometry.cluster();
    let mut audit = Audit { tables, refcounts, used: Clusters::default() };
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
    /// Clusters that nothing else may use
    used: Clusters,
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

    /// The count of a cluster in use. Fails if it is 0.
    fn counted(&mut self, cluster: u64, name: impl Display) -> Result<u64> {
        match self.refcounts.get(cluster)? {
            0 => Err(miscounted(name)),
            count => Ok(count),
        }
    }

    /// A cluster that may have several users, none of which may write it. Fails if something has it for
    /// itself.
    fn shared(&mut self, cluster: u64, name: &str) -> Result<u64> {
        let at = cluster * self.tables.geometry.cluster();
        let count = self.counted(cluster, format_args!("{name} at byte {at}"))?;
        if self.used.contains(cluster) { Err(self.twice(cluster, name)) } else { Ok(count) }
    }

    fn twice(&self, cluster: u64, name: &str) -> Error {
        let at = cluster * self.tables.geometry.cluster();
        let text = format!("the cluster of the {name} at byte {at} has another use");
        corrupt(text).with_hint(REPAIR)
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
                        self.shared(cluster, "compressed data")?;
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
            let count = self.shared(cluster, "data")?;
            if is_own && is_copied {
                if count > 1 {
                    return Err(self.twice(cluster, "data"));
                }
                self.used.insert(cluster);
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
                self.shared(used, "snapshot's L1 table")?;
            }
            for word in words(&fetch(image, l1, len)?) {
                let wrong = |what| corrupt(format!("the L1 entry {word:#018x} {what}"));
                let Some((table, _)) = entry::table(word, &geometry).map_err(wrong)? else {
                    continue;
                };
                self.shared(table / cluster, "snapshot's L2 table")?;
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

/// A set of clusters, which are mostly neighbours: 64 bits for each 64 clusters.
#[derive(Debug, Default)]
struct Clusters(HashMap<u64, u64>);

impl Clusters {
    /// Whether the cluster was not in the set.
    fn insert(&mut self, cluster: u64) -> bool {
        let bits = self.0.entry(cluster / 64).or_default();
        let before = *bits;
        *bits |= 1 << (cluster % 64);
        *bits != before
    }

    fn contains(&self, cluster: u64) -> bool {
        self.0.get(&(cluster / 64)).is_some_and(|bits| bits >> (cluster % 64) & 1 != 0)
    }
}

/// Length in bytes of a snapshot's entry without its names
const SNAPSHOT: usize = 40;
/// Most entries of an L1 table
const MOST_L1: u64 = 4 << 20;
