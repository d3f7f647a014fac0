//! The tables that say where the guest's bytes are: L1, and L2 in slices.

use std::ops::Range;
use std::sync::Arc;

use super::super::{Qcow2Header, corrupt, layout};
use super::cache::Cache;
use super::entry::{self, Entry};
use super::geometry::Geometry;
use crate::error::{Error, Operation, Result};
use crate::storage::transfer::{fetch, length};
use crate::storage::{Storage, read};

/// Tables of one image. They are read on demand, and bounded in memory: 32 MiB of L1 table, and a
/// cache of L2 slices.
#[derive(Debug)]
pub(super) struct Tables {
    pub geometry: Geometry,
    pub header: Qcow2Header,
    pub l1: Vec<u64>,
    l2: Cache<u64>,
    /// Ranges of the image that hold no guest data and no L2 table
    pub reserved: Vec<(&'static str, Range<u64>)>,
    /// Length of the image as it was last read
    image_len: u64,
    /// Length of the external data file, or of the image
    data_len: u64,
}

/// A run of bytes of the disk that are in one place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// First byte in the disk
    pub start: u64,
    pub len: u64,
    pub found: Found,
}

/// Place of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    Unallocated,
    Zeros,
    Data {
        host: u64,
        is_copied: bool,
    },
    /// One cluster, compressed to `len` bytes at `offset`
    Packed {
        offset: u64,
        len: u64,
    },
}

impl Tables {
    pub fn load(image: &dyn Storage, header: Qcow2Header) -> Result<Self> {
        let geometry = Geometry::new(&header);
        // The header's check bounds the table by 32 MiB.
        let len = 8 * header.raw.l1_size.get() as usize;
        let bytes = read(image, header.raw.l1_table_offset.get(), len)
            .map_err(|e| Error::failed(Operation::Read, "the L1 table", e))?;
        let image_len = length(image)?;
        Ok(Self {
            geometry,
            l1: words(&bytes),
            l2: Cache::new(geometry.slice_len()),
            reserved: layout::reserved(&header.raw, header.crypto_area())?,
            image_len,
            // The length of an external data file is read when an entry points there.
            data_len: if geometry.has_data_file { 0 } else { image_len },
            header,
        })
    }

    /// The longest run from byte `at` of the disk on that is found with one lookup. `data` is the
    /// storage with the clusters.
    pub fn run(&mut self, image: &dyn Storage, data: &dyn Storage, at: u64) -> Result<Run> {
        let geometry = self.geometry;
        let cluster = geometry.cluster();
        let start = at - at % cluster;
        let Some((table, is_own)) = self.table(image, at)? else {
            let span = geometry.l2_span();
            let first = geometry.l1_index(at);
            let more = self.l1.get(first..).unwrap_or_default();
            let empty = more.iter().take(MOST_EMPTY).take_while(|&&word| word == 0).count();
            let empty = empty.max(1) as u64;
            let end = (at - at % span).saturating_add(empty.saturating_mul(span));
            return Ok(Run { start, len: end - start, found: Found::Unallocated });
        };
        let index = geometry.l2_index(at);
        let (slice, first) = self.slice(image, table, index)?;
        let words = geometry.entry_words();
        let entries = slice[first * words..].chunks_exact(words).take(MOST_CLUSTERS);
        let mut run: Option<Run> = None;
        for (n, entry) in entries.enumerate() {
            let here = start + n as u64 * cluster;
            let next = match self.run_of(data, entry, here, at) {
                // A table that a snapshot uses too has no cluster of its own.
                Ok(next) => next.shared_unless(is_own),
                // The entry is not asked for yet.
                Err(_) if run.is_some() => break,
                Err(error) => return Err(error),
            };
            match &mut run {
                None => run = Some(next),
                Some(run) if run.joins(&next) => run.len += next.len,
                Some(_) => break,
            }
            // Part of a cluster, which the next run continues
            if next.len < cluster {
                break;
            }
        }
        run.ok_or_else(|| corrupt(format!("byte {at} of the disk: no L2 entry")))
    }

    /// The run that the entry for the cluster at byte `start` of the disk describes; of a cluster with
    /// subclusters, the run of those around byte `at`.
    fn run_of(&mut self, data: &dyn Storage, words: &[u64], start: u64, at: u64) -> Result<Run> {
        let cluster = self.geometry.cluster();
        let found = match self.entry(data, words, start)? {
            Entry::Unallocated => Found::Unallocated,
            Entry::Zeros { .. } => Found::Zeros,
            Entry::Data { host, is_copied } => Found::Data { host, is_copied },
            Entry::Compressed { offset, len } => Found::Packed { offset, len },
            Entry::Subclusters { host, is_copied, stored, zeros } => {
                let size = cluster / 32;
                let first = at.saturating_sub(start) / size;
                let kind = |n: u64| (stored >> n & 1, zeros >> n & 1);
                let same = (first..32).take_while(|&n| kind(n) == kind(first)).count() as u64;
                let skipped = first * size;
                let found = match kind(first) {
                    (1, _) => Found::Data { host: host + skipped, is_copied },
                    (_, 1) => Found::Zeros,
                    _ => Found::Unallocated,
                };
                return Ok(Run { start: start + skipped, len: same * size, found });
            }
        };
        Ok(Run { start, len: cluster, found })
    }

