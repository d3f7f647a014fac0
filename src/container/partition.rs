//! Partition tables: which range of a disk image each partition is.
//!
//! A GUID partition table is in the UEFI specification, section 5.3: a header in sector 1, checked
//! by a CRC-32, points at an array of entries with a CRC-32 of its own; the last sector has a copy
//! of the header. A master boot record has four entries in sector 0. One of these may be an
//! extended partition, which begins a chain of records for the logical partitions, from 5 on.
//!
//! Tables are only read. All numbers in them are bounded before they are used.

use std::io;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::storage::{self, Storage, Window};

/// The partitions of a disk image or a disk.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct PartitionTable {
    /// The kind of table
    pub kind: TableKind,
    /// The partitions, by number. Empty entries are left out.
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
    /// Number as Linux counts: from 1, logical partitions from 5
    pub number: u32,
    /// Bytes from the start of the disk
    pub offset: u64,
    /// Length in bytes
    pub len: u64,
    /// GPT: the name, if there is one
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
    /// Reads the table of a disk image. `None` if it has none.
    ///
    /// [`ErrorKind::Corrupt`] if there is one that cannot be relied on.
    pub fn read(storage: &dyn Storage) -> Result<Option<Self>> {
        let failed = |error| Error::io("read the partition table", error);
        if let Some(table) = gpt(storage).map_err(failed)? {
            return table.map(Some);
        }
        let partitions = mbr(storage).map_err(failed)?;
        Ok(partitions.map(|partitions| Self { kind: TableKind::Mbr, partitions }))
    }

    /// The partition of this number. [`ErrorKind::InvalidInput`] if there is none; the error lists
    /// those that there are.
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

/// Which part of a file an image is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Part {
    /// All of it
    #[default]
    Whole,
    /// From byte `offset` on, `len` bytes or to the end
    Range { offset: u64, len: Option<u64> },
    /// A partition, by its number
    Partition(u32),
}

impl Part {
    /// The window on this part of a storage; `None` if it is all of it.
    pub fn of(&self, whole: &Arc<dyn Storage>) -> Result<Option<Window>> {
        let (offset, len) = match *self {
            Self::Whole => return Ok(None),
            Self::Range { offset, len } => (offset, len),
            Self::Partition(number) => {
                let table = PartitionTable::read(whole.as_ref())?.ok_or_else(|| {
                    let text = format!("there is no partition table to find partition {number} in");
                    Error::new(ErrorKind::InvalidInput, text)
                })?;
                let partition = table.partition(number)?;
                (partition.offset, Some(partition.len))
            }
        };
        let end = whole.len().map_err(|e| Error::io("read the length", e))?;
        let range = match len {
            Some(len) => format!("{len} bytes from byte {offset} on are"),
            None => format!("byte {offset} is"),
        };
        Window::new(Arc::clone(whole), offset, len).map(Some).map_err(|_| {
            let text = format!("{range} not in the file, which has {end} bytes");
            Error::new(ErrorKind::InvalidInput, text)
        })
    }
}

/// A GUID partition table, of sectors of 512 or 4096 bytes, or its copy at the end. `None` if there
/// is neither, an error within if both are damaged.
fn gpt(storage: &dyn Storage) -> io::Result<Option<Result<PartitionTable>>> {
    let len = storage.len()?;
    let mut damage = None;
    for sector in [512, 4096] {
        let places = [Some(sector), (len / sector * sector).checked_sub(sector)];
        for at in places.into_iter().flatten() {
            let Some(mut header) = read_if_there(storage, at, 92)? else { continue };
            if !header.starts_with(b"EFI PART") {
                continue;
            }
            match entries(storage, &mut header, at, sector)? {
                Ok(partitions) => {
                    let kind = TableKind::Gpt;
                    return Ok(Some(Ok(PartitionTable { kind, partitions })));
                }
                Err(text) => damage = damage.or(Some(text)),
            }
        }
    }
    Ok(damage
        .map(|text| Err(Error::new(ErrorKind::Corrupt, format!("the GPT is damaged: {text}")))))
}

