//! Converts between chains of words and vectors that hold one word from each chain.

// SAFETY: everything is `unsafe` because the vectors need CPU features, which the caller has.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]

use super::super::chain::Words;
use super::vector::Vector;

/// Repeats a statement for each number. Unrolled, because the compiler may leave a loop and keep
/// the words in memory.
macro_rules! spelled_out {
    ($at:ident in $($number:literal)+ => $what:expr) => {
        $({
            let $at: usize = $number;
            $what;
        })+
    };
}
pub(super) use spelled_out;

/// Transposes the words of `part` of all chains into vectors, one for each position. Unused lanes
/// are zero.
///
/// # Panics
///
/// Panics if there are more chains than lanes.
///
/// # Safety
///
/// The CPU must support the vector's instructions.
#[inline(always)]
pub(super) unsafe fn load_rows<V: Vector, const N: usize>(
    chains: &[Words<V::Word, N>],
    part: impl Fn(&Words<V::Word, N>) -> &[V::Word; N],
) -> [V; N] {
    assert!(chains.len() <= V::LANES, "{} chains", chains.len());
    core::array::from_fn(|at| {
        let mut row = [V::Word::default(); MOST_LANES];
        for (word, chain) in row.iter_mut().zip(chains) {
            *word = part(chain)[at];
        }
        // SAFETY: the row is long enough for any vector, and the CPU supports `V` as the caller
        // promises.
        unsafe { V::load(row.as_ptr()) }
    })
}

/// Transposes vectors back into the words of `part` of all chains.
///
/// # Safety
///
/// The CPU must support the vector's instructions.
#[inline(always)]
pub(super) unsafe fn store_rows<V: Vector, const N: usize>(
    chains: &mut [Words<V::Word, N>],
    rows: &[V; N],
    part: impl Fn(&mut Words<V::Word, N>) -> &mut [V::Word; N],
) {
    for (at, vector) in rows.iter().enumerate() {
        let mut row = [V::Word::default(); MOST_LANES];
        // SAFETY: the row is long enough for any vector, and the CPU supports `V` as the caller
        // promises.
        unsafe { vector.store(row.as_mut_ptr()) };
        for (word, chain) in row.iter().zip(&mut *chains) {
            part(chain)[at] = *word;
        }
    }
}

/// 512 bits of 32-bit words
const MOST_LANES: usize = 16;
