//! The volume of an image: who may write it, what keeps others away, and how long it is.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use keyslot::amend::{Change, Request};
use keyslot::kdf::Cost;
use keyslot::{ErrorKind, Image, Limits, OpenOptions, Sharing};
use support::amending::passphrase;
use support::disk::Disk;

#[test]
fn of_a_luks1_image() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.luks");
    std::fs::copy("testdata/luks1_qemu.img", &path).unwrap();

    for (sharing, writable) in [
        (Sharing::None, false),
        (Sharing::ReadData, false),
        (Sharing::WriteData, true),
        (Sharing::WriteAlone, true),
        (Sharing::Amend, true),
    ] {
        let image = OpenOptions::new().write(true).sharing(sharing).open(&path).unwrap();
        let volume = image.volume(&image.unlock(&passphrase("hunter0")).unwrap()).unwrap();
        drop(image);
        assert_eq!((volume.len(), volume.is_writable()), (65536, writable));

        let mut buf = [0; 4096];
        volume.read_exact_at(&mut buf, 0).unwrap();
        assert!(buf.iter().all(|&byte| byte == 0xa5));
        let written = volume.write_all_at(&[0xa5; 9], 4090);
        let encrypted = volume.write_sectors(1, &mut buf[..512]);
        assert_eq!(written.is_ok(), writable);
        assert_eq!(encrypted.is_ok(), writable);
        for error in [written, encrypted].into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert_eq!(error.path(), Some(path.as_path()));
            assert!(error.message().ends_with("the image is not open for writing data"));
        }

        // It is the volume that holds the lock now.
        let other = OpenOptions::new().sharing(Sharing::Amend).open(&path);
        let kind = other.map_err(|error| error.kind()).err();
        assert_eq!(kind, (sharing != Sharing::None).then_some(ErrorKind::InUse));
        volume.sync().unwrap();
    }
}

#[test]
fn keyslots_can_be_amended_meanwhile() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.luks");
    std::fs::copy("testdata/luks1_qemu.img", &path).unwrap();
    let mut image = OpenOptions::new().sharing(Sharing::WriteData).open(&path).unwrap();
    let unlocked = image.unlock(&passphrase("hunter0")).unwrap();
    let volume = image.volume(&unlocked).unwrap();
    volume.write_all_at(b"before", 100).unwrap();

    let change = Change::replace(&passphrase("hunter0"), &passphrase("new"), Cost::Iterations(1));
    let plan = image.plan(Request::one(change)).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();

    volume.write_all_at(b"behind", 106).unwrap();
    let unlocked = image.unlock(&passphrase("new")).unwrap();
    let mut bytes = [0; 12];
    image.volume(&unlocked).unwrap().read_exact_at(&mut bytes, 100).unwrap();
    assert_eq!(&bytes, b"beforebehind");
}

#[test]
fn the_key_of_another_image_is_refused() {
    let image = |name| Image::open(format!("testdata/{name}.img")).unwrap();
    let other = image("luks1_old_layout").unlock(&passphrase("hunter0")).unwrap();
    let error = image("luks1_qemu").volume(&other).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(error.message(), "the volume key belongs to another image");
}

/// As with QEMU, a last sector that the file only begins is there, and its rest is zeros until it
/// is written.
#[test]
fn of_an_image_that_ends_in_the_middle_of_a_sector() {
    let bytes = std::fs::read("testdata/luks1_qemu.img").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.luks");
    for (len, expected) in [(bytes.len() - 512, 65024), (bytes.len() - 511, 65536)] {
        std::fs::write(&path, &bytes[..len]).unwrap();
        let image = OpenOptions::new().sharing(Sharing::WriteData).open(&path).unwrap();
        let volume = image.volume(&image.unlock(&passphrase("hunter0")).unwrap()).unwrap();
        assert_eq!(volume.len(), expected);

        let mut sector = [0; 512];
        let first = expected / 512 - 1;
        volume.read_sectors(first, &mut sector).unwrap();
        let cipher = image.header().cipher().unwrap();
        let unlocked = image.unlock(&passphrase("hunter0")).unwrap();
        let cipher = cipher.sector_cipher(unlocked.volume_key().as_bytes()).unwrap();
        cipher.encrypt(first, &mut sector);
        let start = bytes.len() - 65536 + usize::try_from(first * 512).unwrap();
        let mut on_disk = bytes[start..len].to_vec();
        on_disk.resize(512, 0);
        assert!(sector == on_disk[..]);

        volume.write_all_at(&[7], expected - 100).unwrap();
        let mut byte = [0];
        volume.read_exact_at(&mut byte, expected - 100).unwrap();
        assert_eq!(byte, [7]);
        assert_eq!(std::fs::metadata(&path).unwrap().len() % 512, 0);
    }
}

/// Truncated after it was opened, to less than its own header says.
#[test]
fn of_an_image_without_its_payload() {
    let bytes = std::fs::read("testdata/luks1_qemu.img").unwrap();
    let payload = bytes.len() - 65536;
    let image = support::open_on(Disk::new(&bytes), Limits::NONE).unwrap();
    let error = image.header().segments(payload as u64 - 512).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(error.hint(), Some("the image is truncated"));
    assert_eq!(image.header().segments(payload as u64).unwrap()[0].len, 0);
    image.header().segments(u64::MAX).unwrap_err();
}
