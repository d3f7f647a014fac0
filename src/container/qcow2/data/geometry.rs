//! Sizes of an image's clusters and tables, and positions in them.

use super::super::Qcow2Header;

/// Sizes that never change while an image is open.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Geometry {
    /// Binary logarithm of the cluster size
    pub cluster_bits: u32,
    /// Length of the guest's disk in bytes, a multiple of 512
    pub len: u64,
    /// Whether L2 entries have 16 bytes and describe 32 subclusters
    pub is_extended: bool,
    /// Whether L2 entries have a flag for zeros, from version 3 on
    pub has_zero_flag: bool,
    /// Whether clusters are in an external data file
    pub has_data_file: bool,
    /// Binary logarithm of the bits of a reference count
    pub refcount_order: u32,
}

impl Geometry {
    pub fn new(header: &Qcow2Header) -> Self {
        Self {
            cluster_bits: header.raw.cluster_bits.get(),
            // QEMU counts whole sectors.
            len: header.virtual_size() / 512 * 512,
            is_extended: header.has_extended_l2(),
            has_zero_flag: header.version() >= 3,
            has_data_file: header.has_data_file(),
            refcount_order: header.raw.refcount_order.get(),
        }
    }

    /// Size of a cluster in bytes.
    pub fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Size of a cluster in bytes, which is at most 2 MiB.
    pub fn cluster_len(&self) -> usize {
        1 << self.cluster_bits
    }

    /// 64-bit words of an L2 entry.
    pub fn entry_words(&self) -> usize {
        if self.is_extended { 2 } else { 1 }
    }

    /// Entries of an L2 table.
    pub fn l2_entries(&self) -> u64 {
        self.cluster() / (8 * self.entry_words() as u64)
    }

    /// Bytes of the disk that an L2 table describes.
    pub fn l2_span(&self) -> u64 {
        self.l2_entries() * self.cluster()
    }

    /// Index of the L1 entry for byte `at` of the disk.
    pub fn l1_index(&self, at: u64) -> usize {
        // The L1 table has at most 4 Mi entries, and covers the disk.
        usize::try_from(at / self.l2_span()).unwrap_or(usize::MAX)
    }

    /// Index of the entry for byte `at` of the disk in its L2 table.
    pub fn l2_index(&self, at: u64) -> u64 {
        at % self.l2_span() / self.cluster()
    }

    /// Bytes of a slice, the part of a table that is read at once. A slice has whole entries, and a
    /// table has whole slices.
    pub fn slice_len(&self) -> usize {
        self.cluster_len().min(SLICE)
    }

    /// Reference counts in a refcount block.
    pub fn refcounts(&self) -> u64 {
        (self.cluster() * 8) >> self.refcount_order
    }
}

/// Most bytes read from a table at once
const SLICE: usize = 16 * 1024;
