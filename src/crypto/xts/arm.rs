//! The kernel for `ARMv8` with its cryptographic extension: one block in a vector.
//!
//! An ARM round adds its key first (AESE, AESD) and mixes the columns afterwards (AESMC, AESIMC).
//! So round n uses the key of round n - 1 of FIPS 197, and no key is added before the first round.

// SAFETY: the functions of `Lanes` are `unsafe` because they need CPU features: those that the
// kernel's entry points enable, and that `AesKernel` has detected.
#![allow(unsafe_code)]
#![allow(clippy::inline_always, reason = "see engine")]
#![allow(clippy::many_single_char_names, reason = "eight vectors")]

use core::arch::aarch64::{
    uint8x16_t, uint64x2_t, vaesdq_u8, vaeseq_u8, vaesimcq_u8, vaesmcq_u8, vdupq_n_s64, vdupq_n_u8,
    vdupq_n_u32, veorq_u8, vextq_u8, vgetq_lane_u32, vgetq_lane_u64, vld1q_u8, vmull_p64,
    vreinterpretq_u8_p128, vreinterpretq_u8_u32, vreinterpretq_u8_u64, vreinterpretq_u32_u8,
    vreinterpretq_u64_u8, vshlq_u64, vshrq_n_u64, vst1q_u8,
};
use core::mem::transmute;

use super::engine::{self, DEPTH, Lanes};
use super::frame;
use super::limit;
use super::schedule::{Block, KeyUnit, Keys, Schedule};
use super::sectors::{SectorIvs, Sectors};

/// One block.
#[derive(Clone, Copy)]
pub(super) struct Neon(uint8x16_t);

