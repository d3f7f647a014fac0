//! VAES with AVX2: two blocks in a vector.

use core::arch::x86_64::{
    __m256i, _mm_cvtsi64_si128, _mm_load_si128, _mm256_aesdec_epi128, _mm256_aesdeclast_epi128,
    _mm256_aesenc_epi128, _mm256_aesenclast_epi128, _mm256_broadcastsi128_si256,
    _mm256_bslli_epi128, _mm256_clmulepi64_epi128, _mm256_loadu_si256, _mm256_set1_epi64x,
    _mm256_setr_epi64x, _mm256_sllv_epi64, _mm256_srl_epi64, _mm256_srlv_epi64,
    _mm256_storeu_si256, _mm256_sub_epi64, _mm256_xor_si256,
};

use super::super::engine::{self, DEPTH, Lanes};
use super::super::frame;
use super::super::limit;
use super::super::schedule::{Block, Keys, Schedule};
use super::super::sectors::{SectorIvs, Sectors};
use super::lanes;

/// Two blocks.
#[derive(Clone, Copy)]
pub(in super::super) struct Vaes256(__m256i);

impl Vaes256 {
    #[inline(always)]
    unsafe fn times_each(self, n: i64) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let by = _mm256_setr_epi64x(n, n, n + 1, n + 1);
            let rest = _mm256_sub_epi64(_mm256_set1_epi64x(64), by);
            Self::carried(_mm256_sllv_epi64(self.0, by), _mm256_srlv_epi64(self.0, rest))
        }
    }
}

lanes! {
    Vaes256, __m256i, 2, "aes,avx2,pclmulqdq,vaes,vpclmulqdq", ymm_reg;
    _mm256_loadu_si256, _mm256_storeu_si256, _mm256_broadcastsi128_si256, _mm256_set1_epi64x,
    _mm256_xor_si256, _mm256_aesenc_epi128, _mm256_aesenclast_epi128, _mm256_aesdec_epi128,
    _mm256_aesdeclast_epi128, _mm256_srl_epi64, _mm256_bslli_epi128,
    _mm256_clmulepi64_epi128, further: 2 bytes
}
