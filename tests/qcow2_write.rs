//! What keyslot writes to the disk in a qcow2 image, keyslot and QEMU read, and `qemu-img check` finds
//! no fault afterwards.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::sync::Arc;

use keyslot::storage::{Access, FileStorage, MemoryStorage, Storage};
use keyslot::{ErrorKind, OpenOptions, Passphrase, Sharing};

mod support;
use support::guest::{Guest, Numbers, all};

/// Reads, writes and zeros at random places, against a model.
fn exercise(disk: &dyn Storage, model: &mut [u8], numbers: &mut Numbers, count: usize) {
    let mut buf = vec![0; 80_000];
    for n in 0..count {
        let start = numbers.below(model.len());
        // Most accesses are short, and many are sectors.
        let most = [4096, 80_000][usize::from(numbers.below(8) == 0)].min(model.len() - start);
        let len = 1 + numbers.below(most);
        let (start, len) = match numbers.below(2) {
            0 => (start, len),
            _ => (start / 512 * 512, (len / 512 * 512).max(512)),
        };
        let range = start..(start + len).min(model.len());
        let buf = &mut buf[..range.len()];
        match numbers.below(10) {
            0..5 => {
                buf.fill(u8::try_from(n % 255).unwrap() + 1);
                disk.write_all_at(buf, start as u64).unwrap();
                model[range].copy_from_slice(buf);
            }
            5 => {
                disk.write_zeros_at(start as u64, range.len() as u64).unwrap();
                model[range].fill(0);
            }
            _ => {
                disk.read_exact_at(buf, start as u64).unwrap();
                assert!(*buf == model[range], "operation {n}, {len} bytes at {start}");
            }
        }
    }
}

/// Exercises the disk of an image. Then QEMU finds no fault, and reads what the model has.
fn exercise_in_turn(guest: &Guest, model: &mut [u8], numbers: &mut Numbers, count: usize) {
    let disk = guest.disk(Sharing::WriteAlone).unwrap();
    exercise(disk.as_ref(), model, numbers, count);
    disk.sync_data().unwrap();
    drop(disk);
    guest.check();
    assert!(guest.raw() == model);
}

fn each_kind(is_encrypted: bool, kinds: &[&str], count: usize) {
    const LEN: usize = 6_291_968;
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for (n, options) in kinds.iter().enumerate() {
        let image = directory.path().join(format!("{n}.qcow2"));
        let Some(guest) = Guest::create(&image, is_encrypted, options, &["6291968"]) else {
            return;
        };
        // Zeros, clusters in place, and holes
        guest.io("write -q -P 9 100k 300k\nwrite -q -z 200k 150k\nwrite -q -P 8 2M 64k\n");
        let mut model = guest.raw();
        assert_eq!(model.len(), LEN);
        for round in 0..2 {
            let disk = guest.disk(Sharing::WriteAlone).unwrap();
            exercise(disk.as_ref(), &mut model, &mut numbers, count);
            disk.sync_data().unwrap();
            assert!(all(disk.as_ref()) == model);
            drop(disk);
            guest.check();
            assert!(guest.raw() == model, "{options} {round}");
            assert!(all(guest.disk(Sharing::ReadData).unwrap().as_ref()) == model);
            if options.contains("refcount_bits=1,") {
                break;
            }
            guest.snapshot("one");
        }
    }
}

#[test]
fn plain_images_of_every_kind() {
    each_kind(
        false,
        &[
            "cluster_size=512",
            "cluster_size=4k,refcount_bits=1,compat=1.1",
            "",
            "cluster_size=2M,refcount_bits=64",
            "compat=0.10",
            "cluster_size=512,refcount_bits=64",
            "preallocation=metadata",
            "cluster_size=4k,refcount_bits=2,lazy_refcounts=on",
        ],
        5000,
    );
}

#[test]
fn encrypted_images_of_every_kind() {
    let kinds = ["cluster_size=512,refcount_bits=16", "", "cluster_size=2M,compat=0.10"];
    each_kind(true, &kinds, 5000);
}

