//! AES-NI: one block in a vector. AVX is required for its three-operand encoding.

use core::arch::x86_64::{
    __m128i, _mm_aesdec_si128, _mm_aesdeclast_si128, _mm_aesenc_si128, _mm_aesenclast_si128,
    _mm_bslli_si128, _mm_clmulepi64_si128, _mm_cvtsi64_si128, _mm_load_si128, _mm_loadu_si128,
    _mm_set1_epi64x, _mm_sll_epi64, _mm_srl_epi64, _mm_storeu_si128, _mm_xor_si128,
};
use core::convert::identity;

use super::super::engine::{self, DEPTH, Lanes};
use super::super::frame;
use super::super::limit;
use super::super::schedule::{Block, Keys, Schedule};
use super::super::sectors::{SectorIvs, Sectors};
use super::lanes;

/// One block.
#[derive(Clone, Copy)]
pub(in super::super) struct AesNi(__m128i);

impl AesNi {
    #[inline(always)]
    unsafe fn times_each(self, n: i64) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let shifted = _mm_sll_epi64(self.0, _mm_cvtsi64_si128(n));
            Self::carried(shifted, _mm_srl_epi64(self.0, _mm_cvtsi64_si128(64 - n)))
        }
    }
}

lanes! {
    AesNi, __m128i, 1, "aes,avx,pclmulqdq", xmm_reg;
    _mm_loadu_si128, _mm_storeu_si128, identity, _mm_set1_epi64x,
    _mm_xor_si128, _mm_aesenc_si128, _mm_aesenclast_si128, _mm_aesdec_si128,
    _mm_aesdeclast_si128, _mm_srl_epi64, _mm_bslli_si128,
    _mm_clmulepi64_si128, further: 1 bytes
}
