//! Secrets in memory, and their sources.
//!
//! A [`Passphrase`] is a secret that opens a keyslot, typed by a person or read from a key file. A
//! [`VolumeKey`] encrypts the sectors. Both are wiped on drop, compared in constant time and never
//! shown. [`SecretBytes`] documents their memory. With the features `file` and `qemu`, `Source`
//! names the place to read a passphrase from.

mod memory;
#[cfg(all(feature = "file", feature = "qemu"))]
mod source;

use std::fmt;
use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::crypto::random;
use crate::error::Result;

pub use memory::SecretBytes;
#[cfg(all(feature = "file", feature = "qemu"))]
pub use source::Source;

/// Size limit in bytes for a file read as a secret; cryptsetup's limit for key files.
pub const LARGEST_SECRET: usize = 8 << 20;

/// A secret that opens a keyslot: arbitrary bytes, used verbatim.
///
/// Clones share the same memory.
#[derive(Clone)]
pub struct Passphrase {
    bytes: Arc<SecretBytes>,
    lost_newline: bool,
}

impl Passphrase {
    /// Copies `bytes`. The caller must wipe the original.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        SecretBytes::from_slice(bytes).map(Self::from)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Whether the last byte is a newline, often added by an editor or `echo`.
    pub fn ends_with_newline(&self) -> bool {
        self.as_bytes().ends_with(b"\n")
    }

    /// Marks the passphrase as one whose trailing newline was dropped.
    #[cfg(all(feature = "file", feature = "qemu"))]
    pub(crate) fn without_newline(self) -> Self {
        Self { lost_newline: true, ..self }
    }

    /// Whether a trailing newline was dropped, which may explain a wrong passphrase.
    pub fn lost_newline(&self) -> bool {
        self.lost_newline
    }

    /// Whether QEMU can use it: valid UTF-8 without NUL.
    pub fn is_qemu_compatible(&self) -> bool {
        std::str::from_utf8(self.as_bytes()).is_ok() && !self.as_bytes().contains(&0)
    }
}

impl From<SecretBytes> for Passphrase {
    fn from(bytes: SecretBytes) -> Self {
        Self { bytes: Arc::new(bytes), lost_newline: false }
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.bytes.ct_eq(&other.bytes).into()
    }
}

impl Eq for Passphrase {}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// The key that encrypts the sectors of an image (the master key, or volume key, of LUKS).
pub struct VolumeKey(SecretBytes);

impl VolumeKey {
    /// Copies `bytes`. The caller must wipe the original.
    pub fn new(bytes: &[u8]) -> Result<Self> {
        SecretBytes::from_slice(bytes).map(Self)
    }

    /// Generates a key of `len` bytes with the operating system's random number generator.
    pub fn random(len: usize) -> Result<Self> {
        let mut bytes = SecretBytes::zeroed(len)?;
        random::fill(bytes.as_mut_slice())?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

impl From<SecretBytes> for VolumeKey {
    fn from(bytes: SecretBytes) -> Self {
        Self(bytes)
    }
}

impl PartialEq for VolumeKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for VolumeKey {}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passphrases() {
        let secret = Passphrase::new(b"hunter2").unwrap();
        assert_eq!(secret, secret.clone());
        assert_ne!(secret, Passphrase::new(b"hunter2\n").unwrap());
        assert_eq!(format!("{secret:?}"), "Passphrase(..)");
        assert!(!secret.ends_with_newline());
        assert!(Passphrase::new(b"hunter2\n").unwrap().ends_with_newline());
        assert!(!Passphrase::new(b"").unwrap().ends_with_newline());
    }

    #[test]
    fn what_qemu_takes() {
        for (bytes, taken) in
            [(&b"hunter2\n"[..], true), (b"", true), ("é".as_bytes(), true), (b"a\0", false)]
        {
            assert_eq!(Passphrase::new(bytes).unwrap().is_qemu_compatible(), taken, "{bytes:?}");
        }
        assert!(!Passphrase::new(b"\xff").unwrap().is_qemu_compatible());
    }

    #[test]
    fn volume_keys() {
        let key = VolumeKey::random(64).unwrap();
        assert_eq!(key.as_bytes().len(), 64);
        assert_ne!(key, VolumeKey::random(64).unwrap());
        assert_eq!(key, VolumeKey::from(SecretBytes::from_slice(key.as_bytes()).unwrap()));
        assert_eq!(format!("{key:?}"), "VolumeKey(..)");
    }
}
