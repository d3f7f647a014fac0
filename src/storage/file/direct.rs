//! Access to files that were opened with `O_DIRECT`.
//!
//! Such accesses bypass the page cache. Their offset, their length and the address of their buffer
//! must be multiples of an alignment: the block size of the device below. Others go through an
//! aligned buffer, and a write of a part of a block reads the rest of the block first.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::storage::pieces;

/// How to access a file that was opened with `O_DIRECT`.
#[derive(Debug)]
pub(super) struct Direct {
    /// Alignment in bytes, a power of two
    align: usize,
    /// Held while parts of blocks are written: two writes to one block must not interleave
    partial: Mutex<()>,
}

impl Direct {
    /// Finds the alignment of a file by trying, as QEMU does: not all kernels and file systems answer
    /// `statx` for it.
    pub fn probe(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        // A read past the end succeeds with any alignment.
        let can_try =
            metadata.file_type().is_block_device() || metadata.len() >= 2 * MAX_ALIGN as u64;
        if !can_try {
            let block = usize::try_from(metadata.blksize()).unwrap_or(MAX_ALIGN);
            let align = block.next_power_of_two().clamp(MIN_ALIGN, MAX_ALIGN);
            return Ok(Self::with_align(align));
        }
        let mut buffer = Aligned::new(MAX_ALIGN);
        let mut align = MIN_ALIGN;
        while align < MAX_ALIGN {
            match file.read_at(buffer.part(align), align as u64) {
                Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => align *= 2,
                read => {
                    read?;
                    break;
                }
            }
        }
        Ok(Self::with_align(align))
    }

    fn with_align(align: usize) -> Self {
        Self { align, partial: Mutex::default() }
    }

    /// Fills `buf` from `offset` on.
    pub fn read_exact_at(&self, file: &File, mut buf: &mut [u8], offset: u64) -> io::Result<()> {
        if self.is_aligned(buf, offset) {
            let len = buf.len();
            return self.read(file, buf, offset, len);
        }
        self.by_blocks(offset, buf.len(), |start, inner, blocks| {
            self.read(file, blocks, start, inner.end)?;
            let (part, rest) = std::mem::take(&mut buf).split_at_mut(inner.len());
            part.copy_from_slice(&blocks[inner]);
            buf = rest;
            Ok(())
        })
    }

    /// Writes all of `buf` at `offset`. `len` returns the length of the file.
    pub fn write_all_at(
        &self,
        file: &File,
        mut buf: &[u8],
        offset: u64,
        len: impl Fn() -> io::Result<u64>,
    ) -> io::Result<()> {
        if self.is_aligned(buf, offset) {
            return file.write_all_at(buf, offset);
        }
        let is_partial = !(self.is_multiple(offset) && self.is_multiple(buf.len() as u64));
        let partial = || self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let _guard = is_partial.then(partial);
        self.by_blocks(offset, buf.len(), |start, inner, blocks| {
            let (part, rest) = buf.split_at(inner.len());
            buf = rest;
            if inner.len() < blocks.len() {
                if start.saturating_add(blocks.len() as u64) > len()? {
                    // Whole blocks would extend the file too far.
                    return write_buffered(file, part, start + inner.start as u64);
                }
                let last = blocks.len() - self.align;
                if inner.start > 0 {
                    file.read_exact_at(&mut blocks[..self.align], start)?;
                }
                if inner.end < blocks.len() && (inner.start == 0 || last > 0) {
                    file.read_exact_at(&mut blocks[last..], start + last as u64)?;
                }
            }
            blocks[inner].copy_from_slice(part);
            file.write_all_at(blocks, start)
        })
    }

