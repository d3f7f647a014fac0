//! Files that an image names: only its caller may open them.

use std::fmt::{self, Debug};
use std::path::Path;
use std::sync::Arc;

use super::data::{Files, Qcow2Map};
use super::{Qcow2Encryption, Qcow2Header, corrupt, unsupported};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;
use crate::volume::{Keyring, Volume, VolumeStorage};

/// Opens the files that an image names, or refuses to.
///
/// A name comes from the image, so it may be hostile: `/etc/shadow`, or a device. Without a gate, an
/// image that needs another file is refused.
pub trait Gate: Debug + Send + Sync {
    /// Opens a file that an image names. The error should say that the file is not permitted.
    fn open(&self, reference: &Reference<'_>) -> Result<Referenced>;
}

/// The name of a file in an image.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Reference<'a> {
    /// Name as stored: a path, relative to the image that names it, or QEMU's `json:` or protocol
    /// syntax
    pub name: &'a [u8],
    /// Format that the image states, such as `raw` or `qcow2`
    pub format: Option<&'a [u8]>,
    /// Purpose of the file
    pub purpose: Purpose,
    /// Name of the image's storage, if it has one
    pub image: Option<&'a Path>,
}

/// Purpose of a file that an image names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Purpose {
    /// Holds the bytes of the disk that are not in the image
    Backing,
    /// Holds the image's clusters
    Data,
}

/// A file that a [`Gate`] opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Referenced {
    /// A storage with the bytes of the disk, decrypted if they are encrypted. For
    /// [`Purpose::Data`] always the file itself.
    Raw(Arc<dyn Storage>),
    /// An unencrypted qcow2 image. The files that it names go through the same gate.
    Qcow2(Arc<dyn Storage>),
    /// No backing file: the bytes that it would hold are zeros.
    Zeros,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Backing => "backing file",
            Self::Data => "external data file",
        })
    }
}

/// The gate that opens nothing.
#[derive(Clone, Copy, Debug)]
struct Closed;

impl Gate for Closed {
    fn open(&self, reference: &Reference<'_>) -> Result<Referenced> {
        let Reference { name, purpose, .. } = reference;
        let name = String::from_utf8_lossy(name);
        Err(unsupported(format!("the image needs the {purpose} {name:?}, which was not opened")))
    }
}

/// Opens the files that the image in `storage` names.
pub(crate) fn open_files(
    storage: &dyn Storage,
    header: &Qcow2Header,
    gate: Option<&dyn Gate>,
) -> Result<Files> {
    open_at(storage, header, gate.unwrap_or(&Closed), 0)
}

fn open_at(
    storage: &dyn Storage,
    header: &Qcow2Header,
    gate: &dyn Gate,
    depth: usize,
) -> Result<Files> {
    let mut files = Files::default();
    let image = storage.name();
    if let Some(name) = header.backing_file() {
        let (format, purpose) = (header.backing_format(), Purpose::Backing);
        let reference = Reference { name, format, purpose, image };
        files.below = match gate.open(&reference)? {
            Referenced::Zeros => None,
            Referenced::Raw(below) => Some(below),
            Referenced::Qcow2(below) => Some(backing(&below, gate, depth + 1)?),
        };
    }
    if header.has_data_file() {
        let name = header.data_file().unwrap_or_default();
        let reference = Reference { name, format: None, purpose: Purpose::Data, image };
        let Referenced::Raw(data) = gate.open(&reference)? else {
            let text = "an external data file must be opened as it is";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        };
        files.data = Some(data);
    }
    Ok(files)
}

/// The disk of a backing image.
fn backing(image: &Arc<dyn Storage>, gate: &dyn Gate, depth: usize) -> Result<Arc<dyn Storage>> {
    let name = image.name().map(Path::to_path_buf);
    if depth > DEEPEST {
        let text = format!("the image has more than {DEEPEST} backing files, or a cycle of them");
        return Err(corrupt(text).with_name(name.as_deref()));
    }
    let open = || {
        let header = Qcow2Header::read(image.as_ref())?;
        if header.encryption() != Qcow2Encryption::None {
            return Err(unsupported("the backing file is encrypted"));
        }
        let files = open_at(image.as_ref(), &header, gate, depth)?;
        let map = Qcow2Map::open(Arc::clone(image), header, files, None)?;
        let disk = Volume::over(Arc::new(map), &Keyring::default())?.read_only();
        Ok(Arc::new(VolumeStorage::from(disk)) as Arc<dyn Storage>)
    };
    open().map_err(|error| error.with_name(name.as_deref()))
}

/// Most backing files in a chain
const DEEPEST: usize = 64;
