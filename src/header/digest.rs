//! An owned digest of a volume key.

use super::Digest;
use crate::crypto::HashAlg;

/// Owned digest of a volume key, either copied from a header or new, to build a
/// [LUKS1](super::luks1::Luks1Header::build) or [LUKS2](super::luks2::Luks2Header::build) header.
#[derive(Clone, Debug)]
pub struct OwnedDigest {
    /// Hash of the HMAC
    pub hash: HashAlg,
    /// Iteration count
    pub iterations: u32,
    /// Salt. A new digest has 32 bytes
    pub salt: Vec<u8>,
    /// PBKDF2 output. A new digest has 20 to 64 bytes: LUKS2 stores all of them, LUKS1 the first 20
    pub value: Vec<u8>,
}

impl OwnedDigest {
    /// Borrows the digest.
    pub fn view(&self) -> Digest<'_> {
        let Self { hash, iterations, salt, value } = self;
        Digest { hash: *hash, iterations: *iterations, salt, value }
    }
}

impl From<Digest<'_>> for OwnedDigest {
    fn from(digest: Digest<'_>) -> Self {
        let Digest { hash, iterations, salt, value } = digest;
        Self { hash, iterations, salt: salt.to_vec(), value: value.to_vec() }
    }
}
