//! The request for an output block.

use std::fmt;

/// One output block of PBKDF2, which has the size of a digest.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// P of RFC 8018: the passphrase, or the volume key to compute a digest of
    pub password: &'a [u8],
    /// S
    pub salt: &'a [u8],
    /// c; 0, which no valid header has, counts as 1
    pub iterations: u32,
    /// Number of the output block, from 1
    pub block: u32,
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { password: _, salt, iterations, block } = self;
        f.debug_struct("Job")
            .field("salt", salt)
            .field("iterations", iterations)
            .field("block", block)
            .finish_non_exhaustive()
    }
}
