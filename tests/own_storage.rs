//! Promise: an image on a caller's storage opens, is made and is named as one in a file is.

use std::path::Path;
use std::sync::Arc;

use keyslot::amend::{Change, Request};
use keyslot::crypto::{CipherSpec, KdfKind};
use keyslot::kdf::{Cost, Pbkdf};
use keyslot::storage::{MemoryStorage, ReadOnlyBytes, Storage};
use keyslot::{
    CreateOptions, ErrorKind, Format, Image, Luks2Options, OpenOptions, Override, Passphrase,
    Sharing, Unlocked, VolumeKey,
};

fn secret(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes()).expect("memory")
}

fn testdata(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name))
        .expect("an image of testdata")
}

#[test]
fn a_storage_is_opened_for_reading_unless_asked() {
    let storage = Arc::new(MemoryStorage::new(testdata("luks1_qemu.img")));
    let request =
        || Request::one(Change::replace(&secret("hunter0"), &secret("b"), Cost::Iterations(1000)));

    let mut image = OpenOptions::new().open_storage(storage.clone()).unwrap();
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let plan = image.plan(request()).unwrap();
    let error = image.amend(&plan, Some(&unlocked)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(image.volume(&unlocked).unwrap().write_all_at(&[0; 512], 0).is_err());

    let mut image = OpenOptions::new().write(true).open_storage(storage).unwrap();
    let plan = image.plan(request()).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();
    assert_eq!(image.unlock(&secret("b")).unwrap().keyslot(), Some(0));
}

#[test]
fn a_storage_has_the_name_that_it_is_given() {
    let options = OpenOptions::new().name("disk 7");
    let error = options.open_storage(Arc::new(ReadOnlyBytes(vec![0; 1 << 20]))).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::NotLuks, Some(Path::new("disk 7"))));

    let image = options.open_storage(Arc::new(ReadOnlyBytes(testdata("luks1_qemu.img")))).unwrap();
    let error = image.unlock(&secret("no")).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::WrongSecret, Some(Path::new("disk 7"))));
}

#[test]
fn a_range_of_a_storage_is_an_image() {
    let mut bytes = vec![0; 4096];
    bytes.extend(testdata("luks1_qemu.img"));
    let options = OpenOptions::new().range(4096, None);
    let image = options.open_storage(Arc::new(ReadOnlyBytes(bytes))).unwrap();
    assert_eq!(image.part(), Some((4096, None)));
    image.unlock(&secret("hunter0")).unwrap();
}

/// With the key of another image, or a key cut short, nothing opens.
#[test]
fn a_volume_key_is_checked_against_the_digest() {
    for name in ["luks1_qemu.img", "luks2_keyslots.img"] {
        let open = |name| {
            OpenOptions::new().open_storage(Arc::new(ReadOnlyBytes(testdata(name)))).unwrap()
        };
        let image = open(name);
        let unlocked = image.unlock(&secret("hunter0")).unwrap();
        let key = |bytes| VolumeKey::new(bytes).unwrap();
        let right = unlocked.volume_key().as_bytes();
        let given = image.unlock_with_key(key(right)).unwrap();
        assert_eq!((given.keyslot(), given.volume_key()), (None, unlocked.volume_key()), "{name}");
        image.volume(&given).unwrap();
        let mut other = right.to_vec();
        other[0] ^= 1;
        for wrong in [&other, &right[1..], &[]] {
            let error = image.unlock_with_key(key(wrong)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongSecret, "{name}");
        }
    }
}

/// The volume key opens the data when no keyslot is left.
#[test]
fn a_volume_key_opens_an_image_without_keyslots() {
    for name in ["luks1_qemu.img", "luks2_keyslots.img"] {
        let storage = Arc::new(MemoryStorage::new(testdata(name)));
        let options = OpenOptions::new().sharing(Sharing::Amend);
        let mut image = options.open_storage(storage).unwrap();
        let unlocked = image.unlock(&secret("hunter0")).unwrap();
        let key = VolumeKey::new(unlocked.volume_key().as_bytes()).unwrap();
        let start = |image: &Image, unlocked: &Unlocked| {
            let mut start = [0; 4096];
            image.volume(unlocked).unwrap().read_exact_at(&mut start, 0).unwrap();
            start
        };
        let before = start(&image, &unlocked);
        let active = image.keyslots().filter(|it| it.active).map(|it| Change::erase(it.index));
        let request = Request::new(active.collect()).overrides(Override::LoseKey);
        let plan = image.plan(request).unwrap();
        image.amend(&plan, None).unwrap();

        let unlocked = image.unlock_with_key(key).unwrap();
        assert!(start(&image, &unlocked) == before, "{name}");
        let other = VolumeKey::random(unlocked.volume_key().as_bytes().len()).unwrap();
        assert!(image.unlock_with_key(other).is_err(), "{name}");
    }
}

