//! Files that a qcow2 image names, which are opened only if the user permits it.

use std::path::Path;
use std::sync::Arc;

use keyslot::container::{Gate, Purpose, Reference, Referenced};
use keyslot::storage::{Access, FileStorage, Sharing};
use keyslot::{Error, ErrorKind, Result};

use super::super::image_spec::named_file;

/// Opens the raw and qcow2 files that an image names, read-only and locked as QEMU locks them. Refuses
/// names that are not paths.
#[derive(Debug)]
pub struct NamedFiles {
    /// How the image itself is opened
    pub sharing: Sharing,
}

impl Gate for NamedFiles {
    fn open(&self, reference: &Reference<'_>) -> Result<Referenced> {
        let name = reference.name;
        let shown = String::from_utf8_lossy(name);
        let image = reference.image.unwrap_or(Path::new(""));
        let Some(path) = named_file(image, name).filter(|_| !name.is_empty()) else {
            let text = format!("the {} {shown:?} is not a path", reference.purpose);
            return Err(Error::new(ErrorKind::Unsupported, text));
        };
        let file = FileStorage::open_shared(&path, Access::ReadOnly, self.sharing, None)?;
        match (reference.purpose, reference.format) {
            (Purpose::Data, _) | (_, Some(b"raw")) => Ok(Referenced::Raw(Arc::new(file))),
            (_, Some(b"qcow2")) => Ok(Referenced::Qcow2(Arc::new(file))),
            (_, Some(format)) => {
                let format = String::from_utf8_lossy(format);
                let text = format!("a backing file of format {format:?} is not supported");
                Err(Error::new(ErrorKind::Unsupported, text).with_path(path))
            }
            // A guest that writes qcow2's magic to a raw backing file must not choose the format.
            (_, None) => {
                let text = "the image does not name the format of this backing file";
                Err(Error::new(ErrorKind::Unsupported, text).with_path(path))
            }
        }
    }
}
