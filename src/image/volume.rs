//! The decrypted contents of an image.

use std::sync::Arc;

use super::options::one_writer;
use super::{Image, another_image};
use crate::crypto::SectorCipher;
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::storage::Sharing;
use crate::storage::transfer::length;
use crate::unlock::Unlocked;
use crate::volume::{Crypt, Keyring, Map, Volume};

impl Image {
    pub(super) fn try_volume(&self, unlocked: &[&Unlocked]) -> Result<Volume> {
        if self.header.is_detached() && !self.container.is_detached() && self.qcow2().is_none() {
            let text = "the header is detached: its payload is in another file";
            let error = Error::new(ErrorKind::Unsupported, text);
            return Err(error.with_hint("open the payload's file, and pass this one with --header"));
        }
        let volume = if self.qcow2().is_some() {
            Volume::over(self.clusters()?, &self.keyring(unlocked)?)?
        } else {
            let payload = self.container.payload();
            let keys = self.keyring(unlocked)?;
            let key_size = |number| keys.get(number).map(|key| key.as_bytes().len());
            let segments = self.header.segments_with(length(payload)?, &key_size)?;
            Volume::new(Arc::clone(payload), segments, &keys)?
        };
        let writable = self.options.sharing.writes() && !self.container.is_read_only();
        Ok(if writable { volume } else { volume.read_only() })
    }

    /// The keys by the numbers of their digests.
    fn keyring<'a>(&self, unlocked: &[&'a Unlocked]) -> Result<Keyring<'a>> {
        let mut keys = Keyring::default();
        for unlocked in unlocked {
            let digests = self.header.digests();
            let mut numbers = digests.iter().filter(|(_, it)| unlocked.is_of(it)).peekable();
            if numbers.peek().is_none() {
                return Err(another_image());
            }
            for (number, _) in numbers {
                keys = keys.with(*number, unlocked.volume_key());
            }
        }
        Ok(keys)
    }

    /// The clusters of an encrypted qcow2 image.
    fn clusters(&self) -> Result<Arc<dyn Map>> {
        // A file has QEMU's locks for qcow2, which admit one writer.
        if self.options.sharing == Sharing::WriteData && !self.container.is_file() {
            return Err(one_writer());
        }
        Ok(self.container.clusters(crypt_of(&self.header)?, self.options.disk_options())?)
    }
}

/// The cipher of the clusters of a qcow2 image with this LUKS header.
pub(super) fn crypt_of(header: &Header) -> Result<Crypt> {
    header.check_supported()?;
    let Some(encryption) = header.cipher().cloned() else {
        return Err(Error::new(ErrorKind::Unsupported, "unknown cipher"));
    };
    let (name, sector_size) = ("the qcow2 image".to_owned(), SectorCipher::SECTOR_SIZE);
    Ok(Crypt { name, key: 0, encryption, sector_size })
}
