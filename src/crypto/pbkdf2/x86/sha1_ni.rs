//! SHA-1 with the SHA extensions: several chains interleaved, each a few instructions ahead of the
//! next.

// SAFETY: all intrinsics here need only the CPU features that the entry points enable.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]

use core::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_extract_epi32, _mm_loadu_si128, _mm_or_si128, _mm_set_epi32,
    _mm_sha1msg1_epu32, _mm_sha1msg2_epu32, _mm_sha1nexte_epu32, _mm_sha1rnds4_epu32,
    _mm_shuffle_epi32, _mm_storeu_si128, _mm_xor_si128,
};

use super::super::chain::Words;

/// Continues `N` chains.
///
/// # Panics
///
/// Panics if there are not exactly `N` chains.
///
/// # Safety
///
/// The CPU must support SHA and SSE4.1.
#[target_feature(enable = "sha,sse4.1")]
pub(in super::super) unsafe fn run<const N: usize>(chains: &mut [Words<u32, 5>], iterations: u32) {
    // SAFETY: the features are those of this function.
    unsafe {
        let chains: &mut [_; N] = chains.try_into().expect("as many chains as the kernel has");
        let keys = [
            chains.each_ref().map(|chain| State::load(&chain.inner)),
            chains.each_ref().map(|chain| State::load(&chain.outer)),
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

/// The five words of a hash, the first of each vector uppermost.
#[derive(Clone, Copy)]
struct State {
    abcd: __m128i,
    /// The lower words are zero
    e: __m128i,
}

impl State {
    #[inline(always)]
    unsafe fn load(words: &[u32; 5]) -> Self {
        // SAFETY: there are four words and more, and the features as the caller promises.
        unsafe {
            Self {
                abcd: _mm_shuffle_epi32::<REVERSE>(_mm_loadu_si128(words.as_ptr().cast())),
                e: _mm_set_epi32(words[4].cast_signed(), 0, 0, 0),
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, words: &mut [u32; 5]) {
        // SAFETY: there are four words and more, and the features as the caller promises.
        unsafe {
            _mm_storeu_si128(words.as_mut_ptr().cast(), _mm_shuffle_epi32::<REVERSE>(self.abcd));
            words[4] = _mm_extract_epi32::<3>(self.e).cast_unsigned();
        }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            Self { abcd: _mm_xor_si128(self.abcd, other.abcd), e: _mm_xor_si128(self.e, other.e) }
        }
    }
}

const REVERSE: i32 = 0b00_01_10_11;

/// One half of HMAC for each chain: a block with the digest `last`, after the block of the key.
#[inline(always)]
unsafe fn compress<const N: usize>(keys: &[State; N], last: [State; N]) -> [State; N] {
    // SAFETY: as the caller promises.
    unsafe {
        let end = _mm_set_epi32(0, i32::MIN, 0, 0);
        let zeros = _mm_set_epi32(0, 0, 0, 0);
        let length = _mm_set_epi32(0, 0, 0, (64 + 20) * 8);
        let mut words = last.map(|last| [last.abcd, _mm_or_si128(last.e, end), zeros, length]);
        let mut states = *keys;
        macro_rules! rounds {
            ($($function:literal: $($group:literal)+;)+) => {
                $($(four_rounds::<N, $group, $function>(&mut states, &mut words);)+)+
            };
        }
        rounds! {
            0: 0 1 2 3 4;
            1: 5 6 7 8 9;
            2: 10 11 12 13 14;
            3: 15 16 17 18 19;
        }
        core::array::from_fn(|chain| State {
            abcd: _mm_add_epi32(states[chain].abcd, keys[chain].abcd),
            e: _mm_sha1nexte_epu32(states[chain].e, keys[chain].e),
        })
    }
}

/// Performs rounds 4 `GROUP` to 4 `GROUP` + 3, and computes the message words for those 16 rounds
/// later.
///
/// After the first group, `e` holds the `abcd` from which the next `e` is computed.
#[inline(always)]
unsafe fn four_rounds<const N: usize, const GROUP: usize, const FUNCTION: i32>(
    states: &mut [State; N],
    words: &mut [[__m128i; 4]; N],
) {
    // SAFETY: as the caller promises.
    unsafe {
        for (state, words) in states.iter_mut().zip(&mut *words) {
            let added = if GROUP == 0 {
                _mm_add_epi32(state.e, words[0])
            } else {
                _mm_sha1nexte_epu32(state.e, words[GROUP % 4])
            };
            state.e = state.abcd;
            state.abcd = _mm_sha1rnds4_epu32::<FUNCTION>(state.abcd, added);
        }
        if GROUP >= 16 {
            return;
        }
        for words in words {
            let [first, second, third, fourth] = [0, 1, 2, 3].map(|at| words[(GROUP + at) % 4]);
            let sum = match GROUP {
                // The words 8 to 14 are zero.
                2 => third,
                _ => _mm_xor_si128(_mm_sha1msg1_epu32(first, second), third),
            };
            words[GROUP % 4] = _mm_sha1msg2_epu32(sum, fourth);
        }
    }
}
