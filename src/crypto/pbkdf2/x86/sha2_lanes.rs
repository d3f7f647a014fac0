//! SHA-256, SHA-384 and SHA-512 in lanes: a vector holds the same word of many chains.

// SAFETY: everything in this file is `unsafe` for the same reason, abbreviated below to "as the
// caller promises": the CPU supports the vector's instructions.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]
#![allow(clippy::many_single_char_names, reason = "the names of FIPS 180-4")]

use super::super::chain::Words;
use super::super::constants::{SHA256_ROUNDS, SHA512_ROUNDS};
use super::rows::{load_rows, spelled_out, store_rows};
use super::vector::{Avx2U32, Avx2U64, Avx512U32, Avx512U64, Vector};

/// Continues up to eight chains of SHA-256.
///
/// # Safety
///
/// The CPU must support AVX2.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn sha256_avx2(chains: &mut [Words<u32, 8>], iterations: u32) {
    // SAFETY: the features are those of the vector.
    unsafe { run::<Avx2U32, 8>(chains, iterations) }
}

/// Continues up to sixteen chains of SHA-256.
///
/// # Safety
///
/// The CPU must support AVX-512F.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn sha256_avx512(chains: &mut [Words<u32, 8>], iterations: u32) {
    // SAFETY: the features are those of the vector.
    unsafe { run::<Avx512U32, 8>(chains, iterations) }
}

/// Continues up to four chains of SHA-512, or of SHA-384 with a `DIGEST` of 6 words.
///
/// # Safety
///
/// The CPU must support AVX2.
#[target_feature(enable = "avx2")]
pub(in super::super) unsafe fn sha512_avx2<const DIGEST: usize>(
    chains: &mut [Words<u64, 8>],
    iterations: u32,
) {
    // SAFETY: the features are those of the vector.
    unsafe { run::<Avx2U64, DIGEST>(chains, iterations) }
}

/// Continues up to eight chains of SHA-512, or of SHA-384 with a `DIGEST` of 6 words.
///
/// # Safety
///
/// The CPU must support AVX-512F.
#[target_feature(enable = "avx512f")]
pub(in super::super) unsafe fn sha512_avx512<const DIGEST: usize>(
    chains: &mut [Words<u64, 8>],
    iterations: u32,
) {
    // SAFETY: the features are those of the vector.
    unsafe { run::<Avx512U64, DIGEST>(chains, iterations) }
}

/// Differences between SHA-256 (32-bit words) and SHA-512 (64-bit words).
trait Sha2: Vector {
    /// Constant added in each round
    const ROUNDS: &'static [Self::Word];

    /// The bit that ends the message
    const END: Self::Word;

    /// Length of a message of `words` words, in bits.
    fn bits(words: usize) -> Self::Word;

    /// Upper-case and lower-case sigmas of FIPS 180-4.
    unsafe fn big0(self) -> Self;
    unsafe fn big1(self) -> Self;
    unsafe fn small0(self) -> Self;
    unsafe fn small1(self) -> Self;
}

macro_rules! sha2 {
    ($vector:ident, $word:ident, $rounds:ident;
     $big0:tt $big1:tt $small0:tt $small1:tt) => {
        impl Sha2 for $vector {
            const ROUNDS: &[$word] = &$rounds;
            const END: $word = 1 << ($word::BITS - 1);

            #[allow(clippy::cast_possible_truncation, reason = "two blocks at most")]
            fn bits(words: usize) -> $word {
                (words * 8 * size_of::<$word>()) as $word
            }

            sha2!(big0 rotate_right $big0);
            sha2!(big1 rotate_right $big1);
            sha2!(small0 shift_right $small0);
            sha2!(small1 shift_right $small1);
        }
    };
    ($name:ident $last:ident ($a:literal $b:literal $c:literal)) => {
        #[inline(always)]
        unsafe fn $name(self) -> Self {
            // SAFETY: as the caller promises.
            unsafe {
                self.rotate_right::<$a>().xor3(self.rotate_right::<$b>(), self.$last::<$c>())
            }
        }
    };
}

sha2!(Avx2U32, u32, SHA256_ROUNDS; (2 13 22) (6 11 25) (7 18 3) (17 19 10));
sha2!(Avx512U32, u32, SHA256_ROUNDS; (2 13 22) (6 11 25) (7 18 3) (17 19 10));
sha2!(Avx2U64, u64, SHA512_ROUNDS; (28 34 39) (14 18 41) (1 8 7) (19 61 6));
sha2!(Avx512U64, u64, SHA512_ROUNDS; (28 34 39) (14 18 41) (1 8 7) (19 61 6));

#[inline(always)]
unsafe fn run<V: Sha2, const DIGEST: usize>(chains: &mut [Words<V::Word, 8>], iterations: u32) {
    // SAFETY: as the caller promises.
    unsafe {
        let keys: [[V; 8]; 2] =
            [load_rows(chains, |chain| &chain.inner), load_rows(chains, |chain| &chain.outer)];
        let mut last: [V; 8] = load_rows(chains, |chain| &chain.last);
        let mut sum: [V; 8] = load_rows(chains, |chain| &chain.sum);
        for half in 0..2 * u64::from(iterations) {
            last = compress::<V, DIGEST>(&keys[(half % 2) as usize], &last);
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
unsafe fn compress<V: Sha2, const DIGEST: usize>(key: &[V; 8], last: &[V; 8]) -> [V; 8] {
    // SAFETY: as the caller promises.
    unsafe {
        let mut words = [V::splat(V::Word::default()); 16];
        words[..DIGEST].copy_from_slice(&last[..DIGEST]);
        words[DIGEST] = V::splat(V::END);
        words[15] = V::splat(V::bits(16 + DIGEST));

        let mut state = *key;
        // The first and second sixteen rounds are unrolled, so that the compiler precomputes the
        // effects of the constant words.
        sixteen_rounds(&mut state, &words, 0);
        extend(&mut words);
        sixteen_rounds(&mut state, &words, 16);
        for first in (32..V::ROUNDS.len()).step_by(16) {
            extend(&mut words);
            sixteen_rounds(&mut state, &words, first);
        }
        core::array::from_fn(|at| state[at].add(key[at]))
    }
}

/// Computes the words for the next sixteen rounds.
#[inline(always)]
unsafe fn extend<V: Sha2>(words: &mut [V; 16]) {
    let from = |words: &[V; 16], at: usize, back: usize| words[(at + 16 - back) % 16];
    // SAFETY: as the caller promises.
    unsafe {
        spelled_out!(at in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 => {
            let early = from(words, at, 16).add(from(words, at, 15).small0());
            let late = from(words, at, 7).add(from(words, at, 2).small1());
            words[at] = early.add(late);
        });
    }
}

#[inline(always)]
unsafe fn sixteen_rounds<V: Sha2>(state: &mut [V; 8], words: &[V; 16], first: usize) {
    // SAFETY: as the caller promises.
    unsafe {
        let constants: &[V::Word; 16] =
            V::ROUNDS[first..].first_chunk().expect("a multiple of 16 rounds");
        spelled_out!(at in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 => {
            let [a, b, c, d, e, f, g, h] = *state;
            let added = words[at].add(V::splat(constants[at]));
            // The sigmas take longest, so the terms without them are added first.
            let early = h.add(added);
            let mixed = e.choose(f, g);
            let late = e.big1();
            *state = [
                early.add(mixed).add(late).add(a.majority(b, c)).add(a.big0()),
                a,
                b,
                c,
                d.add(early).add(mixed).add(late),
                e,
                f,
                g,
            ];
        });
    }
}
