//! Taking the locks of a file, and giving them back.

use std::fs::TryLockError;
use std::process;
use std::sync::{MutexGuard, PoisonError};

use nix::errno::Errno;

use super::{Claim, Conflict, Holder, Permissions, Sharing};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::device::{self, Busy, Device};
use crate::storage::holder::{Lock, holders};
use crate::storage::patience::Patience;
use crate::storage::{Access, FileRef, FileStorage, loop_device, ofd};

/// State of the locks of a [`FileStorage`].
#[derive(Debug, Default)]
pub(in crate::storage) struct Held {
    pub base: Sharing,
    /// The locks taken for it
    pub taken: Taken,
    pub upgraded: Option<Sharing>,
    /// Accept a block device that is mounted or mapped.
    pub shares_device: bool,
}

/// Locks that were newly taken.
#[derive(Debug, Default)]
pub struct Taken {
    pub bytes: Vec<u8>,
    pub flock: bool,
    pub device: Option<Device>,
    /// The file below a loop device
    pub backing: Option<Box<FileStorage>>,
}

/// Reason for which an attempt failed.
pub enum Refusal {
    /// Conflict: QEMU's text and the obstacle.
    Busy(String, Obstacle),
    /// The file below a loop device is in use.
    BackingBusy(Error),
    Failed(Error),
}

pub enum Obstacle {
    Lock(Lock),
    Device(Busy),
    Ourselves,
}

impl FileStorage {
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Retries until an attempt is not refused or `patience` runs out.
    pub(super) fn retry<T>(
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
    pub(super) fn take(
        &self,
        sharing: Sharing,
        held: &Held,
    ) -> std::result::Result<Taken, Refusal> {
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
        let claim = Claim { sharing: Sharing::Amend, busy_device: true, ..Claim::default() };
        match Self::open_claimed(FileRef::Path(&path), Access::ReadOnly, claim) {
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
        let busy = match device::hold(&self.file, &self.node(), shares_claim) {
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
    pub(in crate::storage) fn give_back(&self, taken: Taken, base: Sharing) {
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
