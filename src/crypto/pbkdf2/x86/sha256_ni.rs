//! SHA-256 with the SHA extensions: several chains interleaved, each a few instructions ahead of
//! the next.
//!
//! `sha256rnds2` performs two rounds in four cycles, and another can start every second cycle.
//! Other chains use the cycles that one leaves idle.

// SAFETY: all intrinsics here need only the CPU features that the entry points enable.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_castps_si128, _mm_castsi128_ps, _mm_loadu_si128,
    _mm_set_epi32, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
    _mm_shuffle_epi32, _mm_shuffle_ps, _mm_storeu_si128, _mm_unpackhi_epi64, _mm_unpacklo_epi64,
    _mm_xor_si128,
};

use super::super::chain::Words;
use super::super::constants::SHA256_ROUNDS;

/// Continues `N` chains.
///
/// # Panics
///
/// Panics if there are not exactly `N` chains.
///
/// # Safety
///
/// The CPU must support SHA, SSE4.1 and SSSE3.
#[target_feature(enable = "sha,sse4.1,ssse3")]
pub(in super::super) unsafe fn run<const N: usize>(chains: &mut [Words<u32, 8>], iterations: u32) {
    // SAFETY: the features are those of this function.
    unsafe {
        let chains: &mut [_; N] = chains.try_into().expect("as many chains as the kernel has");
        let keys = [
            chains.each_ref().map(|c| State::load(&c.inner)),
            chains.each_ref().map(|c| State::load(&c.outer)),
        ];
        let mut last = chains.each_ref().map(|chain| State::load(&chain.last));
        let mut sum = chains.each_ref().map(|chain| State::load(&chain.sum));
        for _ in 0..iterations {
            for key in &keys {
                last = compress(key, last);
            }
            for (sum, last) in sum.iter_mut().zip(&last) {
                *sum = sum.xor(*last);
            }
        }
        for ((chain, last), sum) in chains.iter_mut().zip(last).zip(sum) {
            last.store(&mut chain.last);
            sum.store(&mut chain.sum);
        }
    }
}

/// The eight words of a hash, in the order that the instructions require.
#[derive(Clone, Copy)]
struct State {
    /// From the upper to the lower word
    abef: __m128i,
    cdgh: __m128i,
}

impl State {
    #[inline(always)]
    unsafe fn load(words: &[u32; 8]) -> Self {
        // SAFETY: there are eight words, and the features as the caller promises.
        unsafe {
            let first = _mm_shuffle_epi32::<SWAP>(_mm_loadu_si128(words.as_ptr().cast()));
            let second = _mm_shuffle_epi32::<SWAP>(_mm_loadu_si128(words[4..].as_ptr().cast()));
            Self {
                abef: _mm_unpacklo_epi64(second, first),
                cdgh: _mm_unpackhi_epi64(second, first),
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, words: &mut [u32; 8]) {
        // SAFETY: there are eight words, and the features as the caller promises.
        unsafe {
            let [first, second] = self.message();
            _mm_storeu_si128(words.as_mut_ptr().cast(), first);
            _mm_storeu_si128(words[4..].as_mut_ptr().cast(), second);
        }
    }

    /// The words in the order of a message.
    #[inline(always)]
    unsafe fn message(self) -> [__m128i; 2] {
        // SAFETY: as the caller promises.
        unsafe {
            // Two words from each. The casts to floating point only change the type.
            let (abef, cdgh) = (_mm_castsi128_ps(self.abef), _mm_castsi128_ps(self.cdgh));
            [
                _mm_castps_si128(_mm_shuffle_ps::<0b10_11_10_11>(abef, cdgh)),
                _mm_castps_si128(_mm_shuffle_ps::<0b00_01_00_01>(abef, cdgh)),
            ]
        }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Self {
                abef: _mm_add_epi32(self.abef, other.abef),
                cdgh: _mm_add_epi32(self.cdgh, other.cdgh),
            }
        }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Self {
                abef: _mm_xor_si128(self.abef, other.abef),
                cdgh: _mm_xor_si128(self.cdgh, other.cdgh),
            }
        }
    }
}

/// Swaps neighbouring words.
const SWAP: i32 = 0b10_11_00_01;

/// One half of HMAC for each chain: a block with the digest `last`, after the block of the key.
#[inline(always)]
unsafe fn compress<const N: usize>(keys: &[State; N], last: [State; N]) -> [State; N] {
    // SAFETY: as the caller promises.
    unsafe {
        let end = _mm_set_epi32(0, 0, 0, i32::MIN);
        let length = _mm_set_epi32((64 + 32) * 8, 0, 0, 0);
        let mut words = last.map(|last| {
            let [first, second] = last.message();
            [first, second, end, length]
        });
        let mut states = *keys;
        macro_rules! rounds {
            ($($group:literal)+) => {
                $(four_rounds::<N, $group>(&mut states, &mut words);)+
            };
        }
        rounds!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
        core::array::from_fn(|chain| states[chain].add(keys[chain]))
    }
}

/// Performs rounds 4 `GROUP` to 4 `GROUP` + 3, and computes the message words for those 12 rounds
/// later. The words after those could be computed as well, but would delay rounds that are ready.
#[inline(always)]
unsafe fn four_rounds<const N: usize, const GROUP: usize>(
    states: &mut [State; N],
    words: &mut [[__m128i; 4]; N],
) {
    // SAFETY: as the caller promises.
    unsafe {
        let constants = _mm_loadu_si128(SHA256_ROUNDS[4 * GROUP..].as_ptr().cast());
        for (state, words) in states.iter_mut().zip(&mut *words) {
            let added = _mm_add_epi32(words[GROUP % 4], constants);
            state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, added);
            let upper = _mm_shuffle_epi32::<0b11_10>(added);
            state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, upper);
        }
        if !(1..=12).contains(&GROUP) {
            return;
        }
        // The words of 16 rounds before, which are replaced.
        let old = GROUP - 1;
        for words in words {
            let [first, second, third, fourth] = [0, 1, 2, 3].map(|at| words[(old + at) % 4]);
            let sum = match old {
                // The words 9 to 14 are zero.
                0 => _mm_sha256msg1_epu32(first, second),
                2 => _mm_add_epi32(first, _mm_alignr_epi8::<4>(fourth, third)),
                _ => _mm_add_epi32(
                    _mm_sha256msg1_epu32(first, second),
                    _mm_alignr_epi8::<4>(fourth, third),
                ),
            };
            words[old % 4] = _mm_sha256msg2_epu32(sum, fourth);
        }
    }
}
