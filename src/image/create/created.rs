//! What was made.

use crate::header::Header;
use crate::unlock::Unlocked;

/// A new image: its header, and its volume key.
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

    /// The volume key, which [`Image::volume`](crate::Image::volume) takes.
    pub fn unlocked(&self) -> &Unlocked {
        &self.unlocked
    }

    /// The volume key alone, to be kept for longer than the rest.
    pub fn into_unlocked(self) -> Unlocked {
        self.unlocked
    }

    /// Length of the payload in bytes.
    pub fn payload_len(&self) -> u64 {
        self.payload_len
    }
}
