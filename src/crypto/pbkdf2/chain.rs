//! What becomes of a job: a chain of digests, and their sum.

use zeroize::Zeroize;

use super::Job;
use super::kernel::Kernel;

/// How chains are begun and carried on with one hash.
pub(super) trait Prf: 'static {
    /// A block in the making.
    type Chain: Zeroize + Send;

    /// Length of a digest in bytes
    const DIGEST_SIZE: usize;

    /// The chain after the first iteration.
    fn begin(job: &Job<'_>) -> Self::Chain;

    /// Writes the sum so far, `DIGEST_SIZE` bytes.
    fn output(chain: &Self::Chain, to: &mut [u8]);

    /// What this CPU can carry chains on with. One of them takes a single chain.
    fn kernels() -> Vec<Kernel<Self::Chain>>;
}

/// The chain of a hash of `N` words. Wiped when dropped.
#[derive(Zeroize)]
#[zeroize(drop)]
pub(super) struct Words<W: Zeroize, const N: usize> {
    /// The hash after HMAC's inner block of the key
    pub(super) inner: [W; N],
    /// The hash after HMAC's outer block of the key
    pub(super) outer: [W; N],
    /// The digest of the last iteration
    pub(super) last: [W; N],
    /// The exclusive or of all digests so far
    pub(super) sum: [W; N],
}
