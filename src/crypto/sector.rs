//! The cipher of a volume: a [`CipherSpec`] with its key.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use camellia::{Camellia128, Camellia192, Camellia256};
use cast5::Cast5;
use cipher::BlockSizeUser;
use cipher::consts::U16;
use serpent::Serpent;
use twofish::Twofish;
use xts_mode::Xts128;

use super::ivgen::Ivs;
use super::mode::{BlockCipher, Cbc, Ctr, Ecb, Mode, Xts};
use super::{Cipher, CipherMode, CipherSpec};
use crate::{Error, ErrorKind, Result};

/// Encrypts and decrypts the 512-byte sectors of a volume or of a keyslot's key material.
///
/// One can serve many threads. Its keys are zeroed when it is dropped.
///
/// AES is fast; the other ciphers are for old volumes and run from 2 MB/s (Twofish) to 100 MB/s.
pub struct SectorCipher {
    spec: CipherSpec,
    mode: Box<dyn Mode>,
    ivs: Ivs,
}

impl SectorCipher {
    /// Length of a sector in bytes: what LUKS1 encrypts as a unit.
    pub const SECTOR_SIZE: usize = 512;

    /// `key` is as long as the specification says.
    pub(super) fn new(spec: CipherSpec, key: &[u8]) -> Result<Self> {
        if key.len() != spec.key_size() {
            return Err(wrong_key_size(spec.cipher(), key.len()));
        }
        let mode = spec.cipher().keyed(spec.mode(), key)?;
        let ivs = Ivs::new(&spec, key)?;
        Ok(Self { spec, mode, ivs })
    }

    /// What the cipher is.
    pub fn spec(&self) -> &CipherSpec {
        &self.spec
    }

    /// Encrypts `data` in place: whole sectors, the first of which has the number `first_sector`
    /// (counted in sectors of 512 bytes from the start of the volume or of the key material).
    ///
    /// # Panics
    ///
    /// If the length of `data` is not a multiple of [`SECTOR_SIZE`](Self::SECTOR_SIZE).
    pub fn encrypt(&self, first_sector: u64, data: &mut [u8]) {
        assert_whole_sectors(data);
        self.mode.encrypt(&self.ivs, first_sector, data);
    }

    /// Decrypts `data` in place; all else is as with [`encrypt`](Self::encrypt).
    ///
    /// # Panics
    ///
    /// If the length of `data` is not a multiple of [`SECTOR_SIZE`](Self::SECTOR_SIZE).
    pub fn decrypt(&self, first_sector: u64, data: &mut [u8]) {
        assert_whole_sectors(data);
        self.mode.decrypt(&self.ivs, first_sector, data);
    }
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectorCipher").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Cipher {
    /// The bare block cipher under `key`, as an ESSIV needs it.
    pub(super) fn ecb(self, key: &[u8]) -> Result<Box<dyn Mode>> {
        self.keyed(CipherMode::Ecb, key)
    }

    fn keyed(self, mode: CipherMode, key: &[u8]) -> Result<Box<dyn Mode>> {
        let cipher_key_size = if mode == CipherMode::Xts { key.len() / 2 } else { key.len() };
        let keyed = match (self, cipher_key_size) {
            (Self::Aes, 16) => block16::<Aes128>(mode, key),
            (Self::Aes, 24) => block16::<Aes192>(mode, key),
            (Self::Aes, 32) => block16::<Aes256>(mode, key),
            (Self::Camellia, 16) => block16::<Camellia128>(mode, key),
            (Self::Camellia, 24) => block16::<Camellia192>(mode, key),
            (Self::Camellia, 32) => block16::<Camellia256>(mode, key),
            (Self::Cast5, 16) => any_block::<Cast5>(mode, key),
            (Self::Serpent, 16 | 24 | 32) => block16::<Serpent>(mode, key),
            (Self::Twofish, 16 | 24 | 32) => block16::<Twofish>(mode, key),
            _ => None,
        };
        keyed.ok_or_else(|| wrong_key_size(self, key.len()))
    }
}

/// Every mode, for ciphers with blocks of 16 bytes. `None` if the key does not fit.
fn block16<C>(mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>>
where
    C: BlockCipher + BlockSizeUser<BlockSize = U16>,
{
    if mode != CipherMode::Xts {
        return any_block::<C>(mode, key);
    }
    let (data_key, tweak_key) = key.split_at(key.len() / 2);
    let data = C::new_from_slice(data_key).ok()?;
    let tweak = C::new_from_slice(tweak_key).ok()?;
    Some(Box::new(Xts(Xts128::new(data, tweak))))
}

/// The modes that take blocks of any size. `None` for XTS, or if the key does not fit.
fn any_block<C: BlockCipher>(mode: CipherMode, key: &[u8]) -> Option<Box<dyn Mode>> {
    let cipher = C::new_from_slice(key).ok()?;
    match mode {
        CipherMode::Cbc => Some(Box::new(Cbc(cipher))),
        CipherMode::Ctr => Some(Box::new(Ctr(cipher))),
        CipherMode::Ecb => Some(Box::new(Ecb(cipher))),
        CipherMode::Xts => None,
    }
}

fn wrong_key_size(cipher: Cipher, key_size: usize) -> Error {
    let message = format!("a key of {key_size} bytes does not fit the cipher {}", cipher.name());
    Error::new(ErrorKind::InvalidInput, message)
}

fn assert_whole_sectors(data: &[u8]) {
    assert!(
        data.len().is_multiple_of(SectorCipher::SECTOR_SIZE),
        "{} bytes are not whole sectors",
        data.len()
    );
}
