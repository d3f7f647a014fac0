//! SHA-1 and SHA-2: the start of their chains, and a fallback for CPUs without a kernel.
//!
//! After the key, each half of an HMAC (RFC 2104) is a single block in all iterations but the
//! first, because a digest and its padding fit one block. A chain stores the two hash states after
//! the key and continues from there.

use zeroize::{Zeroize, Zeroizing};

use super::Job;
use super::chain::{Prf, Words};
use super::constants::{SHA1_START, SHA256_START, SHA384_START, SHA512_START};
use super::kernel::Kernel;
use crate::crypto::HashAlg;

#[cfg(not(target_arch = "x86_64"))]
use no_kernels as sha1_kernels;
#[cfg(not(target_arch = "x86_64"))]
use no_kernels as sha256_kernels;
#[cfg(not(target_arch = "x86_64"))]
use no_kernels as sha384_kernels;
#[cfg(not(target_arch = "x86_64"))]
use no_kernels as sha512_kernels;

#[cfg(target_arch = "x86_64")]
use super::x86::{sha1_kernels, sha256_kernels, sha384_kernels, sha512_kernels};

#[cfg(not(target_arch = "x86_64"))]
fn no_kernels<C>() -> Vec<Kernel<C>> {
    Vec::new()
}

/// Implements a hash of `$words` words, whose first `$size` bytes are the digest, over blocks of
/// `$block` bytes. `$nanos` is the time of an iteration without special instructions.
macro_rules! sha {
    (
        $(#[$doc:meta])* $name:ident: [$word:ident; $words:literal], $block:literal byte blocks,
        $size:literal byte digests, $start:ident, $compress:path, $kernels:ident, $nanos:literal ns
    ) => {
        $(#[$doc])*
        pub(super) struct $name;

        impl $name {
            /// Hashes `message`, continuing from `state` after one block.
            fn after_key(mut state: [$word; $words], message: &[&[u8]]) -> [$word; $words] {
                let len: usize = message.iter().map(|part| part.len()).sum();
                let padded = (len + 1 + size_of::<[$word; 2]>()).next_multiple_of($block);
                let mut bytes = Zeroizing::new(Vec::with_capacity(padded));
                for part in message {
                    bytes.extend_from_slice(part);
                }
                bytes.push(0x80);
                bytes.resize(padded - size_of::<u64>(), 0);
                bytes.extend_from_slice(&(8 * ($block + len) as u64).to_be_bytes());
                $compress(&mut state, bytes.as_chunks().0);
                state
            }

            /// HMAC's two hash states after the key.
            fn keys(password: &[u8]) -> [[$word; $words]; 2] {
                let mut key = Zeroizing::new([0; $block]);
                if password.len() > $block {
                    key[..$size].copy_from_slice(&HashAlg::$name.digest(&[password]));
                } else {
                    key[..password.len()].copy_from_slice(password);
                }
                [0x36, 0x5c].map(|pad| {
                    let block = Zeroizing::new(key.map(|byte| byte ^ pad));
                    let mut state = $start;
                    $compress(&mut state, &[*block]);
                    state
                })
            }

            fn bytes(state: &[$word; $words]) -> Zeroizing<[u8; $size]> {
                let mut bytes = Zeroizing::new([0; $size]);
                let (chunks, _) = bytes.as_chunks_mut();
                for (bytes, word) in chunks.iter_mut().zip(state) {
                    *bytes = word.to_be_bytes();
                }
                bytes
            }

            fn run(chains: &mut [Words<$word, $words>], iterations: u32) {
                let mut block = Zeroizing::new([0; $block]);
                block[$size] = 0x80;
                block[$block - 8..].copy_from_slice(&(8 * ($block + $size) as u64).to_be_bytes());
                for chain in chains {
                    for _ in 0..iterations {
                        for key in [&chain.inner, &chain.outer] {
                            let (chunks, _) = block[..$size].as_chunks_mut();
                            for (bytes, word) in chunks.iter_mut().zip(&chain.last) {
                                *bytes = word.to_be_bytes();
                            }
                            chain.last = *key;
                            $compress(&mut chain.last, &[*block]);
                        }
                        for (sum, word) in chain.sum.iter_mut().zip(&chain.last) {
                            *sum ^= word;
                        }
                    }
                }
            }
        }

        impl Prf for $name {
            type Chain = Words<$word, $words>;

            const DIGEST_SIZE: usize = $size;

            fn begin(job: &Job<'_>) -> Self::Chain {
                let [inner, outer] = Self::keys(job.password);
                let mut first = Self::after_key(inner, &[job.salt, &job.block.to_be_bytes()]);
                let digest = Self::bytes(&first);
                first.zeroize();
                let last = Self::after_key(outer, &[digest.as_slice()]);
                Words { inner, outer, last, sum: last }
            }

            fn output(chain: &Self::Chain, to: &mut [u8]) {
                to.copy_from_slice(Self::bytes(&chain.sum).as_slice());
            }

            fn kernels() -> Vec<Kernel<Self::Chain>> {
                let mut kernels = $kernels();
                kernels.push(Kernel::portable(Self::run, $nanos));
                kernels
            }
        }
    };
}

sha! {
    /// SHA-1 (FIPS 180-4, section 6.1)
    Sha1: [u32; 5], 64 byte blocks, 20 byte digests,
    SHA1_START, sha1::block_api::compress, sha1_kernels, 250 ns
}

sha! {
    /// SHA-256 (section 6.2)
    Sha256: [u32; 8], 64 byte blocks, 32 byte digests,
    SHA256_START, sha2::block_api::compress256, sha256_kernels, 330 ns
}

sha! {
    /// SHA-384 (section 6.5)
    Sha384: [u64; 8], 128 byte blocks, 48 byte digests,
    SHA384_START, sha2::block_api::compress512, sha384_kernels, 300 ns
}

sha! {
    /// SHA-512 (section 6.4)
    Sha512: [u64; 8], 128 byte blocks, 64 byte digests,
    SHA512_START, sha2::block_api::compress512, sha512_kernels, 300 ns
}
