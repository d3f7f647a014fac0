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

use std::fmt;
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::process;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::device::{self, Busy, Device};
pub use super::holder::Holder;
use super::holder::{Lock, holders};
use super::patience::Patience;
pub use super::permission::{Permissions, Sharing};
use super::{Access, FileStorage, Leased, loop_device, ofd};
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
        Self::open_claimed(path.as_ref(), access, Claim { sharing, wait, busy_device: false })
    }

    pub(crate) fn open_claimed(path: &Path, access: Access, claim: Claim) -> Result<Self> {
        let Claim { sharing, wait, busy_device } = claim;
        let mut patience = Patience::new(wait);
        loop {
            let storage = Self::open_within(path, access, wait.map(|_| &mut patience))?;
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

/// State of the locks of a [`FileStorage`].
#[derive(Debug, Default)]
pub(super) struct Held {
    base: Sharing,
    /// The locks taken for it
    taken: Taken,
    upgraded: Option<Sharing>,
    /// Accept a block device that is mounted or mapped.
    shares_device: bool,
}

/// Locks that were newly taken.
#[derive(Debug, Default)]
struct Taken {
    bytes: Vec<u8>,
    flock: bool,
    device: Option<Device>,
    /// The file below a loop device
    backing: Option<Box<FileStorage>>,
}

/// Reason for which an attempt failed.
enum Refusal {
    /// Conflict: QEMU's text and the obstacle.
    Busy(String, Obstacle),
    /// The file below a loop device is in use.
    BackingBusy(Error),
    Failed(Error),
}

enum Obstacle {
    Lock(Lock),
    Device(Busy),
    Ourselves,
}

pub(super) const CHECK_PATH: &str = "check that the path still leads to the opened file";

impl FileStorage {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retries until an attempt is not refused or `patience` runs out.
    fn retry<T>(
        &self,
        patience: &mut Patience,
        attempt: impl Fn(&mut Held) -> std::result::Result<T, Refusal>,
    ) -> Result<T> {
        loop {
            let refusal = match attempt(&mut self.held()) {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Failed(err)) => return Err(err.with_path(self.path())),
                Err(refusal) => refusal,
            };
            if !patience.pause() {
                return Err(match refusal {
                    Refusal::Busy(text, obstacle) => self.in_use(text, &obstacle),
                    Refusal::BackingBusy(err) | Refusal::Failed(err) => err,
                });
            }
        }
    }

    /// Locks, then tests, and undoes the locks if refused. `held` is the state before.
    fn take(&self, sharing: Sharing, held: &Held) -> std::result::Result<Taken, Refusal> {
        let base = held.base;
        let mut taken = Taken::default();
        let result = self.take_bytes(sharing, base, &mut taken.bytes).and_then(|()| {
            // flock comes last: on NFS it is a lock on all bytes.
            if sharing == Sharing::Amend && base != Sharing::Amend {
                self.take_flock()?;
                taken.flock = true;
                if self.is_block_device() {
                    taken.device = Some(self.take_device(held.shares_device)?);
                    taken.backing = self.take_backing()?;
                } else if !held.shares_device {
                    self.refuse_attached()?;
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(taken),
            Err(refusal) => {
                self.give_back(taken, base);
                Err(refusal)
            }
        }
    }

    /// Locks the file below a loop device against programs that use QEMU's locks.
    fn take_backing(&self) -> std::result::Result<Option<Box<FileStorage>>, Refusal> {
        let failed =
            |err| Refusal::Failed(Error::failed(Operation::Open, "the loop device's file", err));
        let device = self.file.metadata().map_err(failed)?;
        let Some(path) = loop_device::backing_file(&device) else { return Ok(None) };
        // The device itself being attached to the file is no obstacle.
        let claim = Claim { sharing: Sharing::Amend, wait: None, busy_device: true };
        match Self::open_claimed(&path, Access::ReadOnly, claim) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(err) if err.kind() == ErrorKind::InUse => Err(Refusal::BackingBusy(err)),
            Err(err) => Err(Refusal::Failed(err)),
        }
    }

    /// Refuses a file that is attached to a loop device.
    fn refuse_attached(&self) -> std::result::Result<(), Refusal> {
        let failed = |err| Refusal::Failed(Error::failed(Operation::Open, "the file", err));
        let devices = loop_device::devices_over(&self.file.metadata().map_err(failed)?);
        if devices.is_empty() {
            return Ok(());
        }
        let text = "Failed to open the file exclusively".into();
        Err(Refusal::Busy(text, Obstacle::Device(Busy::Claimed(devices))))
    }

    fn take_device(&self, shares_claim: bool) -> std::result::Result<Device, Refusal> {
        let busy = match device::hold(&self.file, self.path(), shares_claim) {
            Ok(Ok(device)) => return Ok(device),
            Ok(Err(busy)) => busy,
            Err(error) => return Err(Refusal::Failed(error)),
        };
        let text = match &busy {
            Busy::Locked(_) => "Failed to lock the device",
            Busy::Claimed(_) => "Failed to open the device exclusively",
        };
        Err(Refusal::Busy(text.into(), Obstacle::Device(busy)))
    }

    fn take_bytes(
        &self,
        sharing: Sharing,
        base: Sharing,
        taken: &mut Vec<u8>,
    ) -> std::result::Result<(), Refusal> {
        for byte in sharing.locks().filter(|byte| !base.locks().any(|held| held == *byte)) {
            match ofd::lock(&self.file, byte) {
                Ok(()) => taken.push(byte),
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    let lock = Obstacle::Lock(Lock::Bytes(vec![byte]));
                    return Err(Refusal::Busy(format!("Failed to lock byte {byte}"), lock));
                }
                Err(errno) => return Err(Refusal::Failed(ofd::impossible(byte, errno))),
            }
        }

        let mut first = None;
        let mut conflicting = Vec::new();
        for (byte, text) in sharing.tests() {
            match ofd::is_locked_by_another(&self.file, byte) {
                Ok(true) => {
                    first.get_or_insert(text);
                    conflicting.push(byte);
                }
                Ok(false) => {}
                Err(errno) => return Err(Refusal::Failed(ofd::impossible(byte, errno))),
            }
        }
        match first {
            None => Ok(()),
            Some(text) => Err(Refusal::Busy(text, Obstacle::Lock(Lock::Bytes(conflicting)))),
        }
    }

    fn take_flock(&self) -> std::result::Result<(), Refusal> {
        self.file.try_lock().map_err(|err| match err {
            TryLockError::WouldBlock => {
                Refusal::Busy("Failed to lock the file".into(), Obstacle::Lock(Lock::Flock))
            }
            TryLockError::Error(err) => {
                Refusal::Failed(Error::failed(Operation::Lock, "the file (flock)", err))
            }
        })
    }

    /// Restores the locks of `base`. Locks that cannot be released now are released when the file
    /// is closed.
    fn give_back(&self, taken: Taken, base: Sharing) {
        drop(taken.device);
        drop(taken.backing);
        if taken.flock {
            let _ = self.file.unlock();
            // On NFS, releasing flock released all bytes, including those of `base`.
            for byte in base.locks() {
                let _ = ofd::lock(&self.file, byte);
            }
        }
        for byte in &taken.bytes {
            let _ = ofd::unlock(&self.file, *byte);
        }
    }

    /// The error that names the conflicting processes.
    fn in_use(&self, text: String, obstacle: &Obstacle) -> Error {
        let (holders, verb) = match obstacle {
            Obstacle::Lock(lock @ Lock::Bytes(_)) => (holders(&self.file, lock), "in use by"),
            Obstacle::Lock(lock) => (holders(&self.file, lock), "locked by"),
            Obstacle::Device(Busy::Locked(file)) => (holders(file, &Lock::Flock), "locked by"),
            Obstacle::Device(Busy::Claimed(users)) => return self.claimed(&text, users),
            Obstacle::Ourselves => (Holder::of(process::id()).into_iter().collect(), "in use by"),
        };
        let (used, refused) = match obstacle {
            Obstacle::Lock(Lock::Bytes(bytes)) => Permissions::of_bytes(bytes),
            _ => Default::default(),
        };
        let conflict = Conflict { used, refused, ..Conflict::new(text, holders) };
        conflict.into_error(verb).with_path(self.path())
    }

    /// The error that names the use of the device.
    fn claimed(&self, text: &str, users: &[String]) -> Error {
        let users = match users {
            [] => "in use by the system".into(),
            users => users.join(", "),
        };
        let conflict = Conflict { is_claimed: true, ..Conflict::new(text, Vec::new()) };
        Error::new(ErrorKind::InUse, format!("{text}: {users}"))
            .with_operation(Operation::Lock)
            .with_path(self.path())
            .with_source(conflict)
    }
}
