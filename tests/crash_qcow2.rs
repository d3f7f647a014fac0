//! A crash at any instant of a write to the disk in a qcow2 image leaves each sector of the disk old or
//! new, and clusters that are counted and not used at most.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use keyslot::amend::Request;
use keyslot::storage::{MemoryStorage, Storage};
use keyslot::{Limits, OpenOptions, Overrides, Passphrase, Sharing};

mod support;
use support::crash::states_up_to;
use support::guest::{Guest, all, disk};
use support::memory::{self, Memory, Op};
use support::opener::{add, erase, replace, secret, small_key};
use support::partition;
use support::qcow2_check::leaks;
use support::{peer, run};

/// A write of this byte, or zeros.
#[derive(Clone, Copy, Debug)]
enum Access {
    Write(u64, usize, u8),
    Zeros(u64, u64),
    Sync,
}

use Access::{Sync, Write, Zeros};

/// Whether `qemu-img check` finds leaks at most.
fn qemu_agrees(directory: &Path, state: &[u8]) -> bool {
    let path = directory.join("state.qcow2");
    fs::write(&path, state).unwrap();
    let mut command = Command::new(peer("qemu-img").unwrap());
    let output = run(command.args(["check", "-q", "-f", "qcow2"]).arg(&path));
    matches!(output.status.code(), Some(0 | 3))
}

/// Every crash state of these accesses, the last of which a sync follows and the close.
fn crash(directory: &Path, image: &[u8], accesses: &[Access], subsets: usize) -> usize {
    let memory = Memory::new(image.to_vec(), None);
    let before = all(disk(memory.clone(), false, Sharing::None).unwrap().as_ref());
    let writing = disk(memory.clone(), false, Sharing::WriteAlone).unwrap();
    // Contents of the disk that may be found, sector by sector
    let mut contents = vec![before.clone()];
    for access in accesses {
        let mut next = contents.last().unwrap().clone();
        match *access {
            Write(at, len, byte) => {
                writing.write_all_at(&vec![byte; len], at).unwrap();
                next[usize::try_from(at).unwrap()..][..len].fill(byte);
            }
            Zeros(at, len) => {
                writing.write_zeros_at(at, len).unwrap();
                next[usize::try_from(at).unwrap()..][..usize::try_from(len).unwrap()].fill(0);
            }
            Sync => writing.sync_data().unwrap(),
        }
        contents.push(next);
    }
    writing.sync_data().unwrap();
    drop(writing);
    assert_eq!(leaks(&memory.bytes()), leaks(image), "clusters leak without a crash");

    let log = memory.log();
    let mut number = 0;
    let count = states_up_to(subsets, image, &log, |state| {
        if let Err(error) = leaks(state) {
            panic!("state {number}: {error}");
        }
        if number % 199 == 0 {
            assert!(qemu_agrees(directory, state), "state {number}");
        }
        let found = disk(Arc::new(MemoryStorage::new(state.to_vec())), false, Sharing::None);
        let found = all(found.unwrap().as_ref());
        for (n, sector) in found.chunks(512).enumerate() {
            let place = n * 512..n * 512 + sector.len();
            let is_known = contents.iter().any(|contents| contents[place.clone()] == *sector);
            assert!(is_known, "state {number}: sector {n} was never so");
        }
        number += 1;
    });
    assert!(log.iter().any(|op| matches!(op, Op::Sync)));
    assert!(leaks(&memory.bytes()).is_ok());
    // What was synced is there.
    let after = disk(memory.clone(), false, Sharing::None).unwrap();
    assert!(all(after.as_ref()) == *contents.last().unwrap());
    count
}

fn image_with(secrets: &[(usize, &Passphrase)]) -> Vec<u8> {
    memory::image(&small_key(), secrets)
}

