//! An image is never amended while anybody else has it open, and the other way around: tried with
//! QEMU's own programs, which share the locks, and with `flock(2)`, which is cryptsetup's.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::error::Error as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use keyslot::storage::sharing::{Conflict, Sharing};
use keyslot::storage::{Access, FileStorage, Storage};
use keyslot::{Error, ErrorKind, Result};
use support::locks::{descriptors, ofd_locks};
use support::{Running, eventually, luks1_image, peer, run, secret_object, stderr};
use tempfile::TempDir;

/// What an amendment locks.
const AMEND: [&str; 4] = ["100 101", "103 103", "200 201", "203 203"];

#[test]
fn amend_is_refused_while_qemu_has_it_open() {
    let Some(image) = Image::luks() else { return };
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    for (args, suffix, locks, text) in [
        (&[][..], "", &["100 101", "203 203"][..], "Failed to get \"resize\" lock"),
        (&["-r"], "", &["100 100", "203 203"], "Failed to get \"resize\" lock"),
        (&["-r"], ",force-share=on", &["100 100"], "Failed to get shared \"consistent read\" lock"),
    ] {
        let nbd = image.nbd(&qemu_nbd, args, suffix);
        eventually("locks of qemu-nbd", || ofd_locks(nbd.pid(), &image.path) == locks);

        let err = image.open(Sharing::Amend).unwrap_err();
        assert_in_use(&err, text, &format!("qemu-nbd (pid {})", nbd.pid()));
        assert_eq!(ofd_locks(process::id(), &image.path), [""; 0]);

        // The others are what QEMU's own would be: two writers do coexist.
        drop(image.open(Sharing::ReadData).unwrap());
        drop(image.open(Sharing::WriteData).unwrap());

        drop(nbd);
        image.open(Sharing::Amend).unwrap();
    }
}

#[test]
fn qemu_is_refused_while_we_amend() {
    let Some(image) = Image::luks() else { return };
    let (Some(qemu_io), Some(qemu_img)) = (peer("qemu-io"), peer("qemu-img")) else { return };
    let read = || image.io(&qemu_io, &["-r", "-c", "read 0 512"], "");
    let read_shared = || image.io(&qemu_io, &["-r", "-c", "read 0 512"], ",force-share=on");
    let write = || image.io(&qemu_io, &["-c", "write 0 512"], "");
    let amend = || {
        let mut command = Command::new(&qemu_img);
        let options = ["amend", "--image-opts", "-o", "state=active,new-secret=s,iter-time=10"];
        run(command.args(options).args(["--object", &secret_object()]).arg(image.options("")))
    };

    let held = image.open(Sharing::Amend).unwrap();
    for (what, output) in
        [("read", read()), ("share", read_shared()), ("write", write()), ("amend", amend())]
    {
        let text = stderr(&output);
        assert!(!output.status.success(), "{what}");
        assert!(text.contains("Failed to get "), "{what}: {text}");
    }
    drop(held);

    let held = image.open(Sharing::WriteData).unwrap();
    assert!(read().status.success());
    assert!(write().status.success());
    let text = stderr(&amend());
    assert!(text.contains("Failed to get shared \"consistent read\" lock"), "{text}");
    drop(held);

    let held = image.open(Sharing::ReadData).unwrap();
    assert!(read().status.success());
    assert!(write().status.success());
    assert!(!amend().status.success());
    drop(held);

    let held = image.open(Sharing::None).unwrap();
    assert!(amend().status.success());
    drop(held);
}

