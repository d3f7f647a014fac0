//! Loop devices: block devices over a file.
//!
//! A loop device and its file have separate page caches. A write to one may be undone by stale
//! pages of the other, so an amendment excludes users of both.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// The loop devices over a file, as "attached to /dev/loop0". Omits devices whose file has no path
/// that is visible here.
pub(super) fn devices_over(file: &Metadata) -> Vec<String> {
    over(Path::new("/sys/block"), file)
}

/// The file below a loop device or a partition of one. `None` if the device is something else, or
/// if its file no longer has a path.
pub(super) fn backing_file(device: &Metadata) -> Option<PathBuf> {
    let device = device.rdev();
    let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let device = Path::new(&device);
    // A partition's directory is below that of its device; a symbolic link leads there.
    let path = backing(device).or_else(|| backing(fs::canonicalize(device).ok()?.parent()?))?;
    path.exists().then_some(path)
}

fn over(block: &Path, file: &Metadata) -> Vec<String> {
    let devices = fs::read_dir(block).into_iter().flatten().flatten();
    let mut names: Vec<_> = devices
        .filter(|device| device.file_name().as_bytes().starts_with(b"loop"))
        .filter(|device| {
            let backing = backing(&device.path()).and_then(|path| fs::metadata(path).ok());
            backing.is_some_and(|it| (it.dev(), it.ino()) == (file.dev(), file.ino()))
        })
        .map(|device| format!("attached to /dev/{}", device.file_name().to_string_lossy()))
        .collect();
    names.sort();
    names
}

/// Path of the backing file, read from the device's directory in sysfs.
fn backing(device: &Path) -> Option<PathBuf> {
    let mut path = fs::read(device.join("loop/backing_file")).ok()?;
    path.pop_if(|last| *last == b'\n');
    Some(PathBuf::from(OsString::from_vec(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_over_a_file_are_found_by_their_backing_file() {
        let directory = tempfile::tempdir().unwrap();
        let block = directory.path().join("block");
        let (file, other) = (directory.path().join("a file"), directory.path().join("other"));
        fs::write(&file, "").unwrap();
        fs::write(&other, "").unwrap();
        for (name, backing) in [("loop0", &file), ("loop1", &other), ("loop12", &file)] {
            let device = block.join(name).join("loop");
            fs::create_dir_all(&device).unwrap();
            fs::write(device.join("backing_file"), format!("{}\n", backing.display())).unwrap();
        }
        fs::create_dir_all(block.join("loop2")).unwrap(); // not attached
        let found = over(&block, &fs::metadata(&file).unwrap());
        assert_eq!(found, ["attached to /dev/loop0", "attached to /dev/loop12"]);
        assert!(over(&directory.path().join("none"), &fs::metadata(&file).unwrap()).is_empty());
    }
}
