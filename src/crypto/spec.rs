//! Cipher specifications: `cipher-name`, `cipher-mode` and `key-bytes` of a LUKS1 header.

use super::{Cipher, CipherMode, HashAlg, IvGen, SectorCipher};
use crate::{Error, ErrorKind, Result};

/// A valid combination of cipher, mode, initialisation vectors and key size.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CipherSpec {
    cipher: Cipher,
    mode: CipherMode,
    /// `None` if the header names none: cryptsetup's "ecb"
    ivgen: Option<IvGen>,
    /// Hash written after an `ivgen` that does not use it
    idle_hash: Option<HashAlg>,
    key_size: usize,
}

impl CipherSpec {
    /// Parses the fields of a LUKS1 header: `xts-plain64`, `cbc-essiv:sha256`, or `ecb` as
    /// cryptsetup writes it. `key_size` is `key-bytes`.
    ///
    /// The checks are QEMU's, in the same order and with the same texts.
    pub fn parse(cipher_name: &str, cipher_mode: &str, key_size: usize) -> Result<Self> {
        let (mode, ivgen) = match cipher_mode.split_once('-') {
            Some((mode, ivgen)) => (mode, Some(ivgen)),
            None if cipher_mode == CipherMode::Ecb.name() => (cipher_mode, None),
            None => {
                let mode = cipher_mode.escape_debug();
                return Err(corrupt(format!("Unexpected cipher mode string format '{mode}'")));
            }
        };
        let (ivgen, hash) = match ivgen.map(|ivgen| ivgen.split_once(':').ok_or(ivgen)) {
            Some(Ok((ivgen, hash))) => (Some(ivgen), Some(HashAlg::parse_any_case(hash)?)),
            Some(Err(ivgen)) => (Some(ivgen), None),
            None => (None, None),
        };
        let mode = CipherMode::parse(mode)?;
        let cipher = Cipher::ALL.iter().copied().find(|cipher| cipher.name() == cipher_name);
        let cipher = cipher.ok_or_else(|| unsupported_algorithm(cipher_name, mode, key_size))?;
        check_key_size(cipher, mode, key_size)?;
        let ivgen = ivgen.map(|ivgen| parse_ivgen(ivgen, hash)).transpose()?;
        let idle_hash = if matches!(ivgen, Some(IvGen::Essiv(_))) { None } else { hash };
        Self { cipher, mode, ivgen, idle_hash, key_size }.checked()
    }

    /// Combines these parts, with the checks of [`parse`](Self::parse).
    ///
    /// `ivgen_hash` may be given for an `ivgen` that does not use it, as QEMU allows. For ESSIV it
    /// must be `None` or the same hash. `key_size` is in bytes; for XTS it counts both keys.
    pub fn new(
        cipher: Cipher,
        mode: CipherMode,
        ivgen: IvGen,
        ivgen_hash: Option<HashAlg>,
        key_size: usize,
    ) -> Result<Self> {
        check_key_size(cipher, mode, key_size)?;
        let idle_hash = match (ivgen, ivgen_hash) {
            (IvGen::Essiv(hash), Some(other)) if hash != other => {
                let (hash, other) = (hash.name(), other.name());
                let message = format!("IV generator hash '{other}' given to essiv with '{hash}'");
                return Err(Error::new(ErrorKind::InvalidInput, message));
            }
            (IvGen::Essiv(_), _) => None,
            (_, hash) => hash,
        };
        let nothing_to_write =
            mode == CipherMode::Ecb && ivgen == IvGen::Null && idle_hash.is_none();
        let ivgen = if nothing_to_write { None } else { Some(ivgen) };
        Self { cipher, mode, ivgen, idle_hash, key_size }.checked()
    }

    /// The block cipher.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// The mode of operation.
    pub fn mode(&self) -> CipherMode {
        self.mode
    }

    /// The generator of initialisation vectors.
    pub fn ivgen(&self) -> IvGen {
        self.ivgen.unwrap_or(IvGen::Null)
    }

    /// The hash after the generator's name, whether the generator uses it (ESSIV) or not
    /// (`cbc-plain64:md5`).
    pub fn ivgen_hash(&self) -> Option<HashAlg> {
        match self.ivgen() {
            IvGen::Essiv(hash) => Some(hash),
            _ => self.idle_hash,
        }
    }

    /// Size of the volume key in bytes; for XTS, of both keys.
    pub fn key_size(&self) -> usize {
        self.key_size
    }

