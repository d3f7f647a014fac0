//! AES-XTS over the block ciphers of the `aes` crate, in batches that span sectors.

use aes::{Aes128, Aes192, Aes256};
use cipher::consts::U16;
use cipher::inout::InOutBuf;
use cipher::{Array, Block, BlockSizeUser};

use super::super::ivgen::Iv;
use super::super::mode::{BlockCipher, Mode, Run};

/// Creates XTS from a `key` of two AES keys, 16, 24 or 32 bytes each. `None` for other lengths.
pub(super) fn portable(key: &[u8]) -> Option<Box<dyn Mode>> {
    match key.len() {
        32 => Some(Box::new(FlatXts::<Aes128>::new(key)?)),
        48 => Some(Box::new(FlatXts::<Aes192>::new(key)?)),
        64 => Some(Box::new(FlatXts::<Aes256>::new(key)?)),
        _ => None,
    }
}

/// XTS that treats a run of sectors as one sequence of blocks.
struct FlatXts<C> {
    data: C,
    tweak: C,
}

impl<C: BlockCipher + BlockSizeUser<BlockSize = U16>> FlatXts<C> {
    fn new(key: &[u8]) -> Option<Self> {
        let (data, tweak) = key.split_at(key.len() / 2);
        Some(Self { data: C::new_from_slice(data).ok()?, tweak: C::new_from_slice(tweak).ok()? })
    }

    /// Runs `cipher` over all blocks of `data`, adding their tweaks before and after.
    fn work(
        &self,
        cipher: impl Fn(&mut [Block<C>]),
        ivs: impl Iterator<Item = Iv>,
        blocks_per_sector: usize,
        data: &mut [u8],
    ) {
        let (blocks, _) = Block::<C>::slice_as_chunks_mut(data);
        let mut tweaks = Tweaks {
            cipher: &self.tweak,
            ivs,
            batch: [Array([0; 16]); IVS],
            next: IVS,
            tweak: 0,
            left: 0,
            blocks_per_sector,
        };
        let mut added = [0; BATCH];
        for batch in blocks.chunks_mut(BATCH) {
            for (block, added) in batch.iter_mut().zip(&mut added) {
                *added = tweaks.next();
                add(block, *added);
            }
            cipher(batch);
            for (block, added) in batch.iter_mut().zip(&added) {
                add(block, *added);
            }
        }
    }
}

/// Iterates over the tweaks of consecutive blocks and sectors.
struct Tweaks<'a, C, I> {
    cipher: &'a C,
    ivs: I,
    /// Encrypted initialisation vectors
    batch: [Array<u8, U16>; IVS],
    /// Index of the next sector's vector in the batch
    next: usize,
    /// Tweak of the next block
    tweak: u128,
    /// Blocks remaining in this sector
    left: usize,
    blocks_per_sector: usize,
}

impl<C: BlockCipher + BlockSizeUser<BlockSize = U16>, I: Iterator<Item = Iv>> Tweaks<'_, C, I> {
    #[inline]
    fn next(&mut self) -> u128 {
        if self.left == 0 {
            self.begin_sector();
        }
        self.left -= 1;
        let this = self.tweak;
        self.tweak = (this << 1) ^ ((this >> 127) * 0x87);
        this
    }

    fn begin_sector(&mut self) {
        if self.next == IVS {
            let mut count = 0;
            for (block, iv) in self.batch.iter_mut().zip(&mut self.ivs) {
                block.0 = iv;
                count += 1;
            }
            self.cipher.encrypt_blocks(&mut self.batch[..count]);
            self.next = 0;
        }
        self.tweak = u128::from_le_bytes(self.batch[self.next].0);
        self.next += 1;
        self.left = self.blocks_per_sector;
    }
}

impl<C: BlockCipher + BlockSizeUser<BlockSize = U16>> Mode for FlatXts<C> {
    fn encrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        let blocks = sector.len() / 16;
        self.work(|batch| self.data.encrypt_blocks(batch), [*iv].into_iter(), blocks, sector);
    }

    fn decrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        let blocks = sector.len() / 16;
        self.work(|batch| self.data.decrypt_blocks(batch), [*iv].into_iter(), blocks, sector);
    }

    fn encrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        let ivs = run.ivs().take(data.len() / run.sector_size);
        let (data, blocks) = (data.into_out_with_copied_in(), run.sector_size / 16);
        self.work(|batch| self.data.encrypt_blocks(batch), ivs, blocks, data);
    }

    fn decrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        let ivs = run.ivs().take(data.len() / run.sector_size);
        let (data, blocks) = (data.into_out_with_copied_in(), run.sector_size / 16);
        self.work(|batch| self.data.decrypt_blocks(batch), ivs, blocks, data);
    }
}

fn add(block: &mut Array<u8, U16>, tweak: u128) {
    block.0 = (u128::from_le_bytes(block.0) ^ tweak).to_le_bytes();
}

/// Blocks encrypted at once: the widest batch of the `aes` crate
const BATCH: usize = 64;

/// Initialisation vectors encrypted at once
const IVS: usize = 16;
