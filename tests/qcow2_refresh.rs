//! An amendment of a guest's partition while this process writes through a volume of it: nothing that
//! the process knows of the image is forgotten.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyslot::amend::Request;
use keyslot::storage::{MemoryStorage, Storage};
use keyslot::{Image, Limits, OpenOptions, Overrides, Passphrase, Result, Sharing};

mod support;
use support::guest::{Guest, Numbers};
use support::memory;
use support::opener::{add, secret, small_key};
use support::qcow2_check::leaks;
use support::watched::{Watch, Watched};
use support::{partition, peer, run_ok};

/// Bytes of the volume
const LEN: usize = 64 << 10;
const CLUSTER: usize = 4096;

/// A storage whose syncs fail on demand.
#[derive(Debug)]
struct Moody {
    bytes: MemoryStorage,
    fails: AtomicBool,
}

impl Watch for Moody {
    fn below(&self) -> &dyn Storage {
        &self.bytes
    }

    fn sync(&self) -> io::Result<()> {
        if self.fails.load(Ordering::Relaxed) { Err(io::Error::other("gone")) } else { Ok(()) }
    }
}

/// A qcow2 image with a LUKS partition, converted with these options, perhaps with a snapshot.
fn guest(options: &[&str], has_snapshot: bool) -> Option<Vec<u8>> {
    let qemu_img = peer("qemu-img")?;
    let directory = tempfile::tempdir().unwrap();
    let (raw, path) = (directory.path().join("disk.raw"), directory.path().join("it.qcow2"));
    let mut luks = memory::image(&small_key(), &[(0, &secret("a"))]);
    // Clusters that become half as long when they are compressed
    let mut numbers = Numbers(7);
    luks.truncate(luks.len() - 512);
    luks.extend(
        (0..LEN).map(|n| {
            if n % 4096 < 2048 { 0x11 } else { u8::try_from(numbers.below(256)).unwrap() }
        }),
    );
    fs::write(&raw, partition::around(&luks)).unwrap();
    let mut command = Command::new(qemu_img);
    command.args(["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k"]).args(options);
    run_ok(command.args([&raw, &path]));
    if has_snapshot {
        Guest { image: path.clone(), is_encrypted: false }.snapshot("one");
    }
    let mut bytes = fs::read(path).unwrap();
    bytes.resize(bytes.len() + (1 << 20), 0);
    Some(bytes)
}

fn open(bytes: &[u8]) -> (Arc<Watched<Moody>>, Image) {
    let (bytes, fails) = (MemoryStorage::new(bytes.to_vec()), AtomicBool::new(false));
    let storage = Arc::new(Watched(Moody { bytes, fails }));
    let options = OpenOptions::new().limits(Limits::NONE).partition(partition::NUMBER);
    let options = options.sharing(Sharing::WriteAlone);
    let image = options.open_storage(Arc::<Watched<Moody>>::clone(&storage)).unwrap();
    (storage, image)
}

fn amend(image: &mut Image, keyslot: usize, new: &Passphrase) -> Result<()> {
    let unlocked = image.unlock(&secret("a"))?;
    let request = Request::new(vec![add(keyslot, new)]).overrides(Overrides::ALL);
    let plan = image.plan(request)?;
    image.amend(&plan, Some(&unlocked)).map(drop)
}

#[test]
fn a_failed_sync_is_not_forgotten() {
    let Some(bytes) = guest(&[], true) else { return };
    let (storage, mut image) = open(&bytes);
    let volume = image.volume(&image.unlock(&secret("a")).unwrap()).unwrap();
    volume.write_all_at(&[1; 512], 0).unwrap();
    storage.fails.store(true, Ordering::Relaxed);
    volume.sync().unwrap_err();
    storage.fails.store(false, Ordering::Relaxed);
    for keyslot in [2, 3] {
        let error = amend(&mut image, keyslot, &secret("b")).unwrap_err();
        let error = format!("{error:?}");
        assert!(error.contains("an earlier sync failed"), "{error}");
    }
    volume.write_all_at(&[1; 512], 20_000).unwrap_err();
    volume.sync().unwrap_err();
}

#[test]
fn clusters_to_release_are_not_forgotten() {
    let Some(bytes) = guest(&[], true) else { return };
    let (storage, mut image) = open(&bytes);
    let volume = image.volume(&image.unlock(&secret("a")).unwrap()).unwrap();
    volume.write_all_at(&vec![1; 30_000], 0).unwrap();
    amend(&mut image, 2, &secret("b")).unwrap();
    volume.sync().unwrap();
    assert_eq!(leaks(&storage.bytes.to_vec()), leaks(&bytes));
    image.unlock(&secret("b")).unwrap();
}

/// Host clusters that only compressed clusters of the volume are in.
fn compressed(image: &[u8]) -> BTreeSet<usize> {
    let word = |at: usize| u64::from_be_bytes(image[at..at + 8].try_into().unwrap());
    let offset = |word: u64| usize::try_from(word & 0x00ff_ffff_ffff_fe00).unwrap();
    let l2 = offset(word(offset(word(40))));
    let (mut inside, mut outside) = (BTreeSet::new(), BTreeSet::new());
    // Only the last two clusters of the disk are not the volume's alone.
    let disk = usize::try_from(word(24)).unwrap().div_ceil(CLUSTER);
    for index in 0..disk {
        let entry = word(l2 + 8 * index);
        if entry >> 62 & 1 == 0 {
            outside.insert(offset(entry) / CLUSTER);
            continue;
        }
        // 4 bits of a descriptor with 4096-byte clusters count further sectors.
        let at = usize::try_from(entry & ((1 << 58) - 1)).unwrap();
        let end = at / 512 * 512 + 512 * (1 + usize::try_from(entry >> 58 & 15).unwrap());
        let clusters = at / CLUSTER..end.div_ceil(CLUSTER);
        let is_inside = (disk - 16..disk - 2).contains(&index);
        (if is_inside { &mut inside } else { &mut outside }).extend(clusters);
    }
    inside.difference(&outside).copied().collect()
}

#[test]
fn clusters_that_a_reader_may_look_at_are_not_used_again() {
    let Some(bytes) = guest(&["-c"], false) else { return };
    let (storage, mut image) = open(&bytes);
    let volume = image.volume(&image.unlock(&secret("a")).unwrap()).unwrap();
    let freed = compressed(&bytes);
    volume.write_all_at(&vec![1; LEN], 0).unwrap();
    volume.sync().unwrap();
    for keyslot in [2, 3] {
        amend(&mut image, keyslot, &secret("b")).unwrap();
    }
    let now = storage.bytes.to_vec();
    for cluster in &freed {
        let range = cluster * CLUSTER..((cluster + 1) * CLUSTER).min(bytes.len());
        assert!(now[range.clone()] == bytes[range], "cluster {cluster} was used again");
    }
    assert!(!freed.is_empty());
}
