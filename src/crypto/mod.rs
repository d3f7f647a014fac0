//! The cryptography of LUKS: cipher specifications, sector ciphers, hashes, key derivation and the
//! anti-forensic splitter. This module does no I/O.
//!
//! A [`CipherSpec`] is the cipher named by a header. With a key it becomes a [`SectorCipher`],
//! which callers with their own I/O can use alone. [`KdfAlg::derive`] and [`af::merge`] open a
//! keyslot, [`af::split`] makes one.
//!
//! Supported are the algorithms that QEMU or cryptsetup write to a header. Others are refused with
//! QEMU's texts, so that searches for these find them.

pub mod af;
mod algorithm;
#[doc(hidden)]
pub mod calibrate;
mod hash;
mod ivgen;
pub mod kdf;
mod mode;
#[doc(hidden)]
pub mod pbkdf2;
#[doc(hidden)]
pub mod random;
mod sector;
mod spec;
mod workers;
mod xts;

pub use algorithm::{Cipher, CipherMode};
pub use hash::HashAlg;
pub use ivgen::IvGen;
pub use kdf::{Argon2Variant, KdfAlg, KdfKind};
pub use sector::SectorCipher;
pub use spec::CipherSpec;
pub use xts::AesKernel;
