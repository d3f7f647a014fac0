//! The state of a job: a chain of digests and their sum.

use zeroize::Zeroize;

use super::Job;
use super::kernel::Kernel;

/// Starts and continues chains of one hash.
pub(super) trait Prf: 'static {
    /// A block being computed.
    type Chain: Zeroize + Send;

    /// Length of a digest in bytes
    const DIGEST_SIZE: usize;

    /// The chain after the first iteration.
    fn begin(job: &Job<'_>) -> Self::Chain;

    /// Writes the current sum, `DIGEST_SIZE` bytes.
    fn output(chain: &Self::Chain, to: &mut [u8]);

    /// Kernels that this CPU supports. At least one takes a single chain.
    fn kernels() -> Vec<Kernel<Self::Chain>>;
}

/// The chain of a hash of `N` words. Wiped on drop.
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
