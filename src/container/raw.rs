//! Raw images: data without a header.

use std::path::Path;
use std::sync::Arc;

use super::{Container, Located, Part};
use crate::error::Result;
use crate::storage::sharing::Claim;
use crate::storage::{Access, FileRef, FileStorage, Storage};

/// A file or a part of one, without a header of its own. The file is locked until this is dropped.
///
/// Opened by [`OpenOptions::open_raw`](crate::OpenOptions::open_raw).
#[derive(Debug)]
pub struct RawImage {
    file: Arc<FileStorage>,
    storage: Arc<dyn Storage>,
}

impl RawImage {
    pub(crate) fn open(path: &Path, part: &Part, access: Access, claim: Claim) -> Result<Self> {
        let at = Located::raw(part);
        let (container, file) = Container::open_file(FileRef::Path(path), &at, access, claim)?;
        Ok(Self { file, storage: Arc::clone(container.payload()) })
    }

    /// The whole file.
    pub fn file(&self) -> &FileStorage {
        &self.file
    }

    /// The bytes of the image: the file, or a window on a part of it.
    pub fn storage(&self) -> &Arc<dyn Storage> {
        &self.storage
    }
}
