//! An image in a file that is already open: a VMM gets descriptors, not paths. And `O_DIRECT`.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyslot::amend::{Change, Request};
use keyslot::crypto::CipherSpec;
use keyslot::{ErrorKind, Image, OpenOptions, Sharing};
use nix::libc;
use support::amending::passphrase;
use support::locks::locks;
use tempfile::TempDir;

#[test]
fn an_open_file_is_amended_and_locked_like_one_opened_by_its_path() {
    let scene = Scene::new();
    let file = scene.file();
    let options = OpenOptions::new().sharing(Sharing::Amend);
    let mut image = options.open_file(&file).unwrap();
    let error = options.open(&scene.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InUse);
    let error = options.open_file(&file).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::InUse, Some(&*scene.path)));

    erase_keyslot(&mut image, 1);
    assert_eq!(image.file().unwrap().path(), scene.path);
    drop(image);
    // The caller's descriptor is still open, and holds no lock.
    assert_eq!(locks(&scene.path), [""; 0]);
    assert!(!Image::open(&scene.path).unwrap().keyslots().nth(1).unwrap().active);
}

#[test]
fn a_file_that_has_no_name_any_more_is_amended() {
    let scene = Scene::new();
    let file = scene.file();
    fs::remove_file(&scene.path).unwrap();
    let mut image = OpenOptions::new().sharing(Sharing::Amend).open_file(&file).unwrap();
    erase_keyslot(&mut image, 1);
    assert!(!image.keyslots().nth(1).unwrap().active);
}

/// The descriptor says which file is meant: another one under the name of the first is another.
#[test]
fn a_replaced_file_is_still_the_one_that_was_opened() {
    let scene = Scene::new();
    let file = scene.file();
    let other = scene.directory.path().join("other");
    fs::copy(&scene.path, &other).unwrap();
    fs::rename(&other, &scene.path).unwrap();
    let mut image = OpenOptions::new().sharing(Sharing::Amend).open_file(&file).unwrap();
    erase_keyslot(&mut image, 1);
    assert!(Image::open(&scene.path).unwrap().keyslots().nth(1).unwrap().active);
}

#[test]
fn a_descriptor_is_not_used_for_more_than_it_is_open_for() {
    let scene = Scene::new();
    let readable = File::open(&scene.path).unwrap();
    let writable = File::options().write(true).open(&scene.path).unwrap();
    OpenOptions::new().sharing(Sharing::ReadData).open_file(&readable).unwrap();
    for (file, options, text) in [
        (&readable, OpenOptions::new().write(true), "the descriptor is open for reading only"),
        (&writable, OpenOptions::new(), "the descriptor is open for writing only"),
    ] {
        let error = options.open_file(file).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::InvalidInput, text));
    }
    let (reader, _writer) = io::pipe().unwrap();
    let pipe = File::from(std::os::fd::OwnedFd::from(reader));
    let error = OpenOptions::new().open_file(&pipe).unwrap_err();
    assert_eq!(error.message(), "is a FIFO");
}

/// A process that may not open the file uses the descriptor that it was given, and gives its locks
/// back although the other processes keep theirs open.
#[test]
fn a_descriptor_is_used_as_it_is_where_the_file_may_not_be_opened() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        return eprintln!("SKIPPED: only root can start a process as another user");
    }
    let scene = Scene::new();
    fs::set_permissions(scene.directory.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&scene.path, Permissions::from_mode(0o600)).unwrap();
    let file = scene.file();
    // The program may be in a directory that only root can enter.
    let program = scene.directory.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(program);
    command.args(["--exact", "as_nobody", "--ignored", "--nocapture"]);
    command.uid(65534).gid(65534).env("IMAGE", &scene.path);
    let output = command.stdin(file.try_clone().unwrap()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(locks(&scene.path), [""; 0]);
    assert!(!Image::open(&scene.path).unwrap().keyslots().nth(1).unwrap().active);
    drop(file);
}

#[test]
#[ignore = "run by the test above, as another user"]
fn as_nobody() {
    let path = PathBuf::from(std::env::var_os("IMAGE").unwrap());
    let file = File::from(io::stdin().as_fd().try_clone_to_owned().unwrap());
    let options = OpenOptions::new().sharing(Sharing::Amend);
    assert_eq!(options.open(&path).unwrap_err().kind(), ErrorKind::PermissionDenied);
    let mut image = options.open_file(&file).unwrap();
    assert!(!locks(&path).is_empty());
    erase_keyslot(&mut image, 1);
    drop(image);
    assert_eq!(locks(&path), [""; 0]);
}

