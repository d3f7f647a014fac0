//! What a header says its cipher is: `cipher-name`, `cipher-mode` and `key-bytes` of LUKS1.

use super::{HashAlg, IvGen, SectorCipher};
use crate::{Error, ErrorKind, Result};

/// A block cipher.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Cipher {
    /// AES (FIPS 197).
    Aes,
    /// Camellia (RFC 3713). cryptsetup takes it, QEMU does not.
    Camellia,
    /// CAST-128 (RFC 2144), whose blocks are 8 bytes, with keys of 128 bits alone.
    Cast5,
    /// Serpent, in the byte order of its submission to NIST.
    Serpent,
    /// Twofish.
    Twofish,
}

impl Cipher {
    /// All of them, by name.
    pub const ALL: &[Self] =
        &[Self::Aes, Self::Camellia, Self::Cast5, Self::Serpent, Self::Twofish];

    /// The name in a header's `cipher-name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Camellia => "camellia",
            Self::Cast5 => "cast5",
            Self::Serpent => "serpent",
            Self::Twofish => "twofish",
        }
    }

    /// Length of a block in bytes.
    pub fn block_size(self) -> usize {
        match self {
            Self::Cast5 => 8,
            Self::Aes | Self::Camellia | Self::Serpent | Self::Twofish => 16,
        }
    }

    /// Lengths of a key in bytes, ascending. XTS takes two such keys.
    pub fn key_sizes(self) -> &'static [usize] {
        match self {
            Self::Cast5 => &[16],
            Self::Aes | Self::Camellia | Self::Serpent | Self::Twofish => &[16, 24, 32],
        }
    }

    /// The name as it begins a sentence of QEMU's.
    fn title(self) -> &'static str {
        match self {
            Self::Aes => "AES",
            Self::Camellia => "Camellia",
            Self::Cast5 => "CAST5",
            Self::Serpent => "Serpent",
            Self::Twofish => "Twofish",
        }
    }
}

/// A mode of operation.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CipherMode {
    /// Cipher block chaining (NIST SP 800-38A).
    Cbc,
    /// Counter (NIST SP 800-38A).
    Ctr,
    /// Electronic codebook (NIST SP 800-38A): equal blocks stay equal.
    Ecb,
    /// XTS (IEEE 1619), with a key for the data and one for the tweak.
    Xts,
}

impl CipherMode {
    /// All of them, by name.
    pub const ALL: &[Self] = &[Self::Cbc, Self::Ctr, Self::Ecb, Self::Xts];

    /// The mode of this name, lower case.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|mode| mode.name() == name)
            .ok_or_else(|| unsupported(format!("Cipher mode '{}'", name.escape_debug())))
    }

    /// The name that begins a header's `cipher-mode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cbc => "cbc",
            Self::Ctr => "ctr",
            Self::Ecb => "ecb",
            Self::Xts => "xts",
        }
    }
}

/// A cipher with its mode, initialisation vectors and key size: a combination that works.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CipherSpec {
    cipher: Cipher,
    mode: CipherMode,
    /// `None` where the header has none: cryptsetup's "ecb".
    ivgen: Option<IvGen>,
    /// Written after an `ivgen` that has no use for it.
    idle_hash: Option<HashAlg>,
    key_size: usize,
}

impl CipherSpec {
    /// Parses the fields of a LUKS1 header: `xts-plain64`, `cbc-essiv:sha256`, or `ecb` as
    /// cryptsetup writes it. `key_size` is `key-bytes`.
    ///
    /// The checks are QEMU's, in its order and in its words.
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
            Some(Ok((ivgen, hash))) => (Some(ivgen), Some(HashAlg::parse(hash)?)),
            Some(Err(ivgen)) => (Some(ivgen), None),
            None => (None, None),
        };
        let mode = CipherMode::parse(mode)?;
        let cipher = Cipher::ALL
            .iter()
            .copied()
            .find(|cipher| cipher.name() == cipher_name)
            .ok_or_else(|| unsupported_algorithm(cipher_name, mode, key_size))?;
        check_key_size(cipher, mode, key_size)?;
        let ivgen = ivgen.map(|ivgen| parse_ivgen(ivgen, hash)).transpose()?;
        let idle_hash = if matches!(ivgen, Some(IvGen::Essiv(_))) { None } else { hash };
        Self { cipher, mode, ivgen, idle_hash, key_size }.checked()
    }

    /// The specification of these parts, with the checks of [`parse`](Self::parse).
    ///
    /// `ivgen_hash` is written after an `ivgen` that has no use for it, as QEMU does; with ESSIV
    /// it is `None` or the same hash. `key_size` is in bytes, and that of both keys for XTS.
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

    /// How a sector's number becomes its initialisation vector.
    pub fn ivgen(&self) -> IvGen {
        self.ivgen.unwrap_or(IvGen::Null)
    }

    /// The hash written after the initialisation vector's name, whether it has a use for it
    /// (ESSIV) or not (`cbc-plain64:md5`).
    pub fn ivgen_hash(&self) -> Option<HashAlg> {
        match self.ivgen() {
            IvGen::Essiv(hash) => Some(hash),
            _ => self.idle_hash,
        }
    }

    /// Length of the volume key in bytes: that of both keys for XTS.
    pub fn key_size(&self) -> usize {
        self.key_size
    }

    /// The header's `cipher-name`.
    pub fn cipher_name(&self) -> &'static str {
        self.cipher.name()
    }

    /// The header's `cipher-mode`: what [`parse`](Self::parse) was given.
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

    /// QEMU's `cipher-alg`, with the bits of one key: `aes-256`.
    pub fn algorithm(&self) -> String {
        format!("{}-{}", self.cipher.name(), 8 * cipher_key_size(self.mode, self.key_size))
    }

    /// The cipher under `key`, which is [`key_size`](Self::key_size) bytes long.
    pub fn sector_cipher(&self, key: &[u8]) -> Result<SectorCipher> {
        SectorCipher::new(self.clone(), key)
    }

    /// The checks that need all the parts.
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
