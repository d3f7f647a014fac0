//! Which kernels there are, and the mode of operation over one of them.

use std::fmt;

use cipher::inout::InOutBuf;
use zeroize::Zeroizing;

use super::super::ivgen::Iv;
use super::super::mode::{Mode, Run};
use super::engine::{DEPTH, Lanes};
use super::portable::portable;
use super::schedule::{Block, Keys, Schedule, rounds};
use super::sectors::{SectorIvs, Sectors};

/// What encrypts AES-XTS: instructions that this CPU may have or not.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum AesKernel {
    /// Any CPU, by way of the `aes` crate
    Portable,
    /// x86-64 with AES, PCLMULQDQ and AVX: 128 bits at a time
    AesNi,
    /// x86-64 with VAES, VPCLMULQDQ and AVX2: 256 bits at a time
    Vaes256,
    /// x86-64 with VAES, VPCLMULQDQ and AVX-512: 512 bits at a time
    Vaes512,
    /// `ARMv8` with AES and PMULL
    ArmAes,
}

impl AesKernel {
    const ALL: [Self; 5] =
        [Self::Portable, Self::AesNi, Self::Vaes256, Self::Vaes512, Self::ArmAes];

    /// Those that work on this CPU, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available())
    }

    /// The fastest on this CPU.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// Its name: `VAES-512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::AesNi => "AES-NI",
            Self::Vaes256 => "VAES-256",
            Self::Vaes512 => "VAES-512",
            Self::ArmAes => "ARMv8 AES",
        }
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let aes_ni = has!("aes") && has!("pclmulqdq") && has!("avx");
        let vaes = aes_ni && has!("vaes") && has!("vpclmulqdq");
        match self {
            Self::Portable => true,
            Self::AesNi => aes_ni,
            Self::Vaes256 => vaes && has!("avx2"),
            Self::Vaes512 => vaes && has!("avx512f") && has!("avx512bw"),
            Self::ArmAes => false,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Self::Portable => true,
            Self::ArmAes => has!("neon") && has!("aes"),
            Self::AesNi | Self::Vaes256 | Self::Vaes512 => false,
        }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }

    /// The kernel for keys that make so many rounds; `None` for the portable path, which has a type of
    /// its own.
    #[cfg(target_arch = "x86_64")]
    fn entries(self, rounds: usize) -> Option<Entries> {
        use super::x86::{AesNi, Vaes256, Vaes512};
        match self {
            Self::AesNi => entries!(AesNi, rounds),
            Self::Vaes256 => entries!(Vaes256, rounds),
            Self::Vaes512 => entries!(Vaes512, rounds),
            Self::Portable | Self::ArmAes => None,
        }
    }

    #[cfg(target_arch = "aarch64")]
    fn entries(self, rounds: usize) -> Option<Entries> {
        use super::arm::Neon;
        if self == Self::ArmAes { entries!(Neon, rounds) } else { None }
    }

    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fn entries(self, _rounds: usize) -> Option<Entries> {
        None
    }

    /// How many bytes per second pass the AES unit at most, with the instructions of this kernel and a
    /// key of `key_size` bytes (16, 24 or 32, of the two that XTS has): rounds in registers,
    /// no data, no tweaks, one thread, measured for a few milliseconds. `None` for the portable path.
    #[allow(unsafe_code)]
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    pub fn limit(self, key_size: usize) -> Option<f64> {
        if !self.is_available() {
            return None;
        }
        let entries = self.entries(rounds(key_size))?;
        let keys = keys(&vec![0; 2 * key_size])?;
        let mut best = f64::INFINITY;
        for _ in 0..LIMIT_TRIES {
            let start = std::time::Instant::now();
            // SAFETY: the CPU has what the kernel needs.
            unsafe { (entries.rounds_only)(&keys.encrypt, rounds(key_size), LIMIT_TIMES) };
            best = best.min(start.elapsed().as_secs_f64());
        }
        Some((LIMIT_TIMES * entries.bytes) as f64 / best)
    }
}