/// What QEMU takes for a guest's disk, by its storage daemon: a node above the file asks for the
/// permissions that a disk asks for.
#[test]
fn alone_as_a_writer_is_what_qemus_guest_disk_is() {
    let Some(image) = Image::luks() else { return };
    let Some(daemon) = peer("qemu-storage-daemon") else { return };
    let guest = || {
        let mut command = Command::new(&daemon);
        command
            .arg("--blockdev")
            .arg(format!("driver=file,node-name=file,filename={}", image.path.display()));
        Running::spawn(command.arg("--blockdev").arg(
            "driver=blkdebug,node-name=disk,image=file,take-child-perms.0=consistent-read,\
             take-child-perms.1=write,unshare-child-perms.0=write",
        ))
    };
    let locks = ["100 101", "201 201"];

    let disk = guest();
    eventually("locks of the guest's disk", || ofd_locks(disk.pid(), &image.path) == locks);
    let err = image.open(Sharing::WriteAlone).unwrap_err();
    let holder = format!("qemu-storage-da (pid {})", disk.pid());
    assert_in_use(&err, "Failed to get \"write\" lock", &holder);
    image.open(Sharing::WriteData).unwrap_err();
    drop(image.open(Sharing::ReadData).unwrap());
    drop(disk);

    let held = image.open(Sharing::WriteAlone).unwrap();
    assert_eq!(image.locks(), locks);
    let mut second = guest();
    assert!(!second.wait().success(), "a second disk of the same image");
    drop(held);
}

#[test]
fn alone_as_a_writer_is_beside_readers_of_qemu_and_no_writer() {
    let Some(image) = Image::luks() else { return };
    let (Some(qemu_io), Some(qemu_nbd)) = (peer("qemu-io"), peer("qemu-nbd")) else { return };
    let read = || image.io(&qemu_io, &["-r", "-c", "read 0 512"], "");
    let write = || image.io(&qemu_io, &["-c", "write 0 512"], "");

    let held = image.open(Sharing::WriteAlone).unwrap();
    assert!(read().status.success());
    let refused = write();
    assert!(!refused.status.success());
    assert!(stderr(&refused).contains("Failed to get \"write\" lock"), "{}", stderr(&refused));
    drop(held);

    let nbd = image.nbd(&qemu_nbd, &[], "");
    eventually("locks of qemu-nbd", || ofd_locks(nbd.pid(), &image.path) == ["100 101", "203 203"]);
    let err = image.open(Sharing::WriteAlone).unwrap_err();
    let holder = format!("qemu-nbd (pid {})", nbd.pid());
    assert_in_use(&err, "Failed to get shared \"write\" lock", &holder);
    drop(nbd);

    let nbd = image.nbd(&qemu_nbd, &["-r"], "");
    eventually("locks of qemu-nbd", || ofd_locks(nbd.pid(), &image.path) == ["100 100", "203 203"]);
    drop(image.open(Sharing::WriteAlone).unwrap());
}

#[test]
fn an_upgrade_goes_back_to_exactly_what_it_was() {
    let image = Image::empty();
    for (base, before) in [
        (Sharing::None, &[][..]),
        (Sharing::ReadData, &["100 100", "203 203"]),
        (Sharing::WriteData, &["100 101", "203 203"]),
        (Sharing::WriteAlone, &["100 101", "201 201"]),
        (Sharing::Amend, &AMEND),
    ] {
        let storage = Arc::new(image.open(base).unwrap());
        assert_eq!(image.locks(), before);

        let upgrade = storage.upgrade(Sharing::Amend, None).unwrap();
        assert_eq!(storage.sharing(), Sharing::Amend);
        assert_eq!(image.locks(), AMEND);
        assert!(Arc::ptr_eq(upgrade.storage(), &storage));

        let err = storage.upgrade(Sharing::Amend, None).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InUse, "one at a time");

        drop(upgrade);
        assert_eq!(storage.sharing(), base);
        assert_eq!(image.locks(), before);
        let other = File::open(&image.path).unwrap();
        assert_eq!(other.try_lock().is_ok(), base != Sharing::Amend);
        other.unlock().unwrap();

        // The guard is enough to keep the file open.
        let upgrade = storage.upgrade(Sharing::Amend, None).unwrap();
        drop(storage);
        assert_eq!(image.locks(), AMEND);
        drop(upgrade);
        assert_eq!(image.locks(), [""; 0]);
    }
}

