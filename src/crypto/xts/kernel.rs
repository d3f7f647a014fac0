//! The kernels, and detection of those that this CPU supports.

use std::fmt;

use super::super::mode::Mode;
use super::portable::portable;

/// A kernel for AES-XTS, defined by the instructions it needs.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum AesKernel {
    /// Any CPU, with the `aes` crate
    Portable,
    /// x86-64 with AES, PCLMULQDQ and AVX: 128 bits at a time
    AesNi,
    /// x86-64 with VAES, VPCLMULQDQ and AVX2: 256 bits at a time
    Vaes256,
    /// x86-64 with VAES, VPCLMULQDQ and AVX-512: 512 bits at a time
    Vaes512,
    /// `ARMv8` with AES and PMULL, little-endian
    ArmAes,
}

impl AesKernel {
    const ALL: [Self; 5] =
        [Self::Portable, Self::AesNi, Self::Vaes256, Self::Vaes512, Self::ArmAes];

    /// The kernels supported by this CPU, the fastest last.
    pub fn available() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kernel| kernel.is_available())
    }

    /// The fastest kernel on this CPU.
    pub fn best() -> Self {
        Self::available().last().unwrap_or(Self::Portable)
    }

    /// The kernel's name, for example `VAES-512`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::AesNi => "AES-NI",
            Self::Vaes256 => "VAES-256",
            Self::Vaes512 => "VAES-512",
            Self::ArmAes => "ARMv8 AES",
        }
    }

    /// Throughput of the AES unit in bytes per second, with this kernel's instructions and a key of
    /// `key_size` bytes (16, 24 or 32, half of an XTS key). Measures rounds in registers without
    /// data or tweaks, on one thread, for a few milliseconds. `None` for the portable kernel and
    /// for other key sizes.
    pub fn limit(self, key_size: usize) -> Option<f64> {
        if !self.is_available() || !matches!(key_size, 16 | 24 | 32) {
            return None;
        }
        limit(self, key_size)
    }

    #[cfg(target_arch = "x86_64")]
    fn is_available(self) -> bool {
        use std::arch::is_x86_feature_detected as has;
        let aes_ni = has!("aes") && has!("pclmulqdq") && has!("avx");
        let vaes = aes_ni && has!("avx2") && has!("vaes") && has!("vpclmulqdq");
        match self {
            Self::Portable => true,
            Self::AesNi => aes_ni,
            Self::Vaes256 => vaes,
            Self::Vaes512 => vaes && has!("avx512f") && has!("avx512bw"),
            Self::ArmAes => false,
        }
    }

    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    fn is_available(self) -> bool {
        use std::arch::is_aarch64_feature_detected as has;
        match self {
            Self::Portable => true,
            Self::ArmAes => has!("neon") && has!("aes") && has!("pmull"),
            Self::AesNi | Self::Vaes256 | Self::Vaes512 => false,
        }
    }

    #[cfg(not(any(
        target_arch = "x86_64",
        all(target_arch = "aarch64", target_endian = "little")
    )))]
    fn is_available(self) -> bool {
        self == Self::Portable
    }
}

impl fmt::Display for AesKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Creates AES-XTS from a `key` of two AES keys. `None` if AES has no such key size, or if the CPU
/// does not support the kernel.
pub(in super::super) fn aes_xts(kernel: AesKernel, key: &[u8]) -> Option<Box<dyn Mode>> {
    if !matches!(key.len(), 32 | 48 | 64) || !kernel.is_available() {
        return None;
    }
    accelerated(kernel, key).or_else(|| portable(key))
}

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
use super::accelerated::{accelerated, limit};

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
fn accelerated(_kernel: AesKernel, _key: &[u8]) -> Option<Box<dyn Mode>> {
    None
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little"))))]
fn limit(_kernel: AesKernel, _key_size: usize) -> Option<f64> {
    None
}
