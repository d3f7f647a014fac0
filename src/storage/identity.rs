//! Identity of the bytes behind a storage, however it was opened.

/// Identity of the bytes behind a storage. Two storages over the same bytes agree on their
/// positions, even if one is a [`Window`](super::Window) of the other.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    storage: StorageId,
    /// Position in the storage below, in bytes
    offset: u64,
}

/// The storage below all windows.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum StorageId {
    #[cfg(feature = "file")]
    /// Device and inode number of a file; for a block device its device number and 0
    File(u64, u64),
    /// Address of a value in this process
    Value(usize),
}

impl Identity {
    /// Identifies a storage that is reachable only through this value. The address identifies it,
    /// so it must not be moved while in use; inside an [`Arc`](std::sync::Arc) it stays in place.
    pub fn of_value<T>(storage: &T) -> Self {
        Self { storage: StorageId::Value(std::ptr::from_ref(storage).addr()), offset: 0 }
    }

    #[cfg(feature = "file")]
    pub(super) fn of_file(device: u64, inode: u64) -> Self {
        Self { storage: StorageId::File(device, inode), offset: 0 }
    }

    /// The identity of the part that begins `offset` bytes further on.
    #[must_use]
    pub fn at(self, offset: u64) -> Self {
        Self { offset: self.offset.saturating_add(offset), ..self }
    }

    /// Whether both are the same storage, or parts of it.
    pub fn is_same_storage(&self, other: &Self) -> bool {
        self.storage == other.storage
    }

    pub(crate) fn storage(&self) -> StorageId {
        self.storage
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }
}
