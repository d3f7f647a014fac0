//! Compressed clusters. QEMU does not encrypt them, even in an encrypted image.

use zeroize::Zeroizing;

use super::super::{Qcow2Compression, corrupt, unsupported};
use super::{Qcow2Map, lock};
use crate::error::Result;
use crate::storage::transfer::{fetch, length};

/// An unpacked cluster: the offset of its compressed bytes, and its contents.
pub(super) type Unpacked = Option<(u64, Zeroizing<Vec<u8>>)>;

impl Qcow2Map {
    /// Restores a cluster from `len` bytes at `offset`, of which the last ones may not belong to it.
    pub(super) fn unpack_cluster(&self, offset: u64, len: u64, out: &mut [u8]) -> Result<()> {
        // Reads are often smaller than a cluster, and follow each other.
        let last = lock(&self.unpacked);
        let known = last.as_ref().filter(|(at, bytes)| *at == offset && bytes.len() == out.len());
        if let Some((_, bytes)) = known {
            out.copy_from_slice(bytes);
            return Ok(());
        }
        drop(last);
        if self.tables().header.compression() != Qcow2Compression::Zlib {
            let text = format!("the cluster at byte {offset} is compressed with zstd");
            return Err(unsupported(text));
        }
        // An entry's length is at most two clusters. The file may end within the last sector.
        let there = length(self.data.as_ref())?.saturating_sub(offset).min(len);
        let packed =
            fetch(self.data.as_ref(), offset, usize::try_from(there).unwrap_or(usize::MAX))?;
        if !inflate(&packed, out)? {
            let text = format!("the compressed cluster at byte {offset} is damaged");
            return Err(corrupt(text).with_offset(offset));
        }
        *lock(&self.unpacked) = Some((offset, Zeroizing::new(out.to_vec())));
        Ok(())
    }
}

/// Inflates raw deflate data (RFC 1951). Whether `out` was filled.
#[cfg(feature = "file")]
#[expect(clippy::unnecessary_wraps, reason = "as without the feature")]
fn inflate(packed: &[u8], out: &mut [u8]) -> Result<bool> {
    use miniz_oxide::inflate::core::{DecompressorOxide, decompress, inflate_flags};

    let flags = inflate_flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let (_, _, count) = decompress(&mut DecompressorOxide::new(), packed, out, 0, flags);
    Ok(count == out.len())
}

#[cfg(not(feature = "file"))]
fn inflate(_: &[u8], _: &mut [u8]) -> Result<bool> {
    Err(unsupported("compressed clusters need the feature `file`"))
}
