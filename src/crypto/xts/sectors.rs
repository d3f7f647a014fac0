//! What a kernel works on: sectors, and their initialisation vectors.

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
    /// All of `data`, in sectors of `size` bytes; a part of one at the end is left out.
    pub(super) fn new(data: InOutBuf<'a, 'a, u8>, size: usize) -> Self {
        let count = data.len() / size;
        let (from, to) = data.into_raw();
        Self { from, to, count, size, buffers: PhantomData }
    }

    /// Where they are read and where they are written: the same, or apart. Each is good for
    /// [`count`](Self::count) times [`size`](Self::size) bytes.
    pub(super) fn pointers(&self) -> (*const u8, *mut u8) {
        (self.from, self.to)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Length of each in bytes.
    pub(super) fn size(&self) -> usize {
        self.size
    }
}

/// Initialisation vectors, one sector after another.
#[derive(Clone)]
pub(super) enum SectorIvs<'a> {
    /// Made of the sector's number
    Numbered {
        /// Number of the next sector
        number: u64,
        /// From one to the next
        step: u64,
        /// Which of the number's bits are in the first 8 bytes, little-endian, and which, their
        /// bytes swapped, in the last 8. (By reference: what has just been written in two halves
        /// cannot be read as a whole without waiting for it.)
        masks: &'a [u64; 2],
    },
    /// Made before
    Listed(slice::Iter<'a, Block>),
}

impl SectorIvs<'_> {
    /// That of the next sector; after the last, anything.
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
