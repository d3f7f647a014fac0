//! Locks of an open file description on single bytes (`fcntl_locking(2)`).

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{self, c_int, c_short};

use crate::error::{Error, Operation};

/// Takes a read lock on a byte. Fails with `EAGAIN` or `EACCES` if another description has a write
/// lock there.
pub(super) fn lock(file: &File, byte: u8) -> nix::Result<()> {
    set(file, libc::F_RDLCK, byte)
}

/// Releases the lock on a byte, if there is one.
pub(super) fn unlock(file: &File, byte: u8) -> nix::Result<()> {
    set(file, libc::F_UNLCK, byte)
}

/// Whether another description has any lock on a byte, which would refuse a write lock.
pub(super) fn is_locked_by_another(file: &File, byte: u8) -> nix::Result<bool> {
    loop {
        let mut lock = of_byte(libc::F_WRLCK, byte);
        match fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
            Err(Errno::EINTR) => {}
            result => return result.map(|_| c_int::from(lock.l_type) != libc::F_UNLCK),
        }
    }
}

/// The error for locks that are unsupported, as opposed to refused.
pub(super) fn impossible(byte: u8, errno: Errno) -> Error {
    match errno {
        Errno::EINVAL | Errno::ENOLCK | Errno::ENOSYS | Errno::EOPNOTSUPP => Error::failed(
            Operation::Lock,
            "the file: its file system has no OFD locks",
            errno.into(),
        )
        .with_hint("copy the image to a local file system"),
        errno => Error::failed(Operation::Lock, format_args!("byte {byte}"), errno.into()),
    }
}

fn set(file: &File, kind: c_int, byte: u8) -> nix::Result<()> {
    let lock = of_byte(kind, byte);
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&lock)) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop),
        }
    }
}

fn of_byte(kind: c_int, byte: u8) -> libc::flock {
    #[allow(clippy::cast_possible_truncation, reason = "F_* and SEEK_SET are less than 8")]
    libc::flock {
        l_type: kind as c_short,
        l_whence: libc::SEEK_SET as c_short,
        l_start: byte.into(),
        l_len: 1,
        l_pid: 0, // as OFD locks demand
    }
}
