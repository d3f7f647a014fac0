//! Leases of other programs on a file: Samba's oplocks, an NFS server's delegations, `fcntl(2)`'s
//! `F_SETLEASE`.
//!
//! An open that breaks a lease makes the system ask the holder to give it back, and would wait
//! until then. With `O_NONBLOCK` it fails with `EAGAIN` at once, and may be tried again.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::holder::{Lock, holders_of};
use super::sharing::Conflict;
use crate::error::Error;

/// How long a lease can last from when it is asked for, with a second for the system to act.
pub(super) fn break_time() -> Duration {
    let seconds = fs::read_to_string("/proc/sys/fs/lease-break-time");
    let seconds = seconds.ok().and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(DEFAULT).max(1)).saturating_add(Duration::from_secs(1))
}

/// The error for a lease that was not given back in time.
pub(super) fn in_use(path: &Path) -> Error {
    let holders = fs::metadata(path).map(|file| holders_of(&file, &Lock::Lease));
    Conflict::new("Failed to break the lease on the file", holders.unwrap_or_default())
        .into_error("held by")
}

/// Linux's own
const DEFAULT: u64 = 45;
