//! What an opened file lets others do with it meanwhile: QEMU's image locks, and cryptsetup's.
//!
//! [`Sharing`] says which bytes of the file an opening locks, and which others may not have locked.
//!
//! All are *read* locks, so that any number of programs can hold the same byte; whether somebody
//! holds the opposite byte is asked by the test for a *write* lock, which nobody takes. Locking
//! first and testing afterwards, two that come at once may both be refused, but never both be let
//! in. The locks are those of the open file description (`fcntl_locking(2)`): two descriptors
//! exclude each other even in one process.
//!
//! QEMU's own amend releases its locks before its last sync. [`Sharing::Amend`] is to be held from
//! before the header is read until that sync has returned; it lets in nobody at all, not even a
//! reader that is itself ready to share everything.
//!
//! cryptsetup knows none of this. It holds `flock(2)` on an image file while it writes a LUKS2
//! header, and [`Sharing::Amend`] takes that too.

use std::fmt;
use std::fs::TryLockError;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, c_short, off_t};

pub use super::holder::Holder;
use super::holder::{Lock, holders};
pub use super::permission::{Permissions, Sharing};
use super::{Access, FileStorage};
use crate::error::{Error, ErrorKind, Result};

/// A lock was refused, as QEMU says it. This is the [source](std::error::Error::source) of an
/// [`ErrorKind::InUse`] error.
///
/// [`fmt::Display`] is QEMU's own text, `Failed to get "write" lock`, to the letter.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Conflict {
    text: String,
    holders: Vec<Holder>,
}

/// A file held with more than it was opened with, until this is dropped.
#[derive(Debug)]
#[must_use = "the file goes back to what it was opened with as soon as this is dropped"]
pub struct Upgrade {
    storage: Arc<FileStorage>,
    taken: Taken,
}

impl FileStorage {
    /// Opens an existing file and holds `sharing` until it is closed.
    ///
    /// While others are in the way this tries again until `wait` has passed, and then fails with
    /// [`ErrorKind::InUse`], naming them. A file system without such locks is an error too.
    pub fn open_shared(
        path: impl AsRef<Path>,
        access: Access,
        sharing: Sharing,
        wait: Option<Duration>,
    ) -> Result<Self> {
        let start = Instant::now();
        loop {
            let storage = Self::open(path.as_ref(), access)?;
            storage.retry(start, wait, |held| {
                storage.take(sharing, Sharing::None)?;
                held.base = sharing;
                Ok(())
            })?;
            // Who held it may have replaced it: then this is a lock on a file without a name.
            let failed = |err| Error::io("find it again", err).with_path(storage.path());
            if storage.is_at_its_path().map_err(failed)? {
                return Ok(storage);
            }
        }
    }

    /// Holds `sharing` as well, until the guard is dropped: then exactly what
    /// [`open_shared`](Self::open_shared) took remains.
    ///
    /// One upgrade at a time: a second one waits, or fails, as it would for another process. A
    /// refused upgrade leaves everything as it was.
    pub fn upgrade(self: &Arc<Self>, sharing: Sharing, wait: Option<Duration>) -> Result<Upgrade> {
        let taken = self.retry(Instant::now(), wait, |held| {
            if held.upgraded.is_some() {
                let text = "Failed to upgrade the lock".into();
                return Err(Refusal::Busy(text, Obstacle::Ourselves));
            }
            let taken = self.take(sharing, held.base)?;
            held.upgraded = Some(sharing);
            Ok(taken)
        })?;
        Ok(Upgrade { storage: Arc::clone(self), taken })
    }

