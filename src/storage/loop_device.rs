//! Loop devices: block devices over a file.
//!
//! A loop device has a page cache of its own beside that of its file. What is written to one may be
//! undone by what the other still has, so an amendment excludes users of both.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

/// The loop devices over a file, as "attached to /dev/loop0". Only those are found whose file has a
/// path that leads to it from here.
pub(super) fn devices_over(file: &Metadata) -> Vec<String> {
    over(Path::new("/sys/block"), file)
}

/// The file below a loop device, or below a partition of one; none if the device is no such thing,
/// or its file has no path any more.
pub(super) fn backing_file(device: &Metadata) -> Option<PathBuf> {
    let device = device.rdev();
    let device = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    let device = Path::new(&device);
    // A partition's directory is below that of its device, behind a symbolic link.
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

/// The path of the backing file, by the directory of the device in sysfs.
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
