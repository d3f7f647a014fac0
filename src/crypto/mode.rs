//! Modes of operation over any block cipher: ECB, CBC and CTR (NIST SP 800-38A), and XTS (IEEE
//! 1619, with `xts-mode`).

use std::array;

use cipher::consts::U16;
use cipher::inout::InOutBuf;
use cipher::{Array, Block, BlockCipherDecrypt, BlockCipherEncrypt, BlockSizeUser, KeyInit};
use xts_mode::Xts128;

use super::SectorCipher;
use super::ivgen::{Iv, Ivs};

/// A keyed mode of operation, which encrypts each sector independently.
pub(super) trait Mode: Send + Sync {
    /// Encrypts one sector of any number of whole blocks.
    fn encrypt_sector(&self, iv: &Iv, sector: &mut [u8]);

    /// Decrypts one sector of any number of whole blocks.
    fn decrypt_sector(&self, iv: &Iv, sector: &mut [u8]);

    /// Encrypts a run of sectors, in place or from one buffer to another.
    fn encrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        let sectors = data.into_out_with_copied_in().chunks_exact_mut(run.sector_size);
        for (iv, sector) in run.ivs().zip(sectors) {
            self.encrypt_sector(&iv, sector);
        }
    }

    /// Decrypts a run of sectors, in place or from one buffer to another.
    fn decrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        let sectors = data.into_out_with_copied_in().chunks_exact_mut(run.sector_size);
        for (iv, sector) in run.ivs().zip(sectors) {
            self.decrypt_sector(&iv, sector);
        }
    }
}

/// Consecutive whole sectors.
pub(super) struct Run<'a> {
    pub(super) ivs: &'a Ivs,
    /// Number of the first sector, in units of 512 bytes
    pub(super) first: u64,
    /// Length of a sector in bytes
    pub(super) sector_size: usize,
}

impl Run<'_> {
    /// Difference between the numbers of consecutive sectors.
    pub(super) fn step(&self) -> u64 {
        (self.sector_size / SectorCipher::SECTOR_SIZE) as u64
    }

    /// Initialisation vectors of the sectors; numbers wrap around at 2^64.
    pub(super) fn ivs(&self) -> impl Iterator<Item = Iv> {
        (0..)
            .map(|index: u64| self.ivs.iv(self.first.wrapping_add(index.wrapping_mul(self.step()))))
    }
}

/// Requirements of the modes on a block cipher.
pub(super) trait BlockCipher:
    BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static
{
}

impl<C> BlockCipher for C where
    C: BlockCipherEncrypt + BlockCipherDecrypt + KeyInit + Send + Sync + 'static
{
}

/// Electronic codebook: each block independently of others and of the sector.
pub(super) struct Ecb<C>(pub(super) C);

impl<C: BlockCipher> Mode for Ecb<C> {
    fn encrypt_sector(&self, _iv: &Iv, sector: &mut [u8]) {
        self.0.encrypt_blocks(blocks::<C>(sector));
    }

    fn decrypt_sector(&self, _iv: &Iv, sector: &mut [u8]) {
        self.0.decrypt_blocks(blocks::<C>(sector));
    }
}

/// Cipher block chaining.
pub(super) struct Cbc<C>(pub(super) C);

