//! A kernel's input: sectors and their initialisation vectors.

use std::marker::PhantomData;
use std::slice;

use cipher::inout::InOutBuf;

use super::schedule::Block;

/// Whole sectors, in place or from one buffer to another.
pub(super) struct Sectors<'a> {
    from: *const u8,
    to: *mut u8,
    count: usize,
    size: usize,
    buffers: PhantomData<(&'a [u8], &'a mut [u8])>,
}

impl<'a> Sectors<'a> {
    /// Divides `data` into sectors of `size` bytes, ignoring an incomplete one at the end.
    pub(super) fn new(data: InOutBuf<'a, 'a, u8>, size: usize) -> Self {
        let count = data.len() / size;
        let (from, to) = data.into_raw();
        Self { from, to, count, size, buffers: PhantomData }
    }

    /// Source and destination, which may be the same. Each is valid for [`count`](Self::count)
    /// times [`size`](Self::size) bytes.
    pub(super) fn pointers(&self) -> (*const u8, *mut u8) {
        (self.from, self.to)
    }

    /// Number of sectors.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Size of a sector in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// Initialisation vectors of consecutive sectors.
#[derive(Clone)]
pub(super) enum SectorIvs<'a> {
    /// Computed from sector numbers
    Numbered {
        /// Number of the next sector
        number: u64,
        /// Difference between consecutive numbers
        step: u64,
        /// Masks for the bits of the number in the first 8 bytes, little-endian, and in the last 8
        /// bytes, byte-swapped. A reference, which avoids a store-forwarding stall: two 8-byte
        /// stores, one 16-byte load.
        masks: &'a [u64; 2],
    },
    /// Computed in advance
    Listed(slice::Iter<'a, Block>),
}

impl SectorIvs<'_> {
    /// The next sector's vector; unspecified after the last sector.
    #[allow(clippy::inline_always, reason = "see engine")]
    #[inline(always)]
    pub(super) fn next(&mut self) -> Block {
        match self {
            Self::Numbered { number, step, masks } => {
                let this = *number;
                *number = this.wrapping_add(*step);
                Block([this & masks[0], this.swap_bytes() & masks[1]])
            }
            Self::Listed(blocks) => blocks.next().copied().unwrap_or_default(),
        }
    }
}
