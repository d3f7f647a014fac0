//! The hashes a header can name, and the one place that turns a name into an implementation.

use digest::Digest;
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result};

/// A hash algorithm, of the hash specification or of an ESSIV.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HashAlg {
    /// MD5 (RFC 1321). QEMU takes it, cryptsetup does not.
    Md5,
    /// RIPEMD-160 (ISO/IEC 10118-3).
    Ripemd160,
    /// SHA-1 (FIPS 180-4).
    Sha1,
    /// SHA-224 (FIPS 180-4).
    Sha224,
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-384 (FIPS 180-4).
    Sha384,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SM3 (GB/T 32905).
    Sm3,
    /// Whirlpool (ISO/IEC 10118-3). cryptsetup takes it, QEMU does not.
    Whirlpool,
}

/// Evaluates `$body` with `$Digest` standing for the implementation of the [`HashAlg`] `$alg`.
macro_rules! with_digest {
    ($alg:expr, $Digest:ident => $body:expr) => {{
        use $crate::crypto::HashAlg;
        macro_rules! run {
            ($Type:ty) => {{
                type $Digest = $Type;
                $body
            }};
        }
        match $alg {
            HashAlg::Md5 => run!(md5::Md5),
            HashAlg::Ripemd160 => run!(ripemd::Ripemd160),
            HashAlg::Sha1 => run!(sha1::Sha1),
            HashAlg::Sha224 => run!(sha2::Sha224),
            HashAlg::Sha256 => run!(sha2::Sha256),
            HashAlg::Sha384 => run!(sha2::Sha384),
            HashAlg::Sha512 => run!(sha2::Sha512),
            HashAlg::Sm3 => run!(sm3::Sm3),
            HashAlg::Whirlpool => run!(whirlpool::Whirlpool),
        }
    }};
}
pub(super) use with_digest;

impl HashAlg {
    /// All of them, by name.
    pub const ALL: &[Self] = &[
        Self::Md5,
        Self::Ripemd160,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha512,
        Self::Sm3,
        Self::Whirlpool,
    ];

    /// The algorithm of this name, which is lower case as in every header QEMU opens.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|alg| alg.name() == name).ok_or_else(|| {
            let message = format!("Hash algorithm '{}' not supported", name.escape_debug());
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    /// The name in a header's hash specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Md5 => "md5",
            Self::Ripemd160 => "ripemd160",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha512 => "sha512",
            Self::Sm3 => "sm3",
            Self::Whirlpool => "whirlpool",
        }
    }

    /// Length of a digest in bytes.
    pub fn digest_size(self) -> usize {
        with_digest!(self, D => <D as Digest>::output_size())
    }

    /// The digest of `parts`, one after the other, [`digest_size`](Self::digest_size) bytes.
    pub fn digest(self, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
        with_digest!(self, D => {
            let mut state = D::new();
            for part in parts {
                state.update(part);
            }
            let mut output = state.finalize();
            let digest = Zeroizing::new(output.to_vec());
            zeroize::Zeroize::zeroize(output.as_mut_slice());
            digest
        })
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// Of "abc", from `openssl dgst` (3.0), with the legacy provider for Whirlpool.
    #[test]
    fn digests_are_those_of_openssl() {
        for (name, expected) in [
            ("md5", hex!("900150983cd24fb0d6963f7d28e17f72")),
            ("ripemd160", hex!("8eb208f7e05d987a9b044a8e98c6b087")),
            ("sha1", hex!("a9993e364706816aba3e25717850c26c")),
            ("sha224", hex!("23097d223405d8228642a477bda255b3")),
            ("sha256", hex!("ba7816bf8f01cfea414140de5dae2223")),
            ("sha384", hex!("cb00753f45a35e8bb5a03d699ac65007")),
            ("sha512", hex!("ddaf35a193617abacc417349ae204131")),
            ("sm3", hex!("66c7f0f462eeedd9d1f2d46bdc10e4e2")),
            ("whirlpool", hex!("4e2448a4c6f486bb16b6562c73b4020b")),
        ] {
            let alg = HashAlg::parse(name).unwrap();
            let digest = alg.digest(&[b"a", b"", b"bc"]);
            assert!(digest.starts_with(&expected), "{name}: {digest:02x?}");
            assert_eq!(alg.digest_size(), digest.len());
        }
    }

    #[test]
    fn names_are_exact() {
        for &alg in HashAlg::ALL {
            assert_eq!(HashAlg::parse(alg.name()).unwrap(), alg);
        }
        for name in ["foo", "SHA256", "", "sha256 ", "sha-256"] {
            let error = HashAlg::parse(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(error.message(), format!("Hash algorithm '{name}' not supported"));
        }
    }
}
