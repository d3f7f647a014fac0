//! VAES with AVX-512: four blocks in a vector.

use core::arch::x86_64::{
    __m512i, _mm_cvtsi64_si128, _mm_load_si128, _mm512_aesdec_epi128, _mm512_aesdeclast_epi128,
    _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_broadcast_i32x4, _mm512_bslli_epi128,
    _mm512_clmulepi64_epi128, _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setr_epi64,
    _mm512_sllv_epi64, _mm512_srl_epi64, _mm512_srlv_epi64, _mm512_storeu_si512, _mm512_sub_epi64,
    _mm512_xor_si512,
};

use super::super::engine::{self, DEPTH, Lanes};
use super::super::frame;
use super::super::limit;
use super::super::schedule::{Block, Keys, Schedule};
use super::super::sectors::{SectorIvs, Sectors};
use super::lanes;

/// Four blocks.
#[derive(Clone, Copy)]
pub(in super::super) struct Vaes512(__m512i);

impl Vaes512 {
    #[inline(always)]
    unsafe fn times_each(self, n: i64) -> Self {
        // SAFETY: as the caller promises.
        unsafe {
            let by = _mm512_setr_epi64(n, n, n + 1, n + 1, n + 2, n + 2, n + 3, n + 3);
            let rest = _mm512_sub_epi64(_mm512_set1_epi64(64), by);
            Self::carried(_mm512_sllv_epi64(self.0, by), _mm512_srlv_epi64(self.0, rest))
        }
    }
}

lanes! {
    Vaes512, __m512i, 4, "aes,avx512bw,avx512f,pclmulqdq,vaes,vpclmulqdq", zmm_reg;
    _mm512_loadu_si512, _mm512_storeu_si512, _mm512_broadcast_i32x4, _mm512_set1_epi64,
    _mm512_xor_si512, _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_aesdec_epi128,
    _mm512_aesdeclast_epi128, _mm512_srl_epi64, _mm512_bslli_epi128,
    _mm512_clmulepi64_epi128, further: 4 bytes
}
