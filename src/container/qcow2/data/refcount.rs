//! Reference counts of clusters (QEMU `docs/interop/qcow2.txt`, "Host cluster management").
//!
//! The refcount table has the offsets of refcount blocks, and each block has the counts of
//! consecutive clusters. A count has 1 to 64 bits; counts of less than a byte begin at its lowest
//! bits, longer ones are big endian.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::super::corrupt;
use super::cache::Cache;
use super::geometry::Geometry;
use super::tables::words;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::transfer::{fetch, put, sync};
use crate::storage::{Storage, read, zeroed};

/// Reference counts of an image that is written.
#[derive(Debug)]
pub(super) struct Refcounts {
    pub geometry: Geometry,
    pub image: Arc<dyn Storage>,
    /// Entries of the refcount table
    pub table: Vec<u64>,
    /// Place of the refcount table
    pub place: Range<u64>,
    blocks: Cache<u8>,
    /// Index of the first cluster that may be free. It only grows, so a cluster that was freed is not
    /// used again while a reader may still look at it.
    pub next: u64,
    /// Clusters from `next` on that were freed, and are not used again for the same reason
    freed: BTreeSet<u64>,
}

impl Refcounts {
    /// Reads the refcount table at `place`.
    pub fn load(image: Arc<dyn Storage>, geometry: Geometry, place: Range<u64>) -> Result<Self> {
        // The header's check bounds the table by 8 MiB.
        let len = usize::try_from(place.end - place.start).unwrap_or(usize::MAX);
        let bytes = read(image.as_ref(), place.start, len)
            .map_err(|e| Error::failed(Operation::Read, "the refcount table", e))?;
        let (table, blocks) = (words(&bytes), Cache::new(geometry.slice_len()));
        Ok(Self { geometry, image, table, place, blocks, next: 0, freed: BTreeSet::new() })
    }

    /// The count of the cluster with this index.
    pub fn get(&mut self, cluster: u64) -> Result<u64> {
        let Some(block) = self.block(cluster / self.geometry.refcounts())? else { return Ok(0) };
        let (offset, index) = self.slice_of(block, cluster);
        Ok(count(&self.slice(offset)?, index, self.geometry.refcount_order))
    }

    /// Offset of the refcount block with this index, if it exists.
    pub fn block(&self, index: u64) -> Result<Option<u64>> {
        let word = usize::try_from(index).ok().and_then(|index| self.table.get(index));
        match word {
            None | Some(0) => Ok(None),
            Some(offset) if offset.is_multiple_of(self.geometry.cluster()) => Ok(Some(*offset)),
            Some(word) => {
                let text = format!("entry {index} of the refcount table is invalid: {word:#018x}");
                Err(corrupt(text))
            }
        }
    }

    /// Takes over from an earlier state which clusters are not used again.
    pub fn keep_unused(&mut self, earlier: &mut Self) {
        self.next = earlier.next;
        self.freed = std::mem::take(&mut earlier.freed);
    }

