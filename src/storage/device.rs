//! Block devices: cryptsetup's lock on one, and a claim that keeps the kernel from using it.
//!
//! A device can have many nodes, so cryptsetup does not lock the node. It holds `flock(2)` on the
//! file `/run/cryptsetup/L_<major>:<minor>` and removes that file afterwards. Whoever locked the
//! file must look whether the name still leads to it: otherwise the lock excludes nobody.
//! [`lock`] takes the same lock. It leaves the empty file behind, which the next
//! cryptsetup removes: after a fork, the other process may still hold the lock.
//!
//! A file system, a mapping or a swap area claims its device, and `O_EXCL` is a claim too
//! (open(2)): it fails with `EBUSY` while there is another, and no other succeeds while it is held.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::sys::stat::{major, minor};

use crate::error::{Error, Operation, Result};

/// What an amendment holds of a block device beside the locks on its node.
#[derive(Debug)]
pub(super) struct Device {
    #[expect(dead_code, reason = "the lock lasts until it is closed")]
    lock: File,
    #[expect(dead_code, reason = "the claim lasts until it is closed")]
    claim: Option<File>,
}

/// Why a device cannot be had now.
pub(super) enum Busy {
    /// The lock file is locked by another process.
    Locked(File),
    /// The kernel or another process has claimed the device.
    Claimed(Vec<String>),
}

/// Takes cryptsetup's lock, and a claim unless `shares_claim`.
pub(super) fn hold(
    file: &File,
    node: &Path,
    shares_claim: bool,
) -> Result<std::result::Result<Device, Busy>> {
    let failed = |error| Error::io("look at the device", error);
    let device = file.metadata().map_err(failed)?.rdev();
    let numbers = numbers(device);
    let path = lock_path(Path::new(DIRECTORY), &numbers);
    let lock = match lock(&path) {
        Ok(Ok(lock)) => lock,
        Ok(Err(busy)) => return Ok(Err(Busy::Locked(busy))),
        Err(error) => {
            let object = format_args!("the device by {}", path.display());
            let hint =
                "run it as a user who can write there: cryptsetup's lock on a device is there";
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

/// `major:minor`, as the kernel writes a device.
fn numbers(device: u64) -> String {
    format!("{}:{}", major(device), minor(device))
}

fn lock_path(directory: &Path, numbers: &str) -> PathBuf {
    directory.join(format!("L_{numbers}"))
}

/// Locks the file of this name as cryptsetup does, making it and its directory. If another process
/// has the lock, the file that it locked.
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
        // The one who had the lock before has removed the file meanwhile.
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

/// Opens the node of this device so that nothing else can claim the device.
fn claim(node: &Path, device: u64) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_EXCL | libc::O_NONBLOCK | libc::O_NOCTTY);
    let file = options.open(node)?;
    let metadata = file.metadata()?;
    if metadata.file_type().is_block_device() && metadata.rdev() == device {
        return Ok(file);
    }
    Err(io::Error::other("its node leads to another device now"))
}

/// What the kernel uses the device `major:minor` for, as far as it tells.
fn users(numbers: &str) -> Vec<String> {
    let holders = Path::new("/sys/dev/block").join(numbers).join("holders");
    let mut users = mapped(&holders);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    users.extend(mounted(&mounts, numbers));
    users
}

/// The devices that are built upon one, from its directory `holders`.
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

/// Where a device is mounted, from `/proc/self/mountinfo` (`proc_pid_mountinfo(5)`).
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

    /// cryptsetup removes the file while it still holds the lock: one that was opened before is
    /// worth nothing then.
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
