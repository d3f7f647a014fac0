//! Measures the throughput of the CPU's AES unit: rounds in registers, without data or tweaks.

// SAFETY: `Lanes` are `unsafe` because they need CPU features, which the caller has.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "see engine")]

use core::hint::black_box;

use super::engine::{DEPTH, Lanes};
use super::schedule::{Block, Schedule};

/// Runs [`DEPTH`] vectors through `ROUNDS` rounds, `times` times.
///
/// # Safety
///
/// The CPU must support `V`.
#[inline(always)]
pub(super) unsafe fn rounds_only<V: Lanes>(keys: &Schedule, rounds: usize, times: usize) -> Block {
    // SAFETY: as the caller promises.
    unsafe {
        let mut blocks = [V::splat(&keys.0[0]); DEPTH];
        for _ in 0..black_box(times) {
            for _ in 0..rounds {
                for block in &mut blocks {
                    *block = block.round::<true>(keys, 1);
                }
                V::together(&mut blocks);
            }
        }
        let mut sum = blocks[0];
        for block in blocks {
            sum = sum.xor(block);
        }
        let mut out = [Block::default(); 4];
        sum.store(out.as_mut_ptr().cast());
        out[0]
    }
}