impl Neon {
    /// Encrypts sectors.
    ///
    /// # Safety
    ///
    /// The CPU must support the features.
    #[target_feature(enable = "neon,aes")]
    pub(super) unsafe fn encrypt_sectors<const ROUNDS: usize>(
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
    #[target_feature(enable = "neon,aes")]
    pub(super) unsafe fn decrypt_sectors<const ROUNDS: usize>(
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
    #[target_feature(enable = "neon,aes")]
    pub(super) unsafe fn scrub() {
        // SAFETY: the features are those of the vector.
        unsafe { frame::scrub::<Self>() }
    }

    /// Performs only rounds, to measure the limit.
    ///
    /// # Safety
    ///
    /// The CPU must support the features.
    #[target_feature(enable = "neon,aes")]
    pub(super) unsafe fn rounds_only(keys: &Schedule, rounds: usize, times: usize) -> Block {
        // SAFETY: the features are those of the vector.
        unsafe { limit::rounds_only::<Self>(keys, rounds, times) }
    }

    #[inline]
    #[target_feature(enable = "neon,aes")]
    fn shifted(self, n: i64) -> Self {
        let halves = vreinterpretq_u64_u8(self.0);
        let shifted = vreinterpretq_u8_u64(vshlq_u64(halves, vdupq_n_s64(n)));
        let carry = vshlq_u64(halves, vdupq_n_s64(n - 64));
        let to_the_upper = vextq_u8::<8>(vdupq_n_u8(0), vreinterpretq_u8_u64(carry));
        Self(veorq_u8(veorq_u8(shifted, to_the_upper), around(carry)))
    }

    #[inline]
    #[target_feature(enable = "neon,aes")]
    fn next_byte(self) -> Self {
        let shifted = vextq_u8::<15>(vdupq_n_u8(0), self.0);
        let carry = vshrq_n_u64::<56>(vreinterpretq_u64_u8(self.0));
        Self(veorq_u8(shifted, around(carry)))
    }
}

/// Multiplies the bits shifted out of the upper half by x^7 + x^2 + x + 1.
#[inline]
#[target_feature(enable = "neon,aes")]
fn around(carry: uint64x2_t) -> uint8x16_t {
    vreinterpretq_u8_p128(vmull_p64(vgetq_lane_u64::<1>(carry), 0x87))
}

// The intrinsics are inlined only into functions that enable the features.

#[inline]
#[target_feature(enable = "neon,aes")]
fn encrypt_round(block: uint8x16_t, key: uint8x16_t) -> uint8x16_t {
    vaesmcq_u8(vaeseq_u8(block, key))
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn decrypt_round(block: uint8x16_t, key: uint8x16_t) -> uint8x16_t {
    vaesimcq_u8(vaesdq_u8(block, key))
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn substitute(block: uint8x16_t, key: uint8x16_t) -> uint8x16_t {
    vaeseq_u8(block, key)
}

#[inline]
#[target_feature(enable = "neon,aes")]
fn substitute_back(block: uint8x16_t, key: uint8x16_t) -> uint8x16_t {
    vaesdq_u8(block, key)
}

impl Lanes for Neon {
    const LANES: usize = 1;
    const TWEAKS_AT_ONCE: bool = false;

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self(vld1q_u8(from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe { vst1q_u8(to, self.0) }
    }

    #[inline(always)]
    unsafe fn splat(block: &Block) -> Self {
        // SAFETY: a block is 16 bytes.
        unsafe { Self::load(core::ptr::from_ref(block).cast()) }
    }

    #[inline(always)]
    unsafe fn xor(self, other: Self) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self(veorq_u8(self.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn times(self, n: usize) -> Self {
        // SAFETY: as the caller promises.
        unsafe { self.shifted(n.cast_signed() as i64) }
    }

    #[inline(always)]
    unsafe fn further(self) -> Self {
        // SAFETY: as the caller promises.
        unsafe { self.next_byte() }
    }

    #[inline(always)]
    unsafe fn whitening(_keys: &Schedule) -> Self {
        // SAFETY: as the caller promises.
        unsafe { Self(vdupq_n_u8(0)) }
    }

    #[inline(always)]
    unsafe fn round<const ENCRYPT: bool>(self, keys: &Schedule, round: usize) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let key = Self::splat(&keys.0[round - 1]).0;
            Self(if ENCRYPT { encrypt_round(self.0, key) } else { decrypt_round(self.0, key) })
        }
    }

    #[inline(always)]
    unsafe fn last_round<const ENCRYPT: bool>(
        self,
        keys: &Schedule,
        rounds: usize,
        last: Self,
    ) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let key = Self::splat(&keys.0[rounds - 1]).0;
            let block =
                if ENCRYPT { substitute(self.0, key) } else { substitute_back(self.0, key) };
            Self(veorq_u8(block, last.0))
        }
    }

    #[inline(always)]
    unsafe fn together([a, b, c, d, e, f, g, h]: &mut [Self; DEPTH]) {
        // SAFETY: emits no instruction; it only forces all blocks into registers.
        unsafe {
            core::arch::asm!(
                "/* {0:v} {1:v} {2:v} {3:v} {4:v} {5:v} {6:v} {7:v} */",
                inout(vreg) a.0, inout(vreg) b.0, inout(vreg) c.0, inout(vreg) d.0,
                inout(vreg) e.0, inout(vreg) f.0, inout(vreg) g.0, inout(vreg) h.0,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
    }
}

/// `ARMv8`'s AES for key schedules. A value exists only if the CPU supports it.
pub(super) struct NeonKeyUnit(());

impl NeonKeyUnit {
    /// # Safety
    ///
    /// The CPU must support AES.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }
}

impl KeyUnit for NeonKeyUnit {
    fn sub_word(&self, word: u32) -> u32 {
        #[target_feature(enable = "neon,aes")]
        fn sub_word(word: u32) -> u32 {
            // With the same word in all columns, ShiftRows has no effect.
            let columns = vreinterpretq_u8_u32(vdupq_n_u32(word));
            let substituted = vaeseq_u8(columns, vdupq_n_u8(0));
            vgetq_lane_u32::<0>(vreinterpretq_u32_u8(substituted))
        }
        // SAFETY: the creator of `self` promised it.
        unsafe { sub_word(word) }
    }

    fn inv_mix_columns(&self, key: Block) -> Block {
        #[target_feature(enable = "neon,aes")]
        fn inv_mix_columns(key: uint8x16_t) -> uint8x16_t {
            vaesimcq_u8(key)
        }
        // SAFETY: the creator of `self` promised it; both types are 16 bytes, and valid for any
        // value.
        unsafe {
            let key = transmute::<Block, uint8x16_t>(key);
            transmute::<uint8x16_t, Block>(inv_mix_columns(key))
        }
    }
}
