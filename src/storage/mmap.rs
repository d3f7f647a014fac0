//! A memory-mapped file: `mmap(2)`.
//!
//! Opt-in: nothing in this crate maps a file by itself. `docs/performance.md` has measurements; the
//! contract of [`MmapStorage::map`] states the risks.
//!
//! Other threads, mappings and processes may change this memory at any time, so it must never be
//! behind a `&[u8]`, whose bytes the compiler assumes to be unchanging. It is accessed through
//! atomics of a single size, because atomic accesses of different sizes to one place are a data
//! race too. Every access is a relaxed load, store or exchange of a whole aligned word. Racing
//! accesses can mix old and new words, as racing `pread` and `pwrite` calls can.

#![allow(unsafe_code, reason = "the mapping is raw memory")]
#![expect(clippy::host_endian_bytes, reason = "words are moved, not read")]

use std::io;
use std::ops::Range;
use std::path::Path;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use memmap2::{MmapOptions, MmapRaw};

use super::sharing::Sharing;
use super::{Access, FileStorage, Identity, Lease, Storage, write_zeros};
use crate::error::{Error, Result};

/// A memory-mapped file or block device. Its length is fixed when it is mapped.
///
/// The [`FileStorage`] and its locks live as long as the mapping.
#[derive(Debug)]
pub struct MmapStorage {
    file: Arc<FileStorage>,
    /// `None` if the file is empty
    map: Option<MmapRaw>,
    len: usize,
}

impl MmapStorage {
    /// Maps a whole file, writable if the file was opened for writing.
    ///
    /// I/O errors become signals. If the medium fails or is full (a write into a hole needs space),
    /// the thread that touched the page gets `SIGBUS`, and the process dies unless it has a
    /// handler.
    ///
    /// The system writes pages to disk at any time, possibly in the middle of a change to a sector.
    /// So the guarantee of [`Storage::write_all_at`] on whole sectors holds for errors but not for
    /// crashes: **keyslots must not be amended through a mapping.**
    ///
    /// # Safety
    ///
    /// While the `MmapStorage` exists:
    ///
    /// - the file must not be made shorter, by this process or another. An access beyond the new
    ///   end raises `SIGBUS`. A [`Sharing`](super::sharing::Sharing) other than `None` excludes
    ///   programs that lock the file before they resize it, but no others;
    /// - this process must not hold a reference to the same bytes of the file through another
    ///   mapping, such as the slice of a [`memmap2::Mmap`].
    ///
    /// Other processes may write the file, by a mapping or by `write`. Rust's memory model does not
    /// cover them. They are treated like threads that use atomics, which is what the hardware does:
    /// bytes read may be old, new or a mixture.
    pub unsafe fn map(file: Arc<FileStorage>) -> Result<Self> {
        let failed = |error| Error::io("map the file", error).with_path(file.path());
        let len = file.len().map_err(failed)?;
        let len = usize::try_from(len)
            .map_err(|_| failed(io::Error::from(io::ErrorKind::FileTooLarge)))?;
        let mut options = MmapOptions::new();
        options.len(len);
        let map = match (len, file.access()) {
            (0, _) => None, // the system does not map empty files
            (_, Access::ReadOnly) => Some(options.map_raw_read_only(&file.file).map_err(failed)?),
            (_, Access::ReadWrite) => Some(options.map_raw(&file.file).map_err(failed)?),
        };
        Ok(Self { file, map, len })
    }

    /// The words that overlap the range, and the number of bytes in the first word before the
    /// range.
    fn words(&self, len: usize, offset: u64) -> io::Result<(&[AtomicUsize], usize)> {
        let start = usize::try_from(offset).ok();
        let end = start.and_then(|start| start.checked_add(len));
        let (Some(start), Some(end)) = (start, end.filter(|&end| end <= self.len)) else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        Ok((&self.all_words()[start / WORD..end.div_ceil(WORD)], start % WORD))
    }

