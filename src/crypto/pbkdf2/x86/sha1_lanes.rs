//! SHA-1 in lanes: a vector holds the same word of many chains.

// SAFETY: everything in this file is `unsafe` for the same reason, abbreviated below to "as the
// caller promises": the CPU supports the vector's instructions.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]
#![allow(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]

use super::super::chain::Words;
use super::super::constants::SHA1_ROUNDS;
use super::rows::{load_rows, spelled_out, store_rows};
use super::vector::{Avx2U32, Avx512U32, Vector};

/// Continues up to eight chains.
///
/// # Safety
///
/// The CPU must support AVX2.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn avx2(chains: &mut [Words<u32, 5>], iterations: u32) {
    // SAFETY: the features are those of the vector.
    unsafe { run::<Avx2U32>(chains, iterations) }
}

/// Continues up to sixteen chains.
///
/// # Safety
///
/// The CPU must support AVX-512F.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn avx512(chains: &mut [Words<u32, 5>], iterations: u32) {
    // SAFETY: the features are those of the vector.
    unsafe { run::<Avx512U32>(chains, iterations) }
}

#[inline(always)]
unsafe fn run<V: Vector<Word = u32>>(chains: &mut [Words<u32, 5>], iterations: u32) {
    // SAFETY: as the caller promises.
    unsafe {
        let keys: [[V; 5]; 2] =
            [load_rows(chains, |chain| &chain.inner), load_rows(chains, |chain| &chain.outer)];
        let mut last: [V; 5] = load_rows(chains, |chain| &chain.last);
        let mut sum: [V; 5] = load_rows(chains, |chain| &chain.sum);
        for half in 0..2 * u64::from(iterations) {
            last = compress(&keys[(half % 2) as usize], &last);
            if half % 2 == 1 {
                for (sum, last) in sum.iter_mut().zip(&last) {
                    *sum = sum.xor(*last);
                }
            }
        }
        store_rows(chains, &last, |chain| &mut chain.last);
        store_rows(chains, &sum, |chain| &mut chain.sum);
    }
}

/// One half of HMAC for each chain: a block with the digest `last`, after the block of the key.
#[inline(always)]
unsafe fn compress<V: Vector<Word = u32>>(key: &[V; 5], last: &[V; 5]) -> [V; 5] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut words = [V::splat(0); 16];
        words[..5].copy_from_slice(last);
        words[5] = V::splat(1 << 31);
        words[15] = V::splat((64 + 20) * 8);

        let mut state = *key;
        twenty_rounds::<V, 0>(&mut state, &mut words);
        twenty_rounds::<V, 1>(&mut state, &mut words);
        twenty_rounds::<V, 2>(&mut state, &mut words);
        twenty_rounds::<V, 3>(&mut state, &mut words);
        core::array::from_fn(|at| state[at].add(key[at]))
    }
}

/// Performs the rounds that share a function, and computes the words for them.
#[inline(always)]
unsafe fn twenty_rounds<V: Vector<Word = u32>, const FUNCTION: usize>(
    state: &mut [V; 5],
    words: &mut [V; 16],
) {
    // SAFETY: as the caller promises.
    unsafe {
        let constant = V::splat(SHA1_ROUNDS[FUNCTION]);
        spelled_out!(at in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 => {
            let round = 20 * FUNCTION + at;
            if round >= 16 {
                let from = |back: usize| words[(round + 16 - back) % 16];
                let sum = from(3).xor3(from(8), from(14)).xor(from(16));
                words[round % 16] = sum.rotate_right::<31>();
            }
            let [a, b, c, d, e] = *state;
            let mixed = match FUNCTION {
                0 => b.choose(c, d),
                2 => b.majority(c, d),
                _ => b.xor3(c, d),
            };
            let added = e.add(words[round % 16].add(constant));
            let first = added.add(mixed).add(a.rotate_right::<27>());
            *state = [first, a, b.rotate_right::<2>(), c, d];
        });
    }
}
