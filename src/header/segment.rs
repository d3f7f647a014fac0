//! Ranges of encrypted data.

use super::Header;
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

impl Header {
    /// Ranges of the encrypted data in a storage of `storage_len` bytes, in the volume's order. If the
    /// header is [detached](Self::is_detached), this is the storage of the payload.
    pub fn segments(&self, storage_len: u64) -> Result<Vec<Segment>> {
        self.segments_with(storage_len, &|_| None)
    }

    /// Like [`segments`](Self::segments). `key_size` gives the length of the key of a digest, by its
    /// number: LUKS2 records it in keyslots only, of which none may be left.
    pub(crate) fn segments_with(
        &self,
        storage_len: u64,
        key_size: &dyn Fn(u32) -> Option<usize>,
    ) -> Result<Vec<Segment>> {
        match self {
            Self::Luks1(header) => Ok(vec![header.segment(storage_len)?]),
            Self::Luks2(header) => header.segments(storage_len, key_size),
        }
    }

    /// Length in bytes of the volume in a storage of `storage_len` bytes, whether or not it can be
    /// opened. `None` if the storage is too short.
    pub fn volume_len(&self, storage_len: u64) -> Option<u64> {
        match self {
            Self::Luks1(header) => header.payload_len(storage_len).ok(),
            Self::Luks2(header) => header.volume_len(storage_len),
        }
    }
}