    /// The entry for the cluster at byte `start` of the disk, checked.
    pub fn entry(&mut self, data: &dyn Storage, words: &[u64], start: u64) -> Result<Entry> {
        let wrong = |what: &str| {
            let word = words[0];
            corrupt(format!("byte {start} of the disk: the L2 entry {word:#018x} {what}"))
        };
        let entry = Entry::parse(words, &self.geometry).map_err(wrong)?;
        let (host, len, is_data) = match entry {
            Entry::Data { host, .. } | Entry::Subclusters { host, stored: 1.., .. } => {
                (host, 1, true)
            }
            Entry::Compressed { offset, len } => (offset, len, true),
            Entry::Zeros { host: Some(host), .. } => (host, 1, false),
            _ => return Ok(entry),
        };
        if is_data && host >= self.data_len {
            // The file grows while it is written.
            self.data_len = length(data)?;
            if host >= self.data_len {
                return Err(wrong("points beyond the end of the file"));
            }
        }
        // Compressed bytes may touch three clusters, all of which a write releases.
        let cluster = self.geometry.cluster();
        let mut clusters = host / cluster..host.saturating_add(len).div_ceil(cluster);
        match clusters.find_map(|used| self.reserved_by(used * cluster)) {
            Some(name) if !self.geometry.has_data_file => {
                Err(wrong(&format!("points into the {name}")))
            }
            _ => Ok(entry),
        }
    }

    /// The L2 table for byte `at` of the disk, and whether it may be written in place.
    pub fn table(&mut self, image: &dyn Storage, at: u64) -> Result<Option<(u64, bool)>> {
        let index = self.geometry.l1_index(at);
        let Some(&word) = self.l1.get(index) else {
            return Err(corrupt(format!("byte {at} of the disk: beyond the L1 table")));
        };
        let wrong = |what: &str| {
            corrupt(format!("byte {at} of the disk: the L1 entry {word:#018x} {what}"))
        };
        let Some((table, is_copied)) = entry::table(word, &self.geometry).map_err(wrong)? else {
            return Ok(None);
        };
        let end = table.saturating_add(self.geometry.cluster());
        if end > self.image_len {
            self.image_len = length(image)?;
            if end > self.image_len {
                return Err(wrong("points beyond the end of the file"));
            }
        }
        if let Some(name) = self.reserved_by(table) {
            return Err(wrong(&format!("points into the {name}")));
        }
        Ok(Some((table, is_copied)))
    }

    /// Name of the structure that uses the cluster at `host`.
    pub fn reserved_by(&self, host: u64) -> Option<&'static str> {
        let cluster = self.geometry.cluster();
        let host = host - host % cluster;
        let end = host.saturating_add(cluster);
        let overlaps = |range: &Range<u64>| range.start < end && host < range.end;
        self.reserved.iter().find(|(_, range)| overlaps(range)).map(|(name, _)| *name)
    }

    /// The slice of an L2 table that holds entry `index`, and the entry's index in the slice.
    pub fn slice(
        &mut self,
        image: &dyn Storage,
        table: u64,
        index: u64,
    ) -> Result<(Arc<Vec<u64>>, usize)> {
        let len = self.geometry.slice_len();
        let entry_len = 8 * self.geometry.entry_words() as u64;
        let within = index * entry_len % len as u64;
        let offset = table + index * entry_len - within;
        // A slice has at most 16 KiB.
        let first = usize::try_from(within / entry_len).unwrap_or(usize::MAX);
        if let Some(slice) = self.l2.get(offset) {
            return Ok((slice, first));
        }
        let slice = Arc::new(words(&fetch(image, offset, len)?));
        self.l2.insert(offset, Arc::clone(&slice));
        Ok((slice, first))
    }

    /// Follows a change of entry `index` of an L2 table on disk.
    pub fn set_entry(&mut self, table: u64, index: u64, word: u64) {
        let within = index * 8 % self.geometry.slice_len() as u64;
        let place = usize::try_from(within / 8).unwrap_or(usize::MAX);
        self.l2.update(table + index * 8 - within, |slice| slice[place] = word);
    }
}

impl Run {
    fn shared_unless(self, is_own: bool) -> Self {
        match self.found {
            Found::Data { host, is_copied } => {
                Self { found: Found::Data { host, is_copied: is_copied && is_own }, ..self }
            }
            _ => self,
        }
    }

    /// Whether `next`, which follows in the disk, also follows in the storage.
    fn joins(&self, next: &Self) -> bool {
        match (self.found, next.found) {
            (
                Found::Data { host, is_copied },
                Found::Data { host: next_host, is_copied: next_copied },
            ) => host + self.len == next_host && is_copied == next_copied,
            (Found::Packed { .. }, _) => false,
            (one, other) => one == other,
        }
    }
}

/// Most entries of the L1 table, and of an L2 table, that one lookup looks at. A read of a few bytes
/// must not cost a scan of the table.
const MOST_EMPTY: usize = 1024;
const MOST_CLUSTERS: usize = 64;

/// Big-endian words.
pub(super) fn words(bytes: &[u8]) -> Vec<u64> {
    let word = |chunk: &[u8]| chunk.iter().fold(0, |word, &byte| word << 8 | u64::from(byte));
    bytes.chunks_exact(8).map(word).collect()
}
