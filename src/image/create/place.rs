//! A new image in a place that exists: a partition, a range of a file, a block device.

use std::path::Path;

use super::CreateOptions;
use crate::container::Container;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::Header;
use crate::image::OpenOptions;
use crate::image::session::Session;
use crate::secret::Passphrase;
use crate::storage::sharing::Sharing;
use crate::storage::transfer::length;
use crate::storage::{Access, Storage, read};

impl CreateOptions {
    /// Makes an image in a file or device that exists, or in the part of it that `place` says, and
    /// returns its header and the bytes of its payload, which goes to the end of that part. Of `place`, the wait for others and whether a device may
    /// be busy count, too.
    ///
    /// [`ErrorKind::Refused`] if there are bytes other than zeros where the header goes, and
    /// [`overwrite`](Self::overwrite) does not admit that they are lost. [`ErrorKind::InUse`] if
    /// somebody has the file open. After an error in writing, the text says that the old bytes are
    /// overwritten.
    pub fn create_in(
        &self,
        path: impl AsRef<Path>,
        place: &OpenOptions,
        passphrase: &Passphrase,
    ) -> Result<(Header, u64)> {
        let path = path.as_ref();
        let options = place.clone().sharing(Sharing::None);
        let container = options.container(path, Access::ReadWrite)?;
        self.try_create_in(&container, place, passphrase).map_err(|error| error.with_path(path))
    }

    fn try_create_in(
        &self,
        container: &Container,
        place: &OpenOptions,
        passphrase: &Passphrase,
    ) -> Result<(Header, u64)> {
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
        drop(container.lease(Sharing::Amend, place.wait)?);
        let parts = self.make(size, passphrase)?;

        let session = Session::open(container, place.wait)?;
        self.must_be_blank(storage, header_len)?;
        let lost = "what was there is overwritten in part, and no image was made";
        let failed = |e| {
            let what = format_args!("clear the header's place; {lost}");
            Error::io(what, e).with_operation(Operation::Write)
        };
        // No copy of an older header may count.
        storage.write_zeros_at(0, header_len).map_err(failed)?;
        storage.sync_data().map_err(failed)?;
        let (header, _) = parts.write(storage, lost)?;
        session.finish()?;
        let size = header.volume_len(len).unwrap_or(size);
        Ok((header, size))
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