#[test]
fn a_refused_upgrade_changes_nothing() {
    let image = Image::empty();
    let storage = Arc::new(image.open(Sharing::ReadData).unwrap());
    for other in [Sharing::ReadData, Sharing::WriteData] {
        let other = image.open(other).unwrap();
        let before = image.locks();
        let err = storage.upgrade(Sharing::Amend, None).unwrap_err();
        assert_eq!(err.kind(), ErrorKind::InUse);
        assert_eq!(storage.sharing(), Sharing::ReadData);
        assert_eq!(image.locks(), before);
        drop(other);
    }
    // Refused by flock, which comes after all bytes are taken.
    let other = File::open(&image.path).unwrap();
    other.lock_shared().unwrap();
    let before = image.locks();
    storage.upgrade(Sharing::Amend, None).unwrap_err();
    assert_eq!(image.locks(), before);
    other.unlock().unwrap(); // not by closing: a child may be on its way to exec

    drop(storage.upgrade(Sharing::Amend, None).unwrap());
}

#[test]
fn an_upgrade_is_refused_while_qemu_reads() {
    let Some(image) = Image::luks() else { return };
    let Some(qemu_nbd) = peer("qemu-nbd") else { return };
    let storage = Arc::new(image.open(Sharing::WriteData).unwrap());
    let nbd = image.nbd(&qemu_nbd, &["-r"], ",force-share=on");
    eventually("locks of qemu-nbd", || ofd_locks(nbd.pid(), &image.path) == ["100 100"]);

    let err = storage.upgrade(Sharing::Amend, None).unwrap_err();
    let text = "Failed to get shared \"consistent read\" lock";
    assert_in_use(&err, text, &format!("qemu-nbd (pid {})", nbd.pid()));
    assert_eq!(image.locks(), ["100 101", "203 203"]);

    drop(nbd);
    drop(storage.upgrade(Sharing::Amend, None).unwrap());
}

#[test]
fn two_of_one_process_exclude_each_other() {
    use Sharing::{Amend, None, ReadData, ReadStable, WriteAlone, WriteData};

    let image = Image::empty();
    for (held, wanted, is_granted) in [
        (None, Amend, true),
        (Amend, None, true),
        (ReadData, ReadData, true),
        (ReadData, WriteData, true),
        (WriteData, WriteData, true),
        (ReadData, Amend, false),
        (WriteData, Amend, false),
        (Amend, ReadData, false),
        (Amend, WriteData, false),
        (Amend, Amend, false),
        (ReadData, WriteAlone, true),
        (WriteAlone, ReadData, true),
        (ReadStable, WriteAlone, false),
        (WriteAlone, ReadStable, false),
        (WriteData, WriteAlone, false),
        (WriteAlone, WriteData, false),
        (WriteAlone, WriteAlone, false),
        (Amend, WriteAlone, false),
        (WriteAlone, Amend, false),
    ] {
        let held = image.open(held).unwrap();
        let result = image.open(wanted);
        assert_eq!(result.is_ok(), is_granted, "{wanted:?} beside {held:?}");
        if let Err(err) = result {
            assert_eq!(err.path(), Some(&*image.path));
            assert!(err.message().contains(&format!("(pid {})", process::id())), "{err}");
        }
    }
}

#[test]
fn amend_excludes_flock_and_flock_amend() {
    let image = Image::empty();

    let held = image.open(Sharing::Amend).unwrap();
    File::open(&image.path).unwrap().try_lock_shared().unwrap_err();
    drop(held);

    let held = File::open(&image.path).unwrap();
    held.try_lock_shared().unwrap();
    let err = image.open(Sharing::Amend).unwrap_err();
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let holder = format!("{} (pid {})", name.trim_end(), process::id());
    assert_in_use(&err, "Failed to lock the file", &holder);
    drop(image.open(Sharing::WriteData).unwrap());
    held.unlock().unwrap(); // not by closing: a child may be on its way to exec

    image.open(Sharing::Amend).unwrap();
}

#[test]
fn the_holder_of_an_flock_is_named() {
    let image = Image::empty();
    let Some(flock) = peer("flock") else { return };
    let mut command = Command::new(flock);
    let mut holder =
        Running::spawn(command.arg("--no-fork").arg(&image.path).args(["sleep", "60"]));
    let suffix = format!("locked by sleep (pid {})", holder.pid());
    eventually("flock", || {
        image.open(Sharing::Amend).is_err_and(|err| err.message().ends_with(&suffix))
    });
    assert!(!holder.has_ended());
}

