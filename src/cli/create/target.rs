//! The target of `create`: a new file, an existing file or device, or a detached header.

use std::path::Path;

use keyslot::storage::{Access, FileStorage, Place, Preallocation, Storage};
use keyslot::{
    CreateOptions, Created, Error, ErrorKind, OpenOptions, Operation, Passphrase, Result,
};

use super::super::location::LocationArgs;

/// An image to create.
pub enum Target<'a> {
    /// A file with a header and `size` bytes of payload
    New { path: &'a Path, size: u64 },
    /// An image in an existing file or device, or in a part of it
    InPlace { path: &'a Path },
    /// A file with a detached header for `size` bytes of payload, and the payload's file
    Detached { header: &'a Path, size: u64, payload: Payload<'a> },
}

/// The file with the payload of a detached header.
#[derive(Clone, Copy)]
pub enum Payload<'a> {
    /// Not named
    Unnamed,
    /// Existing, and left as it is
    Existing,
    /// Created
    New(&'a Path),
}

impl<'a> Target<'a> {
    /// The target that the command line asks for. `size` is the payload's, if one is given.
    pub fn new(
        path: &'a Path,
        size: Option<u64>,
        is_detached: bool,
        location: &'a LocationArgs,
    ) -> Result<Self> {
        let no_size = || invalid("Image creation needs a size parameter");
        if let Some(header) = location.header() {
            if header == path {
                return Err(invalid(SAME_FILE));
            }
            let exists = path.symlink_metadata().is_ok();
            return match size {
                Some(_) if exists => Err(invalid("already exists: omit SIZE to use it as it is")),
                None if !exists => Err(no_size()),
                Some(size) => Ok(Self::Detached { header, size, payload: Payload::New(path) }),
                None => {
                    let file = FileStorage::open(path, Access::ReadOnly)?;
                    if file.is_file(header).unwrap_or(false) {
                        return Err(invalid(SAME_FILE));
                    }
                    let size =
                        file.len().map_err(|e| Error::failed(Operation::Read, "the length", e))?;
                    Ok(Self::Detached { header, size, payload: Payload::Existing })
                }
            };
        }
        if is_detached {
            location.check_none("a detached header")?;
            let (size, payload) = (size.unwrap_or(0), Payload::Unnamed);
            return Ok(Self::Detached { header: path, size, payload });
        }
        let is_device =
            || FileStorage::open(path, Access::ReadOnly).is_ok_and(|it| it.is_block_device());
        match size {
            Some(_) if location.is_part() => {
                Err(invalid("SIZE does not apply to a part of a file, whose length is fixed"))
            }
            None if location.is_part() || is_device() => Ok(Self::InPlace { path }),
            Some(size) => Ok(Self::New { path, size }),
            None => Err(no_size()),
        }
    }

    /// Size of the payload in bytes, if known in advance.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::New { size, .. } | Self::Detached { size, .. } => Some(*size),
            Self::InPlace { .. } => None,
        }
    }

    /// The new file with the header, if there is one.
    pub fn new_file(&self) -> Option<&Path> {
        match self {
            Self::New { path, .. } => Some(path),
            Self::Detached { header, .. } => Some(header),
            Self::InPlace { .. } => None,
        }
    }

    /// Creates the image.
    pub fn make(
        &self,
        create: CreateOptions,
        location: &LocationArgs,
        space: Preallocation,
        secret: &Passphrase,
    ) -> Result<Created> {
        match *self {
            Self::New { path, size } => create.create(path, size, secret),
            Self::InPlace { path } => {
                let place = location.apply(OpenOptions::new());
                create.create_in(path, &place, secret)
            }
            Self::Detached { header: path, size, payload } => {
                let create = create.detached(true);
                let image = create.preallocation(Preallocation::Off).begin(path, size, secret)?;
                if let Payload::New(path) = payload {
                    let place = Place::new(path, false)?;
                    place.create(size.next_multiple_of(512), space)?.publish()?;
                }
                image.finish()
            }
        }
    }

    /// The file of the detached header, if it is not the image that was named.
    pub fn header_file(&self) -> Option<&Path> {
        match self {
            Self::Detached { header, payload: Payload::Existing | Payload::New(_), .. } => {
                Some(header)
            }
            _ => None,
        }
    }
}

const SAME_FILE: &str = "the header and the image are the same file";

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
