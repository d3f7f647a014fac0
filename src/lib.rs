//! The keyslots of LUKS disk images: read, check, add, erase and replace them, safely.

pub mod crypto;
pub mod error;
pub mod options;
pub mod secret;
pub mod storage;

pub use error::{Error, ErrorKind, Result};
