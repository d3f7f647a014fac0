//! QEMU's permissions and lock bytes, and those that each [`Sharing`] uses and shares.
//!
//! QEMU processes coordinate by *permissions*: those each uses, and those it shares with others. A
//! permission *i* in use is a lock on byte 100 + *i* of the file. A permission *i* that is **not**
//! shared is a lock on byte 200 + *i* (QEMU's `block/file-posix.c`):
//!
//! | *i* | permission | used | not shared |
//! |---|---|---|---|
//! | 0 | consistent read | 100 | 200 |
//! | 1 | write | 101 | 201 |
//! | 2 | write unchanged | 102 | 202 |
//! | 3 | resize | 103 | 203 |
//! | 4 | change children (QEMU before 6.2) | 104 | 204 |
//!
//! All modes but the last are those QEMU 10 uses, for a raw LUKS image unless stated otherwise:
//!
//! | [`Sharing`] | as | locks | tests |
//! |---|---|---|---|
//! | `None` | `qemu-img info` | | |
//! | `ReadData` | `qemu-nbd --read-only` | 100, 203 | 200, 103 |
//! | `ReadStable` | `qemu-img convert`, of its source | 100, 201, 203 | 200, 101, 103 |
//! | `WriteData` | `qemu-nbd` | 100, 101, 203 | 200, 201, 103 |
//! | `WriteAlone` | a guest's disk | 100, 101, 201 | 200, 201, 101 |
//! | `WriteQcow2` | `qemu-nbd` of qcow2 | 100, 101, 103, 201, 203 | 200, 201, 203, 101, 103 |
//! | `Amend` | | 100, 101, 103, 200, 201, 203 | 200-204, 100-104 |

use std::fmt;

/// Purpose of opening a file, which decides the locks it takes and the other users it tolerates.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Sharing {
    /// No lock and no test: for a single consistent read of the header.
    #[default]
    None,
    /// Reads the payload, as `qemu-nbd --read-only` does. Others may read or write, but not resize.
    ReadData,
    /// Reads the payload and keeps it from changing, as `qemu-img convert` does with its source.
    /// Others may read.
    ReadStable,
    /// Writes the payload, as `qemu-nbd` does. Others may write too. Two programs that each write
    /// through a file system of their own corrupt it: they need [`WriteAlone`](Self::WriteAlone).
    WriteData,
    /// Writes the payload as the only writer, as QEMU does for a guest's disk. Others may read.
    /// Refused while another program writes.
    WriteAlone,
    /// Writes the data of a qcow2 image as its only writer: its tables and its length change too.
    /// Others may read the file, but not its data. Opening a qcow2 image to write data takes this
    /// mode, and opening it to read data takes [`ReadStable`](Self::ReadStable).
    WriteQcow2,
    /// Changes keyslots, excluding all other users.
    Amend,
}

/// A set of QEMU's permissions.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Permissions(u8);

impl Sharing {
    /// Permissions it uses: bytes 100 and up.
    pub fn uses(self) -> Permissions {
        match self {
            Self::None => Permissions::NONE,
            Self::ReadData | Self::ReadStable => Permissions::CONSISTENT_READ,
            Self::WriteData | Self::WriteAlone => Permissions::CONSISTENT_READ | Permissions::WRITE,
            Self::WriteQcow2 | Self::Amend => {
                Permissions::CONSISTENT_READ | Permissions::WRITE | Permissions::RESIZE
            }
        }
    }

    /// Permissions it does not share: bytes 200 and up.
    pub fn refuses(self) -> Permissions {
        match self {
            Self::None => Permissions::NONE,
            Self::ReadData | Self::WriteData => Permissions::RESIZE,
            Self::ReadStable | Self::WriteQcow2 => Permissions::WRITE | Permissions::RESIZE,
            Self::WriteAlone => Permissions::WRITE,
            Self::Amend => Permissions::CONSISTENT_READ | Permissions::WRITE | Permissions::RESIZE,
        }
    }

    /// The mode for the same use of a qcow2 image, as QEMU has it.
    #[cfg(feature = "file")]
    pub(crate) fn of_qcow2(self) -> Self {
        match self {
            Self::ReadData => Self::ReadStable,
            Self::WriteData | Self::WriteAlone => Self::WriteQcow2,
            other => other,
        }
    }

    /// Whether it allows writing the payload.
    pub(crate) fn writes(self) -> bool {
        self.uses().contains(Permissions::WRITE)
    }

    /// Bytes to lock, in QEMU's order.
    #[cfg(feature = "file")]
    pub(super) fn locks(self) -> impl Iterator<Item = u8> {
        self.uses().bytes(USED).chain(self.refuses().bytes(UNSHARED))
    }

