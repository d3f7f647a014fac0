//! State of an image that is written: reference counts, clusters to release, and allocations under
//! way.

use std::collections::HashSet;
use std::fmt::Display;
use std::ops::Range;
use std::sync::atomic::Ordering;

use super::super::{Qcow2Header, corrupt, unsupported};
use super::Qcow2Map;
use super::allocate::not_open;
use super::audit::audit;
use super::refcount::Refcounts;
use super::tables::Tables;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::Storage;
use crate::storage::transfer::{fetch_back, length, put, sync};

/// State of an image that is written.
#[derive(Debug)]
pub(super) struct Writer {
    pub refcounts: Refcounts,
    /// Clusters that have one user less once a sync has made the last changes of entries durable
    pub releases: Vec<u64>,
    /// Ranges of the disk that are being allocated
    pub busy: Vec<Range<u64>>,
    /// Whether a sync failed. Writes before it may be lost, so nothing may depend on them.
    pub has_failed: bool,
    pub is_ordered: bool,
    /// Whether another program may have written the image since the reference counts were read
    pub is_stale: bool,
}

impl Writer {
    fn new(refcounts: Refcounts, is_ordered: bool) -> Self {
        let (releases, busy) = (Vec::new(), Vec::new());
        Self { refcounts, releases, busy, has_failed: false, is_ordered, is_stale: false }
    }

    /// Makes the next write read the reference counts again. Clusters to release stay counted, because
    /// a repair by another program may have released them already.
    pub fn make_stale(&mut self) {
        self.is_stale = true;
        self.releases.clear();
    }

    /// Fails if a sync failed before.
    pub fn check(&self) -> Result<()> {
        if !self.has_failed {
            return Ok(());
        }
        let text = "cannot write: an earlier sync failed, so the last changes may be lost";
        let error = Error::new(ErrorKind::Io, text).with_operation(Operation::Write);
        Err(error.with_hint("close the image and open it again"))
    }

    /// Takes `count` free clusters, in ascending order. Their reference counts are 1 after the next
    /// sync, which must come before anything refers to them.
    pub fn take(&mut self, tables: &mut Tables, count: usize) -> Result<Vec<u64>> {
        let taken = self.find(tables, count).and_then(|found| {
            self.refcounts.set(&found, 1)?;
            Ok(found)
        });
        self.noted(taken)
    }

    /// Gives back clusters that nothing refers to. A failure leaves clusters that are counted and not
    /// used.
    pub fn give_back(&mut self, clusters: &[u64]) {
        if !self.has_failed {
            let _ = self.refcounts.set(clusters, 0);
        }
    }

    /// Makes all writes so far durable, unless the image may be in any state after a crash.
    pub fn barrier(&mut self) -> Result<()> {
        if !self.is_ordered {
            return Ok(());
        }
        let synced = sync(self.refcounts.image.as_ref());
        self.noted(synced)
    }

    /// Remembers that a sync failed.
    pub fn noted<T>(&mut self, result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            self.has_failed |= error.operation() == Some(Operation::Sync);
        }
        result
    }

    /// Releases clusters after a sync. A failure leaves clusters that are counted and not used.
    pub fn release(&mut self, clusters: &[u64]) {
        for &cluster in clusters {
            let _ = self.refcounts.release(cluster);
        }
    }

    /// Finds free clusters. Their counts are in blocks that exist, if need be in new ones.
    fn find(&mut self, tables: &mut Tables, count: usize) -> Result<Vec<u64>> {
        let mut found = Vec::new();
        loop {
            found.extend(self.refcounts.find(count - found.len())?);
            if found.len() == count {
                break;
            }
            let area = self.refcounts.next / self.refcounts.geometry.refcounts();
            if area < self.refcounts.table.len() as u64 {
                self.refcounts.add_block()?;
            } else {
                let old = self.refcounts.grow()?;
                self.releases.extend(old);
                tables.reserved.push(("refcount table", self.refcounts.place.clone()));
            }
        }
        for &cluster in &found {
            if let Some(name) = tables.reserved_by(self.refcounts.offset(cluster)?) {
                return Err(miscounted(name));
            }
        }
        Ok(found)
    }
}

