//! GUID partition tables: the UEFI specification, section 5.3.

use std::io;

use super::{Partition, PartitionTable, PartitionType, TableKind, le32, le64, read_if_there};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// Reads a GUID partition table with sectors of 512 or 4096 bytes, or its copy at the end of the
/// disk. `None` if there is neither; the inner result is an error if both are damaged.
pub(super) fn read(storage: &dyn Storage) -> io::Result<Option<Result<PartitionTable>>> {
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

/// The entries that the header at byte `at` refers to, or a description of the fault.
fn entries(
    storage: &dyn Storage,
    header: &mut [u8],
    at: u64,
    sector: u64,
) -> io::Result<std::result::Result<Vec<Partition>, String>> {
    let crc = le32(header, 16);
    let size = le32(header, 12);
    if size != 92 {
        return Ok(Err(format!("the header at byte {at} has {size} bytes instead of 92")));
    }
    header[16..20].fill(0);
    if crc32(header) != crc {
        return Ok(Err(format!("wrong checksum of the header at byte {at}")));
    }
    let (count, size) = (le32(header, 80), le32(header, 84));
    if !(128..=MOST_ENTRY_BYTES).contains(&size) || count > MOST_ENTRIES {
        return Ok(Err(format!("{count} entries of {size} bytes are not supported")));
    }
    let start = le64(header, 72).checked_mul(sector);
    let all = match start {
        Some(start) => read_if_there(storage, start, u64::from(count) * u64::from(size))?,
        None => None,
    };
    let Some(all) = all else {
        return Ok(Err("the entries are beyond the end of the file".into()));
    };
    if crc32(&all) != le32(header, 88) {
        return Ok(Err(format!("wrong checksum of the entries (header at byte {at})")));
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
            return Ok(Err(format!("partition {number} has invalid sectors {first} to {last}")));
        };
        let units = entry[56..128].as_chunks::<2>().0.iter().map(|it| u16::from_le_bytes(*it));
        let name: String = char::decode_utf16(units.take_while(|&unit| unit != 0))
            .map(|it| it.unwrap_or(char::REPLACEMENT_CHARACTER))
            .collect();
        let name = (!name.is_empty()).then_some(name);
        let mut guid = [0; 16];
        guid.copy_from_slice(&entry[..16]);
        partitions.push(Partition { number, kind: PartitionType::Gpt(guid), offset, len, name });
    }
    Ok(Ok(partitions))
}

/// CRC-32 of ISO 3309, as required by the UEFI specification.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

/// Limit on the entries of a GPT, and on the bytes of one entry: 16 times the usual values
const MOST_ENTRIES: u32 = 2048;
const MOST_ENTRY_BYTES: u32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
