//! AES-XTS (IEEE 1619), the cipher of almost every LUKS volume, at the speed of the CPU.
//!
//! `engine` is one loop over vectors of blocks. Each kind of vector has a kernel, and the kernels
//! that the CPU supports are detected at run time. `portable` is the fallback over the `aes` crate,
//! with many blocks at a time.

mod kernel;
mod portable;

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod accelerated;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod engine;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod frame;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod limit;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod schedule;
#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_endian = "little")))]
mod sectors;

#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
mod arm;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests;

pub use kernel::AesKernel;
pub(super) use kernel::aes_xts;
