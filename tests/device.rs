//! A block device is locked as cryptsetup locks one, and claimed, so that it is neither mounted nor
//! mapped while its keyslots change. Tried on loop devices, where this machine has them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use keyslot::storage::sharing::Conflict;
use keyslot::storage::{Access, FileStorage, Storage};
use keyslot::{ErrorKind, Image, OpenOptions, Result, Sharing};
use nix::libc;
use nix::sys::stat::{major, minor};
use support::amending::passphrase;
use support::cryptsetup::Cryptsetup;
use support::locks::locks;
use support::{Running, eventually, peer, run, run_ok, stderr};
use tempfile::TempDir;

#[test]
fn cryptsetup_waits_until_an_amendment_of_a_device_is_done() {
    let (Some(cryptsetup), Some(device)) = (peer("cryptsetup"), Loop::luks2()) else { return };
    let held = amend(&device.path).unwrap();
    let key = device.file("key", b"hunter0");
    let new = device.file("new", b"another");
    let mut command = Command::new(cryptsetup);
    command.args(["luksAddKey", "-q", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]);
    command.arg("--key-file").arg(key).arg(&device.path).arg(new);
    let mut adds = Running::spawn(&mut command);
    let (waits, pid) = ("-> FLOCK", format!(" {} ", adds.pid()));
    eventually("cryptsetup waits for a lock", || {
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains(waits) && line.contains(&pid))
    });
    assert!(!adds.has_ended());
    drop(held);
    assert!(adds.wait().success());
    Image::open(&device.path).unwrap().unlock(&passphrase("another")).unwrap();
}

#[test]
fn an_amendment_of_a_device_is_refused_while_cryptsetups_lock_is_held() {
    let Some(device) = Loop::luks2() else { return };
    let Some(flock) = peer("flock") else { return };
    drop(amend(&device.path).unwrap()); // which makes the directory
    let mut command = Command::new(flock);
    command.arg("--no-fork").arg(device.lock()).args(["sleep", "60"]);
    let holder = Running::spawn(&mut command);
    let expected = format!("Failed to lock the device: locked by sleep (pid {})", holder.pid());
    eventually("the lock's holder is named", || {
        amend(&device.path).is_err_and(|error| error.message() == expected)
    });
    // cryptsetup's lock is for changes of the header alone.
    let shared =
        FileStorage::open_shared(&device.path, Access::ReadWrite, Sharing::WriteData, None);
    drop(shared.unwrap());
    drop(holder);
    drop(amend(&device.path).unwrap());
}

#[test]
fn a_device_that_is_mapped_is_amended_only_where_that_is_said() {
    let Some(device) = Loop::luks1() else { return };
    let claim = claim(&device.path).unwrap(); // as a mapping has it

    let error = amend(&device.path).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::InUse, Some(&*device.path)));
    assert_eq!(error.message(), "Failed to open the device exclusively: in use by the system");
    let conflict = std::error::Error::source(&error).unwrap().downcast_ref::<Conflict>().unwrap();
    assert!(conflict.is_claimed());

    // Reading and writing data is what a device is mapped for.
    let shared =
        FileStorage::open_shared(&device.path, Access::ReadWrite, Sharing::WriteData, None);
    let shared = Arc::new(shared.unwrap());
    assert_eq!(shared.upgrade(Sharing::Amend, None).unwrap_err().kind(), ErrorKind::InUse);
    assert_eq!(shared.sharing(), Sharing::WriteData);
    drop(shared);

    let repair = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
        run(command.arg("repair").args(options).arg(&device.path))
    };
    let refused = repair(&[]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(stderr(&refused).contains("\nhint: unmount or close it, or use --busy-device"));
    // A command without the override does not name it.
    let plain = device.file("plain", &[7; 512]);
    let mut convert = Command::new(env!("CARGO_BIN_EXE_keyslot"));
    convert.args(["convert", "-n", "-O", "raw"]).args([&plain, &device.path]);
    let refused = run(&mut convert);
    assert_eq!(refused.status.code(), Some(5));
    assert!(stderr(&refused).ends_with("\nhint: unmount or close it, and try again\n"));
    let done = repair(&["--busy-device"]);
    assert!(done.status.success(), "{}", stderr(&done));
    drop(OpenOptions::new().sharing(Sharing::Amend).busy_device(true).open(&device.path).unwrap());

    drop(claim);
    drop(amend(&device.path).unwrap());
}

