//! Copies the contents of one image to another, piece by piece, on all cores, with holes where the
//! target supports them.
//!
//! Each piece is read, decrypted and encrypted in one buffer that fits a core's cache, and then
//! written.

use std::io;
use std::num::NonZero;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use zeroize::Zeroizing;

use super::Side;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::zeroed;

/// Options for a copy.
///
/// ```
/// use keyslot::volume::{CopyOptions, Side};
/// use keyslot::{CreateOptions, Passphrase, kdf::Cost};
///
/// # fn main() -> keyslot::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let path = directory.path().join("image.luks");
/// let plain = keyslot::storage::FileStorage::open(
///     "testdata/luks1_qemu.img", // any file: here, of all things, an image
///     keyslot::storage::Access::ReadOnly,
/// )?;
/// let source = Side::raw(&plain)?;
/// let create = CreateOptions::new()?.cost(Cost::Iterations(1000));
/// let image = create.begin(&path, source.len(), &Passphrase::new(b"hunter0")?)?;
/// CopyOptions::new().copy(source, Side::volume(image.volume()?), &|_bytes| {})?;
/// image.finish()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CopyOptions {
    threads: NonZero<usize>,
    sparse: usize,
    target_is_zero: bool,
}

impl CopyOptions {
    /// Defaults: all cores, holes in units of 4096 bytes, and a target with unknown contents.
    pub fn new() -> Self {
        let threads = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
        Self { threads, sparse: 4096, target_is_zero: false }
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(mut self, threads: NonZero<usize>) -> Self {
        self.threads = threads;
        self
    }

    /// Granularity in bytes at which runs of zeros become holes in a raw target, at most
    /// [`PIECE`](Self::PIECE). With 0 all zeros are written, including those in holes of the
    /// source. A LUKS target has no holes, because they would decrypt to noise. Holes of a qcow2
    /// target are whole clusters.
    #[must_use]
    pub fn sparse(mut self, unit: usize) -> Self {
        self.sparse = unit.min(Self::PIECE);
        self
    }

    /// Whether a target with holes already reads as zeros, so that holes need no action.
    #[must_use]
    pub fn target_is_zero(mut self, target_is_zero: bool) -> Self {
        self.target_is_zero = target_is_zero;
        self
    }

    /// Bytes copied at a time
    pub const PIECE: usize = 512 * 1024;

    /// Copies all of `source` to the start of `target`, which must be at least as long.
    ///
    /// `progress` is called with the number of bytes just copied, from any thread. After an error
    /// the contents of the target are unspecified. Nothing is synced.
    pub fn copy(
        &self,
        source: Side<'_>,
        target: Side<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        if target.len() < source.len() {
            return Err(target.named(Error::new(ErrorKind::InvalidInput, SMALLER)));
        }
        let known = KnownData::default();
        self.each_piece(0..source.len(), 1, progress, |start, buffer| {
            if self.sparse > 0
                && let Some(unit) = target.hole_len(self.sparse)
            {
                let unit = unit.min(Self::PIECE);
                return self.copy_sparse((source, &known), target, start, buffer, unit);
            }
            source.read(buffer, start)?;
            target.write(buffer, start)
        })
    }

    /// Runs `work` on each piece of the range in all threads, each with `buffers` piece-sized buffers,
    /// until all pieces are done or one has failed. Of several failures, the first piece's is returned:
    /// pieces are started in their order, and those that are started are finished.
    pub(super) fn each_piece(
        &self,
        range: Range<u64>,
        buffers: usize,
        progress: &(dyn Fn(u64) + Sync),
        work: impl Fn(u64, &mut [u8]) -> Result<()> + Sync,
    ) -> Result<()> {
        let piece = Self::PIECE as u64;
        let Range { start: first, end } = range;
        let (next, is_over) = (AtomicU64::new(first), AtomicBool::new(false));
        let failure = Mutex::new(None::<(u64, Error)>);
        let worker = || {
            let mut memory = Zeroizing::new(zeroed(buffers * Self::PIECE)?);
            while !is_over.load(Ordering::Relaxed) {
                let start = next.fetch_add(piece, Ordering::Relaxed);
                if start >= end {
                    break;
                }
                let size =
                    usize::try_from(end - start).map_or(Self::PIECE, |it| it.min(Self::PIECE));
                if let Err(error) = work(start, &mut memory[..buffers * size]) {
                    is_over.store(true, Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if failure.as_ref().is_none_or(|(earlier, _)| start < *earlier) {
                        *failure = Some((start, error));
                    }
                    break;
                }
                progress(size as u64);
            }
            Ok(())
        };
        let pieces =
            usize::try_from(end.saturating_sub(first).div_ceil(piece)).unwrap_or(usize::MAX);
        let last = thread::scope(|scope| {
            for _ in 1..self.threads.get().min(pieces) {
                // If no more threads can be started, or one has no memory, the others do all the
                // work.
                if thread::Builder::new().spawn_scoped(scope, || worker().is_ok()).is_err() {
                    break;
                }
            }
            worker()
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None if next.into_inner() >= end => Ok(()),
            None => last.map_err(|e: io::Error| Error::io("allocate a buffer", e)),
        }
    }

    /// Copies a piece to a target with holes. Holes of the source and runs of zeros become holes.
    fn copy_sparse(
        &self,
        (source, known): (Side<'_>, &KnownData),
        target: Side<'_>,
        start: u64,
        buffer: &mut [u8],
        unit: usize,
    ) -> Result<()> {
        let end = start + buffer.len() as u64;
        let mut at = start;
        while at < end {
            let data = known.next(source, at, end)?;
            self.zero(target, at..data.start)?;
            let within = within(&data, start);
            source.read(&mut buffer[within.clone()], data.start)?;
            for (run, is_zero) in runs(&buffer[within], data.start, unit) {
                if is_zero {
                    self.zero(target, run)?;
                } else {
                    target.write(&mut buffer[self::within(&run, start)], run.start)?;
                }
            }
            at = data.end;
        }
        Ok(())
    }

    fn zero(&self, target: Side<'_>, range: Range<u64>) -> Result<()> {
        if range.is_empty() || self.target_is_zero {
            return Ok(());
        }
        target.write_zeros(range)
    }
}

/// The range of data that was found last. Some file systems search a whole file for the end of its
/// data, which must not happen for every piece.
#[derive(Debug, Default)]
struct KnownData(Mutex<Range<u64>>);

impl KnownData {
    /// The next range of data of the source, as [`Side::data`] finds it, up to `end`.
    fn next(&self, source: Side<'_>, at: u64, end: u64) -> Result<Range<u64>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if last.contains(&at) {
            return Ok(at..last.end.min(end));
        }
        let data = source.data(at, end)?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = data.clone();
        Ok(data.start..data.end.min(end))
    }
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// The part of a buffer, which begins at `start`, that belongs to `range`.
fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    let index = |at: u64| usize::try_from(at - start).expect("it is in a buffer");
    index(range.start)..index(range.end)
}

/// Splits `data`, which begins at byte `start`, into runs of zeros and of other bytes. Runs of
/// zeros are aligned to `unit` bytes, except at the ends of the data.
fn runs(data: &[u8], start: u64, unit: usize) -> Vec<(Range<u64>, bool)> {
    let mut runs = Vec::<(Range<u64>, bool)>::new();
    let mut rest = data;
    let mut at = start;
    while !rest.is_empty() {
        let to_the_next = unit as u64 - at % unit as u64;
        let len = usize::try_from(to_the_next).map_or(rest.len(), |it| it.min(rest.len()));
        let (now, later) = rest.split_at(len);
        let is_zero = is_zero(now);
        let end = at + len as u64;
        match runs.last_mut() {
            Some((run, was_zero)) if *was_zero == is_zero => run.end = end,
            _ => runs.push((at..end, is_zero)),
        }
        (rest, at) = (later, end);
    }
    runs
}

fn is_zero(bytes: &[u8]) -> bool {
    // One cache line at a time, without branches.
    bytes.chunks(64).all(|line| line.iter().fold(0, |sum, byte| sum | byte) == 0)
}

/// QEMU's text
const SMALLER: &str = "output file is smaller than input file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_are_whole_units() {
        let mut data = vec![1; 10_000];
        data[3000..9000].fill(0);
        // The data begins in the middle of a unit.
        assert_eq!(
            runs(&data, 512, 1024),
            [(512..4096, false), (4096..9216, true), (9216..10_512, false)]
        );
        assert_eq!(runs(&[0; 100], 4096, 4096), [(4096..4196, true)]);
        assert_eq!(runs(&[], 4096, 4096), []);
    }

    #[test]
    fn one_byte_is_enough() {
        for at in 0..200 {
            let mut bytes = [0; 200];
            assert!(is_zero(&bytes));
            bytes[at] = 1;
            assert!(!is_zero(&bytes));
        }
    }
}
