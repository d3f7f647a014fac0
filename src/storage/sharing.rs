//! Locks that opened files are held with: QEMU's image locks and cryptsetup's.
//!
//! [`Sharing`] states which bytes of the file an open locks, and which bytes others must not have
//! locked.
//!
//! All locks are *read* locks, so any number of programs can hold the same byte. Holders of the
//! opposite byte are found by testing for a *write* lock, which no program takes. Because locking
//! comes before testing, two programs that start at once may both be refused but are never both
//! admitted. The locks belong to the open file description (`fcntl_locking(2)`), so two descriptors
//! exclude each other even within one process.
//!
//! QEMU's own amend releases its locks before its last sync. [`Sharing::Amend`] must be held from
//! before the header is read until that sync has returned. It excludes all other users, including
//! readers that would share everything.
//!
//! cryptsetup does not use these locks. It holds `flock(2)` on an image file while it writes a
//! LUKS2 header, so [`Sharing::Amend`] takes that lock too. For a block device cryptsetup locks a
//! file in `/run/cryptsetup`. There [`Sharing::Amend`] takes both locks and claims the device,
//! which keeps it from being mounted or mapped.
//!
//! # Forks
//!
//! After a `fork(2)` parent and child share the open file description and its locks. Neither
//! excludes the other, and the locks taken by the open are held until both have closed the file. An
//! [`Upgrade`] ends when the process that took it drops it; dropping the copy in the other process
//! has no effect. A child that is about to `exec` shares the locks too, so a refused lock is
//! retried for a tenth of a second even without a wait.

mod take;

use std::fmt;
use std::io;
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;

pub(super) use self::take::Held;
use self::take::{Obstacle, Refusal, Taken};
pub use super::holder::Holder;
use super::patience::Patience;
pub use super::permission::{Permissions, Sharing};
use super::{Access, FileRef, FileStorage, Leased};
use crate::error::{Error, ErrorKind, Operation, Result};

/// A refused lock, in QEMU's terms. It is the [source](std::error::Error::source) of an
/// [`ErrorKind::InUse`] error.
///
/// [`fmt::Display`] prints QEMU's own text, `Failed to get "write" lock`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Conflict {
    text: String,
    holders: Vec<Holder>,
    used: Permissions,
    refused: Permissions,
    is_claimed: bool,
}

/// Options for holding a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    pub sharing: Sharing,
    /// Time to wait for other users
    pub wait: Option<Duration>,
    /// Accept a block device that is mounted or mapped
    pub busy_device: bool,
    /// Bypass the page cache
    pub direct: bool,
}

/// A file held with additional locks, until this is dropped.
#[derive(Debug)]
#[must_use = "the file goes back to what it was opened with as soon as this is dropped"]
pub struct Upgrade {
    storage: Arc<FileStorage>,
    /// `None` once released
    taken: Option<Taken>,
    owner: u32,
}

impl FileStorage {
    /// Opens an existing file and holds `sharing` until it is closed.
    ///
    /// Retries while other users are in the way, until `wait` has passed, and then fails with
    /// [`ErrorKind::InUse`], naming them. Also fails on a file system without such locks and, with
    /// [`Sharing::Amend`], on a block device that is mounted or mapped.
    pub fn open_shared(
        path: impl AsRef<Path>,
        access: Access,
        sharing: Sharing,
        wait: Option<Duration>,
    ) -> Result<Self> {
        let claim = Claim { sharing, wait, ..Claim::default() };
        Self::open_claimed(FileRef::Path(path.as_ref()), access, claim)
    }

    pub(crate) fn open_claimed(file: FileRef<'_>, access: Access, claim: Claim) -> Result<Self> {
        let Claim { sharing, wait, busy_device, direct } = claim;
        let mut patience = Patience::new(wait);
        loop {
            let storage = Self::open_within(file, access, direct, wait.map(|_| &mut patience))?;
            storage.held().shares_device = busy_device;
            storage.retry(&mut patience, |held| {
                held.taken = storage.take(sharing, held)?;
                held.base = sharing;
                Ok(())
            })?;
            // The previous holder may have replaced the file. Then this lock is on a file without a
            // name.
            let failed = |err| Error::io(CHECK_PATH, err).with_path(storage.path());
            if storage.is_at_its_path().map_err(failed)? {
                return Ok(storage);
            }
        }
    }

    /// Holds `sharing` as well until the guard is dropped, which restores exactly the locks that
    /// [`open_shared`](Self::open_shared) took.
    ///
    /// Only one upgrade can exist at a time: a second one waits or fails, as it would for another
    /// process. A refused upgrade has no effect.
    pub fn upgrade(self: &Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Upgrade> {
        let taken = self.retry(&mut Patience::new(wait), |held| {
            if held.upgraded.is_some() {
                let text = "Failed to upgrade the lock".into();
                return Err(Refusal::Busy(text, Obstacle::Ourselves));
            }
            let taken = self.take(sharing, held)?;
            held.upgraded = Some(sharing);
            Ok(taken)
        })?;
        Ok(Upgrade { storage: Arc::clone(self), taken: Some(taken), owner: process::id() })
    }

    /// The sharing mode this file is currently held with.
    pub fn sharing(&self) -> Sharing {
        let held = self.held();
        held.upgraded.unwrap_or(held.base)
    }
}

impl Upgrade {
    /// The file.
    pub fn storage(&self) -> &Arc<FileStorage> {
        &self.storage
    }
}

impl Leased for Upgrade {
    fn is_in_place(&self) -> io::Result<bool> {
        self.storage.is_at_its_path()
    }
}

impl Drop for Upgrade {
    fn drop(&mut self) {
        let mut held = self.storage.held();
        if let Some(taken) = self.taken.take()
            && self.owner == process::id()
        {
            self.storage.give_back(taken, held.base);
        }
        held.upgraded = None;
    }
}

impl Conflict {
    /// Permissions that other programs use and that conflict.
    pub fn used(&self) -> Permissions {
        self.used
    }

    /// Permissions that other programs do not share and that conflict.
    pub fn refused(&self) -> Permissions {
        self.refused
    }

    /// The conflicting processes, by pid. Empty if they cannot be inspected.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }

    /// Whether the file is a block device in use by the system: mounted or mapped.
    pub fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    pub(super) fn new(text: impl Into<String>, holders: Vec<Holder>) -> Self {
        Self { text: text.into(), holders, ..Self::default() }
    }

    /// Converts to an error that names the processes, or says `verb` of "another process".
    pub(super) fn into_error(self, verb: &str) -> Error {
        let names = match &self.holders[..] {
            [] => "another process".into(),
            holders => holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", "),
        };
        Error::new(ErrorKind::InUse, format!("{self}: {verb} {names}"))
            .with_operation(Operation::Lock)
            .with_source(self)
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Conflict {}

pub(super) const CHECK_PATH: &str = "check that the path still leads to the opened file";