impl<C: BlockCipher> Mode for Cbc<C> {
    fn encrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        let mut previous = first_block::<C>(iv);
        for block in blocks::<C>(sector) {
            xor(block, &previous);
            self.0.encrypt_block(block);
            previous.clone_from(block);
        }
    }

    fn decrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        let mut previous = first_block::<C>(iv);
        let mut ciphertext: [Block<C>; BATCH] = array::from_fn(|_| Block::<C>::default());
        for batch in blocks::<C>(sector).chunks_mut(BATCH) {
            let ciphertext = &mut ciphertext[..batch.len()];
            ciphertext.clone_from_slice(batch);
            self.0.decrypt_blocks(batch);
            for (block, ciphertext) in batch.iter_mut().zip(ciphertext) {
                xor(block, &previous);
                previous.clone_from(ciphertext);
            }
        }
    }

    /// Blocks of a sector depend on each other, so many sectors are encrypted side by side.
    fn encrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        let mut ivs = run.ivs();
        let mut chains: [Block<C>; LOCKSTEP] = array::from_fn(|_| Block::<C>::default());
        let data = data.into_out_with_copied_in();
        for sectors in data.chunks_mut(LOCKSTEP * run.sector_size) {
            let chains = &mut chains[..sectors.len() / run.sector_size];
            for (chain, iv) in chains.iter_mut().zip(&mut ivs) {
                *chain = first_block::<C>(&iv);
            }
            for at in (0..run.sector_size).step_by(C::block_size()) {
                let starts = (at..).step_by(run.sector_size);
                for (chain, start) in chains.iter_mut().zip(starts.clone()) {
                    xor(chain, &sectors[start..]);
                }
                self.0.encrypt_blocks(chains);
                for (chain, start) in chains.iter().zip(starts) {
                    sectors[start..start + chain.len()].copy_from_slice(chain);
                }
            }
        }
    }
}

/// Counter mode: the initialisation vector is the first counter block, a big-endian number.
pub(super) struct Ctr<C>(pub(super) C);

impl<C: BlockCipher> Mode for Ctr<C> {
    fn encrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        let mut counter = first_block::<C>(iv);
        let mut keystream: [Block<C>; BATCH] = array::from_fn(|_| Block::<C>::default());
        for batch in blocks::<C>(sector).chunks_mut(BATCH) {
            let keystream = &mut keystream[..batch.len()];
            for block in &mut *keystream {
                block.clone_from(&counter);
                increment(&mut counter);
            }
            self.0.encrypt_blocks(keystream);
            for (block, keystream) in batch.iter_mut().zip(keystream) {
                xor(block, keystream);
            }
        }
    }

    fn decrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        self.encrypt_sector(iv, sector);
    }
}

/// XTS: the tweak is the initialisation vector encrypted under the second half of the key.
pub(super) struct Xts<C: BlockSizeUser<BlockSize = U16>>(pub(super) Xts128<C>);

impl<C: BlockCipher + BlockSizeUser<BlockSize = U16>> Mode for Xts<C> {
    fn encrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        self.0.encrypt_sector(sector, Array(*iv));
    }

    fn decrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        self.0.decrypt_sector(sector, Array(*iv));
    }
}

fn blocks<C: BlockSizeUser>(sector: &mut [u8]) -> &mut [Block<C>] {
    let (blocks, rest) = Block::<C>::slice_as_chunks_mut(sector);
    debug_assert!(rest.is_empty());
    blocks
}

fn first_block<C: BlockSizeUser>(iv: &Iv) -> Block<C> {
    Block::<C>::from_fn(|index| iv[index])
}

/// XORs `other` into `block`, over the shorter length.
pub(super) fn xor(block: &mut [u8], other: &[u8]) {
    for (byte, other) in block.iter_mut().zip(other) {
        *byte ^= other;
    }
}

fn increment(counter: &mut [u8]) {
    for byte in counter.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return;
        }
    }
}

/// Blocks processed at once: a sector of 16-byte blocks
const BATCH: usize = 32;

/// Sectors that CBC encrypts side by side: the widest batch of the `aes` crate, in blocks
const LOCKSTEP: usize = 64;

#[cfg(test)]
mod tests {
    use aes::Aes128;
    use hex_literal::hex;

    use super::*;

    /// From Python's cryptography 48.
    #[test]
    fn the_counter_carries_through_the_whole_block() {
        let key: [u8; 16] = array::from_fn(|index| u8::try_from(index).unwrap());
        let mut data = [0; 64];
        Ctr(Aes128::new_from_slice(&key).unwrap()).encrypt_sector(&[0xff; 16], &mut data);
        let expected = hex!(
            "3c441f32ce07822364d7a2990e50bb13c6a13b37878f5b826f4f8162a1c8d879"
            "7346139595c0b41e497bbde365f42d0a49d68753999ba68ce3897a686081b09d"
        );
        assert_eq!(data, expected);
    }
}
