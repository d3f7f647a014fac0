//! An image in a window of a storage, and one whose header is in a storage of its own: what is
//! written, and in which order, is what is written to an image that has a storage to itself. So the
//! crash tests of that one hold for these.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;

use keyslot::amend::{Change, Request};
use keyslot::header::{Backup, Edit, Header};
use keyslot::storage::{MemoryStorage, ReadOnlyBytes, Storage, Window};
use keyslot::{Image, Limits, OpenOptions, Overrides, Restoration, Sharing};
use support::luks2::roomy;
use support::memory::{self, Memory, Op};
use support::opener::{add, erase, replace, secret, small_key};

/// Bytes before the window, and behind it
const BEFORE: usize = 3 * 512;
const BEHIND: usize = 4096;

/// A write's place and length, or a sync
type Access = Option<(usize, usize)>;

/// Accesses, without `shift` bytes before the image.
fn accesses(memory: &Memory, shift: usize) -> Vec<Access> {
    memory
        .log()
        .into_iter()
        .map(|op| match op {
            Op::Write { offset, bytes } => Some((offset.checked_sub(shift).unwrap(), bytes.len())),
            Op::Sync => None,
        })
        .collect()
}

/// The image between other bytes, and the window on it.
fn windowed(image: &[u8]) -> (Arc<Memory>, Window) {
    let all = [&vec![0xa5; BEFORE][..], image, &vec![0x5a; BEHIND]].concat();
    let memory = Memory::new(all, None);
    let below: Arc<dyn Storage> = Arc::<Memory>::clone(&memory);
    let window = Window::new(below, BEFORE as u64, Some(image.len() as u64)).unwrap();
    (memory, window)
}

/// Does the same to the image alone, in a window, and with its header apart.
fn the_same_is_written(image: &[u8], what: impl Fn(&mut Image)) {
    let alone = Memory::new(image.to_vec(), None);
    what(&mut support::open_on(Arc::clone(&alone), Limits::NONE).unwrap());
    let expected = accesses(&alone, 0);
    assert!(expected.len() > 4, "{expected:?}");

    let (memory, window) = windowed(image);
    what(&mut support::open_on(window, Limits::NONE).unwrap());
    assert_eq!(accesses(&memory, BEFORE), expected);
    let bytes = memory.bytes();
    let end = bytes.len() - BEHIND;
    assert!(
        bytes[..BEFORE].iter().all(|&it| it == 0xa5) && bytes[end..].iter().all(|&it| it == 0x5a)
    );

    let header = Memory::new(image.to_vec(), None);
    let payload = Memory::new(vec![1; 4096], None);
    let storages = (Arc::clone(&header), Arc::clone(&payload));
    let options = OpenOptions::new().write(true).limits(Limits::NONE);
    what(&mut options.open_storages(storages.0, storages.1).unwrap());
    assert_eq!(accesses(&header, 0), expected);
    assert!(payload.log().is_empty());
}

fn amend(image: &mut Image, changes: Vec<Change>) {
    let unlocked = image.unlock(&secret("old")).unwrap();
    let plan = image.plan(Request::new(changes)).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();
}

fn images() -> [Vec<u8>; 2] {
    let (old, other) = (secret("old"), secret("other"));
    let luks1 = memory::image(&small_key(), &[(0, &old), (6, &other)]);
    let luks2 = Memory::new(roomy(6).bytes, None);
    let mut image = support::open_on(Arc::clone(&luks2), Limits::NONE).unwrap();
    let unlocked = image.unlock(&secret("hunter0")).unwrap();
    let changes = vec![add(4, &old), add(6, &other)];
    let plan = image.plan(Request::new(changes)).unwrap();
    image.amend(&plan, Some(&unlocked)).unwrap();
    [luks1, luks2.bytes()]
}