#[test]
fn a_volume_is_the_same_with_and_without_o_direct() {
    let mut tried = 0;
    for scene in [Scene::new(), Scene::within(Path::new("."))] {
        let options = OpenOptions::new().sharing(Sharing::WriteAlone).direct(true);
        let image = match options.open(&scene.path) {
            Ok(image) => image,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
                assert!(error.message().contains("O_DIRECT"), "{error}");
                continue;
            }
        };
        tried += 1;
        assert!(image.file().unwrap().is_direct());
        let volume = image.volume(&image.unlock(&passphrase("hunter0")).unwrap()).unwrap();
        let mut expected = vec![0; usize::try_from(volume.len()).unwrap()];
        volume.read_exact_at(&mut expected, 0).unwrap();
        for (number, (start, len)) in
            [(0, 1), (511, 2), (4096, 4096), (5000, 3000), (512, 5120)].into_iter().enumerate()
        {
            let range = start..(start + len).min(expected.len());
            expected[range.clone()].fill(u8::try_from(number).unwrap() + 1);
            volume.write_all_at(&expected[range], start as u64).unwrap();
        }
        volume.sync().unwrap();
        let mut read = vec![0; expected.len()];
        volume.read_exact_at(&mut read, 0).unwrap();
        assert!(read == expected);
        let len = fs::metadata(&scene.path).unwrap().len();
        drop((volume, image));

        // The same with the page cache.
        let image = Image::open(&scene.path).unwrap();
        let volume = image.volume(&image.unlock(&passphrase("hunter0")).unwrap()).unwrap();
        volume.read_exact_at(&mut read, 0).unwrap();
        assert!(read == expected);
        assert_eq!(len, fs::read(&scene.path).unwrap().len() as u64);
    }
    if tried == 0 {
        eprintln!("SKIPPED: no file system here has O_DIRECT");
    }
}

#[test]
fn keyslots_are_amended_with_o_direct() {
    let scene = Scene::within(Path::new("."));
    let plain = Scene::new();
    fs::copy(&scene.path, &plain.path).unwrap();
    let options = OpenOptions::new().sharing(Sharing::Amend);
    let Ok(mut image) = options.clone().direct(true).open(&scene.path) else {
        return eprintln!("SKIPPED: the file system of the sources has no O_DIRECT");
    };
    erase_keyslot(&mut image, 1);
    let mut other = options.open(&plain.path).unwrap();
    erase_keyslot(&mut other, 1);
    // What overwrites an area is random.
    let header = |path: &Path| fs::read(path).unwrap()[..4096].to_vec();
    assert!(header(&scene.path) == header(&plain.path));
    assert_eq!(fs::metadata(&scene.path).unwrap().len(), fs::metadata(&plain.path).unwrap().len());
}

/// A VMM that passes a descriptor with `O_DIRECT` gets what it asked for.
#[test]
fn a_descriptor_with_o_direct_is_used_with_it() {
    let scene = Scene::within(Path::new("."));
    let mut options = File::options();
    options.read(true).write(true).custom_flags(libc::O_DIRECT);
    let Ok(file) = options.open(&scene.path) else {
        return eprintln!("SKIPPED: the file system of the sources has no O_DIRECT");
    };
    let image = OpenOptions::new().sharing(Sharing::ReadData).open_file(&file).unwrap();
    assert!(image.file().unwrap().is_direct());
    image.unlock(&passphrase("hunter0")).unwrap();
}

/// An image with a payload, which `hunter0` and `hunter1` open.
struct Scene {
    directory: TempDir,
    path: PathBuf,
}

impl Scene {
    fn new() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap())
    }

    fn within(directory: &Path) -> Self {
        Self::in_directory(tempfile::tempdir_in(directory.canonicalize().unwrap()).unwrap())
    }

    fn in_directory(directory: TempDir) -> Self {
        let path = directory.path().canonicalize().unwrap().join("image");
        let cipher = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
        let secrets = [(0, &passphrase("hunter0")), (1, &passphrase("hunter1"))];
        let mut bytes = support::memory::image(&cipher, &secrets);
        bytes.extend((0..=255u8).cycle().take(32 << 10));
        fs::write(&path, bytes).unwrap();
        Self { directory, path }
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(&self.path).unwrap()
    }
}

fn erase_keyslot(image: &mut Image, keyslot: usize) {
    let plan = image.plan(Request::one(Change::erase(keyslot))).unwrap();
    image.amend(&plan, None).unwrap();
}
