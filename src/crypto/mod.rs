//! The cryptography of LUKS: cipher specification, sector cipher, hash, key derivation and
//! anti-forensic splitter. There is no I/O here: bytes in, bytes out.
//!
//! [`CipherSpec`] is what a header says the cipher is; with a key it becomes a [`SectorCipher`],
//! which works alone for callers that have an I/O engine of their own. A keyslot is opened with
//! [`KdfAlg::derive`] and [`af::merge`], and made with [`af::split`].
//!
//! What is supported is what QEMU or cryptsetup write in a header, and what is not is refused in
//! QEMU's words, so that whoever greps for those finds them.

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
