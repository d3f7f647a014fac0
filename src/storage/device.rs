//! Block devices: cryptsetup's lock, and an exclusive claim against the kernel's own uses.
//!
//! A device can have many nodes, so cryptsetup does not lock the node. It holds `flock(2)` on the
//! file `/run/cryptsetup/L_<major>:<minor>` and removes that file afterwards. After locking, a
//! program must check that the name still leads to the locked file; otherwise the lock is void.
//! [`lock`] takes the same lock. It does not remove the file, because after a fork the other
//! process may still hold the lock. The next cryptsetup removes it.
//!
//! A file system, a mapping or a swap area claims its device, and `O_EXCL` is a claim too
//! (open(2)). It fails with `EBUSY` while there is another claim, and prevents others while it is
//! held.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{major, minor};

use crate::error::{Error, Operation, Result};

/// Locks that an amendment holds on a block device besides those on its node.
#[derive(Debug)]
pub(super) struct Device {
    #[expect(dead_code, reason = "the lock lasts until it is closed")]
    lock: File,
    #[expect(dead_code, reason = "the claim lasts until it is closed")]
    claim: Option<File>,
}

/// Reason for which a device is unavailable.
pub(super) enum Busy {
    /// The lock file is locked by another process.
    Locked(File),
    /// The kernel or another process has claimed the device.
    Claimed(Vec<String>),
}

/// Takes cryptsetup's lock and, unless `shares_claim`, a claim.
pub(super) fn hold(
    file: &File,
    node: &Path,
    shares_claim: bool,
) -> Result<std::result::Result<Device, Busy>> {
    let failed = |error| Error::io("inspect the device", error);
    let device = file.metadata().map_err(failed)?.rdev();
    let numbers = numbers(device);
    let path = lock_path(Path::new(DIRECTORY), &numbers);
    let lock = match lock(&path) {
        Ok(Ok(lock)) => lock,
        Ok(Err(busy)) => return Ok(Err(Busy::Locked(busy))),
        Err(error) => {
            let object = format!("the device by {}", path.display());
            let hint =
                "run it as a user who can write there: cryptsetup keeps its device locks there";
            return Err(Error::failed(Operation::Lock, object, error).with_hint(hint));
        }
    };
    if shares_claim {
        return Ok(Ok(Device { lock, claim: None }));
    }
    match claim(node, device) {
        Ok(claim) => Ok(Ok(Device { lock, claim: Some(claim) })),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            Ok(Err(Busy::Claimed(users(&numbers))))
        }
        Err(error) => Err(Error::failed(Operation::Open, "the device exclusively", error)),
    }
}

