//! A larger refcount table, for an image that outgrows the table it has.

use super::super::layout::LARGEST_REFCOUNT_TABLE as LARGEST;
use super::refcount::{Refcounts, set_count};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::transfer::{put, sync};
use crate::storage::zeroed;

/// Where the header has the refcount table's offset and its number of clusters.
const HEADER_FIELD: u64 = 48;

impl Refcounts {
    /// Moves the refcount table to a larger place from cluster [`next`](Self::next) on, together with
    /// the refcount blocks that count that place. Returns the clusters of the old table, which are to
    /// be released after a sync.
    ///
    /// Until the header names the new table, the old one is complete, because no cluster beyond it is
    /// in use.
    pub fn grow(&mut self) -> Result<Vec<u64>> {
        let (cluster, counts) = (self.geometry.cluster(), self.geometry.refcounts());
        let base = self.next;
        let (blocks, clusters) = self.shape(base)?;
        let first_block = base / counts;
        let place = self.offset(base + blocks)?;
        let end = self.offset(base + blocks + clusters)?;

        let bytes = usize::try_from(end - place).unwrap_or(usize::MAX);
        let mut table = zeroed(bytes).map_err(|e| Error::io("allocate a refcount table", e))?;
        let mut entries = self.table.clone();
        entries.resize(bytes / 8, 0);
        for block in 0..blocks {
            let mut bytes = self.empty()?;
            let area = (first_block + block) * counts;
            let all = area.max(base)..(area + counts).min(base + blocks + clusters);
            for used in all {
                let index = self.within_block(used);
                set_count(&mut bytes, index, self.geometry.refcount_order, 1);
            }
            let offset = self.offset(base + block)?;
            put(self.image.as_ref(), &bytes, offset)?;
            entries[usize::try_from(first_block + block).unwrap_or(usize::MAX)] = offset;
        }
        for (bytes, entry) in table.chunks_exact_mut(8).zip(&entries) {
            bytes.copy_from_slice(&entry.to_be_bytes());
        }
        put(self.image.as_ref(), &table, place)?;
        self.next = base + blocks + clusters;
        sync(self.image.as_ref())?;

        // Both fields are in one sector, so the header names the old table or the new one.
        let mut field = place.to_be_bytes().to_vec();
        let count = u32::try_from(clusters).unwrap_or(u32::MAX);
        field.extend(count.to_be_bytes());
        put(self.image.as_ref(), &field, HEADER_FIELD)?;
        let old = std::mem::replace(&mut self.place, place..end);
        self.table = entries;
        Ok((old.start / cluster..old.end / cluster).collect())
    }

    /// Refcount blocks and table clusters that are needed from cluster `base` on.
    fn shape(&self, base: u64) -> Result<(u64, u64)> {
        let (cluster, counts) = (self.geometry.cluster(), self.geometry.refcounts());
        let now = (self.place.end - self.place.start) / cluster;
        // Half as much again, so that growth is rare, up to the limit
        let (mut blocks, mut clusters) = (1, (now + now / 2 + 1).min(LARGEST / cluster));
        loop {
            let last = (base + blocks + clusters - 1) / counts;
            let more_blocks = last - base / counts + 1;
            let more_clusters = (last + 1).div_ceil(cluster / 8);
            if more_clusters * cluster > LARGEST {
                let text = "the qcow2 image cannot grow: its refcount table would exceed 8 MiB";
                return Err(Error::new(ErrorKind::NoSpace, text));
            }
            if more_blocks <= blocks && more_clusters <= clusters {
                return Ok((blocks, clusters));
            }
            blocks = blocks.max(more_blocks);
            clusters = clusters.max(more_clusters);
        }
    }
}
