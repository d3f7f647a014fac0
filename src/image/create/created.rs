//! Result of creating an image.

use crate::header::Header;
use crate::unlock::Unlocked;

/// A new image's header and volume key.
#[derive(Debug)]
pub struct Created {
    pub(super) header: Header,
    pub(super) unlocked: Unlocked,
    pub(super) payload_len: u64,
}

impl Created {
    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// UUID, in its hyphenated form.
    pub fn uuid(&self) -> String {
        self.header.uuid()
    }

    /// Index of the keyslot that opens with the passphrase.
    pub fn keyslot(&self) -> usize {
        self.unlocked.keyslot().unwrap_or_default()
    }

    /// Volume key, as [`Image::volume`](crate::Image::volume) takes it.
    pub fn unlocked(&self) -> &Unlocked {
        &self.unlocked
    }

    /// Converts the result into the volume key alone.
    pub fn into_unlocked(self) -> Unlocked {
        self.unlocked
    }

    /// Length of the payload in bytes.
    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }
}
