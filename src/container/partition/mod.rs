//! Partition tables, which map partitions to ranges of a disk image.
//!
//! A GUID partition table is in the UEFI specification, section 5.3: a header in sector 1, checked
//! by a CRC-32, points at an array of entries with a CRC-32 of its own; the last sector has a copy
//! of the header. A master boot record has four entries in sector 0. One of these may be an
//! extended partition, which begins a chain of records for the logical partitions, from 5 on.
//!
//! Tables are only read. Every number in them is bounded before use.

mod gpt;
mod kind;
mod mbr;

use std::fmt;
use std::io;
use std::sync::Arc;

pub use kind::PartitionType;

use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::transfer::length;
use crate::storage::{self, Storage, Window};

/// The partitions of a disk image or a disk.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionTable {
    /// The kind of table
    pub kind: TableKind,
    /// The partitions, by number. Empty entries are omitted.
    pub partitions: Vec<Partition>,
}

/// The kind of a partition table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TableKind {
    /// GUID partition table
    Gpt,
    /// Master boot record
    Mbr,
}

/// A range of a disk image.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Partition {
    /// Number in Linux's scheme: from 1, logical partitions from 5
    pub number: u32,
    /// Purpose stated in the table
    pub kind: PartitionType,
    /// Offset from the start of the disk in bytes
    pub offset: u64,
    /// Length in bytes
    pub len: u64,
    /// Name in a GPT, if there is one
    pub name: Option<String>,
}

impl TableKind {
    /// `GPT` or `MBR`
    pub fn name(self) -> &'static str {
        match self {
            Self::Gpt => "GPT",
            Self::Mbr => "MBR",
        }
    }
}

impl PartitionTable {
    /// Reads the partition table of a disk image. `None` if it has none.
    ///
    /// [`ErrorKind::Corrupt`] if the table is damaged.
    pub fn read(storage: &dyn Storage) -> Result<Option<Self>> {
        let failed = |error| Error::failed(Operation::Read, "the partition table", error);
        if let Some(table) = gpt::read(storage).map_err(failed)? {
            return table.map(Some);
        }
        let partitions = mbr::read(storage).map_err(failed)?;
        Ok(partitions.map(|partitions| Self { kind: TableKind::Mbr, partitions }))
    }

    /// The partition of this number. [`ErrorKind::InvalidInput`] if it does not exist; the error
    /// lists the existing partitions.
    pub fn partition(&self, number: u32) -> Result<&Partition> {
        self.partitions.iter().find(|it| it.number == number).ok_or_else(|| {
            let all: Vec<_> = self.partitions.iter().map(|it| it.number.to_string()).collect();
            let all = if all.is_empty() { "no partitions".into() } else { all.join(", ") };
            let text =
                format!("partition {number} does not exist: the {} has {all}", self.kind.name());
            Error::new(ErrorKind::InvalidInput, text)
        })
    }
}

/// The [reason](Error::reason) of an error: a range that is outside its file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Outside {
    /// First byte of the range
    pub offset: u64,
    /// Length of the range, unless it extends to the end of the file
    pub len: Option<u64>,
    /// Length of the file
    pub end: u64,
}

impl fmt::Display for Outside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, len, end } = self;
        match len {
            Some(len) => write!(f, "{len} bytes from byte {offset} on are")?,
            None => write!(f, "byte {offset} is")?,
        }
        write!(f, " not in the file, which has {end} bytes")
    }
}

impl std::error::Error for Outside {}

/// The part of a file that is the image.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Part {
    /// The whole file
    #[default]
    Whole,
    /// `len` bytes from byte `offset` on, or all to the end
    Range { offset: u64, len: Option<u64> },
    /// A partition, by its number
    Partition(u32),
}

