//! qcow2 images: a LUKS1 header within the file, and the guest's data in clusters.

mod amend;
mod build;
mod data;
mod disk;
mod extension;
mod gate;
mod header;
mod layout;
mod raw;

#[cfg(feature = "file")]
pub(crate) use build::NewQcow2;
pub use build::Qcow2Options;
#[cfg(feature = "file")]
pub(crate) use data::Files as DiskFiles;
pub(crate) use data::Qcow2Map;
pub(crate) use disk::DiskOptions;
pub use disk::Qcow2Disk;
pub(crate) use gate::open_files;
pub use gate::{Gate, Purpose, Reference, Referenced};
pub use header::{Qcow2Compression, Qcow2Encryption, Qcow2Header};

use crate::error::{Error, ErrorKind};
#[cfg(feature = "file")]
use crate::storage::Storage;

/// Whether a storage begins with qcow2's magic.
#[cfg(feature = "file")]
pub(crate) fn is_qcow2(storage: &dyn Storage) -> bool {
    let mut magic = [0; 4];
    storage.read_exact_at(&mut magic, 0).is_ok() && magic == raw::MAGIC
}

fn corrupt(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, text)
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}