#[test]
fn info_of_a_device_is_what_qemu_img_prints() {
    let (Some(qemu_img), Some(device)) = (peer("qemu-img"), Loop::luks1()) else { return };
    for output in ["human", "json"] {
        let info = |program: &Path| {
            let mut command = Command::new(program);
            let output = run_ok(command.args(["info", "--output", output]).arg(&device.path));
            String::from_utf8(output.stdout).unwrap()
        };
        let theirs = info(&qemu_img);
        assert!(theirs.contains("host_device"), "{theirs}");
        assert_eq!(info(Path::new(env!("CARGO_BIN_EXE_keyslot"))), theirs);
    }
}

#[test]
fn a_device_is_claimed_while_it_is_amended() {
    let Some(device) = Loop::luks1() else { return };
    let busy = || claim(&device.path).unwrap_err().kind();
    let held = amend(&device.path).unwrap();
    assert_eq!(busy(), io::ErrorKind::ResourceBusy);
    drop(held);
    drop(claim(&device.path).unwrap());

    let shared = FileStorage::open_shared(&device.path, Access::ReadWrite, Sharing::ReadData, None);
    let shared = Arc::new(shared.unwrap());
    let upgrade = shared.upgrade(Sharing::Amend, None).unwrap();
    assert_eq!(busy(), io::ErrorKind::ResourceBusy);
    drop(upgrade);
    drop(claim(&device.path).unwrap());
    let lock = File::open(device.lock()).unwrap();
    lock.try_lock().unwrap();
}

#[test]
fn where_a_device_is_mounted_is_said() {
    let (Some(mkfs), Some(mount)) = (peer("mkfs.ext4"), peer("mount")) else { return };
    let Some(device) = Loop::luks1() else { return };
    run_ok(Command::new(mkfs).arg("-q").arg(&device.path));
    let place = device.directory.path().join("mounted");
    fs::create_dir(&place).unwrap();
    let mounted = run(Command::new(mount).arg(&device.path).arg(&place));
    if !mounted.status.success() {
        eprintln!("SKIPPED: cannot mount: {}", stderr(&mounted));
        return;
    }
    let error = amend(&device.path).map(drop);
    run_ok(Command::new("umount").arg(&place));
    let expected = format!("Failed to open the device exclusively: mounted on {}", place.display());
    assert_eq!(error.unwrap_err().message(), expected);
    drop(amend(&device.path).unwrap());
}

/// The device has a page cache of its own, which would undo what is written to the file.
#[test]
fn a_file_under_a_loop_device_is_amended_only_where_that_is_said() {
    let Some(device) = Loop::luks1() else { return };
    let file = device.directory.path().join("device.img");
    let error = amend(&file).unwrap_err();
    let expected =
        format!("Failed to open the file exclusively: attached to {}", device.path.display());
    assert_eq!((error.kind(), error.message()), (ErrorKind::InUse, &*expected));
    drop(OpenOptions::new().sharing(Sharing::Amend).busy_device(true).open(&file).unwrap());
    drop(OpenOptions::new().sharing(Sharing::ReadData).open(&file).unwrap());

    let before = fs::read(&file).unwrap();
    let repair = |options: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
        run(command.arg("repair").args(options).arg(&file))
    };
    let refused = repair(&[]);
    assert_eq!(refused.status.code(), Some(5));
    assert!(stderr(&refused).contains(&expected), "{}", stderr(&refused));
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(repair(&["--busy-device"]).status.success());
    run_ok(Command::new("losetup").arg("--detach").arg(&device.path));
    eventually("it is detached", || amend(&file).is_ok());
}

/// QEMU's locks are on the file, whichever way leads to it.
#[test]
fn a_loop_device_is_not_amended_while_its_file_is_in_use() {
    let (Some(nbd), Some(device)) = (peer("qemu-nbd"), Loop::luks1()) else { return };
    let file = device.directory.path().join("device.img");
    let socket = device.directory.path().join("socket");
    let mut serve = Command::new(nbd);
    serve.args(["--read-only", "--format", "raw", "--persistent", "--socket"]);
    let server = Running::spawn(serve.arg(&socket).arg(&file));
    eventually("the locks of qemu-nbd", || socket.exists() && !locks(&file).is_empty());
    let error = amend(&device.path).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::InUse, Some(&*file)));
    assert!(error.message().contains("in use by qemu-nbd"), "{error}");
    drop(server);
    let held = amend(&device.path).unwrap();
    let other = FileStorage::open_shared(&file, Access::ReadOnly, Sharing::ReadData, None);
    assert_eq!(other.unwrap_err().kind(), ErrorKind::InUse);
    drop(held);
    drop(FileStorage::open_shared(&file, Access::ReadOnly, Sharing::ReadData, None).unwrap());
}