/// Threads whose clusters and tables are the same, and whose bytes are not.
#[test]
fn threads_write_side_by_side() {
    const THREADS: u8 = 8;
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    for (unordered, options) in [(false, "cluster_size=4k"), (true, "cluster_size=512")] {
        let Some(guest) = Guest::create(&image, false, options, &["4M"]) else { return };
        guest.io("write -q -P 99 0 1M\n");
        guest.snapshot("one");
        let file = FileStorage::open(&image, Access::ReadWrite).unwrap();
        let options = OpenOptions::new().sharing(Sharing::WriteAlone).unordered(unordered);
        let disk = options.open_disk_storage(Arc::new(file)).unwrap();
        let storage = disk.storage();
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for n in 0..60 {
                        let at = u64::from(THREADS) * 1000 * n + u64::from(thread) * 1000;
                        storage.write_all_at(&[thread + 1; 1000], at * 8).unwrap();
                        if n % 20 == 0 {
                            storage.sync_data().unwrap();
                        }
                    }
                });
            }
        });
        storage.sync_data().unwrap();
        drop(disk);
        guest.check();
        let raw = guest.raw();
        let mut model = vec![0; 4 << 20];
        model[..1 << 20].fill(99);
        for n in 0..60 * usize::from(THREADS) {
            let thread = u8::try_from(n % usize::from(THREADS)).unwrap();
            model[n * 8000..n * 8000 + 1000].fill(thread + 1);
        }
        assert!(raw == model);
    }
}

#[test]
fn overlays_are_copied_on_write() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(99);
    let raw: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    let base = directory.path().join("base.raw");
    fs::write(&base, &raw).unwrap();
    for is_encrypted in [false, true] {
        let image = directory.path().join("top.qcow2");
        let backing = ["-b", "base.raw", "-F", "raw", "4M"];
        let Some(guest) = Guest::create(&image, is_encrypted, "", &backing) else { return };
        let mut model = guest.raw();
        exercise_in_turn(&guest, &mut model, &mut numbers, 3000);
    }
    assert!(fs::read(base).unwrap() == raw, "the backing file changed");
}

#[test]
fn compressed_clusters_are_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(4);
    for (is_encrypted, options) in [(false, "cluster_size=4k"), (false, ""), (true, "")] {
        let image = directory.path().join("it.qcow2");
        let Some(guest) = Guest::create(&image, is_encrypted, options, &["2M"]) else { return };
        guest.io("write -q -c -P 9 0 1M\nwrite -q -c -P 8 1M 512k\n");
        guest.snapshot("one");
        let before = guest.raw();
        let mut model = before.clone();
        exercise_in_turn(&guest, &mut model, &mut numbers, 300);
        guest.revert("one");
        guest.check();
        assert!(guest.raw() == before);
    }
}

#[test]
fn a_snapshot_keeps_what_it_had() {
    let directory = tempfile::tempdir().unwrap();
    for is_encrypted in [false, true] {
        let image = directory.path().join("it.qcow2");
        let Some(guest) = Guest::create(&image, is_encrypted, "cluster_size=4k", &["2M"]) else {
            return;
        };
        guest.io("write -q -P 9 100k 900k\nwrite -q -z 300k 64k\n");
        let before = guest.raw();
        guest.snapshot("one");
        let mut model = before.clone();
        exercise_in_turn(&guest, &mut model, &mut Numbers(3), 1000);
        guest.revert("one");
        guest.check();
        assert!(guest.raw() == before, "the snapshot changed");
    }
}

#[test]
fn an_image_that_cannot_be_written_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    let refused = |guest: &Guest, expected: &str| {
        let before = fs::read(&guest.image).unwrap();
        let disk = guest.disk(Sharing::WriteAlone).unwrap();
        let error = disk.write_all_at(&[1; 512], 0).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(fs::read(&guest.image).unwrap() == before, "{expected}: the file changed");
    };
    let Some(guest) = Guest::create(&image, false, "", &["1M"]) else { return };
    guest.bitmap("b");
    refused(&guest, "persistent bitmaps");

    let guest = Guest::create(&image, false, "extended_l2=on", &["1M"]).unwrap();
    refused(&guest, "extended L2 entries");

    let guest = Guest::create(&image, false, "", &["1M"]).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    bytes[79] |= 1;
    fs::write(&image, &bytes).unwrap();
    refused(&guest, "was not closed");
    bytes[79] = 2;
    fs::write(&image, &bytes).unwrap();
    refused(&guest, "Image is corrupt");

    // The first refcount block says that the L1 table is free.
    let guest = Guest::create(&image, false, "", &["1M"]).unwrap();
    let mut bytes = fs::read(&image).unwrap();
    let table = u64::from_be_bytes(bytes[48..56].try_into().unwrap());
    let table = usize::try_from(table).unwrap();
    let block = u64::from_be_bytes(bytes[table..table + 8].try_into().unwrap());
    let l1 = u64::from_be_bytes(bytes[40..48].try_into().unwrap());
    let count = usize::try_from(block + l1 / 65536 * 2).unwrap();
    bytes[count..count + 2].fill(0);
    fs::write(&image, &bytes).unwrap();
    refused(&guest, "the reference count of the L1 table is 0");
}

