//! Creates an image in an existing place: a partition, a range of a file, or a block device.

#[cfg(feature = "file")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{CreateOptions, Created, Format};
use crate::container::Container;
#[cfg(feature = "file")]
use crate::container::{DiskFormat, Part};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::luks2::secondary_copies;
#[cfg(feature = "file")]
use crate::image::OpenOptions;
use crate::image::session::Session;
use crate::secret::Passphrase;
use crate::storage::transfer::length;
#[cfg(feature = "file")]
use crate::storage::{Access, FileRef};
use crate::storage::{Sharing, Storage, read};

impl CreateOptions {
    /// Creates an image in an existing file or device, or in the part of it that `place` selects. The
    /// payload extends to the end of that part. Of the other options in `place`,
    /// [`wait`](OpenOptions::wait) and [`busy_device`](OpenOptions::busy_device) apply.
    ///
    /// Fails with [`ErrorKind::Refused`] if the header would overwrite bytes other than zeros and
    /// [`overwrite`](Self::overwrite) is not set, and with [`ErrorKind::InUse`] if another program has
    /// the file open. The text of a write error says that the old bytes are overwritten.
    #[cfg(feature = "file")]
    pub fn create_in(
        &self,
        path: impl AsRef<Path>,
        place: &OpenOptions,
        passphrase: &Passphrase,
    ) -> Result<Created> {
        let path = path.as_ref();
        let options = place.clone().sharing(Sharing::None);
        // The image replaces the contents of the file, of any format. A part of a qcow2 image is a part
        // of the guest's disk.
        let is_whole = matches!(options.part, Part::Whole);
        let options = if is_whole { options.format(DiskFormat::Raw) } else { options };
        let container = options.container(FileRef::Path(path), Access::ReadWrite)?;
        let created = self.try_create_in(&container, place.wait, passphrase);
        created.map_err(|error| error.with_path(path))
    }

    /// Creates an image on caller-supplied storage. The payload extends to its end. The storage is
    /// [leased](Storage::lease) while it is written.
    ///
    /// The errors are those of `create_in`.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use keyslot::kdf::Cost;
    /// use keyslot::storage::MemoryStorage;
    /// use keyslot::{CreateOptions, Passphrase};
    ///
    /// # fn main() -> keyslot::Result<()> {
    /// let storage = Arc::new(MemoryStorage::new(vec![0; 4 << 20]));
    /// let secret = Passphrase::new(b"hunter0")?;
    /// let options = CreateOptions::new()?.cost(Cost::Iterations(1000));
    /// let created = options.create_on(storage, &secret)?;
    /// println!("{}: {} bytes", created.uuid(), created.payload_len());
    /// # Ok(())
    /// # }
    /// ```
    pub fn create_on(&self, storage: Arc<dyn Storage>, passphrase: &Passphrase) -> Result<Created> {
        let container = Container::storage(storage);
        let created = self.try_create_in(&container, None, passphrase);
        created.map_err(|error| container.named(error))
    }

    fn try_create_in(
        &self,
        container: &Container,
        wait: Option<Duration>,
        passphrase: &Passphrase,
    ) -> Result<Created> {
        if self.detached || container.is_detached() {
            let text = "a detached header can only be created in a new file";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if matches!(self.format, Format::Qcow2(_)) {
            let text = "a qcow2 image can only be created in a new file";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let storage = container.header().as_ref();
        let len = length(storage)?;
        let header_len = self.header_len()?;
        let Some(size) = len.checked_sub(header_len).filter(|&size| size >= 512) else {
            let text = format!("only {len} bytes of space: the header alone takes {header_len}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        // Leave out a partial sector at the end.
        let size = size / 512 * 512;
        self.check(size)?;
        self.must_be_blank(storage, header_len)?;
        drop(container.lease(Sharing::Amend, wait)?);
        let parts = self.make(size, passphrase)?;

        let session = Session::open(container, wait)?;
        self.must_be_blank(storage, header_len)?;
        let lost = "the old bytes are partly overwritten, and no image was created";
        let failed = |e| {
            let what = format_args!("clear the space for the header; {lost}");
            Error::io(what, e).with_operation(Operation::Write)
        };
        // A copy of an older header must not be found later.
        storage.write_zeros_at(0, header_len).map_err(failed)?;
        for offset in copies_behind(storage, header_len)? {
            storage.write_zeros_at(offset, BINARY_HEADER).map_err(failed)?;
        }
        storage.sync_data().map_err(failed)?;
        let (header, unlocked) = parts.write(storage, lost)?;
        session.finish()?;
        let payload_len = header.volume_len(len).unwrap_or(size);
        Ok(Created { header, unlocked, payload_len })
    }

    /// Refuses to overwrite bytes other than zeros, unless `overwrite` is set.
    fn must_be_blank(&self, storage: &dyn Storage, header_len: u64) -> Result<()> {
        let failed = |e| Error::failed(Operation::Read, "the bytes to overwrite", e);
        let mut at = 0;
        while let Some(data) = storage.next_data(at).map_err(failed)?
            && !self.overwrite
            && data.start < header_len
        {
            let end = data.end.min(header_len).min(data.start.saturating_add(PIECE));
            let len = usize::try_from(end - data.start).unwrap_or(usize::MAX);
            let bytes = read(storage, data.start, len).map_err(failed)?;
            if let Some(used) = bytes.iter().position(|&byte| byte != 0) {
                let text =
                    format!("the header would overwrite data at byte {}", data.start + used as u64);
                return Err(
                    Error::new(ErrorKind::Refused, text).with_hint("use --overwrite to discard it")
                );
            }
            at = end;
        }
        match copies_behind(storage, header_len)?.first() {
            Some(offset) if !self.overwrite => {
                let text = format!("a copy of an older header is at byte {offset}");
                Err(Error::new(ErrorKind::Refused, text).with_hint("use --overwrite to discard it"))
            }
            _ => Ok(()),
        }
    }
}

/// Offsets of secondary copies of an older, larger LUKS2 header, behind the new one. Programs that look
/// for such copies would take the image for the older one.
fn copies_behind(storage: &dyn Storage, header_len: u64) -> Result<Vec<u64>> {
    let failed = |e| Error::failed(Operation::Read, "the bytes behind the header", e);
    let mut offsets = secondary_copies(storage).map_err(failed)?;
    let len = length(storage)?;
    offsets.retain(|&at| at >= header_len && at + BINARY_HEADER <= len);
    Ok(offsets)
}

/// Length in bytes of a copy without its metadata
const BINARY_HEADER: u64 = 4096;

/// Bytes that are checked at once
const PIECE: u64 = 1 << 20;
