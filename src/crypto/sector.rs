//! Sector ciphers: a [`CipherSpec`] with its key.

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use camellia::{Camellia128, Camellia192, Camellia256};
use cast5::Cast5;
use cipher::BlockSizeUser;
use cipher::consts::U16;
use cipher::inout::InOutBuf;
use serpent::Serpent;
use twofish::Twofish;
use xts_mode::Xts128;

use super::ivgen::Ivs;
use super::mode::{BlockCipher, Cbc, Ctr, Ecb, Mode, Run, Xts};
use super::xts::aes_xts;
use super::{AesKernel, Cipher, CipherMode, CipherSpec};
use crate::{Error, ErrorKind, Result};

/// Encrypts and decrypts the sectors of a volume or of a keyslot's key material.
///
/// One cipher can be used by many threads. Its keys are wiped when it is dropped. Copies that the
/// compiler spilled to the stack during a call are overwritten after AES-XTS runs of 8 KiB and
/// more; after other runs they stay until the stack is reused.
///
/// AES is fast. The other ciphers exist for old volumes and reach from 2 MB/s (Twofish) to 100
/// MB/s.
pub struct SectorCipher {
    spec: CipherSpec,
    mode: Box<dyn Mode>,
    ivs: Ivs,
    sector_size: usize,
}

impl SectorCipher {
    /// Size in bytes of the sectors that are numbered, independent of the size of those
    /// that are encrypted. LUKS1 encrypts sectors of this size.
    pub const SECTOR_SIZE: usize = 512;

    /// Creates the cipher `spec` with a `key` of [`key_size`](CipherSpec::key_size) bytes.
    pub fn new(spec: CipherSpec, key: &[u8]) -> Result<Self> {
        Self::with_kernel(spec, key, AesKernel::best())
    }

    /// Creates the cipher with a chosen AES-XTS kernel, for comparisons. Other ciphers ignore
    /// `kernel`.
    ///
    /// [`ErrorKind::Unsupported`] if this CPU does not support the kernel.
    pub fn with_kernel(spec: CipherSpec, key: &[u8], kernel: AesKernel) -> Result<Self> {
        if key.len() != spec.key_size() {
            return Err(wrong_key_size(spec.cipher(), key.len()));
        }
        let mode = if (spec.cipher(), spec.mode()) == (Cipher::Aes, CipherMode::Xts) {
            aes_xts(kernel, key).ok_or_else(|| {
                let text = format!("this CPU does not support the kernel {kernel}");
                Error::new(ErrorKind::Unsupported, text)
            })?
        } else {
            spec.cipher().keyed(spec.mode(), key)?
        };
        let ivs = Ivs::new(&spec, key)?;
        Ok(Self { spec, mode, ivs, sector_size: Self::SECTOR_SIZE })
    }

    /// Sets the sector size: 512, 1024, 2048 or 4096 bytes, as in the `sector_size` of a LUKS2
    /// segment. Initialisation vectors still count units of 512 bytes.
    pub fn with_sector_size(self, sector_size: usize) -> Result<Self> {
        match sector_size {
            512 | 1024 | 2048 | 4096 => Ok(Self { sector_size, ..self }),
            _ => {
                let text = format!("sectors of {sector_size} bytes are not supported");
                Err(Error::new(ErrorKind::Unsupported, text))
            }
        }
    }

    /// The specification of the cipher.
    pub fn spec(&self) -> &CipherSpec {
        &self.spec
    }

    /// Size in bytes of an encrypted sector.
    pub fn sector_size(&self) -> usize {
        self.sector_size
    }

    /// Encrypts whole sectors in place. `first_sector` is the number of the first, in units of 512
    /// bytes from the start of the volume or of the key material.
    ///
    /// # Panics
    ///
    /// If the length of `data` is not a multiple of the [sector size](Self::sector_size).
    pub fn encrypt(&self, first_sector: u64, data: &mut [u8]) {
        self.mode.encrypt(&self.run(first_sector, data.len()), data.into());
    }

    /// Decrypts whole sectors in place, as [`encrypt`](Self::encrypt) encrypts them.
    ///
    /// # Panics
    ///
    /// If the length of `data` is not a multiple of the [sector size](Self::sector_size).
    pub fn decrypt(&self, first_sector: u64, data: &mut [u8]) {
        self.mode.decrypt(&self.run(first_sector, data.len()), data.into());
    }

    /// Encrypts `plaintext` into `ciphertext`, as [`encrypt`](Self::encrypt) does in place.
    ///
    /// # Panics
    ///
    /// If the lengths differ, or are not a multiple of the [sector size](Self::sector_size).
    pub fn encrypt_to(&self, first_sector: u64, plaintext: &[u8], ciphertext: &mut [u8]) {
        let run = self.run(first_sector, plaintext.len());
        self.mode.encrypt(&run, both(plaintext, ciphertext));
    }

