//! A header saved in a file of its own.

use std::path::Path;

use super::Image;
use crate::container::explain;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::Backup;
use crate::storage::{Access, FileStorage, Place, Preallocation, Storage};

impl Image {
    /// Saves the header and the areas of its keyslots in a new file, durably.
    ///
    /// The file has mode 0600, is one that cryptsetup's `luksHeaderRestore` takes, and keeps every
    /// secret of today alive: with it an erased one opens the image again. [`ErrorKind::Exists`]
    /// if there is a file of this name.
    pub fn backup_header(&self, path: impl AsRef<Path>) -> Result<Backup> {
        let place = Place::new(path, false).map_err(not_replaced)?.private();
        let backup = self.named(Backup::read(self.storage()))?;
        backup.save(place)?;
        Ok(backup)
    }
}

impl Backup {
    /// Reads the backup in a file, one of [`Image::backup_header`] or of cryptsetup's
    /// `luksHeaderBackup`. An image is as good: only its start is read.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = FileStorage::open(path, Access::ReadOnly)?;
        let backup = Self::read(&file);
        let backup = backup.map_err(|error| explain(error, &file).with_path(path))?;
        Ok(backup.with_path(path))
    }

    fn save(&self, place: Place) -> Result<()> {
        let bytes = self.as_bytes();
        let file = place.create(bytes.len() as u64, Preallocation::Off)?;
        file.storage().write_all_at(bytes, 0).map_err(|error| {
            let object = format_args!("{} bytes", bytes.len());
            Error::failed(Operation::Write, object, error).with_offset(0).with_path(file.path())
        })?;
        file.publish().map_err(not_replaced)
    }
}

fn not_replaced(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Exists => error.with_hint("no file is replaced by a backup: give it a new name"),
        _ => error,
    }
}
