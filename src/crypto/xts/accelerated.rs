//! The XTS mode of operation with an accelerated kernel.

use std::time::Instant;

use cipher::inout::InOutBuf;
use zeroize::Zeroizing;

#[cfg(target_arch = "aarch64")]
use super::arm::{Neon, NeonKeyUnit as AesKeyUnit};
#[cfg(target_arch = "x86_64")]
use super::x86::{AesNi, AesNiKeyUnit as AesKeyUnit, Vaes256, Vaes512};

use super::super::ivgen::Iv;
use super::super::mode::{Mode, Run};
use super::AesKernel;
use super::engine::{DEPTH, Lanes};
use super::schedule::{Block, Keys, Schedule, rounds};
use super::sectors::{SectorIvs, Sectors};

/// Creates AES-XTS with a kernel that this CPU supports and a key of a valid size. `None` for the
/// portable kernel.
pub(super) fn accelerated(kernel: AesKernel, key: &[u8]) -> Option<Box<dyn Mode>> {
    let mut mode = KernelXts::new(kernel, key.len() / 2)?;
    mode.expand(key);
    Some(mode)
}

/// Measures [`AesKernel::limit`] for a kernel that this CPU supports and a valid AES key size.
#[allow(unsafe_code)]
#[allow(clippy::cast_precision_loss, reason = "a rate")]
pub(super) fn limit(kernel: AesKernel, key_size: usize) -> Option<f64> {
    let mode = KernelXts::new(kernel, key_size)?;
    let mut best = f64::INFINITY;
    for _ in 0..LIMIT_TRIES {
        let start = Instant::now();
        // SAFETY: the CPU supports the kernel.
        unsafe { (mode.entries.rounds_only)(&mode.keys.encrypt, rounds(key_size), LIMIT_TIMES) };
        best = best.min(start.elapsed().as_secs_f64());
    }
    Some((LIMIT_TIMES * mode.entries.bytes) as f64 / best)
}

/// AES-XTS with an accelerated kernel.
struct KernelXts {
    keys: Keys,
    /// Entry points of a kernel that this CPU supports
    entries: Entries,
}

impl KernelXts {
    /// Creates the mode with empty key schedules.
    fn new(kernel: AesKernel, key_size: usize) -> Option<Box<Self>> {
        let entries = entries(kernel, rounds(key_size))?;
        Some(Box::new(Self { keys: Keys::ZERO, entries }))
    }

    #[allow(unsafe_code)]
    fn expand(&mut self, key: &[u8]) {
        // SAFETY: every kernel needs AES, and this CPU supports the kernel.
        let unit = unsafe { AesKeyUnit::new() };
        self.keys.expand(key, &unit);
    }

    #[allow(unsafe_code)]
    fn work<const ENCRYPT: bool>(&self, ivs: SectorIvs<'_>, sectors: &Sectors<'_>) {
        let entry = if ENCRYPT { self.entries.encrypt } else { self.entries.decrypt };
        // SAFETY: the CPU supports the kernel.
        unsafe {
            entry(&self.keys, ivs, sectors);
            if sectors.count() * sectors.size() >= SCRUB {
                (self.entries.scrub)();
            }
        }
    }

    /// Processes one data unit of any number of blocks.
    fn unit<const ENCRYPT: bool>(&self, iv: &Iv, unit: &mut [u8]) {
        let iv = [Block::from(*iv)];
        let ivs = SectorIvs::Listed(iv.iter());
        if unit.is_empty() {
            return;
        }
        if unit.len().is_multiple_of(UNIT) {
            let len = unit.len();
            return self.work::<ENCRYPT>(ivs, &Sectors::new(unit.into(), len));
        }
        // Padding does not affect the blocks before it.
        let mut padded = Zeroizing::new(vec![0; unit.len().next_multiple_of(UNIT)]);
        padded[..unit.len()].copy_from_slice(unit);
        let len = padded.len();
        self.work::<ENCRYPT>(ivs, &Sectors::new(padded.as_mut_slice().into(), len));
        unit.copy_from_slice(&padded[..unit.len()]);
    }

