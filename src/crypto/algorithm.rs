//! The block ciphers and the modes of operation that a header can name.

use crate::{Error, ErrorKind, Result};

/// A block cipher.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
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
    pub(super) fn title(self) -> &'static str {
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
#[non_exhaustive]
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
        Self::ALL.iter().copied().find(|mode| mode.name() == name).ok_or_else(|| {
            let message = format!("Cipher mode '{}' not supported", name.escape_debug());
            Error::new(ErrorKind::Unsupported, message)
        })
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
