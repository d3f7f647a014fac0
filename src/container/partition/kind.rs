//! Partition types: the purpose that a partition table states for each partition.

use std::fmt;

/// A partition type as the table has it. Displays like fdisk and sgdisk.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PartitionType {
    /// GPT: a GUID, in on-disk byte order
    Gpt([u8; 16]),
    /// MBR: a number
    Mbr(u8),
}

impl PartitionType {
    /// Common name of the type, if it has one.
    pub fn name(self) -> Option<&'static str> {
        match self {
            Self::Gpt(_) => {
                let guid = self.to_string();
                GUIDS.iter().find(|(it, _)| *it == guid).map(|(_, name)| *name)
            }
            Self::Mbr(number) => match number {
                0x01 | 0x04 | 0x06 | 0x0e => Some("FAT"),
                0x07 => Some("NTFS or exFAT"),
                0x0b | 0x0c => Some("FAT32"),
                0x82 => Some("Linux swap"),
                0x83 => Some("Linux"),
                0x8e => Some("Linux LVM"),
                0xe8 => Some("LUKS"),
                0xef => Some("EFI system"),
                0xfd => Some("Linux RAID"),
                _ => None,
            },
        }
    }
}

impl fmt::Display for PartitionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gpt(guid) => {
                // The first three fields are little-endian.
                const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
                for (i, at) in ORDER.into_iter().enumerate() {
                    let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{:02X}", guid[at])?;
                }
                Ok(())
            }
            Self::Mbr(number) => write!(f, "0x{number:02x}"),
        }
    }
}

/// GUIDs of the UEFI specification and of the Discoverable Partitions Specification
const GUIDS: &[(&str, &str)] = &[
    ("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "Linux swap"),
    ("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "Linux filesystem"),
    ("21686148-6449-6E6F-744E-656564454649", "BIOS boot"),
    ("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "Linux root (x86-64)"),
    ("7FFEC5C9-2D00-49B7-8941-3EA10A5586B7", "Linux dm-crypt"),
    ("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "Linux home"),
    ("A19D880F-05FC-4D3B-A006-743F0F84911E", "Linux RAID"),
    ("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "Linux root (ARM64)"),
    ("BC13C2FF-59E6-4262-A352-B275FD6F7172", "Linux extended boot"),
    ("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "EFI system"),
    ("CA7D7CCB-63ED-4C53-861C-1742536059CC", "Linux LUKS"),
    ("E3C9E316-0B5C-4DB8-817D-F92DF00215AE", "Microsoft reserved"),
    ("E6D6D379-F507-44C2-A23C-238F2A3DF928", "Linux LVM"),
    ("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "Microsoft basic data"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_written_as_in_the_specification() {
        let mut guid = [0; 16];
        for (byte, value) in guid.iter_mut().zip(1..) {
            *byte = value;
        }
        assert_eq!(PartitionType::Gpt(guid).to_string(), "04030201-0605-0807-090A-0B0C0D0E0F10");
        let linux = *b"\xaf\x3d\xc6\x0f\x83\x84\x72\x47\x8e\x79\x3d\x69\xd8\x47\x7d\xe4";
        assert_eq!(PartitionType::Gpt(linux).name(), Some("Linux filesystem"));
        assert_eq!(PartitionType::Mbr(0x83).to_string(), "0x83");
        assert_eq!(PartitionType::Mbr(0x42).name(), None);
    }
}