    fn sectors<const ENCRYPT: bool>(&self, run: &Run<'_>, mut data: InOutBuf<'_, '_, u8>) {
        if let Some(masks) = run.ivs.number_masks() {
            let ivs = SectorIvs::Numbered { number: run.first, step: run.step(), masks };
            return self.work::<ENCRYPT>(ivs, &Sectors::new(data.reborrow(), run.sector_size));
        }
        let mut blocks = [Block::default(); LISTED];
        let mut ivs = run.ivs();
        while !data.is_empty() {
            let len = data.len().min(LISTED * run.sector_size);
            let (part, rest) = data.split_at(len);
            data = rest;
            let blocks = &mut blocks[..len / run.sector_size];
            for (block, iv) in blocks.iter_mut().zip(&mut ivs) {
                *block = Block::from(iv);
            }
            let ivs = SectorIvs::Listed(blocks.iter());
            self.work::<ENCRYPT>(ivs, &Sectors::new(part, run.sector_size));
        }
    }
}

impl Mode for KernelXts {
    fn encrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        self.unit::<true>(iv, sector);
    }

    fn decrypt_sector(&self, iv: &Iv, sector: &mut [u8]) {
        self.unit::<false>(iv, sector);
    }

    fn encrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        self.sectors::<true>(run, data);
    }

    fn decrypt(&self, run: &Run<'_>, data: InOutBuf<'_, '_, u8>) {
        self.sectors::<false>(run, data);
    }
}

macro_rules! entry_points {
    ($kernel:ident, $rounds:expr) => {
        match $rounds {
            10 => entry_points!($kernel; 10),
            12 => entry_points!($kernel; 12),
            14 => entry_points!($kernel; 14),
            _ => None,
        }
    };
    ($kernel:ident; $rounds:literal) => {
        Some(Entries {
            encrypt: $kernel::encrypt_sectors::<$rounds>,
            decrypt: $kernel::decrypt_sectors::<$rounds>,
            scrub: $kernel::scrub,
            rounds_only: $kernel::rounds_only,
            bytes: 16 * DEPTH * <$kernel as Lanes>::LANES,
        })
    };
}

/// Entry points of the kernel; `None` for the portable kernel.
#[cfg(target_arch = "x86_64")]
fn entries(kernel: AesKernel, rounds: usize) -> Option<Entries> {
    match kernel {
        AesKernel::AesNi => entry_points!(AesNi, rounds),
        AesKernel::Vaes256 => entry_points!(Vaes256, rounds),
        AesKernel::Vaes512 => entry_points!(Vaes512, rounds),
        AesKernel::Portable | AesKernel::ArmAes => None,
    }
}

/// Entry points of the kernel; `None` for the portable kernel.
#[cfg(target_arch = "aarch64")]
fn entries(kernel: AesKernel, rounds: usize) -> Option<Entries> {
    if kernel == AesKernel::ArmAes { entry_points!(Neon, rounds) } else { None }
}

/// Entry points of a kernel for a number of rounds.
#[derive(Clone, Copy)]
struct Entries {
    encrypt: unsafe fn(&Keys, SectorIvs<'_>, &Sectors<'_>),
    decrypt: unsafe fn(&Keys, SectorIvs<'_>, &Sectors<'_>),
    /// Overwrites the stack that the kernel used
    scrub: unsafe fn(),
    rounds_only: unsafe fn(&Schedule, usize, usize) -> Block,
    /// Bytes that `rounds_only` encrypts each time
    bytes: usize,
}

/// Smallest run, in bytes, after which the stack is scrubbed; the cost is negligible there
const SCRUB: usize = 8192;

/// Bytes that the groups of every kernel divide: the smallest sector
const UNIT: usize = 512;

/// Initialisation vectors computed at once, for generators that [`Ivs`] cannot express as masks
const LISTED: usize = 64;

/// Measurements of the limit; the fastest counts
const LIMIT_TRIES: usize = 9;
/// Encryptions of [`DEPTH`] vectors in each measurement
const LIMIT_TIMES: usize = 20_000;