/// Formats a device as the kernel does: `major:minor`.
fn numbers(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

fn lock_path(directory: &Path, numbers: &str) -> PathBuf {
    directory.join(format!("L_{numbers}"))
}

/// Locks the file of this name as cryptsetup does, creating it and its directory. If another
/// process has the lock, returns the locked file as the inner error.
fn lock(path: &Path) -> io::Result<std::result::Result<File, File>> {
    if let Some(directory) = path.parent() {
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    loop {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o700);
        let file = options.custom_flags(libc::O_NOFOLLOW).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Err(file)),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        if is_at(&file, path)? {
            return Ok(Ok(file));
        }
        // The previous holder removed the file in the meantime.
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Opens the node of this device with a claim.
fn claim(node: &Path, device: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(node)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() && metadata.rdev() == device {
        return Ok(file);
    }
    Err(io::Error::other("the node now leads to another device"))
}

/// The kernel's uses of the device `major:minor`, as far as they are visible.
fn users(numbers: &str) -> Vec<String> {
    let holders = Path::new("/sys/dev/block").join(numbers).join("holders");
    let mut users = mapped(&holders);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    users.extend(mounted(&mounts, numbers));
    users
}

/// The devices mapped onto a device, from its directory `holders`.
fn mapped(holders: &Path) -> Vec<String> {
    let entries = fs::read_dir(holders).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| {
            let name = fs::read_to_string(entry.path().join("dm/name"));
            let kernels = || entry.file_name().to_string_lossy().into_owned();
            format!("mapped as {}", printable(name.unwrap_or_else(|_| kernels()).trim_end()))
        })
        .collect();
    names.sort();
    names
}

/// The mount points of a device, from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
fn mounted<'a>(mounts: &'a str, numbers: &'a str) -> impl Iterator<Item = String> + 'a {
    mounts.lines().filter_map(move |line| {
        let mut words = line.split(' ').skip(2);
        let is_it = words.next() == Some(numbers);
        let place = words.nth(1)?;
        is_it.then(|| format!("mounted on {}", printable(place)))
    })
}

fn printable(name: &str) -> String {
    name.replace(char::is_control, "?")
}

/// cryptsetup's directory (its default)
const DIRECTORY: &str = "/run/cryptsetup";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use nix::sys::stat::makedev;

    use super::*;

    #[test]
    fn the_lock_is_where_cryptsetup_has_it() {
        let path = lock_path(Path::new(DIRECTORY), &numbers(makedev(259, 70_000)));
        assert_eq!(path, Path::new("/run/cryptsetup/L_259:70000"));
    }

    #[test]
    fn one_at_a_time_has_the_lock_of_a_device() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_path(&directory.path().join("cryptsetup"), "7:0");
        let held = lock(&path).unwrap().unwrap();
        let made = fs::metadata(path.parent().unwrap()).unwrap();
        assert_eq!(made.permissions().mode() & 0o777, 0o700);
        let busy = lock(&path).unwrap().unwrap_err();
        assert_eq!(busy.metadata().unwrap().ino(), held.metadata().unwrap().ino());
        drop(lock(&path.with_file_name("L_7:1")).unwrap().unwrap());

        held.unlock().unwrap(); // not by closing: a child may be on its way to exec
        drop(lock(&path).unwrap().unwrap());
    }

    /// cryptsetup removes the file while it still holds the lock, so a lock on a file opened
    /// earlier is void.
    #[test]
    fn a_lock_on_a_removed_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = lock_path(directory.path(), "7:0");
        let removed = lock(&path).unwrap().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(!is_at(&removed, &path).unwrap());
        let held = lock(&path).unwrap().unwrap();
        assert!(is_at(&held, &path).unwrap() && !is_at(&removed, &path).unwrap());
    }

    #[test]
    fn a_lock_file_is_no_symbolic_link() {
        let directory = tempfile::tempdir().unwrap();
        let (target, path) = (directory.path().join("target"), directory.path().join("L_7:0"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        lock(&path).unwrap_err();
        assert!(!target.exists());
    }

    #[test]
    fn what_uses_a_device_is_named() {
        let mounts = "22 1 7:0 / / rw - ext4 /dev/loop0 rw\n\
                      23 22 7:1 / /srv/a\\040b rw - ext4 /dev/loop1 rw\n\
                      24 22 7:1 /sub /mnt\u{7} rw shared:1 - ext4 /dev/loop1 rw\n24 22 7:1\n";
        let places: Vec<_> = mounted(mounts, "7:1").collect();
        assert_eq!(places, ["mounted on /srv/a\\040b", "mounted on /mnt?"]);
        assert_eq!(mounted(mounts, "7:10").count(), 0);

        let holders = tempfile::tempdir().unwrap();
        fs::create_dir_all(holders.path().join("dm-0/dm")).unwrap();
        fs::write(holders.path().join("dm-0/dm/name"), "luks-root\n").unwrap();
        fs::create_dir(holders.path().join("md127")).unwrap();
        assert_eq!(mapped(holders.path()), ["mapped as luks-root", "mapped as md127"]);
        assert!(mapped(&holders.path().join("none")).is_empty());
    }
}
