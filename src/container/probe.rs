//! Identifies the contents of a storage that is not LUKS, from one table of magics.

use super::partition::{Partition, PartitionTable};
use crate::error::{Error, ErrorKind};
use crate::header::luks2::HDR_SIZES;
use crate::storage::{Storage, read};

/// A kind of contents, identified by bytes at an offset.
#[derive(Debug)]
pub(crate) struct Magic {
    offset: usize,
    bytes: &'static [u8],
    /// Completes "the image ..."
    what: &'static str,
    /// QEMU's name for the format, if it is an image format
    format: Option<&'static str>,
    hint: Option<&'static str>,
}

const COMPRESSED: Option<&str> = Some("decompress it first");
const CONVERT: Option<&str> = Some("convert it to a raw image first: qemu-img convert -O raw");
const WHOLE_DISK: Option<&str> = Some("a file system without encryption has no keyslots");

const fn contents(offset: usize, bytes: &'static [u8], what: &'static str) -> Magic {
    Magic { offset, bytes, what, format: None, hint: None }
}

const fn compressed(bytes: &'static [u8], what: &'static str) -> Magic {
    Magic { offset: 0, bytes, what, format: None, hint: COMPRESSED }
}

const fn file_system(offset: usize, bytes: &'static [u8], what: &'static str) -> Magic {
    Magic { offset, bytes, what, format: None, hint: WHOLE_DISK }
}

const fn image(
    offset: usize,
    bytes: &'static [u8],
    what: &'static str,
    name: &'static str,
) -> Magic {
    Magic { offset, bytes, what, format: Some(name), hint: CONVERT }
}

/// A clone has other magics than the image that it is a clone of.
const CLONE: Magic = Magic {
    offset: 0,
    bytes: b"RBDL\xba\xbe",
    what: "is a clone of an encrypted RBD image",
    format: None,
    hint: Some("flatten the clone first: rbd flatten"),
};

/// Longer magics come first, and magics at the start before those at greater offsets.
const MAGICS: &[Magic] = &[
    compressed(b"\xfd7zXZ\0", "is compressed with xz"),
    compressed(b"\x28\xb5\x2f\xfd", "is compressed with zstd"),
    compressed(b"\x04\x22\x4d\x18", "is compressed with lz4"),
    compressed(b"\x1f\x8b\x08", "is compressed with gzip"),
    compressed(b"BZh", "is compressed with bzip2"),
    contents(0, b"7z\xbc\xaf\x27\x1c", "is a 7-Zip archive"),
    contents(0, b"PK\x03\x04", "is a ZIP archive"),
    Magic {
        offset: 0,
        bytes: b"QFI\xfb",
        what: "is in qcow2 format",
        format: Some("qcow2"),
        hint: Some("open it as a qcow2 image"),
    },
    image(0, b"COWD", "is in VMDK format", "vmdk"),
    image(0, b"KDMV", "is in VMDK format", "vmdk"),
    image(0, b"# Disk DescriptorFile", "is in VMDK format", "vmdk"),
    image(0, b"vhdxfile", "is in VHDX format", "vhdx"),
    image(0, b"conectix", "is in VHD format", "vpc"),
    image(0, b"QED\0", "is in QED format", "qed"),
    image(0, b"WithoutFreeSpace", "is in Parallels format", "parallels"),
    image(0, b"WithouFreSpacExt", "is in Parallels format", "parallels"),
    image(0, b"Bochs Virtual HD Image", "is in Bochs format", "bochs"),
    image(0, b"#!/bin/sh\n#V2.0 Format\n", "is in cloop format", "cloop"),
    image(64, b"\x7f\x10\xda\xbe", "is in VDI format", "vdi"),
    Magic {
        offset: 0,
        bytes: b"LUKS\xde\xad",
        what: "is being reencrypted by cryptsetup-reencrypt, or was left so",
        format: None,
        hint: Some("finish it with cryptsetup-reencrypt, or restore a header backup"),
    },
    CLONE,
    contents(3, b"-FVE-FS-", "is a BitLocker volume"),
    file_system(0, b"XFSB", "is an XFS file system"),
    file_system(0, b"hsqs", "is a squashfs file system"),
    file_system(3, b"NTFS    ", "is an NTFS file system"),
    file_system(82, b"FAT32   ", "is a FAT file system"),
    file_system(54, b"FAT16   ", "is a FAT file system"),
    contents(257, b"ustar", "is a tar archive"),
    contents(512, b"LABELONE", "is an LVM physical volume"),
    file_system(0x438, b"\x53\xef", "is an ext2, ext3 or ext4 file system"),
    file_system(0x8001, b"CD001", "is an ISO 9660 file system"),
    file_system(0x1_0040, b"_BHRfS_M", "is a btrfs file system"),
];

/// The magic of the secondary copy of a LUKS2 header in a clone of an RBD image
const CLONE_COPY: &[u8] = b"LDBR\xba\xbe";