    /// The `cipher-name` of a header.
    pub fn cipher_name(&self) -> &'static str {
        self.cipher.name()
    }

    /// The `cipher-mode` of a header: the text given to [`parse`](Self::parse), with the hash in
    /// lower case.
    pub fn cipher_mode(&self) -> String {
        let mut text = self.mode.name().to_owned();
        if let Some(ivgen) = self.ivgen {
            text.push('-');
            text.push_str(ivgen.name());
        }
        if let Some(hash) = self.ivgen_hash() {
            text.push(':');
            text.push_str(hash.name());
        }
        text
    }

    /// QEMU's `cipher-alg`, with the size of one key in bits: `aes-256`.
    pub fn algorithm(&self) -> String {
        format!("{}-{}", self.cipher.name(), 8 * cipher_key_size(self.mode, self.key_size))
    }

    /// Creates the cipher with a `key` of [`key_size`](Self::key_size) bytes.
    pub fn sector_cipher(&self, key: &[u8]) -> Result<SectorCipher> {
        SectorCipher::new(self.clone(), key)
    }

    /// Performs the checks that involve several parts.
    fn checked(self) -> Result<Self> {
        if let IvGen::Essiv(hash) = self.ivgen() {
            let size = hash.digest_size();
            if self.cipher == Cipher::Cast5 {
                let message = format!("Cipher {} not supported with essiv", self.algorithm());
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            if !self.cipher.key_sizes().contains(&size) {
                let message =
                    format!("No {} cipher with key size {size} available", self.cipher.title());
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        if self.mode == CipherMode::Xts && self.cipher.block_size() != 16 {
            return Err(Error::new(ErrorKind::Unsupported, "Unsupported cipher mode xts"));
        }
        Ok(self)
    }
}

fn parse_ivgen(name: &str, hash: Option<HashAlg>) -> Result<IvGen> {
    match name {
        "null" => Ok(IvGen::Null),
        "plain" => Ok(IvGen::Plain),
        "plain64" => Ok(IvGen::Plain64),
        "plain64be" => Ok(IvGen::Plain64be),
        "essiv" => hash
            .map(IvGen::Essiv)
            .ok_or_else(|| corrupt("Missing IV generator hash specification".to_owned())),
        _ => Err(unsupported(format!("IV generator '{}'", name.escape_debug()))),
    }
}

fn check_key_size(cipher: Cipher, mode: CipherMode, key_size: usize) -> Result<()> {
    if !cipher.key_sizes().contains(&cipher_key_size(mode, key_size)) {
        return Err(unsupported_algorithm(cipher.name(), mode, key_size));
    }
    if mode == CipherMode::Xts && !key_size.is_multiple_of(2) {
        return Err(corrupt("XTS cipher key length should be a multiple of 2".to_owned()));
    }
    Ok(())
}

fn cipher_key_size(mode: CipherMode, key_size: usize) -> usize {
    if mode == CipherMode::Xts { key_size / 2 } else { key_size }
}

fn unsupported_algorithm(name: &str, mode: CipherMode, key_size: usize) -> Error {
    let key_size = cipher_key_size(mode, key_size);
    unsupported(format!("Algorithm '{}' with key size {key_size} bytes", name.escape_debug()))
}

fn unsupported(what: String) -> Error {
    Error::new(ErrorKind::Unsupported, what + " not supported")
}

fn corrupt(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_round_trip() {
        for (name, mode, key_size, algorithm) in [
            ("aes", "xts-plain64", 64, "aes-256"),
            ("aes", "xts-essiv:sha256", 48, "aes-192"),
            ("aes", "cbc-essiv:sha256", 16, "aes-128"),
            ("aes", "cbc-plain64:md5", 32, "aes-256"),
            ("aes", "ecb", 32, "aes-256"),
            ("aes", "ecb-null", 32, "aes-256"),
            ("aes", "ecb-plain64", 32, "aes-256"),
            ("camellia", "cbc-null", 24, "camellia-192"),
            ("cast5", "cbc-plain64be", 16, "cast5-128"),
            ("serpent", "ctr-plain", 32, "serpent-256"),
            ("twofish", "ecb-null:sha1", 32, "twofish-256"),
        ] {
            let spec = CipherSpec::parse(name, mode, key_size).unwrap();
            assert_eq!(spec.cipher_name(), name);
            assert_eq!(spec.cipher_mode(), mode);
            assert_eq!(spec.key_size(), key_size);
            assert_eq!(spec.algorithm(), algorithm);
            let (cipher, hash) = (spec.cipher(), spec.ivgen_hash());
            let made = CipherSpec::new(cipher, spec.mode(), spec.ivgen(), hash, key_size).unwrap();
            assert!(made == spec || mode == "ecb-null", "{made:?}");
        }
    }

    #[test]
    fn refusals_are_in_the_words_and_the_order_of_qemu() {
        use ErrorKind::{Corrupt, Unsupported};
        for (name, mode, key_size, kind, message) in [
            ("foo", "xts", 31, Corrupt, "Unexpected cipher mode string format 'xts'"),
            ("foo", "", 31, Corrupt, "Unexpected cipher mode string format ''"),
            ("foo", "lrw-foo:foo", 31, Unsupported, "Hash algorithm 'foo' not supported"),
            ("foo", "cbc-essiv:", 31, Unsupported, "Hash algorithm '' not supported"),
            ("foo", "lrw-benbi", 31, Unsupported, "Cipher mode 'lrw' not supported"),
            ("foo", "XTS-foo", 31, Unsupported, "Cipher mode 'XTS' not supported"),
            (
                "foo",
                "cbc-foo",
                32,
                Unsupported,
                "Algorithm 'foo' with key size 32 bytes not supported",
            ),
            (
                "foo",
                "xts-foo",
                32,
                Unsupported,
                "Algorithm 'foo' with key size 16 bytes not supported",
            ),
            (
                "aes",
                "cbc-foo",
                31,
                Unsupported,
                "Algorithm 'aes' with key size 31 bytes not supported",
            ),
            (
                "aes",
                "xts-foo",
                62,
                Unsupported,
                "Algorithm 'aes' with key size 31 bytes not supported",
            ),
            (
                "cast5",
                "cbc-foo",
                8,
                Unsupported,
                "Algorithm 'cast5' with key size 8 bytes not supported",
            ),
            ("aes", "xts-foo", 33, Corrupt, "XTS cipher key length should be a multiple of 2"),
            ("aes", "xts-foo", 32, Unsupported, "IV generator 'foo' not supported"),
            ("aes", "cbc-benbi", 32, Unsupported, "IV generator 'benbi' not supported"),
            ("aes", "ecb-", 32, Unsupported, "IV generator '' not supported"),
            ("aes", "cbc-essiv", 32, Corrupt, "Missing IV generator hash specification"),
            (
                "aes",
                "cbc-essiv:sha512",
                32,
                Unsupported,
                "No AES cipher with key size 64 available",
            ),
            (
                "serpent",
                "cbc-essiv:sha1",
                32,
                Unsupported,
                "No Serpent cipher with key size 20 available",
            ),
            (
                "twofish",
                "xts-essiv:sha224",
                32,
                Unsupported,
                "No Twofish cipher with key size 28 available",
            ),
            (
                "cast5",
                "cbc-essiv:md5",
                16,
                Unsupported,
                "Cipher cast5-128 not supported with essiv",
            ),
            ("cast5", "xts-plain64", 32, Unsupported, "Unsupported cipher mode xts"),
            ("aes", "xts\n", 32, Corrupt, "Unexpected cipher mode string format 'xts\\n'"),
        ] {
            let error = CipherSpec::parse(name, mode, key_size).unwrap_err();
            assert_eq!((error.kind(), error.message()), (kind, message), "{name} {mode}");
        }
    }

    #[test]
    fn parts_are_checked_as_fields_are() {
        use IvGen::{Essiv, Plain64};
        let new = |cipher, mode, ivgen, hash, key_size| {
            CipherSpec::new(cipher, mode, ivgen, hash, key_size).map_err(|error| error.kind())
        };
        let essiv = Essiv(HashAlg::Sha256);
        let spec = new(Cipher::Aes, CipherMode::Cbc, essiv, Some(HashAlg::Sha256), 32).unwrap();
        assert_eq!(spec.cipher_mode(), "cbc-essiv:sha256");
        let other_hash = new(Cipher::Aes, CipherMode::Cbc, essiv, Some(HashAlg::Md5), 32);
        assert_eq!(other_hash, Err(ErrorKind::InvalidInput));
        let odd = new(Cipher::Aes, CipherMode::Xts, Plain64, None, 65);
        assert_eq!(odd, Err(ErrorKind::Corrupt));
        let cast5 = new(Cipher::Cast5, CipherMode::Xts, Plain64, None, 32);
        assert_eq!(cast5, Err(ErrorKind::Unsupported));
    }
}
