//! Round keys (FIPS 197, section 5.2), computed with the CPU's S-box, so that no table and no
//! address depends on a key.

use zeroize::{Zeroize, ZeroizeOnDrop};

/// A block: two little-endian halves.
#[derive(Clone, Copy, Default)]
#[repr(C, align(16))]
pub(super) struct Block(pub(super) [u64; 2]);

impl From<[u8; 16]> for Block {
    fn from(bytes: [u8; 16]) -> Self {
        let halves = bytes.as_chunks().0;
        Self([u64::from_le_bytes(halves[0]), u64::from_le_bytes(halves[1])])
    }
}

/// Key schedules of XTS.
pub(super) struct Keys {
    /// Encrypts the data
    pub(super) encrypt: Schedule,
    /// Decrypts the data
    pub(super) decrypt: Schedule,
    /// Encrypts the initialisation vectors
    pub(super) tweak: Schedule,
}

/// The round keys of AES, zeroed when dropped. AES-128 has 11 of them, AES-192 13, AES-256 15.
pub(super) struct Schedule(pub(super) [Block; MAX_ROUNDS + 1]);

const MAX_ROUNDS: usize = 14;

/// CPU instructions needed for a key schedule.
pub(super) trait KeyUnit {
    /// Substitutes each byte of a word with the S-box.
    fn sub_word(&self, word: u32) -> u32;

    /// `InvMixColumns` (FIPS 197, section 5.3.3).
    fn inv_mix_columns(&self, key: Block) -> Block;
}

impl Keys {
    /// Empty schedules. They are [expanded](Self::expand) in place, because a move would leave a
    /// copy.
    pub(super) const ZERO: Self =
        Self { encrypt: Schedule::ZERO, decrypt: Schedule::ZERO, tweak: Schedule::ZERO };

    /// Expands an XTS key: the data key, then the tweak key, 16, 24 or 32 bytes each.
    pub(super) fn expand(&mut self, key: &[u8], unit: &impl KeyUnit) {
        let (data, tweak) = key.split_at(key.len() / 2);
        self.encrypt.expand(data, unit);
        self.decrypt.invert(&self.encrypt, rounds(data.len()), unit);
        self.tweak.expand(tweak, unit);
    }
}

impl Schedule {
    const ZERO: Self = Self([Block([0; 2]); MAX_ROUNDS + 1]);

    /// Key expansion: FIPS 197, section 5.2.
    fn expand(&mut self, key: &[u8], unit: &impl KeyUnit) {
        let key_words = key.len() / 4;
        let mut words = [0; 4 * (MAX_ROUNDS + 1)];
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let mut round_constant = 1;
        for index in key_words..4 * (rounds(key.len()) + 1) {
            let mut word = words[index - 1];
            if index.is_multiple_of(key_words) {
                word = unit.sub_word(word.rotate_right(8)) ^ round_constant;
                // The next power of x in GF(2^8).
                round_constant = (round_constant << 1) ^ ((round_constant >> 7) * 0x11b);
            } else if key_words > 6 && index % key_words == 4 {
                word = unit.sub_word(word);
            }
            words[index] = words[index - key_words] ^ word;
        }
        let half = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        for (block, words) in self.0.iter_mut().zip(words.chunks_exact(4)) {
            block.0 = [half(words[0], words[1]), half(words[2], words[3])];
        }
        words.zeroize();
    }

    /// Computes the round keys of the equivalent inverse cipher (FIPS 197, section 5.3.5).
    fn invert(&mut self, encrypt: &Self, rounds: usize, unit: &impl KeyUnit) {
        for round in 0..=rounds {
            let key = encrypt.0[rounds - round];
            let is_end = round == 0 || round == rounds;
            self.0[round] = if is_end { key } else { unit.inv_mix_columns(key) };
        }
    }
}

/// Number of rounds for a key of 16, 24 or 32 bytes.
pub(super) fn rounds(key_size: usize) -> usize {
    key_size / 4 + 6
}

impl Drop for Schedule {
    fn drop(&mut self) {
        for block in &mut self.0 {
            block.0.zeroize();
        }
    }
}

impl ZeroizeOnDrop for Schedule {}