    /// Calls `access` for each piece of a range of the file, with the offset of the blocks that cover
    /// it, its place in these blocks, and a buffer for them.
    fn by_blocks(
        &self,
        offset: u64,
        len: usize,
        mut access: impl FnMut(u64, Range<usize>, &mut [u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let align = self.align as u64;
        let end = offset.checked_add(len as u64).filter(|end| end.checked_add(align).is_some());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let blocks = offset - offset % align..end.next_multiple_of(align);
        let most = blocks.end - blocks.start;
        let mut buffer = Aligned::new(usize::try_from(most).map_or(PIECE, |most| most.min(PIECE)));
        // Both differences are at most PIECE.
        let within = |start: u64, at: u64| usize::try_from(at - start).unwrap_or(PIECE);
        for (start, len) in pieces(blocks, PIECE) {
            let inner =
                within(start, offset.max(start))..within(start, end.min(start + len as u64));
            access(start, inner, buffer.part(len))?;
        }
        Ok(())
    }

    /// Reads at least `needed` bytes into `buf`. `buf` and `offset` are aligned.
    fn read(&self, file: &File, buf: &mut [u8], offset: u64, needed: usize) -> io::Result<()> {
        let mut filled = 0;
        while filled < needed {
            match file.read_at(&mut buf[filled..], offset + filled as u64) {
                // A read stops within a block only at the end of the file.
                Ok(count) if count == 0 || !self.is_multiple(count as u64) => {
                    let is_enough = filled + count >= needed;
                    return if is_enough {
                        Ok(())
                    } else {
                        Err(io::ErrorKind::UnexpectedEof.into())
                    };
                }
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn is_aligned(&self, buf: &[u8], offset: u64) -> bool {
        let values = [offset, buf.len() as u64, buf.as_ptr().addr() as u64];
        values.into_iter().all(|value| self.is_multiple(value))
    }

    fn is_multiple(&self, value: u64) -> bool {
        value.is_multiple_of(self.align as u64)
    }
}

/// Status flags of the file's open file description.
pub(super) fn flags(file: &File) -> io::Result<OFlag> {
    Ok(OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?))
}

/// Writes through the page cache. Other accesses to the file meanwhile use it too, which does no harm.
fn write_buffered(file: &File, buf: &[u8], offset: u64) -> io::Result<()> {
    let flags = flags(file)?;
    fcntl(file, FcntlArg::F_SETFL(flags - OFlag::O_DIRECT))?;
    let written = file.write_all_at(buf, offset);
    fcntl(file, FcntlArg::F_SETFL(flags))?;
    written
}

/// Bytes at an address that suits every alignment.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0; len + MAX_ALIGN];
        let address = bytes.as_ptr().addr();
        Self { bytes, start: address.next_multiple_of(MAX_ALIGN) - address }
    }

    fn part(&mut self, len: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + len]
    }
}

/// Sector size of most devices, in bytes
const MIN_ALIGN: usize = 512;
/// Largest block size that Linux supports, in bytes
const MAX_ALIGN: usize = 64 << 10;
/// Bytes in the buffer at once
const PIECE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;

    /// Every combination of offset, length and address in and around two blocks, with every alignment.
    #[test]
    fn any_access_is_as_without_o_direct() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlag::O_DIRECT.bits());
        let Ok(opened) = options.open(file.path()) else {
            return eprintln!("SKIPPED: the file system of the sources has no O_DIRECT");
        };
        for align in [512, 4096] {
            let direct = Direct::with_align(align);
            let block = align as u64;
            // The file ends within a block.
            let mut expected = vec![0x11; 4 * align + 100];
            file.as_file().set_len(0).unwrap();
            file.as_file().write_all_at(&expected, 0).unwrap();
            let len = || file.as_file().metadata().map(|it| it.len());
            let ends =
                [0, 1, 511, block - 1, block, block + 1, 2 * block, 4 * block, 4 * block + 99];
            let ends = ends.into_iter().chain([4 * block + 100, 5 * block, 5 * block + 7]);
            let ends: Vec<_> = ends.map(|it| usize::try_from(it).unwrap()).collect();
            let mut fill = 0x20u8;
            for &start in &ends {
                for &end in ends.iter().filter(|&&end| end > start) {
                    fill = fill.wrapping_add(1).max(0x20);
                    let bytes = vec![fill; end - start];
                    direct.write_all_at(&opened, &bytes, start as u64, len).unwrap();
                    expected.resize(expected.len().max(end), 0);
                    expected[start..end].copy_from_slice(&bytes);
                    assert_eq!(std::fs::read(file.path()).unwrap(), expected, "{start}..{end}");
                    let mut read = vec![0; end - start];
                    direct.read_exact_at(&opened, &mut read, start as u64).unwrap();
                    assert_eq!(read, bytes);
                }
            }
            let mut past = [0; 100];
            let error = direct.read_exact_at(&opened, &mut past, expected.len() as u64 - 99);
            assert_eq!(error.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(direct.read_exact_at(&opened, &mut past, u64::MAX - 50).is_err());
        }
    }

    /// Writes to neighbouring sectors of one block do not undo each other.
    #[test]
    fn parts_of_a_block_are_written_one_after_the_other() {
        let file = tempfile::NamedTempFile::new_in(".").unwrap();
        file.as_file().set_len(4096).unwrap();
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).custom_flags(OFlag::O_DIRECT.bits());
        let Ok(opened) = options.open(file.path()) else {
            return eprintln!("SKIPPED: the file system of the sources has no O_DIRECT");
        };
        let direct = Direct::with_align(4096);
        for round in 1..50 {
            std::thread::scope(|scope| {
                for sector in 0..8 {
                    let (direct, opened) = (&direct, &opened);
                    scope.spawn(move || {
                        let bytes = [round; 512];
                        direct.write_all_at(opened, &bytes, sector * 512, || Ok(4096)).unwrap();
                    });
                }
            });
            assert_eq!(std::fs::read(file.path()).unwrap(), [round; 4096]);
        }
    }
}