    /// What this file is held with at present.
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

impl Drop for Upgrade {
    fn drop(&mut self) {
        let mut held = self.storage.held();
        self.storage.give_back(&self.taken, held.base);
        held.upgraded = None;
    }
}

impl Drop for FileStorage {
    fn drop(&mut self) {
        // Closing would do, but for a child that another thread is just about to start: until
        // its exec it has all our descriptors.
        let held = std::mem::take(&mut *self.held());
        let flock = held.base == Sharing::Amend;
        self.give_back(&Taken { bytes: held.base.locks().collect(), flock }, Sharing::None);
    }
}

impl Conflict {
    /// The processes in the way, by pid. It is empty if we may not see them.
    pub fn holders(&self) -> &[Holder] {
        &self.holders
    }
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Conflict {}

/// What a [`FileStorage`] holds.
#[derive(Debug, Default)]
pub(super) struct Held {
    base: Sharing,
    upgraded: Option<Sharing>,
}

/// What was locked and was not before.
#[derive(Debug)]
struct Taken {
    bytes: Vec<off_t>,
    flock: bool,
}

/// Why one attempt failed.
enum Refusal {
    /// QEMU's text, and what is in the way.
    Busy(String, Obstacle),
    Failed(Error),
}

enum Obstacle {
    Lock(Lock),
    Ourselves,
}

impl FileStorage {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attempts until it is not refused, or `wait` has passed since `start`.
    fn retry<T>(
        &self,
        start: Instant,
        wait: Option<Duration>,
        attempt: impl Fn(&mut Held) -> std::result::Result<T, Refusal>,
    ) -> Result<T> {
        let mut pause = Duration::from_millis(10);
        loop {
            let (text, obstacle) = match attempt(&mut self.held()) {
                Ok(taken) => return Ok(taken),
                Err(Refusal::Failed(err)) => return Err(err.with_path(self.path())),
                Err(Refusal::Busy(text, obstacle)) => (text, obstacle),
            };
            let left = wait.unwrap_or_default().saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(self.in_use(text, &obstacle));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    }

    /// Locks and then tests, and undoes that if it is refused. `base` is what is held already.
    fn take(&self, sharing: Sharing, base: Sharing) -> std::result::Result<Taken, Refusal> {
        let mut taken = Taken { bytes: Vec::new(), flock: false };
        let result = self.take_bytes(sharing, base, &mut taken.bytes).and_then(|()| {
            // flock comes last: on NFS it is a lock on all bytes.
            if sharing == Sharing::Amend && base != Sharing::Amend {
                self.take_flock()?;
                taken.flock = true;
            }
            Ok(())
        });
        match result {
            Ok(()) => Ok(taken),
            Err(refusal) => {
                self.give_back(&taken, base);
                Err(refusal)
            }
        }
    }

    fn take_bytes(
        &self,
        sharing: Sharing,
        base: Sharing,
        taken: &mut Vec<off_t>,
    ) -> std::result::Result<(), Refusal> {
        for byte in sharing.locks().filter(|byte| !base.locks().any(|held| held == *byte)) {
            match self.set_lock(libc::F_RDLCK, byte) {
                Ok(()) => taken.push(byte),
                Err(Errno::EAGAIN | Errno::EACCES) => {
                    let lock = Obstacle::Lock(Lock::Bytes(vec![byte]));
                    return Err(Refusal::Busy(format!("Failed to lock byte {byte}"), lock));
                }
                Err(errno) => return Err(Refusal::Failed(no_lock(byte, errno))),
            }
        }

        let mut first = None;
        let mut conflicting = Vec::new();
        for (byte, text) in sharing.tests() {
            match self.is_locked_by_another(byte) {
                Ok(true) => {
                    first.get_or_insert(text);
                    conflicting.push(byte);
                }
                Ok(false) => {}
                Err(errno) => return Err(Refusal::Failed(no_lock(byte, errno))),
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
            TryLockError::Error(err) => Refusal::Failed(Error::io("lock the file (flock)", err)),
        })
    }

    /// Back to `base`. What cannot be given back now is when the file is closed.
    fn give_back(&self, taken: &Taken, base: Sharing) {
        if taken.flock {
            let _ = self.file.unlock();
            // On NFS that was all bytes, those of the base with them.
            for byte in base.locks() {
                let _ = self.set_lock(libc::F_RDLCK, byte);
            }
        }
        for byte in &taken.bytes {
            let _ = self.set_lock(libc::F_UNLCK, *byte);
        }
    }

    fn set_lock(&self, kind: c_int, byte: off_t) -> nix::Result<()> {
        let lock = byte_lock(kind, byte);
        loop {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Whether a write lock, which nobody takes, would be refused.
    fn is_locked_by_another(&self, byte: off_t) -> nix::Result<bool> {
        loop {
            let mut lock = byte_lock(libc::F_WRLCK, byte);
            match fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock)) {
                Err(Errno::EINTR) => {}
                result => return result.map(|_| c_int::from(lock.l_type) != libc::F_UNLCK),
            }
        }
    }

    /// The error that names who is in the way.
    fn in_use(&self, text: String, obstacle: &Obstacle) -> Error {
        let (holders, verb) = match obstacle {
            Obstacle::Lock(lock @ Lock::Bytes(_)) => (holders(&self.file, lock), "in use by"),
            Obstacle::Lock(lock) => (holders(&self.file, lock), "locked by"),
            Obstacle::Ourselves => {
                (Holder::of(std::process::id()).into_iter().collect(), "in use by")
            }
        };
        let names = match &holders[..] {
            [] => "another process".into(),
            holders => holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", "),
        };
        Error::new(ErrorKind::InUse, format!("{text}: {verb} {names}"))
            .with_path(self.path())
            .with_source(Conflict { text, holders })
    }
}

fn byte_lock(kind: c_int, byte: off_t) -> libc::flock {
    #[allow(clippy::cast_possible_truncation, reason = "F_* and SEEK_SET are less than 8")]
    libc::flock {
        l_type: kind as c_short,
        l_whence: libc::SEEK_SET as c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0, // as OFD locks demand
    }
}

/// Not refused, but impossible.
fn no_lock(byte: off_t, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP => {
            Error::io("lock the file, its file system has no OFD locks", errno.into())
                .with_hint("copy the image to a file system that has them, a local one")
        }
        errno => Error::io(format_args!("lock byte {byte}"), errno.into()),
    }
}