/// A search for the copies of a LUKS2 header would find the older one behind the new image's.
#[test]
fn copies_of_an_older_header_are_overwritten_too() {
    let mut large = Luks2Options::default();
    large.metadata_size = Some(4 << 20);
    let pbkdf = Pbkdf::from(Cost::Iterations(1000)).kind(KdfKind::Pbkdf2);
    let old = CreateOptions::new().unwrap().format(Format::Luks2(large)).pbkdf(pbkdf);
    let storage = Arc::new(MemoryStorage::new(vec![0; 32 << 20]));
    old.create_on(storage.clone(), &secret("old")).unwrap();
    // What comes before the secondary copy is gone.
    storage.write_all_at(&vec![0; 4 << 20], 0).unwrap();

    let new = CreateOptions::new().unwrap().cost(Cost::Iterations(1000));
    let error = new.create_on(storage.clone(), &secret("new")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.message(), "a copy of an older header is at byte 4194304");
    new.overwrite(true).create_on(storage.clone(), &secret("new")).unwrap();
    assert_eq!(storage.to_vec()[4 << 20..][..4096], [0; 4096]);
    storage.write_all_at(&[0; 4096], 0).unwrap();
    let error = OpenOptions::new().open_storage(storage).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotLuks);
}

/// HMAC pads short keys with zeros, so the digest alone confirms a key with zeros behind it. Key material
/// of such a key would be longer than the area of its keyslot.
#[test]
fn a_volume_key_with_zeros_behind_it_is_another() {
    for format in [Format::Luks1, Format::Luks2(Luks2Options::default())] {
        let storage = Arc::new(MemoryStorage::new(vec![0; 20 << 20]));
        let cipher = CipherSpec::parse("aes", "xts-plain64", 32).unwrap();
        let pbkdf = Pbkdf::from(Cost::Iterations(1000)).kind(KdfKind::Pbkdf2);
        let options = CreateOptions::new().unwrap().format(format).cipher(cipher).pbkdf(pbkdf);
        let created = options.create_on(storage.clone(), &secret("a")).unwrap();
        let mut key = created.unlocked().volume_key().as_bytes().to_vec();
        let image = OpenOptions::new().open_storage(storage).unwrap();
        image.unlock_with_key(VolumeKey::new(&key).unwrap()).unwrap();
        key.resize(64, 0);
        let error = image.unlock_with_key(VolumeKey::new(&key).unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WrongSecret, "{}", image.header().format());
    }
}

#[test]
fn what_is_made_opens_without_another_derivation() {
    let storage = Arc::new(MemoryStorage::new(vec![0; 4 << 20]));
    let options = CreateOptions::new().unwrap().cost(Cost::Iterations(1000));
    let created = options.create_on(storage.clone(), &secret("a")).unwrap();
    assert_eq!(created.keyslot(), 0);
    assert_eq!(created.uuid(), created.header().uuid());

    let options = OpenOptions::new().sharing(Sharing::WriteAlone);
    let image = options.open_storage(storage.clone()).unwrap();
    let volume = image.volume(created.unlocked()).unwrap();
    assert_eq!(volume.len(), created.payload_len());
    volume.write_all_at(b"first", 0).unwrap();
    let again = OpenOptions::new().open_storage(storage.clone()).unwrap();
    let unlocked = again.unlock(&secret("a")).unwrap();
    let mut start = [0; 5];
    again.volume(&unlocked).unwrap().read_exact_at(&mut start, 0).unwrap();
    assert_eq!(&start, b"first");

    // It is in use now, and is not overwritten unless that is asked for.
    let before = storage.len().unwrap();
    let options = CreateOptions::new().unwrap().cost(Cost::Iterations(1000));
    let error = options.create_on(storage.clone(), &secret("b")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    options.overwrite(true).create_on(storage.clone(), &secret("b")).unwrap();
    assert_eq!(storage.len().unwrap(), before);
}