impl Part {
    /// Creates the window on this part of a storage; `None` if the part is the whole storage.
    pub fn of(&self, whole: &Arc<dyn Storage>) -> Result<Option<Window>> {
        let (offset, len) = match *self {
            Self::Whole => return Ok(None),
            Self::Range { offset, len } => (offset, len),
            Self::Partition(number) => {
                let table = PartitionTable::read(whole.as_ref())?.ok_or_else(|| {
                    let text = format!("partition {number} does not exist: no partition table");
                    Error::new(ErrorKind::InvalidInput, text)
                })?;
                let partition = table.partition(number)?;
                (partition.offset, Some(partition.len))
            }
        };
        let end = length(whole)?;
        Window::new(Arc::clone(whole), offset, len).map(Some).map_err(|_| {
            let outside = Outside { offset, len, end };
            Error::new(ErrorKind::InvalidInput, outside.to_string()).with_reason(outside)
        })
    }
}

/// Reads `len` bytes at `at`, or returns `None` if the storage ends before.
fn read_if_there(storage: &dyn Storage, at: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
    if at.checked_add(len).is_none_or(|end| storage.len().is_ok_and(|all| end > all)) {
        return Ok(None);
    }
    storage::read(storage, at, usize::try_from(len).unwrap_or(usize::MAX)).map(Some)
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn le64(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    /// Writes a record with these entries: kind, first sector, number of sectors.
    fn record(disk: &mut [u8], sector: usize, entries: &[(u8, u32, u32)]) {
        let record = &mut disk[sector * 512..][..512];
        record[510..].copy_from_slice(b"\x55\xaa");
        for (entry, &(kind, first, count)) in record[446..510].chunks_exact_mut(16).zip(entries) {
            entry[4] = kind;
            entry[8..12].copy_from_slice(&first.to_le_bytes());
            entry[12..].copy_from_slice(&count.to_le_bytes());
        }
    }

    #[test]
    fn logical_partitions_are_counted_from_the_extended_one() {
        let mut disk = vec![0; 100 * 512];
        record(&mut disk, 0, &[(0x83, 1, 9), (0x05, 10, 80)]);
        record(&mut disk, 10, &[(0x83, 2, 8), (0x05, 20, 20)]);
        record(&mut disk, 30, &[(0x83, 3, 7), (0x05, 40, 20)]);
        record(&mut disk, 50, &[(0x83, 4, 6)]);
        let table = PartitionTable::read(&MemoryStorage::new(disk)).unwrap().unwrap();
        let found: Vec<_> =
            table.partitions.iter().map(|it| (it.number, it.offset / 512, it.len / 512)).collect();
        assert_eq!(found, [(1, 1, 9), (5, 12, 8), (6, 33, 7), (7, 54, 6)]);
        let error = table.partition(2).unwrap_err();
        assert_eq!(error.message(), "partition 2 does not exist: the MBR has 1, 5, 6, 7");
    }

    #[test]
    fn a_ring_of_records_ends() {
        let mut disk = vec![0; 100 * 512];
        record(&mut disk, 0, &[(0x05, 10, 80)]);
        record(&mut disk, 10, &[(0x83, 2, 8), (0x05, 20, 20)]);
        record(&mut disk, 30, &[(0x83, 2, 8), (0x05, 0, 20)]);
        let table = PartitionTable::read(&MemoryStorage::new(disk)).unwrap().unwrap();
        assert_eq!(table.partitions.len(), 2);
    }

    #[test]
    fn a_part_must_be_in_the_file() {
        let disk: Arc<dyn Storage> = Arc::new(MemoryStorage::new(vec![0; 4096]));
        let error = |part: Part| part.of(&disk).unwrap_err().message().to_owned();
        assert_eq!(
            error(Part::Range { offset: 1024, len: Some(4096) }),
            "4096 bytes from byte 1024 on are not in the file, which has 4096 bytes"
        );
        assert_eq!(error(Part::Partition(1)), "partition 1 does not exist: no partition table");
        let part = Part::Range { offset: 1024, len: None }.of(&disk).unwrap().unwrap();
        assert_eq!(part.len().unwrap(), 3072);
    }
}
