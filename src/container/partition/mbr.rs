//! Master boot records with sectors of 512 bytes.

use std::io;

use super::{Partition, PartitionType, le32, read_if_there};
use crate::storage::Storage;

/// Reads the partitions of a master boot record, logical ones included.
pub(super) fn read(storage: &dyn Storage) -> io::Result<Option<Vec<Partition>>> {
    let Some(primary) = record(storage, 0)? else { return Ok(None) };
    let mut partitions = Vec::new();
    let mut extended = None;
    for (number, entry) in (1..).zip(primary) {
        if entry.is_extended() {
            extended.get_or_insert(entry.first);
        } else if ![0, PROTECTIVE].contains(&entry.kind) && entry.count > 0 {
            partitions.push(entry.partition(number, 0));
        }
    }
    if partitions.is_empty() && extended.is_none() {
        return Ok(None);
    }
    let Some(base) = extended else { return Ok(Some(partitions)) };
    let mut next = Some(base);
    for number in FIRST_LOGICAL..FIRST_LOGICAL + MOST_LOGICAL {
        let Some(at) = next.take() else { break };
        let Some([entry, link, ..]) = record(storage, at * SECTOR)? else { break };
        if entry.kind != 0 && entry.count > 0 {
            partitions.push(entry.partition(number, at));
        }
        // Links count from the start of the extended partition. A link that goes back would form a
        // loop.
        next = Some(base + link.first).filter(|&it| link.is_extended() && it > at);
    }
    Ok(Some(partitions))
}

/// An entry of a master boot record, in sectors of 512 bytes.
#[derive(Clone, Copy)]
struct Entry {
    kind: u8,
    first: u64,
    count: u64,
}

impl Entry {
    fn is_extended(self) -> bool {
        [0x05, 0x0f, 0x85].contains(&self.kind)
    }

    fn partition(self, number: u32, base: u64) -> Partition {
        let offset = (base + self.first) * SECTOR;
        let (kind, len) = (PartitionType::Mbr(self.kind), self.count * SECTOR);
        Partition { number, kind, offset, len, name: None }
    }
}

/// The four entries of the record at byte `at`, if there is one.
fn record(storage: &dyn Storage, at: u64) -> io::Result<Option<[Entry; 4]>> {
    let Some(bytes) = read_if_there(storage, at, SECTOR)? else { return Ok(None) };
    // A file system's boot sector has the same signature, with code in place of the entries.
    let flags = [446, 462, 478, 494].map(|entry| bytes[entry]);
    if bytes[510..] != *b"\x55\xaa" || flags.iter().any(|flag| flag & 0x7f != 0) {
        return Ok(None);
    }
    Ok(Some([446, 462, 478, 494].map(|at| Entry {
        kind: bytes[at + 4],
        first: le32(&bytes, at + 8).into(),
        count: le32(&bytes, at + 12).into(),
    })))
}

/// Sector size of a master boot record
const SECTOR: u64 = 512;
const FIRST_LOGICAL: u32 = 5;
/// Type of the entry that protects a GPT disk from programs that only know MBRs
const PROTECTIVE: u8 = 0xee;
/// Limit on the links followed
const MOST_LOGICAL: u32 = 128;
