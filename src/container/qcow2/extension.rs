//! Header extensions (QEMU `docs/interop/qcow2.txt`, "Header extensions").
//!
//! ```text
//!   0    4    8
//!   +----+----+----------+-------------------+
//!   |type| len|   data   | to a multiple of 8|
//!   +----+----+----------+-------------------+
//! ```
//!
//! They end at type 0, at the backing file's name, or at the end of the first cluster.

use super::corrupt;
use crate::error::Result;

/// A header extension.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Extension {
    pub kind: u32,
    /// First byte of the data in the image
    pub offset: usize,
    /// Length of the data in bytes
    pub len: usize,
}

pub(super) const BACKING_FORMAT: u32 = 0xE279_2ACA;
pub(super) const CRYPTO: u32 = 0x0537_BE77;
pub(super) const BITMAPS: u32 = 0x2385_2875;
pub(super) const DATA_FILE: u32 = 0x4441_5441;
const END: u32 = 0;

/// Result of a walk over the extensions in a part of the first cluster.
pub(super) enum Walk {
    /// All extensions
    Done(Vec<Extension>),
    /// The list goes on beyond the bytes given, of which so many are needed
    Needs(usize),
}

/// Lists the extensions from byte `start` on, which end at byte `end` at the latest. `bytes` is the
/// start of the image, possibly less than `end` bytes.
pub(super) fn walk(bytes: &[u8], start: usize, end: usize) -> Result<Walk> {
    let mut extensions = Vec::new();
    let mut at = start;
    while at < end {
        if end - at < HEADER {
            return Err(corrupt("Header extension too large"));
        }
        let Some(header) = bytes.get(at..at + HEADER) else { return Ok(Walk::Needs(at + HEADER)) };
        let field = |i: usize| u32::from_be_bytes([0, 1, 2, 3].map(|byte| header[i + byte]));
        let (kind, offset) = (field(0), at + HEADER);
        if kind == END {
            break;
        }
        let len = usize::try_from(field(4)).unwrap_or(usize::MAX);
        if len > end - offset {
            return Err(corrupt("Header extension too large").with_hint(format!(
                "the extension {kind:#010x} at byte {at} has {len} bytes, but ends by byte {end}"
            )));
        }
        if bytes.len() < offset + len {
            return Ok(Walk::Needs(offset + len));
        }
        extensions.push(Extension { kind, offset, len });
        at = offset + len.next_multiple_of(8);
    }
    Ok(Walk::Done(extensions))
}

const HEADER: usize = 8;