    /// Bytes that no other program may have locked, in QEMU's order, each with QEMU's text for a
    /// conflict.
    #[cfg(feature = "file")]
    pub(super) fn tests(self) -> impl Iterator<Item = (u8, String)> {
        // QEMU tests only the counterparts of what it takes. That does not exclude everyone.
        let (unshared, used) = match self {
            Self::Amend => (Permissions::ALL, Permissions::ALL),
            _ => (self.uses(), self.refuses()),
        };
        let unshared = unshared
            .each()
            .map(|(i, name)| (UNSHARED + i, format!("Failed to get \"{name}\" lock")));
        let used = used
            .each()
            .map(|(i, name)| (USED + i, format!("Failed to get shared \"{name}\" lock")));
        unshared.chain(used)
    }
}

#[cfg(feature = "file")]
const USED: u8 = 100;
#[cfg(feature = "file")]
const UNSHARED: u8 = 200;

impl Permissions {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// Reads data that changes only by its own writes.
    pub const CONSISTENT_READ: Self = Self(1 << 0);
    /// Changes data that others see.
    pub const WRITE: Self = Self(1 << 1);
    /// Writes without changing the data that others see.
    pub const WRITE_UNCHANGED: Self = Self(1 << 2);
    /// Changes the length.
    pub const RESIZE: Self = Self(1 << 3);
    /// Rearranges QEMU's block graph (QEMU before 6.2).
    pub const GRAPH_MOD: Self = Self(1 << 4);
    /// All permissions.
    pub const ALL: Self = Self(0b1_1111);

    /// Whether `other` is a subset.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The permissions behind lock bytes: those used, and those not shared.
    #[cfg(feature = "file")]
    pub(super) fn of_bytes(bytes: &[u8]) -> (Self, Self) {
        let of = |base| {
            let is_one = |i: &u8| bytes.contains(&(base + i));
            (0..5).filter(is_one).fold(Self::NONE, |set, i| set | Self(1 << i))
        };
        (of(USED), of(UNSHARED))
    }

    /// Number and QEMU's name of each permission.
    fn each(self) -> impl Iterator<Item = (u8, &'static str)> {
        (0..).zip(NAMES).filter(move |(i, _)| self.contains(Self(1 << i)))
    }

    #[cfg(feature = "file")]
    fn bytes(self, base: u8) -> impl Iterator<Item = u8> {
        self.each().map(move |(i, _)| base + i)
    }
}

const NAMES: [&str; 5] =
    ["consistent read", "write", "write unchanged", "resize", "change children"];

impl std::ops::BitOr for Permissions {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.each().map(|(_, name)| name)).finish()
    }
}

#[cfg(all(test, feature = "file"))]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_of_the_table() {
        for (sharing, locks, tests) in [
            (Sharing::None, &[][..], &[][..]),
            (Sharing::ReadData, &[100, 203], &[200, 103]),
            (Sharing::ReadStable, &[100, 201, 203], &[200, 101, 103]),
            (Sharing::WriteData, &[100, 101, 203], &[200, 201, 103]),
            (Sharing::WriteAlone, &[100, 101, 201], &[200, 201, 101]),
            (Sharing::WriteQcow2, &[100, 101, 103, 201, 203], &[200, 201, 203, 101, 103]),
            (
                Sharing::Amend,
                &[100, 101, 103, 200, 201, 203],
                &[200, 201, 202, 203, 204, 100, 101, 102, 103, 104],
            ),
        ] {
            assert_eq!(sharing.locks().collect::<Vec<_>>(), locks, "{sharing:?}");
            let tested = sharing.tests().map(|(byte, _)| byte);
            assert_eq!(tested.collect::<Vec<_>>(), tests, "{sharing:?}");
        }
    }

    #[test]
    fn bytes_are_permissions() {
        let (used, refused) = Permissions::of_bytes(&[203, 100, 101]);
        assert_eq!(used, Permissions::CONSISTENT_READ | Permissions::WRITE);
        assert_eq!(refused, Permissions::RESIZE);
    }

    #[test]
    fn the_texts_are_qemus() {
        let texts: Vec<_> = Sharing::ReadData.tests().map(|(_, text)| text).collect();
        assert_eq!(
            texts,
            ["Failed to get \"consistent read\" lock", "Failed to get shared \"resize\" lock"]
        );
    }

    #[test]
    fn permissions_are_a_set() {
        let both = Permissions::WRITE | Permissions::RESIZE;
        assert!(both.contains(Permissions::RESIZE));
        assert!(!both.contains(Permissions::ALL));
        assert_eq!(format!("{both:?}"), r#"{"write", "resize"}"#);
    }
}
