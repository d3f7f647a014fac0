//! Containers in local files.

use std::path::Path;
use std::sync::Arc;

use super::qcow2::is_qcow2;
use super::{Container, DiskFormat, DiskOptions, Located, Part};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::sharing::Claim;
use crate::storage::{Access, FileRef, FileStorage, Sharing, Storage};

/// The files that were opened.
#[derive(Clone, Debug, Default)]
pub(super) struct Files {
    /// The file that is the image, or contains it
    pub(super) image: Option<Arc<FileStorage>>,
    /// The file with a detached header
    pub(super) header: Option<Arc<FileStorage>>,
}

impl Container {
    /// Opens an image in a file or a part of one, held with `claim` until the container is dropped.
    pub fn open(file: FileRef<'_>, at: &Located<'_>, access: Access, claim: Claim) -> Result<Self> {
        let (container, _) = Self::open_file(file, at, access, claim)?;
        Ok(container)
    }

    /// Like [`open`](Self::open), but also returns the file.
    pub(super) fn open_file(
        file: FileRef<'_>,
        at: &Located<'_>,
        access: Access,
        claim: Claim,
    ) -> Result<(Self, Arc<FileStorage>)> {
        let file = Arc::new(open_locked(file, at.format, access, claim)?);
        let whole: Arc<dyn Storage> = Arc::<FileStorage>::clone(&file);
        let disk = DiskOptions { is_read_only: access == Access::ReadOnly, ..at.disk };
        let container = Self::locate(whole, &Located { disk, ..*at });
        let container = container.map_err(|error| error.with_path(file.path()))?;
        let files = Files { image: Some(Arc::clone(&file)), header: None };
        Ok((Self { files, ..container }, file))
    }

    /// Opens an image whose header is in another file. Both files are held until the container is
    /// dropped. An amendment locks both exclusively, and reading or writing the payload excludes
    /// amendments of the header.
    pub fn open_detached(
        (header, header_part): (&Path, &Part),
        (image, part): (FileRef<'_>, &Part),
        access: Access,
        claim: Claim,
    ) -> Result<Self> {
        if FileRef::Path(header).is_same_file(image).unwrap_or(false) {
            return Self::open_one_file(image, header_part, part, access, claim);
        }
        let header_sharing = match claim.sharing {
            sharing @ (Sharing::Amend | Sharing::None) => sharing,
            _ => Sharing::ReadData,
        };
        let header_claim = Claim { sharing: header_sharing, direct: false, ..claim };
        // It is written only if the image is amended while it is in use.
        let (header, file) = or_read_only(header_sharing == Sharing::ReadData, access, |access| {
            let header = FileRef::Path(header);
            Self::open_file(header, &Located::raw(header_part), access, header_claim)
        })?;
        if file.is_same_file(image).unwrap_or(false) {
            let text = "the header was replaced by the image while they were opened";
            return Err(Error::new(ErrorKind::Changed, text).with_path(image.name()));
        }
        let access = if claim.sharing == Sharing::None { Access::ReadOnly } else { access };
        // Only the header is changed when keyslots are.
        let payload = or_read_only(claim.sharing == Sharing::Amend, access, |access| {
            Self::open(image, &Located::raw(part), access, claim)
        })?;
        let header = header.payload;
        let files = Files { header: Some(file), ..payload.files.clone() };
        Ok(Self { header, is_detached: true, files, ..payload })
    }

    /// The file with the header, if it is detached.
    pub fn header_file(&self) -> Option<&Arc<FileStorage>> {
        self.files.header.as_ref()
    }

    /// The file opened as the image.
    pub fn file(&self) -> Option<&Arc<FileStorage>> {
        self.files.image.as_ref()
    }
}

impl<'a> Located<'a> {
    /// A part of a file of any contents.
    pub(super) fn raw(part: &'a Part) -> Self {
        let disk =
            DiskOptions { gate: None, is_read_only: true, is_unordered: false, is_held: false };
        Self { part, format: Some(DiskFormat::Raw), disk }
    }
}

/// Opens and locks a file with an image of this format. The tables of a qcow2 image change with its
/// data, so QEMU has other locks for using its data.
pub(crate) fn open_locked(
    file: FileRef<'_>,
    format: Option<DiskFormat>,
    access: Access,
    claim: Claim,
) -> Result<FileStorage> {
    let storage = FileStorage::open_claimed(file, access, claim)?;
    let sharing = claim.sharing.of_qcow2();
    if sharing == claim.sharing || format == Some(DiskFormat::Raw) || !is_qcow2(&storage) {
        return Ok(storage);
    }
    drop(storage);
    FileStorage::open_claimed(file, access, Claim { sharing, ..claim })
}

/// Opens with `access`, or, if that suffices, read-only where the permissions allow no more.
fn or_read_only<T>(
    suffices: bool,
    access: Access,
    open: impl Fn(Access) -> Result<T>,
) -> Result<T> {
    match open(access) {
        Err(error) if suffices && error.kind() == ErrorKind::PermissionDenied => {
            open(Access::ReadOnly)
        }
        opened => opened,
    }
}