    fn all_words(&self) -> &[AtomicUsize] {
        let Some(map) = &self.map else { return &[] };
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping begins at a page")]
        let start = map.as_mut_ptr().cast::<AtomicUsize>();
        // SAFETY: the mapping begins at a page boundary, so the words are aligned. It consists of
        // whole pages, so the last word is inside it even if the file ends within that word
        // (mmap(2): "the remaining bytes in the partial page at the end of the mapping are zeroed
        // when mapped"). It lives as long as `self`. The caller of `map` guarantees that no page
        // goes away and that no other reference to it exists. On a read-only mapping only
        // `read_exact_at` touches it, with relaxed loads of words, which are allowed in read-only
        // memory (std::sync::atomic).
        unsafe { slice::from_raw_parts(start, self.len.div_ceil(WORD)) }
    }
}

impl Storage for MmapStorage {
    fn len(&self) -> io::Result<u64> {
        Ok(self.len as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let (words, skip) = self.words(buf.len(), offset)?;
        let (head, rest) = buf.split_at_mut(head_len(skip, buf.len()));
        let (middle, tail) = rest.as_chunks_mut::<WORD>();
        let (first, words) = words.split_at(usize::from(!head.is_empty()));
        for word in first {
            head.copy_from_slice(&load(word)[skip..][..head.len()]);
        }
        for (chunk, word) in middle.iter_mut().zip(words) {
            *chunk = load(word);
        }
        if let Some(word) = words.get(middle.len()) {
            tail.copy_from_slice(&load(word)[..tail.len()]);
        }
        Ok(())
    }

    /// Fails past the end with [`io::ErrorKind::UnexpectedEof`]: the mapping does not grow.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.file.access() == Access::ReadOnly {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let (words, skip) = self.words(buf.len(), offset)?;
        let (head, rest) = buf.split_at(head_len(skip, buf.len()));
        let (middle, tail) = rest.as_chunks::<WORD>();
        let (first, words) = words.split_at(usize::from(!head.is_empty()));
        for word in first {
            store_part(word, skip, head);
        }
        for (chunk, word) in middle.iter().zip(words) {
            word.store(usize::from_ne_bytes(*chunk), Ordering::Relaxed);
        }
        if let Some(word) = words.get(middle.len()) {
            store_part(word, 0, tail);
        }
        Ok(())
    }

    /// Fails past the end as [`write_all_at`](Self::write_all_at) does, without writing.
    fn write_zeros_at(&self, offset: u64, len: u64) -> io::Result<()> {
        if offset.checked_add(len).is_none_or(|end| end > self.len as u64) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        write_zeros(self, offset, len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let (data, end) = (self.file.next_data(offset)?, self.len as u64);
        Ok(data.filter(|data| data.start < end).map(|data| data.start..data.end.min(end)))
    }

    fn reserve(&self, offset: u64, len: u64) -> io::Result<()> {
        self.file.reserve(offset, len)
    }

    /// Calls msync(2), then fdatasync(2). On Linux both sync the same pages, of the mapping or of
    /// the whole file. POSIX requires the first for data written through the mapping, and the
    /// second for the metadata needed to find data written into holes.
    fn sync_data(&self) -> io::Result<()> {
        if let (Some(map), Access::ReadWrite) = (&self.map, self.file.access()) {
            map.flush_range(0, self.len)?;
        }
        self.file.sync_data()
    }

    fn evict(&self, offset: u64, len: u64) {
        self.file.evict(offset, len);
    }

    fn name(&self) -> Option<&Path> {
        self.file.name()
    }

    fn identity(&self) -> io::Result<Identity> {
        self.file.identity()
    }

    fn lease(self: Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Lease> {
        Arc::clone(&self.file).lease(sharing, wait)
    }
}

/// How many of `len` bytes lie in the first word, whose first `skip` bytes are before the range.
fn head_len(skip: usize, len: usize) -> usize {
    if skip == 0 { 0 } else { len.min(WORD - skip) }
}

fn load(word: &AtomicUsize) -> [u8; WORD] {
    word.load(Ordering::Relaxed).to_ne_bytes()
}

/// Writes the bytes from `skip` on without disturbing concurrent writes to the rest of the word.
fn store_part(word: &AtomicUsize, skip: usize, bytes: &[u8]) {
    let _ = word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |old| {
        let mut new = old.to_ne_bytes();
        new[skip..][..bytes.len()].copy_from_slice(bytes);
        Some(usize::from_ne_bytes(new))
    });
}

const WORD: usize = size_of::<usize>();

#[cfg(test)]
mod tests {
    use std::thread;

