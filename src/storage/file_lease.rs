//! Leases that other programs hold on a file: Samba's oplocks, an NFS server's delegations,
//! `F_SETLEASE` of `fcntl(2)`.
//!
//! Opening a leased file makes the system ask the holder to return the lease, and waits until it
//! does. With `O_NONBLOCK` the open fails with `EAGAIN` at once and can be retried.

use std::fs;
use std::path::Path;
use std::time::Duration;

use super::holder::{Lock, holders_of};
use super::sharing::Conflict;
use crate::error::Error;

/// The longest time a holder can take to return a lease, plus a second for the system to act.
pub(super) fn break_time() -> Duration {
    let seconds = fs::read_to_string("/proc/sys/fs/lease-break-time");
    let seconds = seconds.ok().and_then(|text| text.trim().parse().ok());
    Duration::from_secs(seconds.unwrap_or(DEFAULT).max(1)).saturating_add(Duration::from_secs(1))
}

/// The error for a lease that was not returned in time.
pub(super) fn in_use(path: &Path) -> Error {
    let holders = fs::metadata(path).map(|file| holders_of(&file, &Lock::Lease));
    Conflict::new("Failed to break the lease on the file", holders.unwrap_or_default())
        .into_error("held by")
}

/// Linux's default for `lease-break-time`, in seconds.
const DEFAULT: u64 = 45;