    /// Decrypts `ciphertext` into `plaintext`, as [`decrypt`](Self::decrypt) does in place.
    ///
    /// # Panics
    ///
    /// If the lengths differ, or are not a multiple of the [sector size](Self::sector_size).
    pub fn decrypt_to(&self, first_sector: u64, ciphertext: &[u8], plaintext: &mut [u8]) {
        let run = self.run(first_sector, ciphertext.len());
        self.mode.decrypt(&run, both(ciphertext, plaintext));
    }

    fn run(&self, first: u64, len: usize) -> Run<'_> {
        let sector_size = self.sector_size;
        assert!(len.is_multiple_of(sector_size), "{len} bytes are not whole sectors");
        Run { ivs: &self.ivs, first, sector_size }
    }
}

impl fmt::Debug for SectorCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SectorCipher").field("spec", &self.spec).finish_non_exhaustive()
    }
}

impl Cipher {
    /// Creates the bare block cipher under `key` for an ESSIV.
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

/// Creates any mode over a cipher with blocks of 16 bytes. `None` if the key does not fit.
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

/// Creates a mode for blocks of any size. `None` for XTS, or if the key does not fit.
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

fn both<'a, 'b>(from: &'a [u8], to: &'b mut [u8]) -> InOutBuf<'a, 'b, u8> {
    assert_eq!(from.len(), to.len(), "the buffers differ in length");
    match InOutBuf::new(from, to) {
        Ok(both) => both,
        Err(error) => unreachable!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::super::{HashAlg, IvGen};
    use super::*;

    fn key(size: usize) -> Vec<u8> {
        (0..=255).cycle().take(size).collect()
    }

    /// First and last 8 bytes of the encrypted sector 0x0102030405060708, which contains 0, 1, 2,
    /// ..., under the key 0, 1, 2, .... From Python's cryptography 48 (OpenSSL), and from nettle
    /// 3.8 for Serpent and Twofish, with initialisation vectors computed by hand.
    #[test]
    fn sectors_are_those_of_other_implementations() {
        for (cipher, mode, key_size, head, tail) in [
            ("aes", "cbc-plain64", 32, hex!("efe846c37cf67c61"), hex!("bf5b73c7824a722d")),
            ("aes", "cbc-plain", 16, hex!("d9665cc7b33d05d8"), hex!("a5da3077c0d783fa")),
            ("aes", "cbc-plain64be", 24, hex!("a523d4eb93277f48"), hex!("80912d1129f5f813")),
            ("aes", "cbc-null", 16, hex!("0a940bb5416ef045"), hex!("6f6be4d41e531922")),
            ("aes", "cbc-essiv:sha256", 16, hex!("afa2e73aa3295586"), hex!("73a7bc5e63e6911e")),
            ("aes", "ctr-plain64be", 32, hex!("5e8488961851ca60"), hex!("2f93be76a4de26f2")),
            ("aes", "ecb", 32, hex!("5a6e045708fb7196"), hex!("5a69e65440326314")),
            ("aes", "xts-plain64", 32, hex!("0cf27e121530cc94"), hex!("09df649f7aa93c66")),
            ("aes", "xts-essiv:sha256", 64, hex!("008ea5b8fa27a1b9"), hex!("f7c2f9ecbf734488")),
            ("camellia", "cbc-plain64", 32, hex!("8a4a93089df4a59f"), hex!("fde516663a0e5a1d")),
            ("camellia", "cbc-plain64", 24, hex!("9756d29954596eed"), hex!("328ef8d3e5f2324d")),
            ("camellia", "cbc-plain64", 16, hex!("be10e6db3d5aa4cf"), hex!("4fc218500b73f612")),
            ("cast5", "cbc-plain64", 16, hex!("850a1cf56ec73ca1"), hex!("a9de45d49dcca320")),
            ("serpent", "cbc-plain64", 16, hex!("a155672afceee99b"), hex!("348e261387822808")),
            ("serpent", "cbc-plain64", 24, hex!("6efc04f77e17a0dd"), hex!("683fbb190409ed1e")),
            ("serpent", "cbc-plain64", 32, hex!("d0fe8c010ed4a27e"), hex!("3d136c0af5fd9323")),
            ("twofish", "cbc-plain64", 16, hex!("9a58b761cfe154bd"), hex!("2196e46e31ac240d")),
            ("twofish", "cbc-plain64", 24, hex!("f380641523d2d714"), hex!("49af1deacae55cb8")),
            ("twofish", "cbc-plain64", 32, hex!("d113a40cc37a7aa7"), hex!("794a41d53db41916")),
        ] {
            let spec = CipherSpec::parse(cipher, mode, key_size).unwrap();
            let mut data = key(512);
            spec.sector_cipher(&key(key_size)).unwrap().encrypt(0x0102_0304_0506_0708, &mut data);
            assert!(data.starts_with(&head) && data.ends_with(&tail), "{cipher} {mode} {key_size}");
        }
    }

    /// Every combination, one sector at a time and eight at once, across 2^32 and 2^64.
    #[test]
    fn every_combination_round_trips() {
        let ivgens = [IvGen::Null, IvGen::Plain, IvGen::Plain64, IvGen::Plain64be];
        let hashes = HashAlg::ALL.iter().map(|&hash| IvGen::Essiv(hash));
        let ivgens: Vec<_> = ivgens.into_iter().chain(hashes).collect();
        let mut combinations = 0;
        for &cipher in Cipher::ALL {
            for &mode in CipherMode::ALL {
                for &ivgen in &ivgens {
                    for size in cipher.key_sizes() {
                        let size = if mode == CipherMode::Xts { 2 * size } else { *size };
                        let Ok(spec) = CipherSpec::new(cipher, mode, ivgen, None, size) else {
                            continue;
                        };
                        round_trip(&spec);
                        combinations += 1;
                    }
                }
            }
        }
        // Ciphers with three key sizes have 4 plain generators, and ESSIV with MD5 (128 bits) and
        // the five hashes of 256 bits. CAST5 has the plain generators in all modes but XTS.
        assert_eq!(combinations, 4 * 4 * 3 * 10 + 3 * 4);
    }

    fn round_trip(spec: &CipherSpec) {
        let cipher = spec.sector_cipher(&key(spec.key_size())).unwrap();
        let plain = key(8 * SectorCipher::SECTOR_SIZE);
        for first in [0, u64::from(u32::MAX) - 2, u64::MAX - 3] {
            let mut together = plain.clone();
            cipher.encrypt(first, &mut together);
            assert_ne!(together, plain, "{spec:?}");
            let mut alone = plain.clone();
            for (index, sector) in (0..).zip(alone.chunks_mut(SectorCipher::SECTOR_SIZE)) {
                cipher.encrypt(first.wrapping_add(index), sector);
            }
            assert_eq!(together, alone, "{spec:?}");
            cipher.decrypt_to(first, &alone, &mut together);
            assert_eq!(together, plain, "{spec:?}");
            cipher.encrypt_to(first, &plain, &mut together);
            cipher.decrypt(first, &mut together);
            assert_eq!(together, plain, "{spec:?}");
        }
    }

    /// More sectors than any mode processes at once, of every size.
    #[test]
    fn many_sectors_are_as_one_by_one() {
        for mode in ["cbc-essiv:sha256", "cbc-plain64", "ctr-plain64", "ecb-plain64", "xts-plain64"]
        {
            let key = key(if mode.starts_with("xts") { 64 } else { 32 });
            let cipher = CipherSpec::parse("aes", mode, key.len()).unwrap();
            for size in [512, 1024, 2048, 4096] {
                let cipher = cipher.sector_cipher(&key).unwrap().with_sector_size(size).unwrap();
                let plain: Vec<u8> = (0..=250).cycle().take(150 * size).collect();
                let mut together = plain.clone();
                cipher.encrypt(7, &mut together);
                let mut alone = plain.clone();
                for (index, sector) in (0..).zip(alone.chunks_mut(size)) {
                    cipher.encrypt(7 + index * (size as u64 / 512), sector);
                }
                assert!(together == alone, "{mode} {size}");
                cipher.decrypt(7, &mut together);
                assert!(together == plain, "{mode} {size}");
            }
        }
    }

    #[test]
    fn keys_of_another_size_are_refused() {
        let spec = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
        for size in [0, 32, 63, 65] {
            let error = spec.sector_cipher(&key(size)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn no_key_is_printed() {
        let spec = CipherSpec::parse("aes", "cbc-essiv:sha256", 16).unwrap();
        let printed = format!("{:?}", spec.sector_cipher(&[0xab; 16]).unwrap());
        assert!(printed.ends_with(", .. }") && !printed.contains("171"), "{printed}");
    }

    #[test]
    #[should_panic(expected = "513 bytes are not whole sectors")]
    fn half_a_sector_is_a_mistake() {
        let spec = CipherSpec::parse("aes", "ecb", 16).unwrap();
        spec.sector_cipher(&[0; 16]).unwrap().encrypt(0, &mut [0; 513]);
    }
}
