//! Encrypted bytes of a storage.

use std::io;

use crate::crypto::SectorCipher;
use crate::error::{Error, Operation, Result};
use crate::storage::Storage;

/// Location and cipher of an extent. Positions are relative to its first byte, in whole sectors.
#[derive(Clone, Copy)]
pub(super) struct Encrypted<'a> {
    pub storage: &'a dyn Storage,
    /// First byte in the storage
    pub offset: u64,
    pub iv_sector: u64,
    pub cipher: &'a SectorCipher,
}

impl Encrypted<'_> {
    /// Number for the initialisation vector of the sector at byte `at`.
    pub fn iv_sector(&self, at: u64) -> u64 {
        self.iv_sector.wrapping_add(at / SectorCipher::SECTOR_SIZE as u64)
    }

    /// Reads and decrypts. `start` is the extent's position in the volume, for errors.
    pub fn read(&self, start: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        read_padded(self.storage, buf, self.offset + at)
            .map_err(|error| self.failed(Operation::Read, buf.len(), (start, at), error))?;
        self.cipher.decrypt(self.iv_sector(at), buf);
        Ok(())
    }

    /// Writes bytes that are already encrypted.
    pub fn write(&self, start: u64, at: u64, ciphertext: &[u8]) -> Result<()> {
        self.storage
            .write_all_at(ciphertext, self.offset + at)
            .map_err(|error| self.failed(Operation::Write, ciphertext.len(), (start, at), error))
    }

    fn failed(
        &self,
        operation: Operation,
        len: usize,
        (start, at): (u64, u64),
        error: io::Error,
    ) -> Error {
        let (volume, storage) = (start + at, self.offset + at);
        let object = format_args!(
            "{len} bytes at byte {volume} of the volume (byte {storage} of the image)"
        );
        Error::failed(operation, object, error).with_offset(storage)
    }
}

/// Reads whole sectors of 512 bytes. If the storage ends within a sector, the rest of that sector
/// reads as zeros, as in QEMU.
fn read_padded(storage: &dyn Storage, buf: &mut [u8], offset: u64) -> io::Result<()> {
    let error = match storage.read_exact_at(buf, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => error,
        result => return result,
    };
    let len = storage.len()?;
    let there = len.checked_sub(offset).and_then(|there| usize::try_from(there).ok());
    let Some((there, missing)) = there.map(|there| buf.split_at_mut(there.min(buf.len()))) else {
        return Err(error);
    };
    if missing.len() >= SectorCipher::SECTOR_SIZE {
        return Err(error);
    }
    storage.read_exact_at(there, offset)?;
    missing.fill(0);
    Ok(())
}
