//! The digest of a new volume key.

use super::Digest;
use crate::crypto::HashAlg;

/// Digest of a new volume key, from which a [LUKS1](super::luks1::Luks1Header::build) or a
/// [LUKS2](super::luks2::Luks2Header::build) header is built.
#[derive(Clone, Debug)]
pub struct NewDigest {
    /// Hash of the HMAC
    pub hash: HashAlg,
    /// Iteration count
    pub iterations: u32,
    /// Salt
    pub salt: [u8; 32],
    /// PBKDF2 output, 20 to 64 bytes. LUKS2 stores all of it, LUKS1 the first 20 bytes
    pub value: Vec<u8>,
}

impl NewDigest {
    /// View of the digest, to check a candidate for the key against.
    pub fn digest(&self) -> Digest<'_> {
        let Self { hash, iterations, salt, value } = self;
        Digest { hash: *hash, iterations: *iterations, salt, value }
    }
}
