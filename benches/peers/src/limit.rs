//! The limit: rounds of AES on registers, and nothing else.
//!
//! No memory is touched, no tweak is made, and no round has to wait for one of another block, so nobody
//! can encrypt with these instructions faster than this loop runs through them.

use crate::Work;
use crate::contender::Entry;

#[cfg(target_arch = "x86_64")]
pub fn entries(work: Work) -> Vec<Entry> {
    x86::entries(work)
}

/// Nobody has written the loop for this architecture.
#[cfg(not(target_arch = "x86_64"))]
pub fn entries(_: Work) -> Vec<Entry> {
    Vec::new()
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        _mm_aesdec_si128, _mm_aesenc_si128, _mm_set1_epi64x, _mm256_aesdec_epi128,
        _mm256_aesenc_epi128, _mm256_set1_epi64x, _mm512_aesdec_epi128, _mm512_aesenc_epi128,
        _mm512_set1_epi64,
    };
    use std::hint::black_box;

    use crate::Work;
    use crate::contender::{Contender, Entry, Kind, entry};

    /// The loop for the direction and the rounds of `work`.
    macro_rules! choose {
        ($work:ident, $encrypt:ident, $decrypt:ident) => {
            match ($work.encrypt, $work.rounds()) {
                (true, 10) => $encrypt::<10>,
                (true, _) => $encrypt::<14>,
                (false, 10) => $decrypt::<10>,
                (false, _) => $decrypt::<14>,
            }
        };
    }

    /// The widths that this CPU has.
    pub fn entries(work: Work) -> Vec<Entry> {
        let vaes = is_x86_feature_detected!("vaes");
        let mut loops: Vec<(u32, unsafe fn())> = Vec::new();
        if vaes && is_x86_feature_detected!("avx512f") {
            loops.push((512, choose!(work, encrypt_512, decrypt_512)));
        }
        if vaes && is_x86_feature_detected!("avx2") {
            loops.push((256, choose!(work, encrypt_256, decrypt_256)));
        }
        if is_x86_feature_detected!("aes") {
            loops.push((128, choose!(work, encrypt_128, decrypt_128)));
        }
        let limit = |(width, run)| {
            let bytes = ITERATIONS * CHAINS * width as usize / 8;
            entry(format!("limit {width}"), Kind::Limit { width }, Limit { run, bytes })
        };
        loops.into_iter().map(limit).collect()
    }

    struct Limit {
        /// A loop that this CPU can run.
        run: unsafe fn(),
        bytes: usize,
    }

    impl Contender for Limit {
        fn pass(&mut self, _: &mut [u8]) -> usize {
            // SAFETY: `entries` has seen that the CPU has the features of the loop.
            unsafe { (self.run)() };
            self.bytes
        }
    }

    /// A loop over one instruction.
    macro_rules! register_loop {
        ($name:ident, $features:literal, $fill:ident, $round:ident) => {
            #[target_feature(enable = $features)]
            fn $name<const ROUNDS: usize>() {
                // The compiler knows neither the key nor what is in the chains, so it cannot tell
                // that they are alike. One key serves all rounds: the AES unit does not care.
                let key = $fill(black_box(0x0123_4567_89ab_cdef));
                let mut chains = black_box([key; CHAINS]);
                for _ in 0..ITERATIONS {
                    for _ in 0..ROUNDS {
                        for chain in &mut chains {
                            *chain = $round(*chain, key);
                        }
                    }
                }
                black_box(chains);
            }
        };
    }

    register_loop!(encrypt_512, "vaes,avx512f", _mm512_set1_epi64, _mm512_aesenc_epi128);
    register_loop!(decrypt_512, "vaes,avx512f", _mm512_set1_epi64, _mm512_aesdec_epi128);
    register_loop!(encrypt_256, "vaes,avx2", _mm256_set1_epi64x, _mm256_aesenc_epi128);
    register_loop!(decrypt_256, "vaes,avx2", _mm256_set1_epi64x, _mm256_aesdec_epi128);
    register_loop!(encrypt_128, "aes", _mm_set1_epi64x, _mm_aesenc_si128);
    register_loop!(decrypt_128, "aes", _mm_set1_epi64x, _mm_aesdec_si128);

    /// Blocks in flight, each in a register: more than an instruction takes cycles times the units
    /// that run it, and with the key no more than the sixteen registers of AVX2.
    const CHAINS: usize = 12;
    /// So many that entering the loop is nothing.
    const ITERATIONS: usize = 256;
}
