//! Resizes the payload of an image, by the length of its file.

use super::Image;
use super::session::Session;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::{Preallocation, Storage};

impl Image {
    /// Sets the length of a LUKS1 payload in bytes, durably. The header is not written, because it
    /// does not contain the length.
    ///
    /// The image is locked as for [`amend`](Self::amend), and its header must be unchanged since it was
    /// read. New sectors decrypt to noise, as in QEMU. If space for them cannot be allocated, the file
    /// keeps its length. Existing [volumes](Self::volume) keep the length that they were opened with.
    ///
    /// Fails with [`ErrorKind::Unsupported`] for LUKS2, for an image inside another (a qcow2 image, a
    /// part of a file that does not extend to its end) and for a block device.
    pub fn resize(&mut self, len: u64, space: Preallocation) -> Result<()> {
        let result = self.try_resize(len, space);
        self.named(result)
    }

    fn try_resize(&mut self, len: u64, space: Preallocation) -> Result<()> {
        self.must_be_writable()?;
        if self.header.luks1().is_none() {
            return Err(unsupported("only LUKS1 images can be resized"));
        }
        let start = match self.part() {
            _ if self.qcow2().is_some() => {
                return Err(unsupported("an image inside a qcow2 image cannot be resized"));
            }
            Some((_, Some(_))) => {
                return Err(unsupported("a part of fixed length cannot be resized"));
            }
            Some((start, None)) => start,
            None => 0,
        };
        if self.header.is_detached() && !self.container.is_detached() {
            return Err(unsupported("the header is detached: its payload is in another file"));
        }
        let begin = start.checked_add(self.header.payload_offset());
        let file_len = begin.and_then(|begin| begin.checked_add(len));
        let file_len = file_len.filter(|&len| i64::try_from(len).is_ok());
        let file_len = file_len.ok_or_else(|| invalid("The requested file size is too large"))?;
        let container = self.container.clone();
        let session = Session::open(&container, self.options.wait)?;
        self.read_again(&self.header.clone())?;
        let file = self.file().filter(|it| !it.is_block_device());
        let file = file.ok_or_else(|| unsupported("only regular files can be resized"))?;
        let failed = |e| Error::failed(Operation::Resize, "the file", e);
        file.set_len(file_len, space).map_err(failed)?;
        let failed = |e| Error::failed(Operation::Sync, "the new length", e);
        file.sync_data().map_err(failed)?;
        session.finish()
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn unsupported(text: &str) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}
