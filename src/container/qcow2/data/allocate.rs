//! Allocation of clusters, in an order that a crash at any instant leaves consistent.
//!
//! Every reference is written only after what it refers to is durable: first reference counts, then
//! clusters and new L2 tables, then the entries that refer to them. `docs/qcow2.md` has the
//! argument.

use std::ops::Range;
use std::sync::MutexGuard;

use super::super::{corrupt, unsupported};
use super::entry::{COPIED, Entry};
use super::writer::Writer;
use super::{Qcow2Map, lock};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::transfer::{fetch, put, sync};
use crate::volume::{Extent, Fill, Place};

/// A cluster of the disk that gets a place of its own.
#[derive(Debug)]
struct Planned {
    /// First byte in the disk
    start: u64,
    /// First byte in the image, if the cluster is reserved for it already; else a new one is taken
    host: Option<u64>,
    /// Place before
    before: Place,
    /// Clusters of the image that it does not use any more
    release: Range<u64>,
}

/// A claim on a range of the disk, given back on drop.
struct Claim<'a> {
    map: &'a Qcow2Map,
    range: Range<u64>,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if let Some(writer) = lock(&self.map.writer).as_mut() {
            writer.busy.retain(|range| *range != self.range);
        }
        self.map.done.notify_all();
    }
}

impl Qcow2Map {
    /// Allocates every cluster in a range of the disk that has no place of its own.
    pub(super) fn allocate_range(&self, range: &Range<u64>, fill: &mut Fill<'_>) -> Result<()> {
        let cluster = self.geometry.cluster();
        let end = range.end.next_multiple_of(cluster);
        let mut start = range.start - range.start % cluster;
        // Bounds the memory that an allocation needs.
        let step = (MOST_BYTES / cluster).clamp(1, MOST_CLUSTERS) * cluster;
        while start < end {
            let next = end.min(start.saturating_add(step));
            self.allocate_some(start..next, fill)?;
            start = next;
        }
        Ok(())
    }

    /// Allocates in a range of whole clusters. Other threads may allocate elsewhere at the
    /// same time.
    fn allocate_some(&self, range: Range<u64>, fill: &mut Fill<'_>) -> Result<()> {
        let mut guard = self.free(&range);
        let writer = self.started(&mut guard)?;
        writer.check()?;
        let mut planned = self.plan(range.clone())?;
        if planned.is_empty() {
            return Ok(());
        }
        let fresh = self.take(writer, &mut planned)?;
        writer.busy.push(range.clone());
        let is_ordered = writer.is_ordered;
        drop(guard);
        let claim = Claim { map: self, range };

        let filled = self.fill(&planned, fill).and_then(|()| {
            // No entry may refer to a cluster that is not there.
            if is_ordered { sync(self.image.as_ref()) } else { Ok(()) }
        });
        let mut guard = lock(&self.writer);
        let Some(writer) = guard.as_mut() else { return Err(not_open()) };
        let result = match writer.noted(filled).and_then(|()| writer.check()) {
            Ok(()) => self.publish(writer, &planned),
            Err(error) => {
                writer.give_back(&fresh);
                Err(error)
            }
        };
        drop(guard);
        drop(claim);
        result
    }

