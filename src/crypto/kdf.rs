//! Key derivation: from a passphrase to the key of a keyslot, and from a volume key to its digest.

use super::HashAlg;
use super::hash::with_digest;

/// Fills `out` with PBKDF2-HMAC-`hash` (RFC 8018, section 5.2) of `password` and `salt`.
///
/// The cost is `iterations` times the number of digests that `out` takes. An iteration count of 0,
/// which no valid header has, counts as 1.
pub fn pbkdf2(hash: HashAlg, password: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
    with_digest!(hash, D => pbkdf2::pbkdf2_hmac::<D>(password, salt, iterations, out));
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn check(hash: HashAlg, password: &[u8], salt: &[u8], iterations: u32, expected: &[u8]) {
        let mut out = vec![0; expected.len()];
        pbkdf2(hash, password, salt, iterations, &mut out);
        assert_eq!(out, expected, "{} {password:?} {iterations}", hash.name());
    }

    /// RFC 6070, section 2, without the vector of 16777216 iterations.
    #[test]
    fn rfc_6070_sha1() {
        let check = |password: &[u8], salt: &[u8], iterations, expected: &[u8]| {
            check(HashAlg::Sha1, password, salt, iterations, expected);
        };
        check(b"password", b"salt", 1, &hex!("0c60c80f961f0e71f3a9b524af6012062fe037a6"));
        check(b"password", b"salt", 2, &hex!("ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"));
        check(b"password", b"salt", 4096, &hex!("4b007901b765489abead49d926f721d065a429c1"));
        check(
            b"passwordPASSWORDpassword",
            b"saltSALTsaltSALTsaltSALTsaltSALTsalt",
            4096,
            &hex!("3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"),
        );
        check(b"pass\0word", b"sa\0lt", 4096, &hex!("56fa6aa75548099dcc37d7f03425e0c3"));
    }

    /// RFC 7914, section 11.
    #[test]
    fn rfc_7914_sha256() {
        check(
            HashAlg::Sha256,
            b"passwd",
            b"salt",
            1,
            &hex!(
                "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
                "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"
            ),
        );
        check(
            HashAlg::Sha256,
            b"Password",
            b"NaCl",
            80_000,
            &hex!(
                "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"
                "a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"
            ),
        );
    }

    /// Against Python's hashlib over OpenSSL 3.0 (`pbkdf2_hmac(name, ..., 1000, 72)`): the head of
    /// the first block and the tail of the last, which is cut short.
    #[test]
    fn other_hashes_are_those_of_openssl() {
        for (hash, head, tail) in [
            (HashAlg::Md5, hex!("7ebd704dafe8fcc1"), hex!("4d63d88060fcf1af")),
            (HashAlg::Ripemd160, hex!("4816fb5767df7424"), hex!("d93bc88c0a98564f")),
            (HashAlg::Sha224, hex!("1c6b442e45c61976"), hex!("8dd39374619366bb")),
            (HashAlg::Sha384, hex!("7e19634d6cd6a212"), hex!("016798c818c85ac0")),
            (HashAlg::Sha512, hex!("11d8c7418824669c"), hex!("7535d679bbce8789")),
            (HashAlg::Sm3, hex!("e3ebcd8e0d28dfee"), hex!("d75f35ccd03aa915")),
        ] {
            let mut out = [0; 72];
            pbkdf2(hash, b"pass phrase", b"0123456789abcdef0123456789abcdef", 1000, &mut out);
            assert!(out.starts_with(&head) && out.ends_with(&tail), "{}", hash.name());
        }
    }
}