/// Length of the prefix that contains every magic
const PROBED: u64 = 0x1_0048;

/// The first magic that the storage contains.
fn find(storage: &dyn Storage) -> Option<&'static Magic> {
    let len = storage.len().ok()?.min(PROBED);
    let start = read(storage, 0, usize::try_from(len).ok()?).ok()?;
    let rest = |magic: &Magic| start.get(magic.offset..);
    let found =
        MAGICS.iter().find(|magic| rest(magic).is_some_and(|it| it.starts_with(magic.bytes)));
    found.or_else(|| has_copy_of_clone(storage).then_some(&CLONE))
}

/// Whether a clone's secondary copy is at one of the offsets that it can have. The first may be gone.
fn has_copy_of_clone(storage: &dyn Storage) -> bool {
    let mut magic = [0; CLONE_COPY.len()];
    HDR_SIZES
        .into_iter()
        .any(|at| storage.read_exact_at(&mut magic, at).is_ok() && magic == CLONE_COPY)
}

/// QEMU's name for the format of a file, if it is an image format other than raw and LUKS.
pub fn image_format(storage: &dyn Storage) -> Option<&'static str> {
    find(storage)?.format
}

/// Whether a LUKS header begins at byte `offset`.
pub fn is_luks_at(storage: &dyn Storage, offset: u64) -> bool {
    let mut magic = [0; 6];
    storage.read_exact_at(&mut magic, offset).is_ok() && magic == *b"LUKS\xba\xbe"
}

/// Whether the storage begins with a LUKS1 header, damaged or not. QEMU probes as LUKS nothing else.
pub fn is_luks1(storage: &dyn Storage) -> bool {
    let mut magic = [0; 8];
    storage.read_exact_at(&mut magic, 0).is_ok() && magic == *b"LUKS\xba\xbe\0\x01"
}