/// Partition 2 of a disk made with sgdisk: its keys change in the file, and cryptsetup opens it
/// through a loop device on the partition.
#[test]
fn cryptsetup_opens_an_amended_partition_through_a_loop_device() {
    let (Some(cryptsetup), Some(sgdisk)) = (Cryptsetup::find(), peer("sgdisk")) else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let luks = path("luks");
    let light = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
    cryptsetup.format_luks2(&luks, b"hunter0", 3, &light);
    let (start, luks) = (2 << 20, fs::read(&luks).unwrap());
    let disk = path("disk");
    fs::write(&disk, vec![0; 8 << 20]).unwrap();
    let end = (start + luks.len()) / 512 - 1;
    let mut command = Command::new(sgdisk);
    command.args(["-n", "1:2048:4095", "-n", &format!("2:4096:{end}")]);
    run_ok(command.arg(&disk));
    let mut before = fs::read(&disk).unwrap();
    before[start..start + luks.len()].copy_from_slice(&luks);
    fs::write(&disk, &before).unwrap();

    fs::write(path("old"), b"hunter0").unwrap();
    fs::write(path("new"), b"another").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
    command.args(["replace", "--partition", "2", "--pbkdf", "pbkdf2", "--iterations", "1000"]);
    command.arg("--old-secret").arg(format!("file:{}", path("old").display()));
    command.arg("--new-secret").arg(format!("file:{}", path("new").display()));
    run_ok(command.arg(&disk));
    let after = fs::read(&disk).unwrap();
    assert!(after[..start] == before[..start] && after[start..] != before[start..]);
    assert!(after[start + luks.len()..] == before[start + luks.len()..]);

    let place = ["--offset", &start.to_string(), "--sizelimit", &luks.len().to_string()];
    let Some(device) = Loop::attach(&disk, &place, directory) else { return };
    assert!(cryptsetup.opens(&device.path, b"another"));
    assert!(!cryptsetup.opens(&device.path, b"hunter0"));
}

/// The keyslots of a device change as those of a file do, and cryptsetup opens it.
#[test]
fn a_device_is_amended_like_a_file() {
    let Some(device) = Loop::luks2() else { return };
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let (old, new) = (device.file("old", b"hunter0"), device.file("new", b"another"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
    let secret =
        |name: &str, file: &Path| [format!("--{name}"), format!("file:{}", file.display())];
    command.arg("add").args(secret("secret", &old)).args(secret("new-secret", &new));
    run_ok(command.args(["--pbkdf", "pbkdf2", "--iterations", "1000"]).arg(&device.path));
    assert!(cryptsetup.opens(&device.path, b"another"));
    assert!(FileStorage::open(&device.path, Access::ReadOnly).unwrap().len().unwrap() > 0);
}

fn amend(path: &Path) -> Result<FileStorage> {
    FileStorage::open_shared(path, Access::ReadWrite, Sharing::Amend, None)
}

/// Claims a device, as the kernel does for a file system or a mapping.
fn claim(path: &Path) -> io::Result<File> {
    fs::OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(path)
}

/// A loop device with a copy of a test image.
struct Loop {
    path: PathBuf,
    directory: TempDir,
}

impl Loop {
    fn luks1() -> Option<Self> {
        Self::of(|file| {
            fs::copy("testdata/luks1_qemu.img", file).unwrap();
        })
    }

    fn luks2() -> Option<Self> {
        let cryptsetup = Cryptsetup::find()?;
        let light = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
        Self::of(|file| cryptsetup.format_luks2(file, b"hunter0", 3, &light))
    }

    /// None, and a line that says so, where there are no loop devices for us.
    fn of(make: impl FnOnce(&Path)) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("device.img");
        make(&file);
        Self::attach(&file, &[], directory)
    }

    /// A device over a file, or a part of one.
    fn attach(file: &Path, place: &[&str], directory: TempDir) -> Option<Self> {
        let losetup = peer("losetup")?;
        let output = run(Command::new(losetup).args(["--find", "--show"]).args(place).arg(file));
        if !output.status.success() {
            eprintln!("SKIPPED: no loop device to be had: {}", stderr(&output).trim_end());
            return None;
        }
        let path = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim_end());
        Some(Self { path, directory })
    }

    /// cryptsetup's lock for it.
    fn lock(&self) -> PathBuf {
        let device = fs::metadata(&self.path).unwrap().rdev();
        format!("/run/cryptsetup/L_{}:{}", major(device), minor(device)).into()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(Command::new("losetup").arg("--detach").arg(&self.path));
    }
}
