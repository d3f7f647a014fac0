//! A forked process and its parent share the locks of an open file, and neither takes them away from
//! the other. One test, as a fork in one would keep the files of another open.

#![allow(unsafe_code, reason = "fork(2)")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io::{Read, pipe};
use std::path::Path;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use keyslot::storage::sharing::Sharing;
use keyslot::storage::{Access, FileStorage};
use keyslot::{ErrorKind, Result};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use support::locks::ofd_locks;

/// What an amendment locks
const AMEND: [&str; 4] = ["100 101", "103 103", "200 201", "203 203"];

#[test]
fn a_fork_of_the_process_keeps_the_locks_and_takes_none_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    std::fs::write(&path, [0; 4096]).unwrap();

    for sharing in [Sharing::Amend, Sharing::WriteAlone] {
        // The parent drops it, the child has it still.
        let storage = open(&path, sharing).unwrap();
        let (mut waits, ends) = pipe().unwrap();
        let Some(child) = forked() else {
            drop(ends);
            let waited = waits.read_to_end(&mut Vec::new());
            drop(storage);
            leave(waited.is_ok())
        };
        drop(storage);
        assert_eq!(open(&path, Sharing::Amend).unwrap_err().kind(), ErrorKind::InUse);
        drop(ends);
        succeeds(child);
        drop(open(&path, Sharing::Amend).unwrap());

        // The child drops it, the parent has it still.
        let storage = open(&path, sharing).unwrap();
        let before = ofd_locks(process::id(), &path);
        let Some(child) = forked() else {
            drop(storage);
            leave(true)
        };
        succeeds(child);
        assert_eq!(ofd_locks(process::id(), &path), before);
        assert_eq!(open(&path, Sharing::Amend).unwrap_err().kind(), ErrorKind::InUse);
        drop(storage);
    }

    // The child drops an upgrade.
    let storage = Arc::new(open(&path, Sharing::ReadData).unwrap());
    let upgrade = storage.upgrade(Sharing::Amend, None).unwrap();
    let Some(child) = forked() else {
        drop(upgrade);
        leave(storage.sharing() == Sharing::ReadData)
    };
    succeeds(child);
    assert_eq!(ofd_locks(process::id(), &path), AMEND);
    let other = std::fs::File::open(&path).unwrap();
    other.try_lock_shared().unwrap_err();
    drop(upgrade);
    assert_eq!(ofd_locks(process::id(), &path), ["100 100", "203 203"]);
    other.try_lock_shared().unwrap();
}

fn open(path: &Path, sharing: Sharing) -> Result<FileStorage> {
    // The other process may be slow to close.
    let wait = Some(Duration::from_millis(500));
    FileStorage::open_shared(path, Access::ReadWrite, sharing, wait)
}

/// Forks; none in the child.
fn forked() -> Option<Pid> {
    // SAFETY: The child calls nothing but `drop`, `read`, `allocate` and `_exit`. The only other
    // thread is the one that waits for this test, and it holds no lock meanwhile.
    match unsafe { fork() }.unwrap() {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => None,
    }
}

/// Ends the child, without what a process does at its end.
fn leave(is_well: bool) -> ! {
    // SAFETY: It does not return.
    unsafe { libc::_exit(i32::from(!is_well)) }
}

fn succeeds(child: Pid) {
    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
}
