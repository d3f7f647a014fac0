//! Restores a header backup to an image, whose own header may be damaged or missing.

#[cfg(feature = "file")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "file")]
use super::OpenOptions;
use super::session::{Session, with_keyslot_of};
use crate::container::{Container, image_format};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{self, Backup, Fate, Header, Lowered, digest_of_start, lower_restore};
use crate::overrides::{Override, Overrides};
use crate::storage::Storage;
use crate::storage::transfer::length;
#[cfg(feature = "file")]
use crate::storage::{Access, FileRef, Sharing};

/// A restoration that passed all checks. The image is locked against all other users until the
/// restoration is [carried out](Restoration::run) or dropped.
#[derive(Debug)]
pub struct Restoration {
    container: Container,
    present: Present,
    backup: Backup,
    lowered: Lowered,
}

/// Present header of the image.
#[derive(Debug)]
enum Present {
    Valid(Box<header::Present>),
    /// No valid header, the reason, and the bytes that the backup replaces: their end, and SHA-256
    Gone(Error, u64, [u8; 32]),
}

impl Restoration {
    /// Locks an image as an amendment does, and plans the restoration. Nothing is written.
    ///
    /// Fails with [`ErrorKind::Refused`] if the backup was made of another image, unless
    /// [`Override::ForeignHeader`] is set, or if a copy of the header that cannot be read may be newer
    /// than the other, unless [`Override::NewerCopy`] is set. Fails with [`ErrorKind::NoFreeKeyslot`] or
    /// [`ErrorKind::Refused`] if an interruption of the restoration would lose secrets, unless
    /// [`Override::InPlace`] is set.
    ///
    /// An image without a valid header accepts any backup that fits. If its header is valid except for
    /// an erased magic, the backup must be of the same volume.
    #[cfg(feature = "file")]
    pub fn open(
        path: impl AsRef<Path>,
        backup: Backup,
        overrides: Overrides,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let options = options.clone().sharing(Sharing::Amend);
        let container = options.container(FileRef::Path(path), Access::ReadWrite)?;
        let is_same = backup.path().zip(container.file());
        let is_same = is_same.is_some_and(|(backup, file)| file.is_file(backup).unwrap_or(false));
        if is_same {
            let text = "the backup and the image are the same file";
            return Err(Error::new(ErrorKind::InvalidInput, text).with_path(path));
        }
        Self::new(container, backup, overrides).map_err(|error| error.with_path(path))
    }

    /// Plans a restoration on caller-supplied storage. The caller must exclude other users of it.
    pub fn on_storage(
        storage: impl Storage + 'static,
        backup: Backup,
        overrides: Overrides,
    ) -> Result<Self> {
        Self::new(Container::storage(Arc::new(storage)), backup, overrides)
    }

    fn new(container: Container, backup: Backup, overrides: Overrides) -> Result<Self> {
        let present = Present::of(&container, backup.as_bytes().len() as u64, overrides)?;
        let erased = match &present {
            Present::Valid(_) => None,
            Present::Gone(..) => container.read_header_to_repair().ok(),
        };
        let storage = container.header().as_ref();
        let lowered = lower_restore(storage, present.valid(), erased.as_ref(), &backup, overrides)?;
        Ok(Self { container, present, backup, lowered })
    }

    /// Present header of the image, or the reason why it has no valid one.
    pub fn present(&self) -> std::result::Result<&Header, &Error> {
        match &self.present {
            Present::Valid(present) => Ok(present.header()),
            Present::Gone(error, ..) => Err(error),
        }
    }

    /// Backup to restore.
    pub fn backup(&self) -> &Backup {
        &self.backup
    }

    /// Fates of the keyslots that are or will be active, by index.
    pub fn fates(&self) -> &[(usize, Fate)] {
        &self.lowered.fates
    }

    /// Warnings to show before the restoration is carried out.
    pub fn warnings(&self) -> &[String] {
        &self.lowered.warnings
    }

    /// Restores the header durably.
    ///
    /// Fails with [`ErrorKind::Changed`] if the present header changed since the plan was made. If it is
    /// a header of the same volume, the restoration is an amendment: at every instant the image opens
    /// with every secret common to both headers, and with all secrets of one of them. The text of an
    /// error describes the state of the image.
    pub fn run(self) -> Result<()> {
        let Self { container, present, backup, lowered } = self;
        let headers = [Some(backup.header()), present.valid().map(header::Present::header)];
        let headers = headers.into_iter().flatten();
        let done = Self::try_run(&container, &present, lowered);
        done.map_err(|error| container.named(with_keyslot_of(error, headers)))
    }

    fn try_run(container: &Container, present: &Present, lowered: Lowered) -> Result<()> {
        let session = Session::open(container, None)?;
        // Programs that take no lock may have changed the header while the user confirmed.
        if !present.is_still(container)? {
            let text = "the header changed since the restoration was planned";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        session.commit(lowered.stages.into_iter().map(Ok))?;
        session.finish()
    }
}

impl Present {
    fn of(container: &Container, backup_len: u64, overrides: Overrides) -> Result<Self> {
        let storage = container.header().as_ref();
        let Err(error) = container.read_header() else {
            return Ok(Self::Valid(Box::new(header::Present::read(storage)?)));
        };
        let gone = |error| {
            let end = length(storage)?.min(backup_len);
            Ok(Self::Gone(error, end, digest_of_start(storage, end)?))
        };
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NotLuks => gone(error),
            // A header of another version or with another hash may be valid.
            ErrorKind::Unsupported
                if overrides.has(Override::ForeignHeader)
                    && image_format(storage) != Some("qcow2") =>
            {
                gone(error)
            }
            _ => Err(error),
        }
    }

    fn valid(&self) -> Option<&header::Present> {
        match self {
            Self::Valid(present) => Some(present),
            Self::Gone(..) => None,
        }
    }

    fn is_still(&self, container: &Container) -> Result<bool> {
        let storage = container.header().as_ref();
        match self {
            Self::Valid(present) => Ok(header::Present::read(storage)?.is_same(present)),
            // An image that became shorter lacks bytes that were looked at.
            Self::Gone(_, end, digest) => {
                Ok(length(storage)? >= *end && digest_of_start(storage, *end)? == *digest)
            }
        }
    }
}
