//! Header backups in files.

use std::path::Path;

use super::Image;
use crate::container::explain;
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::Backup;
use crate::storage::{Access, FileStorage, Place, Preallocation, Storage};

impl Image {
    /// Saves the header and the areas of its keyslots durably in a new file.
    ///
    /// The file has mode 0600, and cryptsetup's `luksHeaderRestore` accepts it. It keeps every present
    /// secret valid: after a restore, a secret erased since opens the image again. Fails with
    /// [`ErrorKind::Exists`] if the file exists.
    pub fn backup_header(&self, path: impl AsRef<Path>) -> Result<Backup> {
        let place = Place::new(path, false).map_err(not_replaced)?.private();
        let backup = self.named(Backup::read(self.storage()))?;
        backup.save(place)?;
        Ok(backup)
    }
}

impl Backup {
    /// Reads a backup file made by [`Image::backup_header`] or by cryptsetup's `luksHeaderBackup`. The file
    /// can also be a whole image, of which only the start is read.
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
            let object = format!("{} bytes", bytes.len());
            Error::failed(Operation::Write, object, error).with_offset(0).with_path(file.path())
        })?;
        file.publish().map_err(not_replaced)
    }
}

fn not_replaced(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Exists => {
            error.with_hint("choose another name, a backup never overwrites a file")
        }
        _ => error,
    }
}
