//! The map of a volume that consists of the segments of a LUKS header.

use std::io;
use std::sync::Arc;

use super::map::{Crypt, Extent, Fill, Map, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Segment;
use crate::storage::{Identity, Storage};

/// Segments of a storage, one after the other.
#[derive(Debug)]
pub(super) struct SegmentMap {
    storage: Arc<dyn Storage>,
    identity: Identity,
    extents: Vec<Extent>,
    /// One for each key, cipher and sector size that occurs
    crypts: Vec<Crypt>,
    len: u64,
}

impl SegmentMap {
    pub fn new(storage: Arc<dyn Storage>, segments: Vec<Segment>) -> Result<Self> {
        let identity = storage.identity().map_err(|e| Error::io("identify the storage", e))?;
        let mut map = Self { storage, identity, extents: Vec::new(), crypts: Vec::new(), len: 0 };
        for (index, segment) in segments.into_iter().enumerate() {
            segment.check(index)?;
            map.push(index, segment)?;
        }
        Ok(map)
    }

    fn push(&mut self, index: usize, segment: Segment) -> Result<()> {
        let Segment { offset, len, iv_tweak, sector_size, encryption, key } = segment;
        let start = self.len;
        self.len = start.checked_add(len).ok_or_else(|| {
            let text = format!("segment {index} makes the volume longer than 2^64 bytes");
            Error::new(ErrorKind::InvalidInput, text)
        })?;
        let is_it = |it: &Crypt| {
            it.key == key && it.encryption == encryption && it.sector_size == sector_size
        };
        let crypt = self.crypts.iter().position(is_it).unwrap_or_else(|| {
            self.crypts.push(Crypt {
                name: format!("segment {index}"),
                key,
                encryption,
                sector_size,
            });
            self.crypts.len() - 1
        });
        if len > 0 {
            let lock = self.identity.offset().saturating_add(offset);
            let place = Place::Data { offset, iv_sector: iv_tweak, crypt };
            self.extents.push(Extent { start, len, lock, is_shared: false, place });
        }
        Ok(())
    }
}

impl Map for SegmentMap {
    fn len(&self) -> u64 {
        self.len
    }

    fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }

    fn crypts(&self) -> &[Crypt] {
        &self.crypts
    }

    fn identity(&self) -> io::Result<Identity> {
        Ok(self.identity)
    }

    fn extent(&self, at: u64) -> Result<Extent> {
        let index = self.extents.partition_point(|it| it.start + it.len <= at);
        self.extents.get(index).copied().ok_or_else(|| {
            let text = format!("byte {at} is beyond the volume, which has {} bytes", self.len);
            Error::new(ErrorKind::InvalidInput, text)
        })
    }

    /// Segments have no holes.
    fn allocate(&self, _: u64, _: u64, _: &mut Fill<'_>) -> Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.storage.sync_data()
    }
}