/// A small image, made by QEMU, with a snapshot of some clusters and room behind it.
fn image(directory: &Path, options: &str, size: &str, script: &str) -> Option<Vec<u8>> {
    let path = directory.join("it.qcow2");
    let guest = Guest::create(&path, false, options, &[size])?;
    guest.io(script);
    if !options.contains("refcount_bits=1,") {
        guest.snapshot("one");
        guest.io("write -q -P 7 20k 4k\n");
    }
    let mut bytes = fs::read(path).unwrap();
    bytes.resize(bytes.len() + (256 << 10), 0);
    Some(bytes)
}

#[test]
fn a_write_is_there_or_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let script = "write -q -P 1 0 12k\nwrite -q -z 14k 4k\nwrite -q -P 2 40k 6k\n";
    for options in
        ["cluster_size=512", "cluster_size=1k,refcount_bits=64", "cluster_size=512,compat=0.10"]
    {
        let Some(image) = image(directory.path(), options, "128k", script) else { return };
        let mut count = 0;
        for accesses in [
            // A hole, with a new L2 table
            &[Write(70_000, 3000, 3)][..],
            // Across two tables
            &[Write(65_000, 2000, 3)],
            // A snapshot's cluster and table, in part
            &[Write(1000, 100, 4)],
            &[Zeros(3000, 2000)],
            // A zero cluster
            &[Write(15_000, 700, 5)],
            // The disk's own cluster
            &[Write(21_000, 700, 6)],
            // Several without a sync, over one another
            &[Write(41_000, 1500, 8), Write(41_700, 1500, 9), Write(90_000, 512, 10)],
            &[Write(0, 512, 8), Sync, Write(512, 512, 9), Zeros(0, 1024), Sync, Write(0, 300, 3)],
        ] {
            count += crash(directory.path(), &image, accesses, 1 << 12);
        }
        assert!(count > 300, "{count}");
    }
}

#[test]
fn an_image_that_outgrows_its_tables() {
    let directory = tempfile::tempdir().unwrap();
    // 64 counts in a block, 64 blocks in a table: the table ends at 2 MiB of the file.
    let options = "cluster_size=512,refcount_bits=64";
    let script = "write -q -P 1 0 1840k\n";
    let path = directory.path().join("it.qcow2");
    let Some(guest) = Guest::create(&path, false, options, &["3M"]) else { return };
    guest.io(script);
    let mut image = fs::read(&path).unwrap();
    let len = image.len();
    assert!(len < 2 << 20, "{len}");
    image.resize(len + (512 << 10), 0);
    let last = [Write(2_000_000, 220_000, 2), Sync, Write(2_300_000, 512, 3)];
    let count = crash(directory.path(), &image, &last, 64);
    assert!(count > 100, "{count}");
    // The same without a crash, in a file
    fs::write(&path, &image[..len]).unwrap();
    let disk = guest.disk(Sharing::WriteAlone).unwrap();
    disk.write_all_at(&vec![2; 220_000], 2_000_000).unwrap();
    disk.sync_data().unwrap();
    drop(disk);
    guest.check();
    assert!(fs::metadata(&path).unwrap().len() > 2 << 20);
}

/// A medium that runs full, or breaks, at every operation: the image stays consistent, and each sector
/// of the disk is old or new.
#[test]
fn a_failed_write_leaves_a_consistent_image() {
    let directory = tempfile::tempdir().unwrap();
    let script = "write -q -P 1 0 12k\n";
    let Some(image) = image(directory.path(), "cluster_size=512", "128k", script) else { return };
    let write = |memory: &Arc<Memory>| {
        let disk = disk(memory.clone(), false, Sharing::WriteAlone).unwrap();
        let written = disk.write_all_at(&[9; 3000], 10_000);
        written.and_then(|()| disk.write_all_at(&[9; 3000], 66_000)).and_then(|()| disk.sync_data())
    };
    let contents = |bytes: Vec<u8>| {
        all(disk(Arc::new(MemoryStorage::new(bytes)), false, Sharing::None).unwrap().as_ref())
    };
    let whole = Memory::new(image.clone(), None);
    write(&whole).unwrap();
    let (before, after) = (contents(image.clone()), contents(whole.bytes()));
    let mut failures = 0;
    for fails in 0..whole.log().len() {
        let memory = Memory::new(image.clone(), Some(fails));
        // Clusters are released after the last sync, which may fail without harm.
        failures += usize::from(write(&memory).is_err());
        leaks(&memory.bytes()).unwrap();
        let now = contents(memory.bytes());
        for ((now, before), after) in now.chunks(512).zip(before.chunks(512)).zip(after.chunks(512))
        {
            assert!(now == before || now == after, "{fails}");
        }
    }
    assert!(failures > 5, "{failures}");
}

