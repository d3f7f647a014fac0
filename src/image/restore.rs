//! A saved header put back into its image, whose own may be damaged or gone.

#[cfg(feature = "file")]
use std::path::Path;
use std::sync::Arc;

#[cfg(feature = "file")]
use super::OpenOptions;
use super::session::Session;
use crate::container::{Container, image_format};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{self, Backup, Fate, Header, Lowered, lower_restore};
use crate::overrides::{Override, Overrides};
use crate::storage::Storage;
#[cfg(feature = "file")]
use crate::storage::{Access, Sharing};

/// A restoration that passed all checks, of an image that is locked against everybody else until
/// it is [carried out](Restoration::run) or dropped.
#[derive(Debug)]
pub struct Restoration {
    container: Container,
    present: Present,
    backup: Backup,
    lowered: Lowered,
}

/// What an image has for a header.
#[derive(Debug)]
enum Present {
    Valid(Box<header::Present>),
    /// None that is valid, and why
    Gone(Error),
}

impl Restoration {
    /// Locks an image as an amendment does, and says what the backup would do to it. Nothing is
    /// written. Of `options`, the wait for others and whether a block device may be busy count.
    ///
    /// [`ErrorKind::Refused`] if it is not the image that the backup was made of, and
    /// [`ErrorKind::NoFreeKeyslot`] if it can only be done in a way that an interruption would make
    /// a loss; unless [`Override::ForeignHeader`] and [`Override::InPlace`] lift them. An image without a valid header takes any backup that
    /// fits it, but with a header that lacks nothing but its magic only one of the same volume.
    #[cfg(feature = "file")]
    pub fn open(
        path: impl AsRef<Path>,
        backup: Backup,
        overrides: Overrides,
        options: &OpenOptions,
    ) -> Result<Self> {
        let path = path.as_ref();
        let options = options.clone().sharing(Sharing::Amend);
        let container = options.container(path, Access::ReadWrite)?;
        let is_same = backup.path().zip(container.file());
        let is_same = is_same.is_some_and(|(backup, file)| file.is_file(backup).unwrap_or(false));
        if is_same {
            let text = "the backup and the image are the same file";
            return Err(Error::new(ErrorKind::InvalidInput, text).with_path(path));
        }
        Self::new(container, backup, overrides).map_err(|error| error.with_path(path))
    }

    /// The same on a storage of your own. Keeping others from it meanwhile is yours too.
    pub fn on_storage(
        storage: impl Storage + 'static,
        backup: Backup,
        overrides: Overrides,
    ) -> Result<Self> {
        Self::new(Container::storage(Arc::new(storage)), backup, overrides)
    }

    fn new(container: Container, backup: Backup, overrides: Overrides) -> Result<Self> {
        let present = Present::of(&container, overrides)?;
        let erased = match &present {
            Present::Valid(_) => None,
            Present::Gone(_) => container.read_header_to_repair().ok(),
        };
        let storage = container.header().as_ref();
        let lowered = lower_restore(storage, present.valid(), erased.as_ref(), &backup, overrides)?;
        Ok(Self { container, present, backup, lowered })
    }

    /// The header that the image has now, or why it has none.
    pub fn present(&self) -> std::result::Result<&Header, &Error> {
        match &self.present {
            Present::Valid(present) => Ok(present.header()),
            Present::Gone(error) => Err(error),
        }
    }

    /// What is restored.
    pub fn backup(&self) -> &Backup {
        &self.backup
    }

    /// What becomes of the keyslots that are or will be active, by index.
    pub fn fates(&self) -> &[(usize, Fate)] {
        &self.lowered.fates
    }

    /// What somebody should know before it is done.
    pub fn warnings(&self) -> &[String] {
        &self.lowered.warnings
    }

    /// Restores the header, durably.
    ///
    /// What the image has for a header must still be what was looked at
    /// ([`ErrorKind::Changed`]). If it is one of the same volume, this is an amendment: at every
    /// instant the image opens with all secrets that are in both, and with all of the old
    /// or all of the new ones. After an error the text says in which state the image is.
    pub fn run(self) -> Result<()> {
        let Self { container, present, lowered, .. } = self;
        Self::try_run(&container, &present, lowered).map_err(|error| container.named(error))
    }

    fn try_run(container: &Container, present: &Present, lowered: Lowered) -> Result<()> {
        let session = Session::open(container, None)?;
        // Programs that know of no lock may have been here while somebody was asked.
        if !present.is_still(container)? {
            let text = "the header changed since the restoration was planned";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        session.commit(lowered.stages.into_iter().map(Ok))?;
        session.finish()
    }
}

impl Present {
    fn of(container: &Container, overrides: Overrides) -> Result<Self> {
        let storage = container.header().as_ref();
        let Err(error) = container.read_header() else {
            return Ok(Self::Valid(Box::new(header::Present::read(storage)?)));
        };
        match error.kind() {
            ErrorKind::Corrupt | ErrorKind::NotLuks => Ok(Self::Gone(error)),
            // Of another version or with another hash: valid, for all we know.
            ErrorKind::Unsupported
                if overrides.has(Override::ForeignHeader)
                    && image_format(storage) != Some("qcow2") =>
            {
                Ok(Self::Gone(error))
            }
            _ => Err(error),
        }
    }

    fn valid(&self) -> Option<&header::Present> {
        match self {
            Self::Valid(present) => Some(present),
            Self::Gone(_) => None,
        }
    }

    fn is_still(&self, container: &Container) -> Result<bool> {
        match self {
            Self::Valid(present) => {
                Ok(header::Present::read(container.header().as_ref())?.is_same(present))
            }
            Self::Gone(error) => {
                let now = container.read_header().err();
                Ok(now.is_some_and(|now| now.message() == error.message()))
            }
        }
    }
}
