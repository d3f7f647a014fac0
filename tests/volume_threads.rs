//! Threads on one volume: no write is lost to another in the same sector, and nobody sees half of
//! one.
//!
//! Each thread has bytes that nobody else writes, in sectors that others write too. What it finds
//! there must be what it wrote; what a reader finds must be one write, whole: half a sector of one
//! and half of another would decrypt to noise.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use keyslot::crypto::CipherSpec;
use keyslot::header::Segment;
use keyslot::storage::Storage;
use keyslot::volume::Keyring;
use keyslot::{Limits, OpenOptions, Sharing, Volume, VolumeKey};
use support::amending::passphrase;
use support::disk::Disk;
use support::watched::{Watch, Watched};

/// Bytes of one owner: no sector has a multiple of it.
const STEP: usize = 300;
const AREA: usize = 16384;
const ROUNDS: u8 = 250;

fn volume(sector_size: usize) -> Volume {
    let encryption = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
    let half = AREA as u64 / 2;
    let segments = [0, half].map(|offset| Segment {
        offset,
        len: half,
        iv_tweak: offset / 512,
        sector_size,
        encryption: encryption.clone(),
        key: 0,
    });
    let disk = Disk::new(&[0; AREA]);
    let key = VolumeKey::random(64).unwrap();
    Volume::new(Arc::new(disk), segments.to_vec(), &Keyring::single(&key)).unwrap()
}

/// The bytes of an owner, 0 or 1, that are within one segment: those are read and written whole.
fn owned(owner: usize) -> impl Iterator<Item = Range<usize>> {
    let steps = (0..AREA / STEP).map(|step| step * STEP..(step + 1) * STEP);
    let is_owned = move |range: &Range<usize>| range.start / STEP % 2 == owner;
    steps.filter(move |range| is_owned(range) && !range.contains(&(AREA / 2)))
}

fn read(volume: &Volume, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; range.len()];
    volume.read_exact_at(&mut bytes, range.start as u64).unwrap();
    bytes
}

/// The one byte that all of `bytes` are.
#[track_caller]
fn uniform(bytes: &[u8]) -> u8 {
    let other = bytes.iter().position(|it| *it != bytes[0]);
    assert!(other.is_none(), "a mixture of {}, and another byte at {other:?}", bytes[0]);
    bytes[0]
}

/// Two threads write every other step each, and a third reads.
fn hammer(writers: [&Volume; 2], reader: &Volume) {
    reader.write_all_at(&[0; AREA], 0).unwrap();
    let over = AtomicBool::new(false);
    let write = |owner: usize, volume: &Volume| {
        for round in 1..=ROUNDS {
            for range in owned(owner) {
                let before = uniform(&read(volume, range.clone()));
                assert_eq!(before, round - 1, "lost: {range:?}");
                volume.write_all_at(&[round; STEP], range.start as u64).unwrap();
            }
        }
    };
    thread::scope(|scope| {
        let reads = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for range in owned(0).chain(owned(1)) {
                    let first = uniform(&read(reader, range.clone()));
                    let later = uniform(&read(reader, range.clone()));
                    assert!(first <= later && later <= ROUNDS, "{range:?} goes back");
                }
            }
        });
        let both = [0, 1].map(|owner| {
            let volume = writers[owner];
            scope.spawn(move || write(owner, volume))
        });
        let done = both.map(|writer| writer.join().is_ok());
        over.store(true, Ordering::Relaxed);
        assert!(done == [true; 2] && reads.join().is_ok());
    });
    for owner in [0, 1] {
        for range in owned(owner) {
            assert_eq!(uniform(&read(reader, range)), ROUNDS);
        }
    }
}

#[test]
fn no_write_is_lost_to_its_neighbour() {
    for sector_size in [512, 1024, 2048, 4096].repeat(2) {
        let volume = volume(sector_size);
        hammer([&volume, &volume], &volume);
    }
}

#[test]
fn volumes_of_one_image_take_turns() {
    let mut bytes = std::fs::read("testdata/luks1_qemu.img").unwrap();
    bytes.truncate(bytes.len() - 4096);
    let image = support::open_on(Disk::new(&bytes), Limits::NONE).unwrap();
    let unlocked = image.unlock(&passphrase("hunter0")).unwrap();
    let volumes = [(); 3].map(|()| image.volume(&unlocked).unwrap());
    hammer([&volumes[0], &volumes[1]], &volumes[2]);
}

