//! Initialisation vectors, computed from sector numbers.

use super::mode::Mode;
use super::{CipherSpec, HashAlg};
use crate::Result;

/// Generator of initialisation vectors from sector numbers, with dm-crypt's names.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum IvGen {
    /// All zero.
    Null,
    /// The low 32 bits of the sector number, little-endian; repeats after 2 TiB.
    Plain,
    /// The sector number, 64 bits, little-endian.
    Plain64,
    /// The sector number, 64 bits, big-endian, in the last 8 bytes.
    Plain64be,
    /// The sector number as in [`Plain64`](Self::Plain64), encrypted under this hash of the key.
    Essiv(HashAlg),
}

impl IvGen {
    /// The name in a header's cipher mode, without the hash.
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Plain => "plain",
            Self::Plain64 => "plain64",
            Self::Plain64be => "plain64be",
            Self::Essiv(_) => "essiv",
        }
    }
}

/// An [`IvGen`] with its state, including the key of an ESSIV.
pub(super) struct Ivs {
    ivgen: IvGen,
    block_size: usize,
    /// The block cipher of an ESSIV
    essiv: Option<Box<dyn Mode>>,
}

/// An initialisation vector of any cipher. A mode uses as many bytes as its block size.
pub(super) type Iv = [u8; 16];

impl Ivs {
    /// `key` is the whole volume key: for XTS, ESSIV hashes both halves.
    pub(super) fn new(spec: &CipherSpec, key: &[u8]) -> Result<Self> {
        let essiv = match spec.ivgen() {
            IvGen::Essiv(hash) => Some(spec.cipher().ecb(&hash.digest(&[key]))?),
            _ => None,
        };
        Ok(Self { ivgen: spec.ivgen(), block_size: spec.cipher().block_size(), essiv })
    }

    /// Masks that select the bits of the sector number for the first 8 bytes of its initialisation
    /// vector, little-endian, and for the last 8 bytes, byte-swapped. `None` if the vector is not
    /// made of the number alone.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    pub(super) fn number_masks(&self) -> Option<&'static [u64; 2]> {
        match self.ivgen {
            IvGen::Null => Some(&[0, 0]),
            IvGen::Plain => Some(&[0xffff_ffff, 0]),
            IvGen::Plain64 => Some(&[u64::MAX, 0]),
            IvGen::Plain64be => Some(&[0, u64::MAX]),
            IvGen::Essiv(_) => None,
        }
    }

    /// The initialisation vector of sector `sector`.
    pub(super) fn iv(&self, sector: u64) -> Iv {
        let mut iv = Iv::default();
        match self.ivgen {
            IvGen::Null => {}
            IvGen::Plain => iv[..4].copy_from_slice(&sector.to_le_bytes()[..4]),
            IvGen::Plain64 | IvGen::Essiv(_) => iv[..8].copy_from_slice(&sector.to_le_bytes()),
            IvGen::Plain64be => {
                iv[self.block_size - 8..self.block_size].copy_from_slice(&sector.to_be_bytes());
            }
        }
        if let Some(cipher) = &self.essiv {
            cipher.encrypt_sector(&Iv::default(), &mut iv);
        }
        iv
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::super::{Cipher, CipherMode};
    use super::*;

    fn iv(cipher: Cipher, ivgen: IvGen, sector: u64) -> Iv {
        let spec = CipherSpec::new(cipher, CipherMode::Cbc, ivgen, None, 16).unwrap();
        Ivs::new(&spec, &[7; 16]).unwrap().iv(sector)
    }

    #[test]
    fn plain_forms() {
        let sector = 0x0102_0304_0506_0708;
        let aes = |ivgen| iv(Cipher::Aes, ivgen, sector);
        assert_eq!(aes(IvGen::Null), [0; 16]);
        assert_eq!(aes(IvGen::Plain), hex!("08070605000000000000000000000000"));
        assert_eq!(aes(IvGen::Plain64), hex!("08070605040302010000000000000000"));
        assert_eq!(aes(IvGen::Plain64be), hex!("00000000000000000102030405060708"));
        let cast5 = iv(Cipher::Cast5, IvGen::Plain64be, sector);
        assert_eq!(cast5[..8], hex!("0102030405060708"));
    }

    /// From Python's cryptography 48: AES-256-ECB under the SHA-256 of the key.
    #[test]
    fn essiv() {
        let made = iv(Cipher::Aes, IvGen::Essiv(HashAlg::Sha256), 0x0102_0304_0506_0708);
        assert_eq!(made, hex!("05d8216005b13256b42d8d78cedc076b"));
    }
}