#[test]
fn an_amendment_writes_the_same_wherever_the_image_is() {
    for image in images() {
        the_same_is_written(&image, |image| amend(image, vec![add(2, &secret("new"))]));
        the_same_is_written(&image, |image| amend(image, vec![erase(6)]));
        the_same_is_written(&image, |image| amend(image, vec![replace(6, &secret("new"))]));
        the_same_is_written(&image, |image| {
            amend(image, vec![erase(6), add(1, &secret("new")), add(2, &secret("more"))]);
        });
    }
    let [_, luks2] = images();
    the_same_is_written(&luks2, |image| image.edit(&[Edit::SetLabel("x".into())]).unwrap());
}

#[test]
fn a_restoration_writes_the_same_in_a_window() {
    for image in images() {
        let changed = Memory::new(image.clone(), None);
        let mut opened = support::open_on(Arc::clone(&changed), Limits::NONE).unwrap();
        amend(&mut opened, vec![erase(6), add(2, &secret("new"))]);
        let changed = changed.bytes();
        let backup = || Backup::read(&ReadOnlyBytes(image.clone())).unwrap();

        let alone = Memory::new(changed.clone(), None);
        Restoration::on_storage(Arc::clone(&alone), backup(), Overrides::NONE)
            .unwrap()
            .run()
            .unwrap();
        let (memory, window) = windowed(&changed);
        Restoration::on_storage(window, backup(), Overrides::NONE).unwrap().run().unwrap();
        assert_eq!(accesses(&memory, BEFORE), accesses(&alone, 0));
    }
}

/// The payload of a window is decrypted by its place in the window, and nothing beyond is touched.
#[test]
fn the_volume_in_a_window_is_that_of_the_image() {
    let image = std::fs::read("testdata/luks1_qemu.img").unwrap();
    let (memory, window) = windowed(&image);
    let opened = support::open_on(window, Limits::NONE).unwrap();
    let volume = opened.volume(&opened.unlock(&secret("hunter0")).unwrap()).unwrap();
    let mut read = [0; 4096];
    volume.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(read, [0xa5; 4096]);
    volume.write_all_at(&[7; 1000], volume.len() - 1000).unwrap();
    let bytes = memory.bytes();
    let moved = &bytes[BEFORE..bytes.len() - BEHIND];
    let alone = support::open_on(MemoryStorage::new(moved.to_vec()), Limits::NONE).unwrap();
    let alone = alone.volume(&alone.unlock(&secret("hunter0")).unwrap()).unwrap();
    let mut end = [0; 1000];
    alone.read_exact_at(&mut end, alone.len() - 1000).unwrap();
    assert_eq!(end, [7; 1000]);
    assert!(bytes[bytes.len() - BEHIND..].iter().all(|&it| it == 0x5a));
}

/// A header that is detached has nothing to decrypt in its own storage.
#[test]
fn a_detached_header_needs_its_payload() {
    let (old, new) = (secret("old"), secret("new"));
    let mut image = memory::image(&small_key(), &[(0, &old)]);
    image[104..108].fill(0);
    let opened = support::open_on(MemoryStorage::new(image.clone()), Limits::NONE).unwrap();
    assert!(opened.header().is_detached() && opened.volume_len().unwrap().is_none());
    let error = opened.volume(&opened.unlock(&old).unwrap()).unwrap_err();
    assert_eq!(error.message(), "the header is detached: its payload is in another file");

    let header = Memory::new(image, None);
    let payload = Arc::new(MemoryStorage::new(vec![0; 2048]));
    let options = OpenOptions::new().sharing(Sharing::Amend).limits(Limits::NONE);
    let mut opened = options.open_storages(header.clone(), payload).unwrap();
    assert_eq!(opened.volume_len().unwrap(), Some(2048));
    let volume = opened.volume(&opened.unlock(&old).unwrap()).unwrap();
    volume.write_all_at(b"through and through", 100).unwrap();
    amend(&mut opened, vec![replace(0, &new)]);
    let mut read = [0; 19];
    let volume = opened.volume(&opened.unlock(&new).unwrap()).unwrap();
    volume.read_exact_at(&mut read, 100).unwrap();
    assert_eq!(&read, b"through and through");
    assert!(Header::read(&ReadOnlyBytes(header.bytes())).unwrap().is_detached());
}
