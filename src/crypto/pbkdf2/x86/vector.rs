//! Vectors of words, one word from each chain: AVX2 and AVX-512.

// SAFETY: the functions of `Vector` are `unsafe` because they need CPU features: those that
// the kernels' entry points enable.
#![allow(unsafe_code)]
#![allow(
    clippy::inline_always,
    reason = "what is not inlined into the entry point is compiled without the CPU features"
)]

use core::arch::x86_64::{
    __m256i, __m512i, _mm_cvtsi32_si128, _mm256_add_epi32, _mm256_add_epi64, _mm256_and_si256,
    _mm256_andnot_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi32,
    _mm256_set1_epi64x, _mm256_sll_epi32, _mm256_sll_epi64, _mm256_srl_epi32, _mm256_srl_epi64,
    _mm256_storeu_si256, _mm256_xor_si256, _mm512_add_epi32, _mm512_add_epi64, _mm512_loadu_si512,
    _mm512_ror_epi32, _mm512_ror_epi64, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_srl_epi32,
    _mm512_srl_epi64, _mm512_storeu_si512, _mm512_ternarylogic_epi64, _mm512_xor_si512,
};

/// A vector with one word from each chain.
///
/// All functions need the CPU features of their kernel, and are inlined into one that enables these.
pub(super) trait Vector: Copy {
    /// `u32` or `u64`
    type Word: Copy + Default + zeroize::Zeroize + 'static;

    /// Number of chains
    const LANES: usize;

    /// Loads `LANES` words.
    unsafe fn load(from: *const Self::Word) -> Self;

    /// Stores `LANES` words.
    unsafe fn store(self, to: *mut Self::Word);

    /// Copies the word to all lanes.
    unsafe fn splat(word: Self::Word) -> Self;

    unsafe fn add(self, other: Self) -> Self;

    unsafe fn xor(self, other: Self) -> Self;

    /// XORs three vectors.
    unsafe fn xor3(self, second: Self, third: Self) -> Self;

    /// Selects bits of `one` where `self` is 1, and of `zero` where it is 0.
    unsafe fn choose(self, one: Self, zero: Self) -> Self;

    /// The majority of each bit.
    unsafe fn majority(self, second: Self, third: Self) -> Self;

    unsafe fn rotate_right<const BITS: i32>(self) -> Self;

    unsafe fn shift_right<const BITS: i32>(self) -> Self;
}

macro_rules! avx2 {
    (
        $(#[$doc:meta])* $name:ident, $word:ident, $lanes:literal;
        $splat:ident, $add:ident, $left:ident, $right:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(__m256i);

        impl Vector for $name {
            type Word = $word;

            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn load(from: *const $word) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm256_loadu_si256(from.cast())) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $word) {
                // SAFETY: as the caller promises.
                unsafe { _mm256_storeu_si256(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn splat(word: $word) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($splat(word.cast_signed())) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($add(self.0, other.0)) }
            }

            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm256_xor_si256(self.0, other.0)) }
            }

            #[inline(always)]
            unsafe fn xor3(self, second: Self, third: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { self.xor(second).xor(third) }
            }

            #[inline(always)]
            unsafe fn choose(self, one: Self, zero: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    let ones = _mm256_and_si256(self.0, one.0);
                    Self(_mm256_or_si256(ones, _mm256_andnot_si256(self.0, zero.0)))
                }
            }

            #[inline(always)]
            unsafe fn majority(self, second: Self, third: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    // Where the first two differ, the third decides.
                    self.xor(second).choose(third, second)
                }
            }

            #[inline(always)]
            unsafe fn rotate_right<const BITS: i32>(self) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    let left = $word::BITS.cast_signed() - BITS;
                    let wrapped = $left(self.0, _mm_cvtsi32_si128(left));
                    Self(_mm256_or_si256(wrapped, $right(self.0, _mm_cvtsi32_si128(BITS))))
                }
            }

            #[inline(always)]
            unsafe fn shift_right<const BITS: i32>(self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($right(self.0, _mm_cvtsi32_si128(BITS))) }
            }
        }
    };
}

macro_rules! avx512 {
    (
        $(#[$doc:meta])* $name:ident, $word:ident, $lanes:literal;
        $splat:ident, $add:ident, $rotate:ident, $right:ident
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub(super) struct $name(__m512i);

        impl Vector for $name {
            type Word = $word;

            const LANES: usize = $lanes;

            #[inline(always)]
            unsafe fn load(from: *const $word) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm512_loadu_si512(from.cast())) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut $word) {
                // SAFETY: as the caller promises.
                unsafe { _mm512_storeu_si512(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn splat(word: $word) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($splat(word.cast_signed())) }
            }

            #[inline(always)]
            unsafe fn add(self, other: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($add(self.0, other.0)) }
            }

            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm512_xor_si512(self.0, other.0)) }
            }

            // The immediates are truth tables for three bits.

            #[inline(always)]
            unsafe fn xor3(self, second: Self, third: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm512_ternarylogic_epi64::<0x96>(self.0, second.0, third.0)) }
            }

            #[inline(always)]
            unsafe fn choose(self, one: Self, zero: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm512_ternarylogic_epi64::<0xca>(self.0, one.0, zero.0)) }
            }

            #[inline(always)]
            unsafe fn majority(self, second: Self, third: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self(_mm512_ternarylogic_epi64::<0xe8>(self.0, second.0, third.0)) }
            }

            #[inline(always)]
            unsafe fn rotate_right<const BITS: i32>(self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($rotate::<BITS>(self.0)) }
            }

            #[inline(always)]
            unsafe fn shift_right<const BITS: i32>(self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($right(self.0, _mm_cvtsi32_si128(BITS))) }
            }
        }
    };
}

avx2! {
    /// 32-bit words of eight chains
    Avx2U32, u32, 8;
    _mm256_set1_epi32, _mm256_add_epi32, _mm256_sll_epi32, _mm256_srl_epi32
}

avx2! {
    /// 64-bit words of four chains
    Avx2U64, u64, 4;
    _mm256_set1_epi64x, _mm256_add_epi64, _mm256_sll_epi64, _mm256_srl_epi64
}

avx512! {
    /// 32-bit words of sixteen chains
    Avx512U32, u32, 16;
    _mm512_set1_epi32, _mm512_add_epi32, _mm512_ror_epi32, _mm512_srl_epi32
}

avx512! {
    /// 64-bit words of eight chains
    Avx512U64, u64, 8;
    _mm512_set1_epi64, _mm512_add_epi64, _mm512_ror_epi64, _mm512_srl_epi64
}