/// The entries that a header at byte `at` points at, or what is wrong.
fn entries(
    storage: &dyn Storage,
    header: &mut [u8],
    at: u64,
    sector: u64,
) -> io::Result<std::result::Result<Vec<Partition>, String>> {
    let crc = le32(header, 16);
    let size = le32(header, 12);
    if size != 92 {
        return Ok(Err(format!("its header at byte {at} has {size} bytes, not 92")));
    }
    header[16..20].fill(0);
    if crc32(header) != crc {
        return Ok(Err(format!("the checksum of its header at byte {at} is wrong")));
    }
    let (count, size) = (le32(header, 80), le32(header, 84));
    if !(128..=MOST_ENTRY_BYTES).contains(&size) || count > MOST_ENTRIES {
        return Ok(Err(format!("it has {count} entries of {size} bytes")));
    }
    let start = le64(header, 72).checked_mul(sector);
    let all = match start {
        Some(start) => read_if_there(storage, start, u64::from(count) * u64::from(size))?,
        None => None,
    };
    let Some(all) = all else {
        return Ok(Err("its entries are not in the file".into()));
    };
    if crc32(&all) != le32(header, 88) {
        return Ok(Err(format!("the checksum of its entries is wrong (header at byte {at})")));
    }
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(all.chunks_exact(size as usize)) {
        if entry[..16] == [0; 16] {
            continue;
        }
        let (first, last) = (le64(entry, 32), le64(entry, 40));
        let range = last.checked_sub(first).and_then(|count| count.checked_add(1));
        let bytes = (first.checked_mul(sector), range.and_then(|count| count.checked_mul(sector)));
        let (Some(offset), Some(len)) = bytes else {
            return Ok(Err(format!("partition {number} is from sector {first} to {last}")));
        };
        let units = entry[56..128].as_chunks::<2>().0.iter().map(|it| u16::from_le_bytes(*it));
        let name: String = char::decode_utf16(units.take_while(|&unit| unit != 0))
            .map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        let name = (!name.is_empty()).then_some(name);
        partitions.push(Partition { number, offset, len, name });
    }
    Ok(Ok(partitions))
}

/// The partitions of a master boot record, logical ones included.
fn mbr(storage: &dyn Storage) -> io::Result<Option<Vec<Partition>>> {
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
        // Every link is counted from the extended partition's start. One that goes back is a ring.
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
        Partition { number, offset, len: self.count * SECTOR, name: None }
    }
}

/// The four entries of the record at this byte, if there is one.
fn record(storage: &dyn Storage, at: u64) -> io::Result<Option<[Entry; 4]>> {
    let Some(bytes) = read_if_there(storage, at, SECTOR)? else { return Ok(None) };
    // The boot sector of a file system has the same signature, and code where the entries are.
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

/// These bytes, if the storage has them.
fn read_if_there(storage: &dyn Storage, at: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
    if at.checked_add(len).is_none_or(|end| storage.len().is_ok_and(|all| end > all)) {
        return Ok(None);
    }
    storage::read(storage, at, usize::try_from(len).unwrap_or(usize::MAX)).map(Some)
}

/// CRC-32 as in ISO 3309, which the UEFI specification refers to.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
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

/// Bytes of a sector of a master boot record
const SECTOR: u64 = 512;
const FIRST_LOGICAL: u32 = 5;
/// The kind of an entry that keeps old programs from a disk with a GPT
const PROTECTIVE: u8 = 0xee;
/// Links that are followed
const MOST_LOGICAL: u32 = 128;
/// Entries and bytes of one that a GPT may have: 16 times the usual
const MOST_ENTRIES: u32 = 2048;
const MOST_ENTRY_BYTES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStorage;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// A record with these entries: kind, first sector, sectors.
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
        assert_eq!(error(Part::Partition(1)), "there is no partition table to find partition 1 in");
        let part = Part::Range { offset: 1024, len: None }.of(&disk).unwrap().unwrap();
        assert_eq!(part.len().unwrap(), 3072);
    }
}
