//! Changes of keyslots in a qcow2 image.

use std::ops::Range;

use super::header::Qcow2Encryption;
use super::layout::KNOWN_AUTOCLEAR;
use super::raw::AUTOCLEAR_OFFSET;
use super::{Qcow2Header, corrupt, unsupported};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::Storage;
use crate::storage::transfer::fetch;

impl Qcow2Header {
    /// The LUKS header's place. An error if the image has none.
    pub(crate) fn luks_area(&self) -> Result<Range<u64>> {
        match self.encryption() {
            Qcow2Encryption::Luks => self.crypto_area().ok_or_else(|| corrupt("no LUKS header")),
            Qcow2Encryption::Aes => {
                let text = "the qcow2 image has the legacy AES encryption, which has no keyslots";
                Err(unsupported(text).with_hint("convert it to a LUKS image with qemu-img"))
            }
            Qcow2Encryption::None => {
                let error = Error::new(ErrorKind::NotLuks, "the qcow2 image is not encrypted");
                Err(error
                    .with_hint("use --partition N for a guest's LUKS in a partition of its disk"))
            }
        }
    }

    /// Checks that the image may be written, as QEMU does. A dirty image may be: its reference counts
    /// may be wrong, but keyslots do not depend on them, and a repair counts the LUKS header.
    pub(crate) fn check_amendable(&self) -> Result<()> {
        if self.is_corrupt() {
            let error = corrupt("qcow2: Image is corrupt; cannot be opened read/write");
            return Err(error.with_hint("repair it first: qemu-img check -r all"));
        }
        Ok(())
    }

    /// Checks that the locked image still has this header.
    pub(crate) fn check_unchanged(&self, storage: &dyn Storage) -> Result<()> {
        let bytes = fetch(storage, 0, self.bytes.len())?;
        if bytes == self.bytes {
            return Ok(());
        }
        // Features and bitmaps may come and go; the LUKS header must stay where it was.
        let now = Self::read(storage)?;
        now.check_amendable()?;
        if now.crypto_area() == self.crypto_area() && now.encryption() == self.encryption() {
            return Ok(());
        }
        let text = "the qcow2 header changed since it was read";
        Err(Error::new(ErrorKind::Changed, text))
    }

    /// Offset and new value of the autoclear features, if a writer must first clear features that are
    /// unknown here. The image must be locked.
    pub(crate) fn features_to_clear(
        &self,
        storage: &dyn Storage,
    ) -> Result<Option<(u64, [u8; 8])>> {
        if self.version() < 3 {
            return Ok(None);
        }
        let mut features = [0; 8];
        storage
            .read_exact_at(&mut features, AUTOCLEAR_OFFSET)
            .map_err(|e| Error::failed_at(Operation::Read, 8, AUTOCLEAR_OFFSET, e))?;
        let now = u64::from_be_bytes(features);
        let known = now & KNOWN_AUTOCLEAR;
        Ok((known != now).then(|| (AUTOCLEAR_OFFSET, known.to_be_bytes())))
    }
}