/// Adds to `error` the kind of contents that the storage has instead of a LUKS header, if it is
/// known.
pub(crate) fn explain(error: Error, storage: &dyn Storage) -> Error {
    if error.kind() != ErrorKind::NotLuks {
        return error;
    }
    let table = PartitionTable::read(storage);
    let is_luks = |it: &&Partition| is_luks_at(storage, it.offset);
    let partitions = table.as_ref().ok().and_then(Option::as_ref).map(|it| &it.partitions[..]);
    let luks: Vec<_> = partitions.unwrap_or_default().iter().filter(is_luks).collect();
    // Sectors outside all partitions may still have the magic of an earlier use of the disk.
    if luks.is_empty()
        && let Some(Magic { what, hint, .. }) = find(storage)
    {
        let error = error.and(format_args!("the image {what}"));
        return match hint {
            Some(hint) => error.with_hint(*hint),
            None => error,
        };
    }
    let kind = match &table {
        Ok(Some(table)) => table.kind.name(),
        Err(damage) if damage.kind() == ErrorKind::Corrupt => return error.and(damage.message()),
        Ok(None) | Err(_) => return error,
    };
    let error = error.and(format_args!("the image begins with a partition table ({kind})"));
    match luks.as_slice() {
        [] => error.and("none of its partitions holds LUKS"),
        [partition] => {
            let (number, offset) = (partition.number, partition.offset);
            error.with_hint(format!(
                "LUKS is in partition {number}, from byte {offset} on: use --partition {number}"
            ))
        }
        [first, ..] => {
            let numbers: Vec<_> = luks.iter().map(|it| it.number.to_string()).collect();
            error.with_hint(format!(
                "LUKS is in partitions {}: name one of them, as in --partition {}",
                numbers.join(", "),
                first.number
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ReadOnlyBytes;

    /// The start of each kind of contents as its own programs write it, or as its specification says.
    const SAMPLES: &[(&[Piece], &str)] = &[
        (&[(0, b"\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01")], "compressed with xz"),
        (&[(0, b"\x28\xb5\x2f\xfd\x24\x03\x19\x00\x00abc")], "compressed with zstd"),
        (&[(0, b"\x04\x22\x4d\x18\x64\x40\xa7\x03\x00\x00\x80")], "compressed with lz4"),
        (&[(0, b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03")], "compressed with gzip"),
        (&[(0, b"BZh91AY&SY")], "compressed with bzip2"),
        (&[(0, b"7z\xbc\xaf\x27\x1c\x00\x04")], "a 7-Zip archive"),
        (&[(0, b"PK\x03\x04\x0a\x00\x00\x00\x00\x00")], "a ZIP archive"),
        (&[(0, b"QFI\xfb\x00\x00\x00\x03")], "in qcow2 format"),
        (&[(0, b"COWD\x01\x00\x00\x00\x03\x00\x00\x00")], "in VMDK format"),
        (&[(0, b"KDMV\x01\x00\x00\x00\x03\x00\x00\x00")], "in VMDK format"),
        (&[(0, b"# Disk DescriptorFile\nversion=1\n")], "in VMDK format"),
        (&[(0, b"vhdxfileQ\x00E\x00M\x00U\x00")], "in VHDX format"),
        (&[(0, b"conectix\x00\x00\x00\x02\x00\x01\x00\x00")], "in VHD format"),
        (&[(0, b"QED\x00\x00\x00\x01\x00\x04\x00\x00\x00")], "in QED format"),
        (&[(0, b"WithoutFreeSpace\x02\x00\x00\x00")], "in Parallels format"),
        (&[(0, b"WithouFreSpacExt\x02\x00\x00\x00")], "in Parallels format"),
        (&[(0, b"Bochs Virtual HD Image\0\0\0\0\0\0\0\0\0\0Redolog\0")], "in Bochs format"),
        (&[(0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop file=$0 && mount")], "in cloop format"),
        (
            &[
                (0, b"<<< QEMU VM Virtual Disk Image >>>\n"),
                (64, b"\x7f\x10\xda\xbe\x01\x00\x01\x00\x80\x01\x00\x00"),
            ],
            "in VDI format",
        ),
        (&[(0, b"LUKS\xde\xad\x00\x01aes\0")], "being reencrypted by cryptsetup-reencrypt"),
        (&[(0, b"RBDL\xba\xbe\x00\x02"), (0x4000, b"LDBR\xba\xbe\x00\x02")], "a clone of"),
        (&[(0, b"\xeb\x58\x90-FVE-FS-\x00\x02\x08")], "a BitLocker volume"),
        (&[(0, b"XFSB\x00\x00\x10\x00\x00\x00")], "an XFS file system"),
        (&[(0, b"hsqs\x07\x00\x00\x00")], "a squashfs file system"),
        (&[(0, b"\xeb\x52\x90NTFS    \x00\x02\x08"), BOOT], "an NTFS file system"),
        (
            &[(0, b"\xeb\x58\x90mkfs.fat\x00\x02\x01"), (71, b"NO NAME    FAT32   \x0e\x1f"), BOOT],
            "a FAT file system",
        ),
        (
            &[(0, b"\xeb\x3c\x90mkfs.fat\x00\x02\x04"), (43, b"NO NAME    FAT16   \x0e\x1f"), BOOT],
            "a FAT file system",
        ),
        (
            &[(0, b"name\0"), (100, b"0000644\x000001750\0"), (257, b"ustar  \0root")],
            "a tar archive",
        ),
        (&[(512, b"LABELONE\x01\0\0\0\0\0\0\0"), (536, b"LVM2 001")], "an LVM physical volume"),
        (&[(0x400, b"\x00\x04\x00\x00"), (0x438, b"\x53\xef\x01\x00\x01\x00")], "an ext2, ext3"),
        (&[(0x8000, b"\x01CD001\x01\x00LINUX")], "an ISO 9660 file system"),
        (&[(0x1_0000, b"\xc8\x2f\xa9\xa6"), (0x1_0040, b"_BHRfS_M\x05")], "a btrfs file system"),
    ];

    /// Bytes at an offset
    type Piece = (usize, &'static [u8]);

    /// End of a boot sector. There is no partition table in it.
    const BOOT: Piece = (510, b"\x55\xaa");

    fn bytes(pieces: &[Piece]) -> ReadOnlyBytes<Vec<u8>> {
        let mut bytes = vec![0; 0x1_1000];
        for (offset, piece) in pieces {
            bytes[*offset..offset + piece.len()].copy_from_slice(piece);
        }
        ReadOnlyBytes(bytes)
    }

    #[test]
    fn every_magic_is_that_of_a_sample_and_of_no_other() {
        let mut found = Vec::new();
        for (pieces, what) in SAMPLES {
            let magic = find(&bytes(pieces)).unwrap_or_else(|| panic!("{what} is not found"));
            assert!(magic.what.contains(what), "{what}: {magic:?}");
            found.push((magic.offset, magic.bytes));
        }
        let magics: Vec<_> = MAGICS.iter().map(|magic| (magic.offset, magic.bytes)).collect();
        let missing: Vec<_> = magics.iter().filter(|magic| !found.contains(magic)).collect();
        assert!(missing.is_empty(), "without a sample: {missing:?}");
        assert!(MAGICS.iter().all(|it| (it.offset + it.bytes.len()) as u64 <= PROBED));
    }

    #[test]
    fn a_clone_is_known_by_its_secondary_copy_alone() {
        for offset in HDR_SIZES {
            let mut disk = vec![0; 0x40_1000];
            let at = usize::try_from(offset).unwrap();
            disk[at..at + 6].copy_from_slice(b"LDBR\xba\xbe");
            assert!(find(&ReadOnlyBytes(disk)).unwrap().what.contains("clone"));
        }
        assert!(find(&bytes(&[(0x5000, CLONE_COPY)])).is_none());
    }
}