/// Nor do images know of each other that are the same file.
#[test]
fn volumes_of_one_file_take_turns() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("image.luks");
    let bytes = std::fs::read("testdata/luks1_qemu.img").unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 4096]).unwrap();
    let other = directory.path().join("other.luks");
    std::fs::hard_link(&path, &other).unwrap();
    let volumes = [&path, &other, &path].map(|path| {
        let image = OpenOptions::new().sharing(Sharing::WriteData).open(path).unwrap();
        image.volume(&image.unlock(&passphrase("hunter0")).unwrap()).unwrap()
    });
    hammer([&volumes[0], &volumes[1]], &volumes[2]);
}

/// One thread writes whole sectors, in place or through a copy; the other ten bytes in each.
#[test]
fn no_aligned_write_is_lost_to_one_that_is_not() {
    const OURS: Range<usize> = 1000..1010;
    for sector_size in [512_usize, 4096].repeat(10) {
        let volume = volume(sector_size);
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let small = scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    volume.write_all_at(&[0xff; 10], OURS.start as u64).unwrap();
                }
            });
            let whole = scope.spawn(|| {
                for round in 1..=ROUNDS {
                    let mut sectors = [round; 4096];
                    if round % 2 == 0 {
                        volume.write_all_at(&sectors, 0).unwrap();
                    } else {
                        volume.write_sectors(0, &mut sectors).unwrap();
                    }
                    for _ in 0..4 {
                        volume.read_sectors(0, &mut sectors).unwrap();
                        assert_eq!(uniform(&sectors[..OURS.start]), round);
                        assert_eq!(uniform(&sectors[OURS.end..]), round);
                        assert!([round, 0xff].contains(&uniform(&sectors[OURS])));
                    }
                }
            });
            let done = whole.join().is_ok();
            over.store(true, Ordering::Relaxed);
            assert!(done && small.join().is_ok());
        });
    }
}

/// A storage that panics in the middle of a write keeps nobody waiting.
/// However long they are: zeros are one write to others, not one for each piece.
#[test]
fn nobody_sees_half_of_long_zeros() {
    const LEN: usize = 4 << 20;
    let encryption = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
    let segment =
        Segment { offset: 0, len: LEN as u64, iv_tweak: 0, sector_size: 4096, encryption, key: 0 };
    let (disk, key) = (Disk::new(&vec![0; LEN]), VolumeKey::random(64).unwrap());
    let volume = Volume::new(Arc::new(disk), vec![segment], &Keyring::single(&key)).unwrap();
    let over = AtomicBool::new(false);
    volume.write_zeros_at(0, LEN as u64).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                volume.write_all_at(&vec![7; LEN], 0).unwrap();
                volume.write_zeros_at(0, LEN as u64).unwrap();
            }
            over.store(true, Ordering::Relaxed);
        });
        while !over.load(Ordering::Relaxed) {
            uniform(&read(&volume, 0..LEN));
        }
    });
}

#[test]
fn a_panic_leaves_the_volume_usable() {
    #[derive(Debug)]
    struct Panics(AtomicBool, Disk);

    impl Watch for Panics {
        fn below(&self) -> &dyn Storage {
            &self.1
        }

        fn write(&self, buf: &[u8], offset: u64) -> std::io::Result<()> {
            assert!(self.0.swap(true, Ordering::Relaxed), "on purpose");
            self.1.write_all_at(buf, offset)
        }
    }

    let encryption = CipherSpec::parse("aes", "xts-plain64", 64).unwrap();
    let segment =
        Segment { offset: 0, len: 1024, iv_tweak: 0, sector_size: 512, encryption, key: 0 };
    let storage = Arc::new(Watched(Panics(AtomicBool::new(false), Disk::new(&[0; 1024]))));
    let key = VolumeKey::random(64).unwrap();
    let volume = Volume::new(storage, vec![segment], &Keyring::single(&key)).unwrap();
    thread::scope(|scope| {
        let writes = || volume.write_all_at(&[1; 100], 100);
        scope.spawn(writes).join().unwrap_err();
        writes().unwrap();
    });
    assert_eq!(read(&volume, 100..200), [1; 100]);
}
