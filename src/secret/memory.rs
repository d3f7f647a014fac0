//! Memory that is kept out of swap, core dumps and logs.
//!
//! Passphrases, derived keys and volume keys are stored here. Intermediate values of a computation
//! are in ordinary memory, which is wiped afterwards: HMAC states and Argon2's memory during a key
//! derivation, key material while it is decrypted or split, and a cipher's round keys while it is
//! in use. Swap, or a core dump taken at that moment, may contain them. The `keyslot` command
//! disables its core dumps (`PR_SET_DUMPABLE`); other programs must do so themselves.

use std::fmt;
use std::io::{self, Read};

use memmap2::MmapMut;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroize;

use crate::error::{Error, ErrorKind, Result};

/// Secret bytes in pages of their own.
///
/// The pages are locked in memory and excluded from core dumps where the system allows, and wiped
/// before they are freed. Where the system does not allow it (`RLIMIT_MEMLOCK`), they are ordinary
/// memory that is still wiped.
pub struct SecretBytes {
    /// `None` if the length is 0.
    map: Option<MmapMut>,
    len: usize,
}

impl SecretBytes {
    /// Allocates `len` zero bytes.
    pub fn zeroed(len: usize) -> Result<Self> {
        if len == 0 {
            return Ok(Self { map: None, len });
        }
        let map = MmapMut::map_anon(len).map_err(|error| {
            Error::new(ErrorKind::OutOfMemory, format!("cannot allocate {len} bytes for a secret"))
                .with_source(error)
        })?;
        // Best effort: the secret is usable without either.
        #[cfg(unix)]
        let _ = map.lock();
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::DontDump);
        Ok(Self { map: Some(map), len })
    }

    /// Copies `bytes`. The caller must wipe the original.
    pub fn from_slice(bytes: &[u8]) -> Result<Self> {
        let mut secret = Self::zeroed(bytes.len())?;
        secret.as_mut_slice().copy_from_slice(bytes);
        Ok(secret)
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.map.as_ref().map_or(&[], |map| &map[..self.len])
    }

    /// The bytes, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.map.as_mut().map_or(&mut [], |map| &mut map[..self.len])
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Wipes and drops all bytes after the first `len`.
    pub fn truncate(&mut self, len: usize) {
        if let Some(tail) = self.as_mut_slice().get_mut(len..) {
            tail.zeroize();
            self.len = len;
        }
    }

    /// Reads to the end of `reader` without leaving a copy in another buffer.
    ///
    /// Fails with [`io::ErrorKind::FileTooLarge`] if there are more than `limit` bytes.
    pub fn read_to_end(reader: &mut impl Read, limit: usize) -> io::Result<Self> {
        let mut secret = Self::zeroed(FIRST_READ).map_err(out_of_memory)?;
        let mut filled = 0;
        loop {
            if filled > limit {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            if filled == secret.len() {
                let mut larger = Self::zeroed(2 * filled).map_err(out_of_memory)?;
                larger.as_mut_slice()[..filled].copy_from_slice(secret.as_slice());
                secret = larger;
            }
            match reader.read(&mut secret.as_mut_slice()[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        secret.truncate(filled);
        Ok(secret)
    }
}

/// One page, which holds most secrets without a reallocation.
const FIRST_READ: usize = 4096;

fn out_of_memory(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::OutOfMemory, error)
}

impl ConstantTimeEq for SecretBytes {
    fn ct_eq(&self, other: &Self) -> Choice {
        self.as_slice().ct_eq(other.as_slice())
    }
}

impl Drop for SecretBytes {
    fn drop(&mut self) {
        self.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBytes(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_and_hides() {
        let secret = SecretBytes::from_slice(b"hunter2").unwrap();
        assert_eq!(secret.as_slice(), b"hunter2");
        assert_eq!(secret.len(), 7);
        assert_eq!(format!("{secret:?}"), "SecretBytes(..)");
        assert!(bool::from(secret.ct_eq(&SecretBytes::from_slice(b"hunter2").unwrap())));
        assert!(!bool::from(secret.ct_eq(&SecretBytes::from_slice(b"hunter3").unwrap())));
        assert!(!bool::from(secret.ct_eq(&SecretBytes::from_slice(b"hunter").unwrap())));
    }

    #[test]
    fn empty() {
        let mut secret = SecretBytes::zeroed(0).unwrap();
        assert!(secret.is_empty());
        assert_eq!(secret.as_slice(), b"");
        secret.as_mut_slice().zeroize();
        secret.truncate(0);
    }

    #[test]
    fn truncate_wipes_the_tail() {
        let mut secret = SecretBytes::from_slice(b"hunter2").unwrap();
        secret.truncate(9);
        assert_eq!(secret.len(), 7);
        secret.truncate(4);
        assert_eq!(secret.as_slice(), b"hunt");
        assert_eq!(&secret.map.as_ref().unwrap()[4..7], &[0; 3]);
    }

    #[test]
    fn reads_up_to_the_limit() {
        for len in [0, 1, 4095, 4096, 4097, 10_000] {
            let bytes = vec![7; len];
            let secret = SecretBytes::read_to_end(&mut bytes.as_slice(), len).unwrap();
            assert_eq!(secret.as_slice(), bytes);
            if let Some(limit) = len.checked_sub(1) {
                let error = SecretBytes::read_to_end(&mut bytes.as_slice(), limit).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
            }
        }
    }

    #[test]
    fn too_much() {
        let error = SecretBytes::zeroed(usize::MAX / 2).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfMemory);
    }
}
