//! The kernels for x86-64: AES-NI, and VAES with vectors of 256 and 512 bits.
//!
//! They differ in the width of their vectors. The macro `lanes` contains their shared code, in
//! terms of Intel's intrinsics.

// SAFETY: the functions of `Lanes` are `unsafe` because they need CPU features: those that the
// kernel's entry points enable, and that `AesKernel` has detected.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "see engine")]

mod aes_ni;
mod vaes256;
mod vaes512;

pub(super) use aes_ni::AesNi;
pub(super) use vaes256::Vaes256;
pub(super) use vaes512::Vaes512;

use core::arch::x86_64::{
    __m128i, _mm_aesenclast_si128, _mm_aesimc_si128, _mm_cvtsi128_si32, _mm_set1_epi32,
    _mm_setzero_si128,
};
use core::mem::transmute;

use super::schedule::{Block, KeyUnit};

/// AES-NI for key schedules. A value exists only if the CPU supports it.
pub(super) struct AesNiKeyUnit(());

impl AesNiKeyUnit {
    /// # Safety
    ///
    /// The CPU must support AES-NI.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl KeyUnit for AesNiKeyUnit {
    fn sub_word(&self, word: u32) -> u32 {
        #[target_feature(enable = "aes")]
        fn sub_word(word: u32) -> u32 {
            // With the same word in all columns, ShiftRows has no effect.
            let columns = _mm_set1_epi32(word.cast_signed());
            let substituted = _mm_aesenclast_si128(columns, _mm_setzero_si128());
            _mm_cvtsi128_si32(substituted).cast_unsigned()
        }
        // SAFETY: the creator of `self` promised it.
        unsafe { sub_word(word) }
    }

    fn inv_mix_columns(&self, key: Block) -> Block {
        #[target_feature(enable = "aes")]
        fn inv_mix_columns(key: __m128i) -> __m128i {
            _mm_aesimc_si128(key)
        }
        // SAFETY: the creator of `self` promised it; both types are 16 bytes, and valid for any
        // value.
        unsafe {
            let key = transmute::<Block, __m128i>(key);
            transmute::<__m128i, Block>(inv_mix_columns(key))
        }
    }
}