impl Qcow2Map {
    /// The state of the image that is written, which is read if need be. Neither a failed sync nor
    /// clusters that a reader may still look at are forgotten.
    pub(super) fn started<'a>(&self, writer: &'a mut Option<Writer>) -> Result<&'a mut Writer> {
        if writer.as_ref().is_none_or(|writer| writer.is_stale) {
            let mut new = self.start_writer()?;
            if let Some(old) = writer.as_mut() {
                new.has_failed = old.has_failed;
                new.refcounts.keep_unused(&mut old.refcounts);
            }
            *writer = Some(new);
        }
        self.is_writing.store(true, Ordering::Release);
        writer.as_mut().ok_or_else(not_open)
    }

    /// Checks that the image can be written, and prepares it.
    fn start_writer(&self) -> Result<Writer> {
        let tables = self.tables();
        check_writable(&tables.header)?;
        let (header, image) = (&tables.header, self.image.as_ref());
        clear_features(header, image)?;
        let start = header.raw.refcount_table_offset.get();
        let len = u64::from(header.raw.refcount_table_clusters.get()) * header.cluster_size();
        let (image, geometry) = (std::sync::Arc::clone(&self.image), tables.geometry);
        let mut refcounts = Refcounts::load(image, geometry, start..start + len)?;
        check_blocks(&tables, &refcounts)?;
        audit(self.image.as_ref(), &tables, &mut refcounts)?;
        Ok(Writer::new(refcounts, self.is_ordered))
    }
}

/// Refuses images whose writes are not supported.
fn check_writable(header: &Qcow2Header) -> Result<()> {
    header.check_amendable()?;
    if header.is_dirty() {
        let text = "the qcow2 image was not closed, so its reference counts may be wrong";
        return Err(unsupported(text).with_hint("repair it first: qemu-img check -r all"));
    }
    if header.has_bitmaps() {
        let text = "the qcow2 image has persistent bitmaps, which a write would make stale";
        return Err(unsupported(text).with_hint("remove them first: qemu-img bitmap --remove"));
    }
    if header.has_data_file() {
        return Err(unsupported("writing to an external data file is not supported"));
    }
    Ok(())
}

/// Clears autoclear features that are unknown here, durably.
fn clear_features(header: &Qcow2Header, image: &dyn Storage) -> Result<()> {
    let Some((offset, bytes)) = header.features_to_clear(image)? else { return Ok(()) };
    put(image, &bytes, offset)?;
    sync(image)?;
    if fetch_back(image, offset, bytes.len())? != bytes {
        let text = "the qcow2 header reads back differently from what was written";
        return Err(corrupt(text).with_offset(offset));
    }
    Ok(())
}

/// Checks that each refcount block has a place of its own in the image. A write of counts must not
/// change a LUKS header, and a table whose entries name one block must not have as many counts.
fn check_blocks(tables: &Tables, refcounts: &Refcounts) -> Result<()> {
    let image_len = length(refcounts.image.as_ref())?;
    let mut found = HashSet::new();
    for index in 0..refcounts.table.len() as u64 {
        let Some(block) = refcounts.block(index)? else { continue };
        let end = block.checked_add(tables.geometry.cluster());
        let fault = if let Some(name) = tables.reserved_by(block) {
            format!("points into the {name}")
        } else if end.is_none_or(|end| end > image_len) {
            "points beyond the end of the file".to_owned()
        } else if !found.insert(block) {
            "points to the same block as another entry".to_owned()
        } else {
            continue;
        };
        let text = format!("entry {index} of the refcount table {fault}: {block:#018x}");
        return Err(corrupt(text).with_hint(REPAIR));
    }
    Ok(())
}

/// The error for a cluster in use that is not counted.
pub(super) fn miscounted(name: impl Display) -> Error {
    let text = format!("the reference count of the {name} is 0");
    corrupt(text).with_hint(REPAIR)
}

pub(super) const REPAIR: &str = "repair the image first: qemu-img check -r all";
