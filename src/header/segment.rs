//! Ranges of encrypted data.

use crate::crypto::{CipherSpec, SectorCipher};
use crate::error::{Error, ErrorKind, Result};

/// A range of the storage that holds encrypted data.
///
/// An image has one or more segments. The volume is the concatenation of their contents.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Bytes from the start of the storage
    pub offset: u64,
    /// Length in bytes
    pub len: u64,
    /// Sector number for the first sector's initialisation vector. It counts units of 512 bytes
    /// regardless of the sector size, and wraps to 0 after 64 bits.
    pub iv_tweak: u64,
    /// Sector size of the encryption in bytes: 512, 1024, 2048 or 4096
    pub sector_size: usize,
    /// The cipher
    pub encryption: CipherSpec,
    /// Number of the digest of its key. In LUKS1 it is 0
    pub key: u32,
}

impl Segment {
    /// Refuses ranges that are not whole sectors. The sector size itself is checked by the cipher.
    pub(crate) fn check(&self, index: usize) -> Result<()> {
        let Self { offset, len, sector_size, .. } = *self;
        let wrong = |text: String| {
            Err(Error::new(ErrorKind::InvalidInput, format!("segment {index} {text}")))
        };
        if !offset.is_multiple_of(SectorCipher::SECTOR_SIZE as u64) {
            return wrong(format!("begins at byte {offset}, which is not a multiple of 512"));
        }
        if !len.is_multiple_of(sector_size as u64) {
            return wrong(format!(
                "has {len} bytes, which is not a multiple of the sector size {sector_size}"
            ));
        }
        if offset.checked_add(len).is_none() {
            return wrong(format!("has {len} bytes from byte {offset}, which exceeds 2^64"));
        }
        Ok(())
    }
}
