//! Block ciphers and modes of operation that a header can name.

use crate::{Error, ErrorKind, Result};

/// A block cipher.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Cipher {
    /// AES (FIPS 197).
    Aes,
    /// Camellia (RFC 3713). Supported by cryptsetup, not by QEMU.
    Camellia,
    /// CAST-128 (RFC 2144), with blocks of 8 bytes and keys of 128 bits only.
    Cast5,
    /// Serpent, in the byte order of its submission to NIST.
    Serpent,
    /// Twofish.
    Twofish,
}

impl Cipher {
    /// All ciphers, by name.
    pub const ALL: &[Self] =
        &[Self::Aes, Self::Camellia, Self::Cast5, Self::Serpent, Self::Twofish];

    /// Name in a header's `cipher-name`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Aes => "aes",
            Self::Camellia => "camellia",
            Self::Cast5 => "cast5",
            Self::Serpent => "serpent",
            Self::Twofish => "twofish",
        }
    }

    /// Block size in bytes.
    pub fn block_size(self) -> usize {
        match self {
            Self::Cast5 => 8,
            Self::Aes | Self::Camellia | Self::Serpent | Self::Twofish => 16,
        }
    }

    /// Key sizes in bytes, ascending. XTS takes two such keys.
    pub fn key_sizes(self) -> &'static [usize] {
        match self {
            Self::Cast5 => &[16],
            Self::Aes | Self::Camellia | Self::Serpent | Self::Twofish => &[16, 24, 32],
        }
    }

    /// Name at the start of QEMU's messages.
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
    /// Electronic codebook (NIST SP 800-38A), which encrypts equal blocks equally.
    Ecb,
    /// XTS (IEEE 1619), with a key for the data and one for the tweak.
    Xts,
}

impl CipherMode {
    /// All modes, by name.
    pub const ALL: &[Self] = &[Self::Cbc, Self::Ctr, Self::Ecb, Self::Xts];

    /// Parses a mode's lower-case name.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|mode| mode.name() == name).ok_or_else(|| {
            let message = format!("Cipher mode '{}' not supported", name.escape_debug());
            Error::new(ErrorKind::Unsupported, message)
        })
    }

    /// Name at the start of a header's `cipher-mode`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cbc => "cbc",
            Self::Ctr => "ctr",
            Self::Ecb => "ecb",
            Self::Xts => "xts",
        }
    }
}
