//! Bytes of an extent in the storage, encrypted or not.

use std::io;

use super::part::Plain;
use crate::crypto::SectorCipher;
use crate::error::{Error, Operation, Result};
use crate::storage::Storage;

/// Location and cipher of an extent. Positions are relative to its first byte, in whole sectors.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub storage: &'a dyn Storage,
    /// First byte in the storage
    pub offset: u64,
    pub iv_sector: u64,
    /// `None` if the bytes are not encrypted
    pub cipher: Option<&'a SectorCipher>,
    /// Bytes beyond the end of the storage that read as zeros
    pub padding: u64,
}

impl Stored<'_> {
    /// Length of a sector. Bytes that are not encrypted can be written one by one.
    pub fn sector_size(&self) -> usize {
        self.cipher.map_or(1, SectorCipher::sector_size)
    }

    /// Number for the initialisation vector of the sector at byte `at`.
    pub fn iv_sector(&self, at: u64) -> u64 {
        self.iv_sector.wrapping_add(at / SectorCipher::SECTOR_SIZE as u64)
    }

    /// Reads and decrypts. `start` is the extent's position in the volume, for errors.
    pub fn read(&self, start: u64, at: u64, buf: &mut [u8]) -> Result<()> {
        read_padded(self.storage, buf, self.offset + at, self.padding)
            .map_err(|error| self.failed(Operation::Read, buf.len(), (start, at), error))?;
        if let Some(cipher) = self.cipher {
            cipher.decrypt(self.iv_sector(at), buf);
        }
        Ok(())
    }

    /// Encrypts `buf` in place, as the bytes at `at`.
    pub fn encrypt(&self, at: u64, buf: &mut [u8]) {
        if let Some(cipher) = self.cipher {
            cipher.encrypt(self.iv_sector(at), buf);
        }
    }

    /// Writes bytes that are already encrypted.
    pub fn write(&self, start: u64, at: u64, ciphertext: &[u8]) -> Result<()> {
        self.storage
            .write_all_at(ciphertext, self.offset + at)
            .map_err(|error| self.failed(Operation::Write, ciphertext.len(), (start, at), error))
    }

    /// Writes bytes that are stored without encryption.
    pub fn write_plain(&self, start: u64, at: u64, data: Plain<'_>) -> Result<()> {
        match data {
            Plain::Bytes(bytes) => self.write(start, at, bytes),
            Plain::Zeros(len) => {
                let failed = |e| self.failed(Operation::Write, len, (start, at), e);
                self.storage.write_zeros_at(self.offset + at, len).map_err(failed)
            }
        }
    }

    fn failed(
        &self,
        operation: Operation,
        len: impl std::fmt::Display,
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

/// Reads bytes of the storage below a volume. Beyond its end they are zeros.
pub(super) fn read_below(below: &dyn Storage, buf: &mut [u8], offset: u64) -> Result<()> {
    read_padded(below, buf, offset, u64::MAX).map_err(|error| {
        let object = format_args!("{} bytes at byte {offset} of the backing file", buf.len());
        let error = Error::failed(Operation::Read, object, error).with_offset(offset);
        error.with_name(below.name())
    })
}

/// Reads bytes of which at most `padding` may be missing at the end of the storage. These read as
/// zeros, as in QEMU.
fn read_padded(storage: &dyn Storage, buf: &mut [u8], offset: u64, padding: u64) -> io::Result<()> {
    let error = match storage.read_exact_at(buf, offset) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => error,
        result => return result,
    };
    let there = storage.len()?.saturating_sub(offset);
    let there = usize::try_from(there).map_or(buf.len(), |there| there.min(buf.len()));
    let (there, missing) = buf.split_at_mut(there);
    if missing.len() as u64 > padding {
        return Err(error);
    }
    if !there.is_empty() {
        storage.read_exact_at(there, offset)?;
    }
    missing.fill(0);
    Ok(())
}