    use tempfile::NamedTempFile;

    use super::*;

    fn map(file: &NamedTempFile, access: Access) -> MmapStorage {
        let file = Arc::new(FileStorage::open(file.path(), access).unwrap());
        // SAFETY: it is a temporary file that no other code accesses.
        unsafe { MmapStorage::map(file) }.unwrap()
    }

    fn file(bytes: &[u8]) -> NamedTempFile {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        file
    }

    /// Every alignment to words, at the start and at the end, which is within a word.
    #[test]
    fn any_range_is_read_and_written() {
        let mut bytes: Vec<u8> = (0..=255).cycle().take(4999).collect();
        let file = file(&bytes);
        let storage = map(&file, Access::ReadWrite);
        assert_eq!(storage.len().unwrap(), 4999);
        for base in [0, 4096, 4999 - 2 * 24] {
            for (start, len) in (0..24).flat_map(|start| (0..24).map(move |len| (start, len))) {
                let (start, offset) = (base + start, (base + start) as u64);
                let new: Vec<u8> = bytes[start..][..len].iter().map(|byte| !byte).collect();
                storage.write_all_at(&new, offset).unwrap();
                bytes[start..][..len].copy_from_slice(&new);
                let mut read = vec![0; len];
                storage.read_exact_at(&mut read, offset).unwrap();
                assert_eq!(read, new);
            }
        }
        storage.sync_data().unwrap();
        assert!(std::fs::read(file.path()).unwrap() == bytes);

        storage.file.write_all_at(b"beside it", 1001).unwrap();
        let mut read = [0; 9];
        storage.read_exact_at(&mut read, 1001).unwrap();
        assert_eq!(&read, b"beside it");
    }

    #[test]
    fn nothing_is_past_the_end() {
        let file = file(&[7; 100]);
        let storage = map(&file, Access::ReadWrite);
        let mut buf = [0; 8];
        for offset in [93, 100, 4096, u64::MAX] {
            let read = storage.read_exact_at(&mut buf, offset).unwrap_err();
            let written = storage.write_all_at(&buf, offset).unwrap_err();
            for error in [read, written] {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
        for (offset, len) in [(93, 8), (0, 1 << 21), (100, 1), (1, u64::MAX)] {
            let error = storage.write_zeros_at(offset, len).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        }
        storage.read_exact_at(&mut [], 100).unwrap();
        storage.read_exact_at(&mut [], 99).unwrap();
        storage.write_all_at(&[], 100).unwrap();
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 100]);
    }

    #[test]
    fn an_empty_file_is_a_storage_too() {
        let storage = map(&file(&[]), Access::ReadWrite);
        assert!(storage.is_empty().unwrap());
        storage.read_exact_at(&mut [], 0).unwrap();
        storage.read_exact_at(&mut [0], 0).unwrap_err();
        storage.write_all_at(&[0], 0).unwrap_err();
        storage.sync_data().unwrap();
    }

    #[test]
    fn read_only_does_not_write() {
        let storage = map(&file(&[7; 100]), Access::ReadOnly);
        let error = storage.write_all_at(&[0], 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let mut buf = [0; 100];
        storage.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(buf, [7; 100]);
        storage.sync_data().unwrap();
    }

    /// Neighbouring writes within a word do not undo each other.
    #[test]
    fn threads_keep_to_their_bytes() {
        let storage = map(&file(&[0; 64]), Access::ReadWrite);
        thread::scope(|scope| {
            for start in [0, 3] {
                let storage = &storage;
                scope.spawn(move || {
                    for round in 0..=255 {
                        for offset in (start..60).step_by(6) {
                            let mut buf = [0; 3];
                            storage.write_all_at(&[round; 3], offset).unwrap();
                            storage.read_exact_at(&mut buf, offset).unwrap();
                            assert_eq!(buf, [round; 3]);
                        }
                    }
                });
            }
        });
    }
}
