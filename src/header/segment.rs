//! Where the encrypted data is, and how it is encrypted.

use crate::crypto::CipherSpec;

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
}
