//! AES-XTS (IEEE 1619) at the speed of the CPU: what almost every LUKS volume is encrypted with.
//!
//! There is one loop (`engine`) over vectors of blocks, and for each kind of vector that a CPU has a
//! kernel; which of them are there is found out when the program runs. `portable` is the path
//! without them, over the `aes` crate, many blocks at a time.

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
