//! Tests of every kernel against NIST's vectors and xts-mode.

#![allow(clippy::unwrap_used, reason = "tests")]

use aes::{Aes128, Aes192, Aes256};
use cipher::consts::U16;
use cipher::{Array, BlockSizeUser};
use xts_mode::Xts128;

use super::super::mode::BlockCipher;
use super::super::{CipherSpec, SectorCipher};
use super::AesKernel;
use super::kernel::aes_xts;

/// Vectors described in testdata/xts/README.md.
#[test]
fn vectors_of_nist() {
    eprintln!("kernels: {:?}", AesKernel::available().collect::<Vec<_>>());
    for kernel in AesKernel::available() {
        let mut count = 0;
        for file in [
            include_str!("../../../testdata/xts/XTSGenAES128-128hexstr.rsp"),
            include_str!("../../../testdata/xts/XTSGenAES128-dataunitseqno.rsp"),
            include_str!("../../../testdata/xts/XTSGenAES256-128hexstr.rsp"),
            include_str!("../../../testdata/xts/XTSGenAES256-dataunitseqno.rsp"),
        ] {
            for vector in file.split("\n\n") {
                let field = |name| {
                    vector.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "))
                };
                let Some(key) = field("Key").map(bytes) else { continue };
                let mut tweak = [0; 16];
                match field("DataUnitSeqNumber") {
                    Some(number) => {
                        tweak[..8].copy_from_slice(&number.parse::<u64>().unwrap().to_le_bytes());
                    }
                    None => tweak.copy_from_slice(&bytes(field("i").unwrap())),
                }
                let plain = bytes(field("PT").unwrap());
                let encrypted = bytes(field("CT").unwrap());
                let mode = aes_xts(kernel, &key).unwrap();
                let mut data = plain.clone();
                mode.encrypt_sector(&tweak, &mut data);
                assert_eq!(data, encrypted, "{kernel}: {vector}");
                mode.decrypt_sector(&tweak, &mut data);
                assert_eq!(data, plain, "{kernel}: {vector}");
                count += 1;
            }
        }
        assert_eq!(count, 128);
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().map(|digit| digit.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|pair| u8::try_from(16 * pair[0] + pair[1]).unwrap()).collect()
}

/// All sector sizes, sector numbers that carry and wrap around, one to many sectors, unaligned
/// buffers, in place and between buffers.
#[test]
fn kernels_do_what_xts_mode_does() {
    let mut random = Random(0x6b65_7973_6c6f_7421);
    for key_size in [32, 48, 64] {
        for ivgen in ["plain", "plain64", "plain64be", "null", "essiv:sha256"] {
            let key = random.bytes(key_size);
            let spec = CipherSpec::parse("aes", &format!("xts-{ivgen}"), key_size).unwrap();
            for sector_size in [512, 1024, 2048, 4096] {
                for count in [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 127, 300] {
                    if count * sector_size > 300 * 512 && count != 65 {
                        continue;
                    }
                    let first = match random.below(6) {
                        0 => 0,
                        1 => u64::from(u32::MAX) - random.below(count as u64 + 1),
                        2 => u64::MAX - random.below(8 * count as u64),
                        3 => (1 << 63) - random.below(count as u64 + 1),
                        _ => random.next(),
                    };
                    let case = Case { key: &key, spec: &spec, sector_size, count, first };
                    case.check(&mut random);
                }
            }
        }
    }
}

/// Every number of sectors, so that batches have every possible remainder.
#[test]
fn any_number_of_sectors() {
    let mut random = Random(0x7365_6374_6f72_7321);
    for (key_size, sector_size, counts) in
        [(64, 512, 1..=300), (32, 512, 1..=40), (64, 4096, 1..=40)]
    {
        let spec = CipherSpec::parse("aes", "xts-plain64", key_size).unwrap();
        for count in counts {
            let key = random.bytes(key_size);
            // From 0, across 2^32, across 2^64, and anywhere.
            let middle = count as u64 / 2 * (sector_size as u64 / 512);
            let first = match count % 4 {
                0 => 0,
                1 => (1_u64 << 32).wrapping_sub(middle),
                2 => 0_u64.wrapping_sub(middle),
                _ => random.next(),
            };
            Case { key: &key, spec: &spec, sector_size, count, first }.check(&mut random);
        }
    }
}

struct Case<'a> {
    key: &'a [u8],
    spec: &'a CipherSpec,
    sector_size: usize,
    count: usize,
    first: u64,
}

impl Case<'_> {
    fn check(&self, random: &mut Random) {
        let len = self.count * self.sector_size;
        let plain = random.bytes(len);
        let expected = self.by_xts_mode(&plain);
        let offset = usize::try_from(random.below(64)).unwrap();
        for kernel in AesKernel::available() {
            let cipher = SectorCipher::with_kernel(self.spec.clone(), self.key, kernel);
            let cipher = cipher.unwrap().with_sector_size(self.sector_size).unwrap();
            let what = format!("{kernel} {:?} {}x{}", self.spec, self.count, self.sector_size);

            // The bytes around the buffers must not change.
            let mut one = vec![0xa5; len + 128];
            let mut other = one.clone();
            one[offset..][..len].copy_from_slice(&plain);
            cipher.encrypt(self.first, &mut one[offset..][..len]);
            assert!(one[offset..][..len] == expected, "encrypted: {what}");
            cipher.decrypt_to(self.first, &one[offset..][..len], &mut other[64 - offset..][..len]);
            assert!(other[64 - offset..][..len] == plain, "decrypted to another: {what}");
            cipher.decrypt(self.first, &mut one[offset..][..len]);
            assert!(one[offset..][..len] == plain, "decrypted: {what}");
            cipher.encrypt_to(self.first, &one[offset..][..len], &mut other[64 - offset..][..len]);
            assert!(other[64 - offset..][..len] == expected, "encrypted to another: {what}");
            let around = |buffer: &[u8], at: usize| {
                buffer[..at].iter().chain(&buffer[at + len..]).all(|&byte| byte == 0xa5)
            };
            assert!(around(&one, offset) && around(&other, 64 - offset), "around: {what}");
        }
    }

    fn by_xts_mode(&self, plain: &[u8]) -> Vec<u8> {
        match self.key.len() {
            32 => self.by::<Aes128>(plain),
            48 => self.by::<Aes192>(plain),
            _ => self.by::<Aes256>(plain),
        }
    }

    fn by<C: BlockCipher + BlockSizeUser<BlockSize = U16>>(&self, plain: &[u8]) -> Vec<u8> {
        let (data, tweak) = self.key.split_at(self.key.len() / 2);
        let half = |key| C::new_from_slice(key).unwrap();
        let xts = Xts128::new(half(data), half(tweak));
        let ivs = super::super::ivgen::Ivs::new(self.spec, self.key).unwrap();
        let mut out = plain.to_vec();
        let step = (self.sector_size / 512) as u64;
        for (index, sector) in (0..).zip(out.chunks_mut(self.sector_size)) {
            let number = self.first.wrapping_add(step * index);
            xts.encrypt_sector(sector, Array(ivs.iv(number)));
        }
        out
    }
}

#[test]
fn the_limit_is_a_rate() {
    for kernel in AesKernel::available() {
        let limit = kernel.limit(32);
        assert_eq!(limit.is_some(), kernel != AesKernel::Portable, "{kernel}");
        assert!(limit.is_none_or(|rate| rate.is_finite() && rate > 0.0), "{kernel}: {limit:?}");
        assert_eq!(kernel.limit(17), None);
    }
}

/// Deterministic pseudorandom numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}
