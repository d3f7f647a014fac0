//! Errors carry what a caller decides by: kind, operation, path, offset, keyslot, the system's number.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::io;
use std::ops::Range;
use std::sync::Arc;

use keyslot::amend::{AmendFault, Change, ChangeKind, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Backup, Header, Keyslot};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::sharing::Conflict;
use keyslot::storage::{ReadOnlyBytes, Storage};
use keyslot::{
    Error, ErrorKind, Image, Limits, OpenOptions, Operation, Override, Overrides, Passphrase,
    Restoration, Sharing,
};
use nix::libc;
use support::luks2::roomy;
use support::memory::{self, Memory};
use support::opener::{erase, secret, small_key};
use support::watched::{Watch, Watched};

/// A storage that fails one operation with an error of the system.
#[derive(Debug)]
struct Faulty {
    memory: Arc<Memory>,
    operation: Operation,
    /// Bytes whose access fails
    range: Range<u64>,
    number: i32,
}

impl Faulty {
    fn fail(&self, operation: Operation, offset: u64) -> io::Result<()> {
        if self.operation == operation && self.range.contains(&offset) {
            return Err(io::Error::from_raw_os_error(self.number));
        }
        Ok(())
    }
}

impl Watch for Faulty {
    fn below(&self) -> &dyn Storage {
        &self.memory
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.fail(Operation::Read, offset).and_then(|()| self.memory.read_exact_at(buf, offset))
    }

    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.fail(Operation::Write, offset).and_then(|()| self.memory.write_all_at(buf, offset))
    }

    fn sync(&self) -> io::Result<()> {
        self.fail(Operation::Sync, 0).and_then(|()| self.memory.sync_data())
    }
}

/// An image with one keyslot, and the areas of all.
fn luks1() -> Vec<u8> {
    memory::image(&small_key(), &[(0, &secret("a"))])
}

fn area(image: &[u8], index: usize) -> Range<u64> {
    let header = Header::read(&ReadOnlyBytes(image)).unwrap();
    let Keyslot { area, .. } = header.keyslot(index).unwrap();
    area.offset..area.offset + area.len as u64
}

fn open(image: &[u8], operation: Operation, range: Range<u64>, number: i32) -> Image {
    let memory = Memory::new(image.to_vec(), None);
    let storage = Watched(Faulty { memory, operation, range, number });
    support::open_on(storage, Limits::NONE).unwrap()
}

fn amend(image: &mut Image, change: Change) -> Error {
    let unlocked = image.unlock(&secret("a")).unwrap();
    let plan = image.plan(Request::one(change)).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap_err()
}

fn add(keyslot: i64) -> Change {
    let pbkdf = Pbkdf::from(Cost::Iterations(1)).kind(KdfKind::Pbkdf2);
    Change::Add { keyslot: Some(keyslot), new_secret: Ok(secret("b")), pbkdf }
}

type Context = (ErrorKind, Option<Operation>, Option<u64>, Option<usize>, Option<i32>);

fn context(error: &Error) -> Context {
    let (kind, operation) = (error.kind(), error.operation());
    (kind, operation, error.offset(), error.keyslot(), error.raw_os_error())
}

#[test]
fn a_full_disk_is_told_with_its_offset_and_keyslot() {
    let image = luks1();
    let range = area(&image, 3);
    let mut image = open(&image, Operation::Write, range.clone(), libc::ENOSPC);
    let (write, at) = (Some(Operation::Write), Some(range.start));
    let expected = (ErrorKind::NoSpace, write, at, Some(3), Some(libc::ENOSPC));
    assert_eq!(context(&amend(&mut image, add(3))), expected);
}

/// The keyslot is new in LUKS2: only the header that was to be written knows its area.
#[test]
fn a_new_keyslot_is_known_by_its_area() {
    let image = roomy(1).bytes;
    let now = Header::read(&ReadOnlyBytes(&image[..])).unwrap();
    let ends = now.keyslots().map(|it| it.area.offset + it.area.len as u64);
    let used = now.keyslots().map(|it| it.area.offset).min().unwrap()..ends.max().unwrap();
    let fails = used.start..u64::MAX;
    let memory = Memory::new(image, None);
    let storage =
        Faulty { memory, operation: Operation::Write, range: fails, number: libc::EDQUOT };
    let mut image = support::open_on(Watched(storage), Limits::NONE).unwrap();
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let request = Request::one(add(9));
    let plan = image.plan(request).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!((error.kind(), error.keyslot()), (ErrorKind::NoSpace, Some(9)), "{error:?}");
    assert_eq!(error.raw_os_error(), Some(libc::EDQUOT));
}

#[test]
fn a_failed_sync_has_no_offset() {
    let mut image = open(&luks1(), Operation::Sync, 0..1, libc::EIO);
    let expected = (ErrorKind::Io, Some(Operation::Sync), None, None, Some(libc::EIO));
    assert_eq!(context(&amend(&mut image, add(3))), expected);
}

#[test]
fn a_restoration_names_the_keyslot_that_it_could_not_write() {
    let image = memory::image(&small_key(), &[(0, &secret("a")), (3, &secret("b"))]);
    let backup = Backup::read(&ReadOnlyBytes(image.clone())).unwrap();
    let range = area(&image, 3);
    let memory = Memory::new(image, None);
    let mut opened = support::open_on(Arc::clone(&memory), Limits::NONE).unwrap();
    let plan = opened.plan(Request::one(erase(3))).unwrap();
    opened.amend(&plan, None).unwrap();

    let (operation, number) = (Operation::Write, libc::EIO);
    let storage = Watched(Faulty { memory, operation, range: range.clone(), number });
    let restoration = Restoration::on_storage(storage, backup, Overrides::NONE).unwrap();
    let error = restoration.run().unwrap_err();
    let expected = (ErrorKind::Io, Some(operation), Some(range.start), Some(3), Some(number));
    assert_eq!(context(&error), expected);
}