    /// Finds `most` free clusters from [`next`](Self::next) on, all of whose counts are in blocks that
    /// exist. Finds fewer, or none, before a block that does not exist.
    pub fn find(&mut self, most: usize) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        while found.len() < most {
            let Some(block) = self.block(self.next / self.geometry.refcounts())? else { break };
            let (offset, first) = self.slice_of(block, self.next);
            let slice = self.slice(offset)?;
            let order = self.geometry.refcount_order;
            let all = (slice.len() * 8) >> order;
            for index in first..all {
                if found.len() == most {
                    break;
                }
                if count(&slice, index, order) == 0 && !self.freed.remove(&self.next) {
                    found.push(self.next);
                }
                self.next += 1;
            }
        }
        Ok(found)
    }

    /// Changes the counts of clusters, which are in ascending order, to `value`.
    pub fn set(&mut self, clusters: &[u64], value: u64) -> Result<()> {
        let mut rest = clusters;
        while let Some(&first) = rest.first() {
            let Some(block) = self.block(first / self.geometry.refcounts())? else {
                return Err(corrupt(format!("cluster {first} has no refcount block")));
            };
            let (offset, start) = self.slice_of(block, first);
            let order = self.geometry.refcount_order;
            let counts = ((self.geometry.slice_len() * 8) >> order) as u64;
            // The clusters whose counts are in the same slice
            let end = first - start as u64 + counts;
            let (now, later) = rest.split_at(rest.partition_point(|&cluster| cluster < end));
            let mut slice = self.slice(offset)?.to_vec();
            let index = |cluster: u64| start + usize::try_from(cluster - first).unwrap_or(0);
            for &cluster in now {
                set_count(&mut slice, index(cluster), order, value);
            }
            let last = index(now[now.len() - 1]);
            let bytes = ((start << order) >> 3)..((last + 1) << order).div_ceil(8);
            let written =
                put(self.image.as_ref(), &slice[bytes.clone()], offset + bytes.start as u64);
            if written.is_err() {
                // The disk may have the old counts or the new ones.
                self.blocks.remove(offset);
            } else {
                self.blocks.insert(offset, Arc::new(slice));
            }
            written?;
            rest = later;
        }
        Ok(())
    }

    /// Reduces the count of a cluster that has one user less, unless it is 0.
    pub fn release(&mut self, cluster: u64) -> Result<()> {
        match self.get(cluster)? {
            0 => Ok(()),
            count => {
                self.set(&[cluster], count - 1)?;
                if count == 1 && cluster >= self.next {
                    self.freed.insert(cluster);
                }
                Ok(())
            }
        }
    }

    /// Creates the refcount block for the cluster `next`, which becomes the block.
    pub fn add_block(&mut self) -> Result<()> {
        let (cluster, index) = (self.next, self.next / self.geometry.refcounts());
        let entry = usize::try_from(index).unwrap_or(usize::MAX);
        let offset = self.offset(cluster)?;
        let mut block = self.empty()?;
        set_count(&mut block, self.within_block(cluster), self.geometry.refcount_order, 1);
        self.next += 1;
        put(self.image.as_ref(), &block, offset)?;
        // The table must not point to a block that is not there.
        sync(self.image.as_ref())?;
        put(self.image.as_ref(), &offset.to_be_bytes(), self.place.start + 8 * index)?;
        self.table[entry] = offset;
        Ok(())
    }

    /// Offset of a cluster that is to be used, if an entry can hold it.
    pub fn offset(&self, cluster: u64) -> Result<u64> {
        let offset = cluster.checked_mul(self.geometry.cluster()).filter(|&it| it < FARTHEST);
        offset.ok_or_else(|| {
            Error::new(ErrorKind::NoSpace, "the qcow2 image cannot grow beyond 2^56 bytes")
        })
    }

    /// A cluster of zeros.
    pub fn empty(&self) -> Result<Vec<u8>> {
        zeroed(self.geometry.cluster_len()).map_err(|e| Error::io("allocate a buffer", e))
    }

    /// Index of a cluster's count in its block.
    pub fn within_block(&self, cluster: u64) -> usize {
        // A block has at most 16 Mi counts.
        usize::try_from(cluster % self.geometry.refcounts()).unwrap_or(usize::MAX)
    }

    /// Offset of the slice of a block that holds a cluster's count, and the count's index in it.
    fn slice_of(&self, block: u64, cluster: u64) -> (u64, usize) {
        let order = self.geometry.refcount_order;
        let counts = (self.geometry.slice_len() * 8) >> order;
        let index = self.within_block(cluster);
        (block + (index / counts * self.geometry.slice_len()) as u64, index % counts)
    }

    fn slice(&mut self, offset: u64) -> Result<Arc<Vec<u8>>> {
        if let Some(slice) = self.blocks.get(offset) {
            return Ok(slice);
        }
        let slice = Arc::new(fetch(self.image.as_ref(), offset, self.geometry.slice_len())?);
        self.blocks.insert(offset, Arc::clone(&slice));
        Ok(slice)
    }
}

/// The count at `index` of a block or slice.
fn count(block: &[u8], index: usize, order: u32) -> u64 {
    if order < 3 {
        let bits = 1 << order;
        let byte = block[index * bits / 8] >> (index * bits % 8);
        return u64::from(byte) & ((1 << bits) - 1);
    }
    let len = 1 << (order - 3);
    block[index * len..][..len].iter().fold(0, |count, &byte| count << 8 | u64::from(byte))
}

pub(in super::super) fn set_count(block: &mut [u8], index: usize, order: u32, value: u64) {
    let bytes = value.to_be_bytes();
    if order < 3 {
        let bits = 1_usize << order;
        let (shift, mask) = (index * bits % 8, (1_u8 << bits) - 1);
        let byte = &mut block[index * bits / 8];
        *byte = *byte & !(mask << shift) | (bytes[7] & mask) << shift;
        return;
    }
    let len = 1 << (order - 3);
    block[index * len..][..len].copy_from_slice(&bytes[8 - len..]);
}

/// First offset that a table's entry cannot hold
const FARTHEST: u64 = 1 << 56;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_every_width_are_independent() {
        for order in 0..7 {
            let most = u64::MAX >> (64 - (1 << order));
            let mut block = [0; 256];
            let all = (block.len() * 8) >> order;
            set_count(&mut block, 1, order, most);
            set_count(&mut block, all - 1, order, 1);
            for index in 0..all {
                let expected = match index {
                    1 => most,
                    index if index == all - 1 => 1,
                    _ => 0,
                };
                assert_eq!(count(&block, index, order), expected, "{order} {index}");
            }
            set_count(&mut block, 1, order, 0);
            assert_eq!(count(&block, 1, order), 0);
        }
        let mut block = [0; 2];
        set_count(&mut block, 3, 1, 2);
        assert_eq!(block, [0x80, 0], "the lowest bits come first");
        set_count(&mut block, 0, 4, 0x102);
        assert_eq!(block, [1, 2], "big endian");
    }
}
