//! The source or the target of a copy.

use std::io;
use std::ops::Range;
use std::path::Path;

use super::Volume;
use crate::crypto::SectorCipher;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::Storage;
use crate::storage::transfer::{length, put};

/// One side of a [copy](super::CopyOptions): raw bytes, or the contents of an unlocked image.
#[derive(Clone, Copy, Debug)]
pub struct Side<'a> {
    data: Data<'a>,
    /// Length in bytes, a multiple of 512
    len: u64,
    path: Option<&'a Path>,
}

#[derive(Clone, Copy, Debug)]
enum Data<'a> {
    Raw {
        storage: &'a dyn Storage,
        /// Length of the storage. The last sector is padded with zeros.
        stored: u64,
    },
    Volume(&'a Volume),
}

impl<'a> Side<'a> {
    /// The bytes of a storage.
    pub fn raw(storage: &'a dyn Storage) -> Result<Self> {
        let stored = length(storage)?;
        let len = stored.checked_next_multiple_of(SectorCipher::SECTOR_SIZE as u64);
        let len = len.ok_or_else(|| {
            let text = format!("{stored} bytes: too many to round up to whole sectors");
            Error::new(ErrorKind::InvalidInput, text)
        });
        let path = storage.name();
        let len = len.map_err(|error| error.with_name(path))?;
        Ok(Self { data: Data::Raw { storage, stored }, len, path })
    }

    /// The contents of an unlocked image.
    pub fn volume(volume: &'a Volume) -> Self {
        Self { data: Data::Volume(volume), len: volume.len(), path: volume.map.storage().name() }
    }

    /// Length in bytes, a multiple of 512.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the length is 0.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Granularity in bytes at which zeros become holes, if the side supports holes. A raw side has
    /// them at any.
    pub(super) fn hole_len(&self, raw: usize) -> Option<usize> {
        match self.data {
            Data::Raw { .. } => Some(raw),
            Data::Volume(volume) => {
                let len = volume.map.hole_len()?;
                Some(usize::try_from(len).unwrap_or(usize::MAX).max(raw))
            }
        }
    }

    /// The next range from `at` on that may hold nonzero bytes, which may end behind `end`. Empty, at
    /// `end`, if there is none before `end`.
    pub(super) fn data(&self, at: u64, end: u64) -> Result<Range<u64>> {
        let (storage, stored) = match self.data {
            Data::Raw { storage, stored } => (storage, stored),
            Data::Volume(volume) => {
                let data = volume.data_before(end, at).map_err(|error| self.named(error))?;
                return Ok(data.unwrap_or(end..end));
            }
        };
        let next = storage.next_data(at).and_then(|data| match data {
            // Beyond its end a file looks like a hole.
            None if storage.len()? < stored => Err(io::ErrorKind::UnexpectedEof.into()),
            data => Ok(data.filter(|data| data.start < end)),
        });
        match next {
            Ok(Some(data)) => Ok(data.start.max(at)..data.end),
            Ok(None) => Ok(end..end),
            Err(e) => {
                let error = Error::io(format_args!("find data from byte {at} on"), e);
                Err(self.named(error.with_operation(Operation::Read).with_offset(at)))
            }
        }
    }

    pub(super) fn read(&self, buf: &mut [u8], at: u64) -> Result<()> {
        match self.data {
            Data::Volume(volume) => volume.read_exact_at(buf, at),
            Data::Raw { storage, stored } => {
                let there = usize::try_from(stored.saturating_sub(at)).unwrap_or(usize::MAX);
                let (there, missing) = buf.split_at_mut(there.min(buf.len()));
                missing.fill(0);
                if there.is_empty() {
                    // The range is beyond the end, where a storage may refuse even zeros.
                    return Ok(());
                }
                let len = there.len() as u64;
                let failed = |e| self.named(Error::failed_at(Operation::Read, len, at, e));
                storage.read_exact_at(there, at).map_err(failed)
            }
        }
    }

    /// Writes `buf`, whose contents are unspecified afterwards.
    pub(super) fn write(&self, buf: &mut [u8], at: u64) -> Result<()> {
        let len = buf.len();
        match self.data {
            Data::Volume(volume) => {
                let sector = at / SectorCipher::SECTOR_SIZE as u64;
                if volume.aligned(Operation::Write, sector, len as u64).is_ok() {
                    volume.write_sectors(sector, buf)
                } else {
                    volume.write_all_at(buf, at)
                }
            }
            Data::Raw { storage, .. } => put(storage, buf, at).map_err(|error| self.named(error)),
        }
    }

    pub(super) fn write_zeros(&self, range: Range<u64>) -> Result<()> {
        let (at, len) = (range.start, range.end - range.start);
        match self.data {
            Data::Volume(volume) => volume.write_zeros_at(at, len),
            Data::Raw { storage, .. } => storage.write_zeros_at(at, len).map_err(|e| {
                let object = format_args!("{len} zeros at byte {at}");
                self.named(Error::failed(Operation::Write, object, e).with_offset(at))
            }),
        }
    }

    /// Adds the file's name to an error.
    pub(super) fn named(&self, error: Error) -> Error {
        error.with_name(self.path)
    }
}
