//! What begins with something else than a LUKS header: one table of magics, and partition tables.

use crate::error::{Error, ErrorKind};
use crate::storage::Storage;

/// The bytes that a kind of file has at an offset below 1024.
struct Magic {
    offset: usize,
    bytes: &'static [u8],
    /// Completes "the image ..."
    what: &'static str,
    hint: Option<&'static str>,
}

const COMPRESSED: Option<&str> = Some("decompress it first");
const CONVERT: Option<&str> = Some("convert it to a raw image first: qemu-img convert -O raw");

const fn magic(offset: usize, bytes: &'static [u8], what: &'static str) -> Magic {
    Magic { offset, bytes, what, hint: None }
}

const fn hinted(bytes: &'static [u8], what: &'static str, hint: Option<&'static str>) -> Magic {
    Magic { offset: 0, bytes, what, hint }
}

/// The longer magics first.
const MAGICS: &[Magic] = &[
    hinted(b"\xfd7zXZ\0", "is compressed with xz", COMPRESSED),
    hinted(b"\x28\xb5\x2f\xfd", "is compressed with zstd", COMPRESSED),
    hinted(b"\x04\x22\x4d\x18", "is compressed with lz4", COMPRESSED),
    hinted(b"\x1f\x8b\x08", "is compressed with gzip", COMPRESSED),
    hinted(b"BZh", "is compressed with bzip2", COMPRESSED),
    hinted(b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive", None),
    hinted(b"PK\x03\x04", "is a ZIP archive", None),
    magic(257, b"ustar", "is a tar archive"),
    hinted(b"KDMV", "is in VMDK format", CONVERT),
    hinted(b"# Disk DescriptorFile", "is in VMDK format", CONVERT),
    hinted(b"vhdxfile", "is in VHDX format", CONVERT),
    hinted(b"conectix", "is in VHD format", CONVERT),
    Magic { offset: 64, bytes: b"\x7f\x10\xda\xbe", what: "is in VDI format", hint: CONVERT },
    hinted(b"QED\0", "is in QED format", CONVERT),
    magic(3, b"-FVE-FS-", "is a BitLocker volume"),
    hinted(b"XFSB", "is an XFS file system", None),
    hinted(b"hsqs", "is a squashfs file system", None),
    magic(3, b"NTFS    ", "is an NTFS file system"),
    magic(82, b"FAT32   ", "is a FAT file system"),
    magic(54, b"FAT16   ", "is a FAT file system"),
    magic(512, b"LABELONE", "is an LVM physical volume"),
];

/// The error of an image that begins with `start` and has no LUKS header: `error`, with what the
/// image is instead, if that is known.
pub(super) fn explain(error: Error, start: &[u8], storage: &dyn Storage) -> Error {
    if error.kind() != ErrorKind::NotLuks {
        return error;
    }
    let found = MAGICS
        .iter()
        .find(|it| start.get(it.offset..).is_some_and(|rest| rest.starts_with(it.bytes)));
    if let Some(Magic { what, hint, .. }) = found {
        let error = error.and(format_args!("the image {what}"));
        return match hint {
            Some(hint) => error.with_hint(*hint),
            None => error,
        };
    }
    let table = gpt(storage).or_else(|| mbr(start));
    let Some(Table { kind, partitions }) = table else { return error };
    let error = error.and(format_args!("the image begins with a partition table ({kind})"));
    let is_luks = |start: &&(usize, u64)| {
        let mut magic = [0; 6];
        storage.read_exact_at(&mut magic, start.1).is_ok() && magic == *b"LUKS\xba\xbe"
    };
    match partitions.iter().find(is_luks) {
        Some((number, byte)) => error.with_hint(format!(
            "LUKS is in partition {number}, from byte {byte} on: copy the partition to a file, or use its device"
        )),
        None => error,
    }
}

/// The partitions of a disk.
struct Table {
    kind: &'static str,
    /// Number of each partition, from 1, and its first byte
    partitions: Vec<(usize, u64)>,
}

/// A GUID partition table (UEFI specification, section 5.3), of sectors of 512 or 4096 bytes.
fn gpt(storage: &dyn Storage) -> Option<Table> {
    for sector in [512, 4096] {
        let mut header = [0; 92];
        if storage.read_exact_at(&mut header, sector).is_err() || !header.starts_with(b"EFI PART") {
            continue;
        }
        let entries = le64(&header, 72).checked_mul(sector);
        let (count, size) = (le32(&header, 80).min(MOST_PARTITIONS), u64::from(le32(&header, 84)));
        let mut partitions = Vec::new();
        for index in 0..count {
            let mut entry = [0; 40];
            let at = size.checked_mul(index.into()).and_then(|it| entries?.checked_add(it));
            if at.is_none_or(|at| storage.read_exact_at(&mut entry, at).is_err()) {
                break;
            }
            let byte = le64(&entry, 32).checked_mul(sector);
            if let Some(byte) = byte.filter(|_| entry[..16] != [0; 16]) {
                partitions.push((index as usize + 1, byte));
            }
        }
        return Some(Table { kind: "GPT", partitions });
    }
    None
}

/// The four entries of a master boot record.
fn mbr(start: &[u8]) -> Option<Table> {
    let entries = start.get(446..510)?;
    if start.get(510..512)? != b"\x55\xaa" {
        return None;
    }
    let mut partitions = Vec::new();
    for (index, entry) in entries.chunks_exact(16).enumerate() {
        // A boot sector of a file system has code here.
        if entry[0] & 0x7f != 0 {
            return None;
        }
        if entry[4] != 0 {
            partitions.push((index + 1, u64::from(le32(entry, 8)) * 512));
        }
    }
    (!partitions.is_empty()).then_some(Table { kind: "MBR", partitions })
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

/// Partitions that are looked at.
const MOST_PARTITIONS: u32 = 128;
