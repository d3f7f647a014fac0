//! A raw file, or a part of one.

use std::sync::Arc;

use keyslot::qemu::ImageSpec;
use keyslot::storage::{Access, FileStorage, Storage, Window};
use keyslot::{Error, ErrorKind, Result, Sharing};

/// A locked file, and the storage that is the part of it which counts.
pub struct RawFile {
    file: Arc<FileStorage>,
    storage: Arc<dyn Storage>,
}

impl RawFile {
    /// Opens the file that the options name, and locks all of it.
    pub fn open(spec: &ImageSpec, access: Access, sharing: Sharing) -> Result<Self> {
        let file = Arc::new(FileStorage::open_shared(&spec.path, access, sharing, None)?);
        let whole: Arc<dyn Storage> = Arc::<FileStorage>::clone(&file);
        if !spec.is_part() {
            return Ok(Self { file, storage: whole });
        }
        let (offset, size) = (spec.offset, spec.size);
        let window = Window::new(whole, offset, size).map_err(|_| {
            let end = size.map_or(offset, |size| offset.saturating_add(size));
            let text = format!("the part of the file ends at byte {end}, behind the file's end");
            Error::new(ErrorKind::InvalidInput, text)
        })?;
        Ok(Self { file, storage: Arc::new(window) })
    }

    pub fn file(&self) -> &FileStorage {
        &self.file
    }

    pub fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }
}