    /// Waits until no other thread allocates in the range.
    fn free(&self, range: &Range<u64>) -> MutexGuard<'_, Option<Writer>> {
        let is_busy = |writer: &mut Option<Writer>| {
            let busy = writer.as_ref().map_or(&[][..], |writer| &writer.busy);
            busy.iter().any(|busy| busy.start < range.end && range.start < busy.end)
        };
        let guard = lock(&self.writer);
        self.done.wait_while(guard, is_busy).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The clusters of a range that need a place. Changes nothing.
    fn plan(&self, range: Range<u64>) -> Result<Vec<Planned>> {
        let mut tables = self.tables();
        if self.geometry.is_extended {
            let text = "cannot allocate clusters of an image with extended L2 entries";
            return Err(unsupported(text));
        }
        let cluster = self.geometry.cluster();
        let mut planned = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let below = if self.below.is_some() { Place::Below } else { Place::Hole };
            let (entry, is_own) = match tables.table(self.image.as_ref(), start)? {
                None => (Entry::Unallocated, true),
                Some((table, is_own)) => {
                    let index = self.geometry.l2_index(start);
                    let (slice, first) = tables.slice(self.image.as_ref(), table, index)?;
                    let words = &slice[first..=first];
                    (tables.entry(self.data.as_ref(), words, start)?, is_own)
                }
            };
            let new = |before, host: Option<u64>| {
                let release = host.map_or(0..0, |host| host / cluster..host / cluster + 1);
                Planned { start, host: None, before, release }
            };
            match entry {
                Entry::Data { is_copied: true, .. } if is_own => {}
                Entry::Data { host, .. } => planned.push(new(self.place(host), Some(host))),
                Entry::Zeros { host: Some(host), is_copied: true } if is_own => {
                    let host = Some(host);
                    planned.push(Planned { start, host, before: Place::Hole, release: 0..0 });
                }
                Entry::Zeros { host, .. } => planned.push(new(Place::Hole, host)),
                Entry::Unallocated => planned.push(new(below, None)),
                Entry::Compressed { offset, len } => {
                    // Each cluster that its bytes touch is counted.
                    let release = offset / cluster..(offset + len).div_ceil(cluster);
                    let before = Place::Packed { offset, len };
                    planned.push(Planned { start, host: None, before, release });
                }
                Entry::Subclusters { .. } => {
                    return Err(corrupt(format!("byte {start} of the disk has subclusters")));
                }
            }
            start += cluster;
        }
        Ok(planned)
    }

    /// Takes clusters for what is planned, and makes sure that every L2 table may be written. Returns
    /// the new clusters of data.
    fn take(&self, writer: &mut Writer, planned: &mut [Planned]) -> Result<Vec<u64>> {
        let mut foreign = Vec::new();
        for it in planned.iter() {
            let (start, index) = (it.start, self.geometry.l1_index(it.start));
            let last = foreign.last().map(|&(_, start)| self.geometry.l1_index(start));
            if last != Some(index) {
                match self.tables().table(self.image.as_ref(), start)? {
                    Some((_, true)) => {}
                    other => foreign.push((other.map(|(table, _)| table), start)),
                }
            }
        }
        let count = planned.iter().filter(|it| it.host.is_none()).count();
        let mut fresh = writer.take(&mut self.tables(), foreign.len() + count)?;
        let new_tables: Vec<u64> = fresh.drain(..foreign.len()).collect();
        if let Err(error) = self.own_tables(writer, &new_tables, &foreign) {
            writer.give_back(&fresh);
            return Err(error);
        }
        let mut next = fresh.iter();
        for it in planned.iter_mut().filter(|it| it.host.is_none()) {
            it.host = next.next().map(|cluster| cluster * self.geometry.cluster());
        }
        Ok(fresh)
    }

    /// Creates L2 tables in the clusters `new` for these bytes of the disk, each empty or a copy of a
    /// table that a snapshot uses too.
    fn own_tables(
        &self,
        writer: &mut Writer,
        new: &[u64],
        foreign: &[(Option<u64>, u64)],
    ) -> Result<()> {
        if new.is_empty() {
            return Ok(());
        }
        let (image, cluster) = (self.image.as_ref(), self.geometry.cluster());
        let written = new.iter().zip(foreign).try_for_each(|(&new, &(old, _))| {
            let table = match old {
                None => writer.refcounts.empty()?,
                Some(old) => shared(fetch(image, old, self.geometry.cluster_len())?),
            };
            put(image, &table, new * cluster)
        });
        // The L1 table must not refer to a table that is not there.
        if let Err(error) = written.and_then(|()| writer.barrier()) {
            writer.give_back(new);
            return Err(error);
        }
        for (&new, &(old, start)) in new.iter().zip(foreign) {
            let mut tables = self.tables();
            let (index, word) = (self.geometry.l1_index(start), Entry::own(new * cluster));
            let l1 = tables.header.raw.l1_table_offset.get();
            put(image, &word.to_be_bytes(), l1 + 8 * index as u64)?;
            tables.l1[index] = word;
            writer.releases.extend(old.map(|old| old / cluster));
        }
        Ok(())
    }

    /// Writes all new clusters, as few extents as possible.
    fn fill(&self, planned: &[Planned], fill: &mut Fill<'_>) -> Result<()> {
        let cluster = self.geometry.cluster();
        let mut rest = planned;
        while let Some(first) = rest.first() {
            let follows = |n: usize, it: &Planned| {
                let skipped = n as u64 * cluster;
                n == 0
                    || it.start == first.start + skipped
                        && it.host == first.host.map(|host| host + skipped)
                        && is_next(first.before, it.before, skipped)
            };
            let count = rest.iter().enumerate().take_while(|&(n, it)| follows(n, it)).count();
            let host = first.host.unwrap_or_default();
            let extent = Extent {
                start: first.start,
                len: count as u64 * cluster,
                lock: self.identity.offset().saturating_add(host),
                is_shared: false,
                place: self.place(host),
            };
            fill(&extent, first.before)?;
            rest = &rest[count..];
        }
        Ok(())
    }

    /// Makes L2 entries refer to the new clusters, which are durable.
    fn publish(&self, writer: &mut Writer, planned: &[Planned]) -> Result<()> {
        let (image, cluster) = (self.image.as_ref(), self.geometry.cluster());
        let mut rest = planned;
        while let Some(first) = rest.first() {
            let mut tables = self.tables();
            let Some((table, true)) = tables.table(image, first.start)? else {
                return Err(corrupt("an L2 table is gone"));
            };
            let index = self.geometry.l2_index(first.start);
            let most = usize::try_from(self.geometry.l2_entries() - index).unwrap_or(usize::MAX);
            let follows = |n: usize, it: &Planned| it.start == first.start + n as u64 * cluster;
            let all = rest.iter().enumerate().take(most);
            let count = all.take_while(|&(n, it)| follows(n, it)).count();
            let (now, later) = rest.split_at(count);
            let words = now.iter().map(|it| Entry::own(it.host.unwrap_or_default()));
            let words: Vec<u64> = words.collect();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            put(image, &bytes, table + 8 * index)?;
            for (index, word) in (index..).zip(words) {
                tables.set_entry(table, index, word);
            }
            writer.releases.extend(now.iter().flat_map(|it| it.release.clone()));
            rest = later;
        }
        Ok(())
    }
}

pub(super) fn not_open() -> Error {
    Error::new(ErrorKind::InvalidInput, "the qcow2 image is not open for writing")
}

/// Whether a place is `skipped` bytes behind another one.
fn is_next(first: Place, next: Place, skipped: u64) -> bool {
    match (first, next) {
        (Place::Hole, Place::Hole) | (Place::Below, Place::Below) => true,
        (Place::Plain { offset }, Place::Plain { offset: next })
        | (Place::Data { offset, .. }, Place::Data { offset: next, .. }) => {
            offset + skipped == next
        }
        _ => false,
    }
}

/// A copy of an L2 table that something else uses too: none of its clusters may be written in place.
fn shared(mut table: Vec<u8>) -> Vec<u8> {
    let copied = COPIED.to_be_bytes()[0];
    for entry in table.chunks_exact_mut(8) {
        entry[0] &= !copied;
    }
    table
}

/// Most bytes of the disk allocated at once
const MOST_BYTES: u64 = 32 << 20;
/// Most clusters allocated at once
const MOST_CLUSTERS: u64 = 4096;
