//! Hashes that a header can name, and the single mapping from a name to an implementation.

use digest::Digest;
use zeroize::Zeroizing;

use crate::{Error, ErrorKind, Result};

/// A hash algorithm, of the hash specification or of an ESSIV.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HashAlg {
    /// `BLAKE2b` with 512 bits (RFC 7693). Supported by cryptsetup, not by QEMU.
    Blake2b512,
    /// `BLAKE2s` with 256 bits (RFC 7693). Supported by cryptsetup, not by QEMU.
    Blake2s256,
    /// MD5 (RFC 1321). Supported by QEMU, not by cryptsetup.
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
    /// SHA3-224 (FIPS 202). cryptsetup supports SHA3, QEMU does not.
    Sha3_224,
    /// SHA3-256 (FIPS 202).
    Sha3_256,
    /// SHA3-384 (FIPS 202).
    Sha3_384,
    /// SHA3-512 (FIPS 202).
    Sha3_512,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// SHA-512/224 (FIPS 180-4). Supported by cryptsetup, not by QEMU.
    Sha512_224,
    /// SHA-512/256 (FIPS 180-4). Supported by cryptsetup, not by QEMU.
    Sha512_256,
    /// SM3 (GB/T 32905).
    Sm3,
    /// Whirlpool (ISO/IEC 10118-3). Supported by cryptsetup, not by QEMU.
    Whirlpool,
}

/// Evaluates `$body` with `$Digest` as the implementation of the [`HashAlg`] `$alg`. `$other`, if
/// given, is for hashes without block-level access, which make a slower HMAC.
macro_rules! with_digest {
    ($alg:expr, $Digest:ident => $body:expr) => {
        $crate::crypto::hash::with_digest!($alg, $Digest => $body, else $Digest => $body)
    };
    ($alg:expr, $Digest:ident => $body:expr, else $Other:ident => $other:expr) => {{
        use $crate::crypto::HashAlg;
        macro_rules! run {
            ($Type:ty) => {{
                type $Digest = $Type;
                $body
            }};
        }
        macro_rules! run_other {
            ($Type:ty) => {{
                type $Other = $Type;
                $other
            }};
        }
        match $alg {
            HashAlg::Blake2b512 => run_other!(blake2::Blake2b512),
            HashAlg::Blake2s256 => run_other!(blake2::Blake2s256),
            HashAlg::Md5 => run!(md5::Md5),
            HashAlg::Ripemd160 => run!(ripemd::Ripemd160),
            HashAlg::Sha1 => run!(sha1::Sha1),
            HashAlg::Sha224 => run!(sha2::Sha224),
            HashAlg::Sha256 => run!(sha2::Sha256),
            HashAlg::Sha384 => run!(sha2::Sha384),
            HashAlg::Sha3_224 => run_other!(sha3::Sha3_224),
            HashAlg::Sha3_256 => run_other!(sha3::Sha3_256),
            HashAlg::Sha3_384 => run_other!(sha3::Sha3_384),
            HashAlg::Sha3_512 => run_other!(sha3::Sha3_512),
            HashAlg::Sha512 => run!(sha2::Sha512),
            HashAlg::Sha512_224 => run!(sha2::Sha512_224),
            HashAlg::Sha512_256 => run!(sha2::Sha512_256),
            HashAlg::Sm3 => run!(sm3::Sm3),
            HashAlg::Whirlpool => run!(whirlpool::Whirlpool),
        }
    }};
}
pub(super) use with_digest;

impl HashAlg {
    /// All hashes, by name.
    pub const ALL: &[Self] = &[
        Self::Blake2b512,
        Self::Blake2s256,
        Self::Md5,
        Self::Ripemd160,
        Self::Sha1,
        Self::Sha224,
        Self::Sha256,
        Self::Sha384,
        Self::Sha3_224,
        Self::Sha3_256,
        Self::Sha3_384,
        Self::Sha3_512,
        Self::Sha512,
        Self::Sha512_224,
        Self::Sha512_256,
        Self::Sm3,
        Self::Whirlpool,
    ];

    /// Parses a lower-case name, the only spelling that QEMU accepts.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|alg| alg.name() == name).ok_or_else(|| {
            let message = format!("Hash algorithm '{}' not supported", name.escape_debug());
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    /// Parses a name in any case, as cryptsetup does.
    pub fn parse_any_case(name: &str) -> Result<Self> {
        let is_it = |alg: &Self| alg.name().eq_ignore_ascii_case(name);
        Self::ALL.iter().copied().find(is_it).map_or_else(|| Self::parse(name), Ok)
    }

    /// Name in a header's hash specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake2b512 => "blake2b-512",
            Self::Blake2s256 => "blake2s-256",
            Self::Md5 => "md5",
            Self::Ripemd160 => "ripemd160",
            Self::Sha1 => "sha1",
            Self::Sha224 => "sha224",
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
            Self::Sha3_224 => "sha3-224",
            Self::Sha3_256 => "sha3-256",
            Self::Sha3_384 => "sha3-384",
            Self::Sha3_512 => "sha3-512",
            Self::Sha512 => "sha512",
            Self::Sha512_224 => "sha512-224",
            Self::Sha512_256 => "sha512-256",
            Self::Sm3 => "sm3",
            Self::Whirlpool => "whirlpool",
        }
    }

    /// Digest size in bytes.
    pub fn digest_size(self) -> usize {
        with_digest!(self, D => <D as Digest>::output_size())
    }

    /// Computes the digest of the concatenated `parts`, [`digest_size`](Self::digest_size) bytes.
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

    /// Digests of "abc", from `openssl dgst` (3.0), with the legacy provider for Whirlpool.
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
            ("blake2b-512", hex!("ba80a53f981c4d0d6a2797b69f12f6e9")),
            ("blake2s-256", hex!("508c5e8c327c14e2e1a72ba34eeb452f")),
            ("sha3-224", hex!("e642824c3f8cf24ad09234ee7d3c766f")),
            ("sha3-256", hex!("3a985da74fe225b2045c172d6bd390bd")),
            ("sha3-384", hex!("ec01498288516fc926459f58e2c6ad8d")),
            ("sha3-512", hex!("b751850b1a57168a5693cd924b6b096e")),
            ("sha512-224", hex!("4634270f707b6a54daae7530460842e2")),
            ("sha512-256", hex!("53048e2681941ef99b2e29b76b4c7dab")),
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
    fn a_header_may_name_a_hash_in_capitals() {
        assert_eq!(HashAlg::parse_any_case("SHA256").unwrap(), HashAlg::Sha256);
        assert_eq!(HashAlg::parse_any_case("Blake2b-512").unwrap(), HashAlg::Blake2b512);
        let error = HashAlg::parse_any_case("SHA-256").unwrap_err();
        assert_eq!(error.message(), "Hash algorithm 'SHA-256' not supported");
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