impl fmt::Display for AesKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often the limit is measured; the fastest counts
const LIMIT_TRIES: usize = 9;
/// How many times [`DEPTH`] vectors are encrypted each time
const LIMIT_TIMES: usize = 20_000;

/// AES-XTS with the keys that `key` is made of. `None` if their size is not one of AES, or this CPU
/// does not have the kernel.
pub(in super::super) fn aes_xts(kernel: AesKernel, key: &[u8]) -> Option<Box<dyn Mode>> {
    if !matches!(key.len(), 32 | 48 | 64) || !kernel.is_available() {
        return None;
    }
    match kernel.entries(rounds(key.len() / 2)) {
        Some(entries) => Some(Box::new(KernelXts { keys: keys(key)?, entries })),
        None => portable(key),
    }
}

/// The schedules, where there is a kernel.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
#[allow(unsafe_code)]
fn keys(key: &[u8]) -> Option<Keys> {
    #[cfg(target_arch = "aarch64")]
    use super::arm::NeonKeyUnit as KeyUnit;
    #[cfg(target_arch = "x86_64")]
    use super::x86::AesNiKeyUnit as KeyUnit;
    if AesKernel::best() == AesKernel::Portable {
        return None;
    }
    // SAFETY: every kernel but the portable one needs AES.
    Some(Keys::new(key, &unsafe { KeyUnit::new() }))
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn keys(_key: &[u8]) -> Option<Keys> {
    None
}

/// The entry points of a kernel for a number of rounds.
#[derive(Clone, Copy)]
struct Entries {
    encrypt: unsafe fn(&Keys, SectorIvs<'_>, &Sectors<'_>),
    decrypt: unsafe fn(&Keys, SectorIvs<'_>, &Sectors<'_>),
    rounds_only: unsafe fn(&Schedule, usize, usize) -> Block,
    /// What is encrypted each time by `rounds_only`
    bytes: usize,
}

macro_rules! entries {
    ($kernel:ident, $rounds:expr) => {
        match $rounds {
            10 => entries!($kernel; 10),
            12 => entries!($kernel; 12),
            14 => entries!($kernel; 14),
            _ => None,
        }
    };
    ($kernel:ident; $rounds:literal) => {
        Some(Entries {
            encrypt: $kernel::encrypt_sectors::<$rounds>,
            decrypt: $kernel::decrypt_sectors::<$rounds>,
            rounds_only: $kernel::rounds_only,
            bytes: 16 * DEPTH * <$kernel as Lanes>::LANES,
        })
    };
}
use entries;

/// AES-XTS by a kernel.
struct KernelXts {
    keys: Keys,
    /// Those of a kernel that this CPU has
    entries: Entries,
}

impl KernelXts {
    #[allow(unsafe_code)]
    fn work<const ENCRYPT: bool>(&self, ivs: SectorIvs<'_>, sectors: &Sectors<'_>) {
        let entry = if ENCRYPT { self.entries.encrypt } else { self.entries.decrypt };
        // SAFETY: the CPU has what the kernel needs.
        unsafe { entry(&self.keys, ivs, sectors) }
    }

    /// One data unit of any number of blocks.
    fn unit<const ENCRYPT: bool>(&self, iv: &Iv, unit: &mut [u8]) {
        let iv = [Block::from(*iv)];
        let ivs = SectorIvs::Listed(iv.iter());
        if unit.len().is_multiple_of(UNIT) {
            let len = unit.len();
            return self.work::<ENCRYPT>(ivs, &Sectors::new(unit.into(), len));
        }
        // Blocks do not depend on those after them.
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

/// What every kernel's groups divide: the smallest sector
const UNIT: usize = 512;

/// Initialisation vectors that are made at once where numbers alone do not do
const LISTED: usize = 64;
