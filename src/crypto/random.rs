//! Random bytes from the operating system, for salts, volume keys and the splitter's stripes.

use rand::TryRng;
use rand::rngs::SysRng;

use crate::error::{Error, ErrorKind, Result};

/// Fills `bytes` with random bytes.
pub fn fill(bytes: &mut [u8]) -> Result<()> {
    SysRng.try_fill_bytes(bytes).map_err(|e| {
        Error::new(ErrorKind::Io, "cannot get random bytes from the operating system")
            .with_source(e)
    })
}
