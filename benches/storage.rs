//! Is a mapping worth it? The same reads and writes, out of and into the page cache, through
//! `pread` and `pwrite` and through `mmap`; of the storage alone, and of a volume on it.
//!
//! `cargo bench --bench storage`. docs/performance.md draws the conclusion.

#![allow(unsafe_code, reason = "a file is mapped")]

use std::sync::Arc;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use keyslot::crypto::CipherSpec;
use keyslot::header::Segment;
use keyslot::storage::{Access, FileStorage, MmapStorage, Storage};
use keyslot::volume::Keyring;
use keyslot::{Volume, VolumeKey};
use tempfile::NamedTempFile;

const LEN: u64 = 64 << 20;
const SIZES: [(&str, usize); 3] = [("4 KiB", 4 << 10), ("64 KiB", 64 << 10), ("1 MiB", 1 << 20)];

fn benches(criterion: &mut Criterion) {
    let file = NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), vec![0xa5; 64 << 20]).expect("room for it");
    let open = FileStorage::open(file.path(), Access::ReadWrite).expect("it is there");
    let open = Arc::new(open);
    once_over(criterion, &open);

    // SAFETY: It is a temporary file that nobody else knows of.
    let mapped = unsafe { MmapStorage::map(Arc::clone(&open)) }.expect("it can be mapped");
    let storages: [(&str, Arc<dyn Storage>); 2] = [("pread", open), ("mmap", Arc::new(mapped))];

    for (size, len) in SIZES {
        let mut group = criterion.benchmark_group(size);
        group.throughput(Throughput::Bytes(len as u64)).sample_size(20);
        group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
        for (name, storage) in &storages {
            let volume = volume(storage);
            let mut buf = vec![0; len];
            sequential(&mut group, &format!("storage/read/{name}"), len, |offset| {
                storage.read_exact_at(&mut buf, offset).expect("it is within");
            });
            sequential(&mut group, &format!("storage/write/{name}"), len, |offset| {
                storage.write_all_at(&buf, offset).expect("it is within");
            });
            sequential(&mut group, &format!("volume/read/{name}"), len, |offset| {
                volume.read_exact_at(&mut buf, offset).expect("it is within");
            });
            sequential(&mut group, &format!("volume/write/{name}"), len, |offset| {
                volume.write_all_at(&buf, offset).expect("it is within");
            });
            sequential(&mut group, &format!("volume/write in place/{name}"), len, |offset| {
                volume.write_sectors(offset / 512, &mut buf).expect("it is within");
            });
        }
        group.finish();
    }
}

/// What a conversion does: maps, and touches every page once.
fn once_over(criterion: &mut Criterion, file: &Arc<FileStorage>) {
    let mut group = criterion.benchmark_group("64 MiB once");
    group.throughput(Throughput::Bytes(LEN)).sample_size(20);
    let mut buf = vec![0; 1 << 20];
    let mut read = |storage: &dyn Storage| {
        for offset in (0..LEN).step_by(buf.len()) {
            storage.read_exact_at(&mut buf, offset).expect("it is within");
        }
    };
    group.bench_function("storage/read/pread", |bencher| bencher.iter(|| read(file)));
    group.bench_function("storage/read/mmap", |bencher| {
        // SAFETY: It is a temporary file that nobody else knows of.
        let map = || unsafe { MmapStorage::map(Arc::clone(file)) }.expect("it can be mapped");
        bencher.iter(|| read(&map()));
    });
    group.finish();
}

/// Times `access` at one offset after the other, from the start to the end and again.
fn sequential(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    len: usize,
    mut access: impl FnMut(u64),
) {
    let mut offset = 0;
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            access(offset);
            offset = (offset + len as u64) % LEN;
        });
    });
}

fn volume(storage: &Arc<dyn Storage>) -> Volume {
    let encryption = CipherSpec::parse("aes", "xts-plain64", 64).expect("a cipher");
    let segment =
        Segment { offset: 0, len: LEN, iv_tweak: 0, sector_size: 512, encryption, key: 0 };
    let key = VolumeKey::random(64).expect("random bytes");
    Volume::new(Arc::clone(storage), vec![segment], &Keyring::single(&key)).expect("a volume")
}

criterion_group!(storage, benches);
criterion_main!(storage);
