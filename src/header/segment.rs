//! Where the encrypted data is, and how it is encrypted.

use crate::crypto::{CipherSpec, SectorCipher};
use crate::error::{Error, ErrorKind, Result};

/// A range of the storage that holds encrypted data.
///
/// An image has one or several; the volume is what is in them, one after the other.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Bytes from the start of the storage
    pub offset: u64,
    /// Length in bytes
    pub len: u64,
    /// Sector number of the first sector's initialisation vector. It counts units of 512 bytes,
    /// whatever the sector size, and starts again from 0 behind the last of 64 bits.
    pub iv_tweak: u64,
    /// Length in bytes of what is encrypted as a unit: 512, 1024, 2048 or 4096
    pub sector_size: usize,
    /// The cipher
    pub encryption: CipherSpec,
    /// Number of the digest that confirms its key; of LUKS1 0
    pub key: u32,
}

impl Segment {
    /// Refuses what cannot be whole sectors of a storage. The sector size is the cipher's to judge.
    pub(crate) fn check(&self, index: usize) -> Result<()> {
        let Self { offset, len, sector_size, .. } = *self;
        let wrong = |text: String| {
            Err(Error::new(ErrorKind::InvalidInput, format!("segment {index} {text}")))
        };
        if !offset.is_multiple_of(SectorCipher::SECTOR_SIZE as u64) {
            return wrong(format!("begins at byte {offset}, which is no multiple of 512"));
        }
        if !len.is_multiple_of(sector_size as u64) {
            return wrong(format!("has {len} bytes, which are not sectors of {sector_size}"));
        }
        if offset.checked_add(len).is_none() {
            return wrong(format!("has {len} bytes from byte {offset} on, beyond 2^64"));
        }
        Ok(())
    }
}
