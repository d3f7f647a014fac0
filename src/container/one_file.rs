//! A detached header and its payload in two parts of one file.

use std::ops::Range;
use std::sync::Arc;

use super::file::Files;
use super::{Container, Located, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::storage::sharing::Claim;
use crate::storage::transfer::length;
use crate::storage::{Access, FileRef, FileStorage, Storage, Window};

impl Container {
    /// Opens a file that holds both a detached header and its payload. The file is opened once, because
    /// two descriptors would exclude each other by their locks.
    ///
    /// Fails with [`ErrorKind::InvalidInput`] if the two parts overlap. A header part without a length
    /// ends where the header does.
    pub(super) fn open_one_file(
        file: FileRef<'_>,
        header: &Part,
        payload: &Part,
        access: Access,
        claim: Claim,
    ) -> Result<Self> {
        if *header == Part::Whole && *payload == Part::Whole {
            let text = "the header and the image are the same file";
            return Err(Error::new(ErrorKind::InvalidInput, text).with_path(file.name()));
        }
        let (container, file) = Self::open_file(file, &Located::raw(payload), access, claim)?;
        let path = file.path();
        let header = header_window(&file, header, &container);
        let header = header.map_err(|error| error.with_path(path))?;
        let files = Files { header: Some(Arc::clone(&file)), ..container.files.clone() };
        Ok(Self { header: Arc::new(header), is_detached: true, files, ..container })
    }
}

/// The window on the header's part. It ends before the payload.
fn header_window(file: &Arc<FileStorage>, part: &Part, payload: &Container) -> Result<Window> {
    let whole: Arc<dyn Storage> = Arc::<FileStorage>::clone(file);
    let end = length(&whole)?;
    let window = |offset, len| {
        Window::new(Arc::clone(&whole), offset, len).map_err(|e| Error::io("find the header", e))
    };
    let header = match part.of(&whole)? {
        Some(window) => window,
        None => window(0, None)?,
    };
    let range = |offset: u64, len: Option<u64>| offset..len.map_or(end, |len| offset + len);
    let (start, len) = payload.part().unwrap_or_default();
    let payload = range(start, len);
    let offset = header.offset();
    let room = payload.start.checked_sub(offset).filter(|_| header.fixed_len().is_none());
    let Some(room) = room else {
        check_disjoint(&range(offset, header.fixed_len()), &payload)?;
        return Ok(header);
    };
    // Bytes that are not a header have no end either, and are refused when they are read.
    let used = Header::read(&header).and_then(|header| header.end()).unwrap_or(0);
    check_disjoint(&range(offset, Some(used)), &payload)?;
    window(offset, Some(room))
}

fn check_disjoint(header: &Range<u64>, payload: &Range<u64>) -> Result<()> {
    if header.end <= payload.start || payload.end <= header.start {
        return Ok(());
    }
    let text = format!(
        "the header and the image overlap: bytes {} to {} and {} to {} of the file",
        header.start, header.end, payload.start, payload.end
    );
    Err(Error::new(ErrorKind::InvalidInput, text))
}
