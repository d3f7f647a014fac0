//! A process that forks: what the parent computed or opened before does not hold up the child.
#![allow(clippy::unwrap_used, reason = "a test")]
#![allow(unsafe_code, reason = "fork")]

mod support;

use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};

use keyslot::Limits;
use keyslot::storage::ReadOnlyBytes;
use support::amending::passphrase;
use support::eventually;
use support::luks2::{Change, Luks2};

#[test]
fn argon2_in_a_child_does_not_wait_for_the_parents_threads() {
    let image = Luks2::testdata("luks2_argon2id.img");
    assert_eq!(unlock(&image), Some(0));
    // SAFETY: the child calls what is under test and then `_exit`. Of the threads of this process,
    // the test's alone goes on in it; no other holds a lock that it takes.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let opened = std::panic::catch_unwind(|| unlock(&image));
            let status = i32::from(!matches!(opened, Ok(Some(0))));
            // SAFETY: it ends the process, and nothing else.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            let mut status = WaitStatus::StillAlive;
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                eventually("the child has ended", || {
                    status = waitpid(child, Some(WaitPidFlag::WNOHANG)).unwrap();
                    status != WaitStatus::StillAlive
                });
            }));
            if ended.is_err() {
                kill(child, Signal::SIGKILL).unwrap();
                waitpid(child, None).unwrap();
            }
            assert_eq!(status, WaitStatus::Exited(child, 0));
        }
    }
}

/// With two lanes, whose threads would be those of a pool.
fn unlock(image: &Luks2) -> Option<usize> {
    let lanes = ("/keyslots/0/kdf/cpus", 2.into());
    // It does not open with another number of lanes, but takes as long.
    let two_lanes = image.with(&Change::Set(vec![lanes]));
    for image in [&two_lanes, image] {
        let opened = support::open_on(ReadOnlyBytes(image.bytes.clone()), Limits::NONE).unwrap();
        if let Ok(unlocked) = opened.unlock(&passphrase("hunter0")) {
            return unlocked.keyslot();
        }
    }
    None
}