#[test]
fn waits_for_the_holder_to_go() {
    let image = Image::empty();
    let minute = Some(Duration::from_secs(60));

    let held = image.open(Sharing::ReadData).unwrap();
    let waited = thread::scope(|scope| {
        let open = scope.spawn(|| image.open_waiting(Sharing::Amend, minute).unwrap());
        eventually("a second descriptor", || descriptors(process::id(), &image.path) == 2);
        drop(held);
        open.join().unwrap()
    });

    let storage = Arc::new(waited);
    let upgrade = storage.upgrade(Sharing::Amend, None).unwrap();
    thread::scope(|scope| {
        let second = scope.spawn(|| storage.upgrade(Sharing::Amend, minute).unwrap());
        drop(upgrade);
        drop(second.join().unwrap());
    });

    let start = Instant::now();
    let wait = Duration::from_millis(150);
    let err = image.open_waiting(Sharing::Amend, Some(wait)).unwrap_err();
    assert_eq!(err.kind(), ErrorKind::InUse);
    assert!(start.elapsed() >= wait);
}

#[test]
fn a_file_replaced_while_waiting_is_opened_anew() {
    let image = Image::empty();
    let held = image.open(Sharing::Amend).unwrap();
    let minute = Some(Duration::from_secs(60));
    let storage = thread::scope(|scope| {
        let open = scope.spawn(|| image.open_waiting(Sharing::Amend, minute).unwrap());
        eventually("a second descriptor", || descriptors(process::id(), &image.path) == 2);
        let new = image.dir.path().join("new.img");
        fs::write(&new, b"new").unwrap();
        fs::rename(&new, &image.path).unwrap();
        drop(held);
        open.join().unwrap()
    });
    assert_eq!(storage.len().unwrap(), 3);
}

/// A file of its own for each test.
struct Image {
    path: PathBuf,
    dir: TempDir,
}

impl Image {
    fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk.img");
        File::create(&path).unwrap();
        Self { path, dir }
    }

    /// A copy of the LUKS image, which is made once.
    fn luks() -> Option<Self> {
        static LUKS: OnceLock<Vec<u8>> = OnceLock::new();
        let qemu_img = peer("qemu-img")?;
        let image = Self::empty();
        let bytes = LUKS.get_or_init(|| {
            luks1_image(&qemu_img, &image.path);
            fs::read(&image.path).unwrap()
        });
        fs::write(&image.path, bytes).unwrap();
        Some(image)
    }

    fn open(&self, sharing: Sharing) -> Result<FileStorage> {
        self.open_waiting(sharing, None)
    }

    fn open_waiting(&self, sharing: Sharing, wait: Option<Duration>) -> Result<FileStorage> {
        FileStorage::open_shared(&self.path, Access::ReadWrite, sharing, wait)
    }

    /// The OFD locks of this process on it.
    fn locks(&self) -> Vec<String> {
        ofd_locks(process::id(), &self.path)
    }

    fn options(&self, suffix: &str) -> String {
        format!("driver=luks,key-secret=s,file.filename={}{suffix}", self.path.display())
    }

    fn nbd(&self, qemu_nbd: &Path, args: &[&str], suffix: &str) -> Running {
        let socket = self.dir.path().join("nbd.sock");
        let mut command = Command::new(qemu_nbd);
        command.args(["--persistent", "--object", &secret_object(), "--image-opts"]);
        command.arg(format!("--socket={}", socket.display()));
        Running::spawn(command.args(args).arg(self.options(suffix)))
    }

    fn io(&self, qemu_io: &Path, args: &[&str], suffix: &str) -> process::Output {
        let mut command = Command::new(qemu_io);
        command.args(["--object", &secret_object(), "--image-opts"]);
        run(command.args(args).arg(self.options(suffix)))
    }
}

#[track_caller]
fn assert_in_use(err: &Error, text: &str, holder: &str) {
    assert_eq!(err.kind(), ErrorKind::InUse);
    // Others may be named too: a child of another test on its way to exec has our descriptors.
    assert!(err.message().starts_with(&format!("{text}: ")), "{err}");
    assert!(err.message().contains(holder), "{err}");
    let conflict = err.source().unwrap().downcast_ref::<Conflict>().unwrap();
    assert_eq!(conflict.to_string(), text);
    assert!(conflict.holders().iter().any(|found| holder.contains(&found.to_string())));
}
