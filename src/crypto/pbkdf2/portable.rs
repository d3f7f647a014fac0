//! Any hash on any CPU, one chain after the other, by way of the `hmac` crate.

use std::marker::PhantomData;

use digest::typenum::Unsigned;
use digest::{FixedOutput, KeyInit, Output, Update};
use zeroize::Zeroize;

use super::Job;
use super::chain::Prf;
use super::kernel::Kernel;

/// Chains of an HMAC of the `hmac` crate.
pub(super) struct Portable<M>(PhantomData<M>);

/// The chain of an HMAC. Its digests are wiped when dropped.
pub(super) struct HmacChain<M: FixedOutput> {
    /// With the password and nothing else
    keyed: M,
    last: Output<M>,
    sum: Output<M>,
}

impl<M> Prf for Portable<M>
where
    M: KeyInit + Update + FixedOutput + Clone + Send + 'static,
{
    type Chain = HmacChain<M>;

    const DIGEST_SIZE: usize = M::OutputSize::USIZE;

    fn begin(job: &Job<'_>) -> HmacChain<M> {
        let keyed = M::new_from_slice(job.password).expect("an HMAC takes keys of any length");
        let mut first = keyed.clone();
        first.update(job.salt);
        first.update(&job.block.to_be_bytes());
        let first = first.finalize_fixed();
        HmacChain { keyed, last: first.clone(), sum: first }
    }

    fn output(chain: &HmacChain<M>, to: &mut [u8]) {
        to.copy_from_slice(&chain.sum);
    }

    fn kernels() -> Vec<Kernel<HmacChain<M>>> {
        vec![Kernel::portable(run, NANOS)]
    }
}

fn run<M: Update + FixedOutput + Clone>(chains: &mut [HmacChain<M>], iterations: u32) {
    for chain in chains {
        for _ in 0..iterations {
            let mut next = chain.keyed.clone();
            next.update(&chain.last);
            next.finalize_into(&mut chain.last);
            for (sum, byte) in chain.sum.iter_mut().zip(&chain.last) {
                *sum ^= byte;
            }
        }
    }
}

impl<M: FixedOutput> Zeroize for HmacChain<M> {
    fn zeroize(&mut self) {
        self.last.as_mut_slice().zeroize();
        self.sum.as_mut_slice().zeroize();
    }
}

impl<M: FixedOutput> Drop for HmacChain<M> {
    fn drop(&mut self) {
        self.zeroize();
    }
}

/// Of an iteration with the slowest hash, Whirlpool
const NANOS: u32 = 1500;