/// Entries of the refcount table that name another structure, no structure, or one block twice.
#[test]
fn a_refcount_block_has_a_place_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("it.qcow2");
    for is_encrypted in [false, true] {
        let Some(guest) = Guest::create(&path, is_encrypted, "", &["1M"]) else { return };
        let bytes = fs::read(&path).unwrap();
        let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let (l1, table) = (word(40), word(48));
        let block = word(usize::try_from(table).unwrap());
        let mut cases = vec![
            (l1, "points into the L1 table"),
            (table, "points into the refcount table"),
            (block, "points to the same block as another entry"),
            (1 << 40, "points beyond the end of the file"),
            (u64::MAX << 16, "points beyond the end of the file"),
        ];
        if is_encrypted {
            // The extension for it is the header's first: its type, its length, and the offset.
            let kind = bytes.windows(4).position(|it| it == 0x0537_be77_u32.to_be_bytes());
            cases.push((word(kind.unwrap() + 8), "points into the LUKS header"));
        }
        for (entry, expected) in cases {
            let mut bytes = bytes.clone();
            let at = usize::try_from(table + 8).unwrap();
            bytes[at..at + 8].copy_from_slice(&entry.to_be_bytes());
            fs::write(&path, &bytes).unwrap();
            let disk = guest.disk(Sharing::WriteAlone).unwrap();
            let error = disk.write_all_at(&[1; 512], 0).unwrap_err().to_string();
            assert!(error.contains("entry 1 of the refcount table"), "{error}");
            assert!(error.contains(expected), "{error}");
            drop(disk);
            assert!(fs::read(&path).unwrap() == bytes, "{expected}: the file changed");
        }
    }
}

/// A cluster that is freed after smaller ones were free, and above those that were looked at.
#[test]
fn a_freed_cluster_is_not_used_again_while_the_image_is_open() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    let Some(guest) = Guest::create(&image, false, "cluster_size=4k", &["1M"]) else { return };
    guest.io("write -q -P 1 0 64k\n");
    guest.snapshot("one");
    guest.io("write -q -P 2 0 64k\nwrite -q -c -P 4 128k 4k\n");
    guest.forget("one");
    let bytes = fs::read(&image).unwrap();
    let word = |at: u64| {
        let at = usize::try_from(at).unwrap();
        u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
    };
    let l2 = word(word(40)) & 0x00ff_ffff_ffff_fe00;
    let host = usize::try_from(word(l2 + 8 * 32) & ((1 << 58) - 1)).unwrap() / 4096 * 4096;

    let disk = guest.disk(Sharing::WriteAlone).unwrap();
    disk.write_all_at(&[5; 512], 128 << 10).unwrap();
    disk.sync_data().unwrap();
    disk.write_all_at(&vec![6; 256 << 10], 256 << 10).unwrap();
    disk.sync_data().unwrap();
    drop(disk);
    let now = fs::read(&image).unwrap();
    assert!(now[host..host + 16] == bytes[host..host + 16], "the cluster was used again");
    guest.check();
}

#[test]
fn an_encrypted_image_has_one_writer() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    if Guest::create(&image, true, "", &["1M"]).is_none() {
        return;
    }
    let options = OpenOptions::new().sharing(Sharing::WriteData);
    let first = options.open(&image).unwrap();
    assert_eq!(options.open(&image).unwrap_err().kind(), ErrorKind::InUse);
    drop(first);
    // A storage of one's own has no locks that keep a second writer out.
    let bytes = Arc::new(MemoryStorage::new(std::fs::read(&image).unwrap()));
    let own = OpenOptions::new().sharing(Sharing::WriteData).open_storage(bytes).unwrap();
    let unlocked = own.unlock(&Passphrase::new(support::PASSPHRASE.as_bytes()).unwrap()).unwrap();
    let error = own.volume(&unlocked).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    // An image that is not encrypted has no disk of its own, but what QEMU's guest has.
    assert!(OpenOptions::new().open_disk(&image).is_err());
}
