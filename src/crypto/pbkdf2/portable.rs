//! Portable PBKDF2 for any hash, one chain after the other, with the `digest` crate.
//!
//! HMAC (RFC 2104) is implemented here because `SimpleHmac` of the `hmac` crate, for hashes without
//! block-level access, keeps the padded password without wiping it. All hashes here wipe themselves
//! when dropped.

use std::marker::PhantomData;

use digest::block_api::BlockSizeUser;
use digest::typenum::Unsigned;
use digest::{Digest, Output};
use zeroize::{Zeroize, Zeroizing};

use super::Job;
use super::chain::Prf;
use super::kernel::Kernel;

/// Chains of HMAC with the hash `D`.
pub(super) struct Portable<D>(PhantomData<D>);

/// The chain of an HMAC. Wiped on drop; the hashes wipe themselves.
pub(super) struct HmacChain<D: Digest> {
    /// The hash after HMAC's inner block of the key
    inner: D,
    /// The hash after HMAC's outer block of the key
    outer: D,
    last: Output<D>,
    sum: Output<D>,
}

impl<D> Prf for Portable<D>
where
    D: Digest + BlockSizeUser + Clone + Send + 'static,
{
    type Chain = HmacChain<D>;

    const DIGEST_SIZE: usize = D::OutputSize::USIZE;

    fn begin(job: &Job<'_>) -> HmacChain<D> {
        let [inner, outer] = keys(job.password);
        let mut chain =
            HmacChain { inner, outer, last: Output::<D>::default(), sum: Output::<D>::default() };
        chain.digest(&[job.salt, &job.block.to_be_bytes()]);
        chain.sum.copy_from_slice(&chain.last);
        chain
    }

    fn output(chain: &HmacChain<D>, to: &mut [u8]) {
        to.copy_from_slice(&chain.sum);
    }

    fn kernels() -> Vec<Kernel<HmacChain<D>>> {
        vec![Kernel::portable(run, NANOS)]
    }
}

/// HMAC's two hash states after the key.
fn keys<D: Digest + BlockSizeUser>(password: &[u8]) -> [D; 2] {
    let mut key = Zeroizing::new(vec![0; D::BlockSize::USIZE]);
    if password.len() > key.len() {
        let mut digest = D::digest(password);
        key[..digest.len()].copy_from_slice(&digest);
        digest.as_mut_slice().zeroize();
    } else {
        key[..password.len()].copy_from_slice(password);
    }
    [0x36, 0x5c].map(|pad| {
        let block: Zeroizing<Vec<u8>> = Zeroizing::new(key.iter().map(|byte| byte ^ pad).collect());
        D::new_with_prefix(block.as_slice())
    })
}

impl<D: Digest + Clone> HmacChain<D> {
    /// Sets `last` to the HMAC of `message`.
    fn digest(&mut self, message: &[&[u8]]) {
        let mut inner = self.inner.clone();
        for part in message {
            inner.update(part);
        }
        inner.finalize_into(&mut self.last);
        self.finish();
    }

    /// Sets `last` to the HMAC of `last`.
    fn iterate(&mut self) {
        let mut inner = self.inner.clone();
        inner.update(&self.last);
        inner.finalize_into(&mut self.last);
        self.finish();
    }

    fn finish(&mut self) {
        let mut outer = self.outer.clone();
        outer.update(&self.last);
        outer.finalize_into(&mut self.last);
    }
}

fn run<D: Digest + Clone>(chains: &mut [HmacChain<D>], iterations: u32) {
    for chain in chains {
        for _ in 0..iterations {
            chain.iterate();
            for (sum, byte) in chain.sum.iter_mut().zip(&chain.last) {
                *sum ^= byte;
            }
        }
    }
}

impl<D: Digest> Zeroize for HmacChain<D> {
    fn zeroize(&mut self) {
        self.last.as_mut_slice().zeroize();
        self.sum.as_mut_slice().zeroize();
    }
}

impl<D: Digest> Drop for HmacChain<D> {
    fn drop(&mut self) {
        self.zeroize();
    }
}

/// Time of an iteration with the slowest hash, Whirlpool
const NANOS: u32 = 1500;

#[cfg(test)]
mod tests {
    use digest::block_api::Buffer;
    use zeroize::ZeroizeOnDrop;

    fn is_wiped<T: ZeroizeOnDrop>() {}

    /// The state of a hash after a key is as sensitive as the key.
    #[test]
    fn every_hash_wipes_itself() {
        is_wiped::<md5::Md5>();
        is_wiped::<ripemd::Ripemd160>();
        is_wiped::<sha1::Sha1>();
        is_wiped::<sha2::Sha224>();
        is_wiped::<sha2::Sha256>();
        is_wiped::<sha2::Sha384>();
        is_wiped::<sha2::Sha512>();
        is_wiped::<sha2::Sha512_224>();
        is_wiped::<sha2::Sha512_256>();
        is_wiped::<sha3::Sha3_224>();
        is_wiped::<sha3::Sha3_256>();
        is_wiped::<sha3::Sha3_384>();
        is_wiped::<sha3::Sha3_512>();
        is_wiped::<sm3::Sm3>();
        is_wiped::<whirlpool::Whirlpool>();
        // These types do not implement the trait, but both of their parts do.
        is_wiped::<blake2::Blake2bVarCore>();
        is_wiped::<Buffer<blake2::Blake2bVarCore>>();
        is_wiped::<blake2::Blake2sVarCore>();
        is_wiped::<Buffer<blake2::Blake2sVarCore>>();
    }
}