/// Implements [`Lanes`](super::engine::Lanes) for `$name`, a vector of type `$vector`, and the
/// entry points of the kernel. `times` calls `$name::times_each`.
///
/// A multiplication by x^n shifts 128-bit blocks to the left and adds the bits shifted out,
/// `carry`, times x^7 + x^2 + x + 1 (0x87): one carry-less multiplication.
macro_rules! lanes {
    (
        $name:ident, $vector:ident, $lanes:literal, $features:literal, $register:ident;
        $load:ident, $store:ident, $splat:expr, $splat_word:ident, $xor:ident,
        $enc:ident, $enc_last:ident, $dec:ident, $dec_last:ident,
        $right:ident, $left_bytes:ident, $clmul:ident,
        further: $further:literal bytes
    ) => {
        impl $name {
            /// Adds `shifted` and the bits shifted out of its 64-bit halves.
            #[inline(always)]
            unsafe fn carried(shifted: $vector, carry: $vector) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    let to_the_upper = $left_bytes::<8>(carry);
                    let around = $clmul::<0x01>(carry, $splat_word(0x87));
                    Self($xor($xor(shifted, to_the_upper), around))
                }
            }

            #[inline]
            #[target_feature(enable = $features)]
            fn barrier([a, b, c, d, e, f, g, h]: &mut [Self; DEPTH]) {
                // SAFETY: emits no instruction; it only forces all blocks into registers.
                unsafe {
                    core::arch::asm!(
                        "/* {} {} {} {} {} {} {} {} */",
                        inout($register) a.0, inout($register) b.0,
                        inout($register) c.0, inout($register) d.0,
                        inout($register) e.0, inout($register) f.0,
                        inout($register) g.0, inout($register) h.0,
                        options(pure, nomem, nostack, preserves_flags),
                    );
                }
            }

            /// Encrypts sectors.
            ///
            /// # Safety
            ///
            /// The CPU must support the features.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn encrypt_sectors<const ROUNDS: usize>(
                keys: &Keys,
                ivs: SectorIvs<'_>,
                sectors: &Sectors<'_>,
            ) {
                // SAFETY: the features are those of the vector.
                unsafe { engine::run::<Self, ROUNDS, true>(keys, ivs, sectors) }
            }

            /// Decrypts sectors.
            ///
            /// # Safety
            ///
            /// The CPU must support the features.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn decrypt_sectors<const ROUNDS: usize>(
                keys: &Keys,
                ivs: SectorIvs<'_>,
                sectors: &Sectors<'_>,
            ) {
                // SAFETY: the features are those of the vector.
                unsafe { engine::run::<Self, ROUNDS, false>(keys, ivs, sectors) }
            }

            /// Overwrites the stack that the kernel used.
            ///
            /// # Safety
            ///
            /// The CPU must support the features.
            #[inline(never)]
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn scrub() {
                // SAFETY: the features are those of the vector.
                unsafe { frame::scrub::<Self>() }
            }

            /// Performs only rounds, to measure the limit.
            ///
            /// # Safety
            ///
            /// The CPU must support the features.
            #[target_feature(enable = $features)]
            pub(in super::super) unsafe fn rounds_only(
                keys: &Schedule,
                rounds: usize,
                times: usize,
            ) -> Block {
                // SAFETY: the features are those of the vector.
                unsafe { limit::rounds_only::<Self>(keys, rounds, times) }
            }
        }

        impl Lanes for $name {
            const LANES: usize = $lanes;
            const TWEAKS_AT_ONCE: bool = $lanes == 4;

            #[inline(always)]
            unsafe fn load(from: *const u8) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($load(from.cast())) }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut u8) {
                // SAFETY: as the caller promises.
                unsafe { $store(to.cast(), self.0) }
            }

            #[inline(always)]
            unsafe fn splat(block: &Block) -> Self {
                // SAFETY: a block is 16 bytes, with the same alignment.
                unsafe { Self($splat(_mm_load_si128(core::ptr::from_ref(block).cast()))) }
            }

            #[inline(always)]
            unsafe fn xor(self, other: Self) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self($xor(self.0, other.0)) }
            }

            #[inline(always)]
            unsafe fn times(self, n: usize) -> Self {
                // SAFETY: as the caller promises.
                unsafe { self.times_each(n.cast_signed() as i64) }
            }

            #[inline(always)]
            unsafe fn further(self) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    let shifted = $left_bytes::<$further>(self.0);
                    let carry = $right(self.0, _mm_cvtsi64_si128(64 - 8 * $further));
                    Self($xor(shifted, $clmul::<0x01>(carry, $splat_word(0x87))))
                }
            }

            #[inline(always)]
            unsafe fn whitening(keys: &Schedule) -> Self {
                // SAFETY: as the caller promises.
                unsafe { Self::splat(&keys.0[0]) }
            }

            #[inline(always)]
            unsafe fn round<const ENCRYPT: bool>(self, keys: &Schedule, round: usize) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    let key = Self::splat(&keys.0[round]).0;
                    Self(if ENCRYPT { $enc(self.0, key) } else { $dec(self.0, key) })
                }
            }

            #[inline(always)]
            unsafe fn last_round<const ENCRYPT: bool>(
                self,
                _keys: &Schedule,
                _rounds: usize,
                last: Self,
            ) -> Self {
                // SAFETY: as the caller promises.
                unsafe {
                    Self(if ENCRYPT { $enc_last(self.0, last.0) } else { $dec_last(self.0, last.0) })
                }
            }

            #[inline(always)]
            unsafe fn together(blocks: &mut [Self; DEPTH]) {
                // SAFETY: as the caller promises.
                unsafe { Self::barrier(blocks) }
            }
        }
    };
}
use lanes;
