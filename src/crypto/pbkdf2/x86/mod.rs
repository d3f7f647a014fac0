//! The kernels for x86-64 and their speeds.
//!
//! Times are nanoseconds for an iteration of all chains of a kernel, on a Zen 5 core. The ratios
//! are similar on other cores: with the SHA extensions, more chains cost little until the unit is
//! busy, at six or eight; AVX-512 takes the same time for one chain as for all.

// SAFETY: creating a kernel is `unsafe` because it needs CPU features, which are checked just
// before.
#![allow(unsafe_code)]

mod rows;
mod sha1_lanes;
mod sha1_ni;
mod sha256_ni;
mod sha2_lanes;
mod vector;

use std::arch::is_x86_feature_detected as has;

use super::chain::Words;
use super::kernel::Kernel;

/// Adds a kernel of the SHA extensions for each number of chains.
macro_rules! sha_extensions {
    ($kernels:ident, $module:ident: $($chains:literal in $nanos:literal ns)+) => {
        if has!("sha") && has!("sse4.1") && has!("ssse3") {
            // SAFETY: the CPU supports them.
            $($kernels.push(unsafe {
                Kernel::new($module::run::<$chains>, $chains..=$chains, $nanos)
            });)+
        }
    };
}

/// Adds a kernel of vectors, if the CPU supports `$feature`.
macro_rules! vectors {
    ($kernels:ident, $feature:tt, $run:expr, up to $chains:literal in $nanos:literal ns) => {
        if has!($feature) {
            // SAFETY: the CPU supports it.
            $kernels.push(unsafe { Kernel::new($run, 1..=$chains, $nanos) });
        }
    };
}

pub(super) fn sha1_kernels() -> Vec<Kernel<Words<u32, 5>>> {
    let mut kernels = Vec::new();
    sha_extensions!(kernels, sha1_ni:
        1 in 63 ns 2 in 71 ns 3 in 105 ns 4 in 126 ns 5 in 142 ns 6 in 147 ns 7 in 172 ns 8 in 193 ns);
    vectors!(kernels, "avx2", sha1_lanes::avx2, up to 8 in 260 ns);
    vectors!(kernels, "avx512f", sha1_lanes::avx512, up to 16 in 183 ns);
    kernels
}

pub(super) fn sha256_kernels() -> Vec<Kernel<Words<u32, 8>>> {
    let mut kernels = Vec::new();
    sha_extensions!(kernels, sha256_ni:
        1 in 68 ns 2 in 83 ns 3 in 127 ns 4 in 153 ns 5 in 181 ns 6 in 206 ns 7 in 234 ns 8 in 259 ns);
    vectors!(kernels, "avx2", sha2_lanes::sha256_avx2, up to 8 in 620 ns);
    vectors!(kernels, "avx512f", sha2_lanes::sha256_avx512, up to 16 in 365 ns);
    kernels
}

pub(super) fn sha384_kernels() -> Vec<Kernel<Words<u64, 8>>> {
    sha512_kernels_of::<6>()
}

pub(super) fn sha512_kernels() -> Vec<Kernel<Words<u64, 8>>> {
    sha512_kernels_of::<8>()
}

/// Kernels for a digest of `DIGEST` words.
fn sha512_kernels_of<const DIGEST: usize>() -> Vec<Kernel<Words<u64, 8>>> {
    let mut kernels = Vec::new();
    vectors!(kernels, "avx2", sha2_lanes::sha512_avx2::<DIGEST>, up to 4 in 750 ns);
    vectors!(kernels, "avx512f", sha2_lanes::sha512_avx512::<DIGEST>, up to 8 in 455 ns);
    kernels
}
