//! A new image in a place that exists: a partition, a range of a file, a block device.

#[cfg(feature = "file")]
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{CreateOptions, Created};
use crate::container::Container;
use crate::error::{Error, ErrorKind, Operation, Result};
#[cfg(feature = "file")]
use crate::image::OpenOptions;
use crate::image::session::Session;
use crate::secret::Passphrase;
#[cfg(feature = "file")]
use crate::storage::Access;
use crate::storage::transfer::length;
use crate::storage::{Sharing, Storage, read};

impl CreateOptions {
    /// Makes an image in a file or device that exists, or in the part of it that `place` says. The
    /// payload goes to the end of that part. Of `place`, the wait for others and whether a device may
    /// be busy count, too.
    ///
    /// [`ErrorKind::Refused`] if there are bytes other than zeros where the header goes, and
    /// [`overwrite`](Self::overwrite) does not admit that they are lost. [`ErrorKind::InUse`] if
    /// somebody has the file open. After an error in writing, the text says that the old bytes are
    /// overwritten.
    #[cfg(feature = "file")]
    pub fn create_in(
        &self,
        path: impl AsRef<Path>,
        place: &OpenOptions,
        passphrase: &Passphrase,
    ) -> Result<Created> {
        let path = path.as_ref();
        let options = place.clone().sharing(Sharing::None);
        let container = options.container(path, Access::ReadWrite)?;
        let created = self.try_create_in(&container, place.wait, passphrase);
        created.map_err(|error| error.with_path(path))
    }

    /// Makes an image on a storage of the caller's, to whose end the payload goes. The storage is
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
            let text = "a detached header is made in a file of its own";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let storage = container.header().as_ref();
        let len = length(storage)?;
        let header_len = self.header_len()?;
        let Some(size) = len.checked_sub(header_len).filter(|&size| size >= 512) else {
            let text = format!("{len} bytes are too few: the header alone takes {header_len}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        // The last bytes are no sector.
        let size = size / 512 * 512;
        self.check(size)?;
        self.must_be_blank(storage, header_len)?;
        drop(container.lease(Sharing::Amend, wait)?);
        let parts = self.make(size, passphrase)?;

        let session = Session::open(container, wait)?;
        self.must_be_blank(storage, header_len)?;
        let lost = "what was there is overwritten in part, and no image was made";
        let failed = |e| {
            let what = format_args!("clear the header's place; {lost}");
            Error::io(what, e).with_operation(Operation::Write)
        };
        // No copy of an older header may count.
        storage.write_zeros_at(0, header_len).map_err(failed)?;
        storage.sync_data().map_err(failed)?;
        let (header, unlocked) = parts.write(storage, lost)?;
        session.finish()?;
        let payload_len = header.volume_len(len).unwrap_or(size);
        Ok(Created { header, unlocked, payload_len })
    }

    /// Refuses to overwrite anything but zeros, unless that is admitted.
    fn must_be_blank(&self, storage: &dyn Storage, header_len: u64) -> Result<()> {
        let failed = |e| Error::failed(Operation::Read, "what is there", e);
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
                    format!("byte {} of the header's place is used", data.start + used as u64);
                return Err(Error::new(ErrorKind::Refused, text)
                    .with_hint("use --overwrite if what is there may be lost"));
            }
            at = end;
        }
        Ok(())
    }
}

/// Bytes that are looked at at once
const PIECE: u64 = 1 << 20;