/// The promise of an amendment, for a guest's partition whose clusters a snapshot uses too.
#[test]
fn keyslots_of_a_guests_partition() {
    let Some(qemu_img) = peer("qemu-img") else { return };
    let directory = tempfile::tempdir().unwrap();
    let [a, old, new] = ["a", "old", "new"].map(secret);
    let raw = directory.path().join("disk.raw");
    fs::write(&raw, partition::around(&image_with(&[(0, &a), (6, &old)]))).unwrap();
    let path = directory.path().join("it.qcow2");
    let mut command = Command::new(qemu_img);
    command.args(["convert", "-f", "raw", "-O", "qcow2", "-o", "cluster_size=4k"]);
    assert!(run(command.args([&raw, &path])).status.success());
    Guest { image: path.clone(), is_encrypted: false }.snapshot("one");
    let mut image = fs::read(&path).unwrap();
    image.resize(image.len() + (1 << 20), 0);

    let options = || OpenOptions::new().limits(Limits::NONE).partition(partition::NUMBER);
    for (change, before, after) in
        [(add(2, &new), &old, &new), (erase(6), &old, &a), (replace(6, &new), &old, &new)]
    {
        let memory = Memory::new(image.clone(), None);
        let amending = options().sharing(Sharing::Amend);
        let mut amended = amending.open_storage(Arc::<Memory>::clone(&memory)).unwrap();
        let unlocked = amended.unlock(&a).unwrap();
        let request = Request::new(vec![change]).overrides(Overrides::ALL);
        let plan = amended.plan(request).unwrap();
        amended.amend(&plan, Some(&unlocked)).unwrap();
        drop(amended);
        let opens = |state: &[u8], secret| {
            let state = Arc::new(MemoryStorage::new(state.to_vec()));
            options().open_storage(state).unwrap().unlock(secret).is_ok()
        };
        assert!(opens(&memory.bytes(), after));
        let mut number = 0;
        states_up_to(64, &image, &memory.log(), |state| {
            leaks(state).unwrap();
            assert!(opens(state, &a) && (opens(state, before) || opens(state, after)), "{number}");
            if number % 99 == 0 {
                assert!(qemu_agrees(directory.path(), state), "{number}");
            }
            number += 1;
        });
        assert!(number > 50, "{number}");
    }
}

#[test]
fn after_a_failed_sync_nothing_depends_on_what_may_be_lost() {
    let directory = tempfile::tempdir().unwrap();
    let script = "write -q -P 1 0 12k\n";
    let Some(image) = image(directory.path(), "cluster_size=512", "128k", script) else { return };
    let whole = Memory::new(image.clone(), None);
    let writes = |memory: &Arc<Memory>| {
        let disk = disk(memory.clone(), false, Sharing::WriteAlone).unwrap();
        let mut results = Vec::new();
        for n in 0..4_u64 {
            results.push(disk.write_all_at(&[9; 700], 60_000 + 2000 * n));
        }
        results.push(disk.sync_data());
        results
    };
    assert!(writes(&whole).iter().all(Result::is_ok));
    let count = whole.log().len();
    for fails in 0..count {
        let memory = Memory::new(image.clone(), Some(fails));
        let results = writes(&memory);
        let failed = results.iter().position(Result::is_err).unwrap_or(results.len());
        assert!(results[failed..].iter().all(Result::is_err), "{fails}: a success after a failure");
        leaks(&memory.bytes()).unwrap();
    }
}