#[test]
fn an_unreadable_keyslot_is_named() {
    let image = luks1();
    let range = area(&image, 0);
    let image = open(&image, Operation::Read, range.clone(), libc::EIO);
    let error = image.unlock(&secret("a")).unwrap_err();
    let (read, at) = (Some(Operation::Read), Some(range.start));
    assert_eq!(context(&error), (ErrorKind::Io, read, at, Some(0), Some(libc::EIO)));
}

#[test]
fn a_keyslot_over_a_limit_is_named() {
    let limits = Limits::NONE.with_iterations(0);
    let image = support::open_on(ReadOnlyBytes(luks1()), limits).unwrap();
    let error = image.unlock_keyslot(0, &secret("a")).unwrap_err();
    assert_eq!(context(&error), (ErrorKind::Limit, None, None, Some(0), None));
    let image = support::open_on(ReadOnlyBytes(luks1()), Limits::NONE).unwrap();
    for (keyslot, kind) in [(0, ErrorKind::WrongSecret), (5, ErrorKind::InvalidInput)] {
        let error = image.unlock_keyslot(keyslot, &secret("b")).unwrap_err();
        assert_eq!(context(&error), (kind, None, None, Some(keyslot), None));
    }
}

#[test]
fn a_missing_file_and_a_denied_one_are_told_apart() {
    let open = |path: &str| OpenOptions::new().write(true).open(path).unwrap_err();
    let missing = open("/nonexistent/disk.img");
    let expected = (ErrorKind::NotFound, Some(Operation::Open), None, None, Some(libc::ENOENT));
    assert_eq!(context(&missing), expected);
    assert_eq!(missing.path().unwrap().to_str(), Some("/nonexistent/disk.img"));

    // The kernel denies this to root, too.
    let denied = open("/proc/sys/kernel/ostype");
    let found = (denied.kind(), denied.operation());
    assert_eq!(found, (ErrorKind::PermissionDenied, Some(Operation::Open)), "{denied:?}");
    assert!(matches!(denied.raw_os_error(), Some(libc::EACCES | libc::EPERM | libc::EROFS)));
}

#[test]
fn a_refused_lock_has_its_conflict_as_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disk.img");
    std::fs::write(&path, luks1()).unwrap();
    let amends = || OpenOptions::new().sharing(Sharing::Amend).open(&path);
    let held = amends().unwrap();
    let error = amends().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::InUse, Some(Operation::Lock)));
    assert_eq!(error.path(), Some(&*path));
    let conflict: &Conflict = error.reason().unwrap();
    assert_eq!(conflict.holders()[0].pid, std::process::id());
    drop(held);
}

/// Erasing needs no secret, so the offset is all that says which keyslot failed.
#[test]
fn a_failed_wipe_names_its_keyslot() {
    let image = memory::image(&small_key(), &[(0, &secret("a")), (6, &secret("b"))]);
    let range = area(&image, 6);
    let mut image = open(&image, Operation::Write, range.clone(), libc::EIO);
    let error = amend(&mut image, erase(6));
    assert_eq!((error.keyslot(), error.offset()), (Some(6), Some(range.start)), "{error:?}");
}

/// A program decides by the reason; the message is the library's own, and qemu-img's is the command's.
#[test]
fn a_refused_change_has_its_reason() {
    let (a, b, wrong) = (secret("a"), secret("b"), secret("wrong"));
    let image = memory::image(&small_key(), &[(0, &a), (6, &b)]);
    let image = support::open_on(ReadOnlyBytes(image), Limits::NONE).unwrap();
    let erase = |keyslot, old: Option<&Passphrase>| Change::Erase {
        keyslot,
        old_secret: old.map(|secret| Ok(secret.clone())),
    };
    let erases = ChangeKind::Erase;
    for (changes, kind, fault) in [
        (vec![add(6)], ErrorKind::Refused, AmendFault::Active { keyslot: 6 }),
        (
            vec![add(-1)],
            ErrorKind::InvalidInput,
            AmendFault::OutOfRange { number: -1, keyslots: 8, change: ChangeKind::Add },
        ),
        (vec![erase(Some(2), None)], ErrorKind::Refused, AmendFault::AlreadyErased { keyslot: 2 }),
        (
            vec![erase(Some(0), None), erase(Some(6), None)],
            ErrorKind::Refused,
            AmendFault::LastHolder { keyslot: 6 },
        ),
        (
            vec![erase(Some(0), Some(&wrong))],
            ErrorKind::WrongSecret,
            AmendFault::WrongSecret { keyslot: 0, change: erases },
        ),
        (
            vec![erase(None, Some(&wrong))],
            ErrorKind::WrongSecret,
            AmendFault::NoMatch { change: erases },
        ),
        (vec![erase(None, None)], ErrorKind::InvalidInput, AmendFault::NoTarget { change: erases }),
    ] {
        let error = image.plan(Request::new(changes)).unwrap_err();
        assert_eq!((error.kind(), error.reason()), (kind, Some(&fault)), "{error:?}");
        assert_eq!(error.reason::<Override>().copied(), fault.lifted_by(), "{error:?}");
        assert_eq!((error.keyslot(), error.message()), (fault.keyslot(), &*fault.to_string()));
    }
}
