//! keyslot reads from qcow2 images of every kind what QEMU wrote to them.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use keyslot::container::{Gate, Reference, Referenced};
use keyslot::storage::{MemoryStorage, Storage};
use keyslot::{ErrorKind, OpenOptions, Result, Sharing};

mod support;
use support::guest::{Guest, Numbers, all, disk};

/// Writes, zeros and discards by qemu-io, all over a disk of `len` bytes.
fn scribble(guest: &Guest, numbers: &mut Numbers, len: usize, count: usize) {
    let mut script = String::new();
    for _ in 0..count {
        let offset = numbers.below(len / 512) * 512;
        let size = (512 + numbers.below(90_000) / 512 * 512).min(len - offset);
        match numbers.below(10) {
            0 => writeln!(script, "write -q -z {offset} {size}").unwrap(),
            1 => writeln!(script, "write -q -z -u {offset} {size}").unwrap(),
            2 => writeln!(script, "discard -q {offset} {size}").unwrap(),
            _ => {
                let byte = 1 + numbers.below(255);
                writeln!(script, "write -q -P {byte} {offset} {size}").unwrap();
            }
        }
    }
    guest.io(&script);
}

fn same(guest: &Guest, numbers: &mut Numbers) {
    let expected = guest.raw();
    let disk = guest.disk(Sharing::ReadData).unwrap();
    assert!(all(disk.as_ref()) == expected, "{guest:?}");
    for _ in 0..300 {
        let start = numbers.below(expected.len());
        let len = 1 + numbers.below((expected.len() - start).min(100_000));
        let mut buf = vec![0; len];
        disk.read_exact_at(&mut buf, start as u64).unwrap();
        assert!(buf == expected[start..start + len], "{start} {len}");
    }
    // Between the ranges of data there are zeros.
    let mut at = 0;
    while let Some(data) = disk.next_data(at).unwrap() {
        let hole = usize::try_from(at).unwrap()..usize::try_from(data.start).unwrap();
        assert!(expected[hole].iter().all(|&byte| byte == 0));
        at = data.end;
    }
    let rest = &expected[usize::try_from(at).unwrap()..];
    assert!(rest.iter().all(|&byte| byte == 0));
}

fn each_kind(is_encrypted: bool, kinds: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for (n, options) in kinds.iter().enumerate() {
        let image = directory.path().join(format!("{n}.qcow2"));
        let Some(guest) = Guest::create(&image, is_encrypted, options, &["5244416"]) else {
            return;
        };
        scribble(&guest, &mut numbers, 5_244_416, 40);
        same(&guest, &mut numbers);
        if options.contains("refcount_bits=1,") || options.contains("data_file") {
            continue;
        }
        guest.snapshot("one");
        scribble(&guest, &mut numbers, 5_244_416, 20);
        same(&guest, &mut numbers);
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
            "extended_l2=on",
            "preallocation=metadata",
            "preallocation=falloc,cluster_size=4k",
        ],
    );
}

#[test]
fn encrypted_images_of_every_kind() {
    each_kind(true, &["cluster_size=512", "", "cluster_size=2M,compat=0.10", "extended_l2=on"]);
}

#[test]
fn overlays_read_their_backing_files() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(99);
    let raw: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[(n % 3) as usize]).collect();
    fs::write(directory.path().join("base.raw"), &raw).unwrap();
    for is_encrypted in [false, true] {
        let image = directory.path().join("middle.qcow2");
        let backing = ["-b", "base.raw", "-F", "raw", "4M"];
        let Some(middle) = Guest::create(&image, false, "cluster_size=4k", &backing) else {
            return;
        };
        scribble(&middle, &mut numbers, 4 << 20, 20);
        let backing = ["-b", "middle.qcow2", "-F", "qcow2", "5M"];
        let image = directory.path().join("top.qcow2");
        let top = Guest::create(&image, is_encrypted, "", &backing).unwrap();
        same(&top, &mut numbers);
        scribble(&top, &mut numbers, 5 << 20, 20);
        same(&top, &mut numbers);
    }
}

/// A gate that says which file it was asked for.
#[derive(Debug)]
struct Named;

impl Gate for Named {
    fn open(&self, reference: &Reference<'_>) -> Result<Referenced> {
        assert_eq!(reference.name, b"base.raw");
        Ok(Referenced::Zeros)
    }
}

#[test]
fn a_backing_file_is_never_ignored_in_silence() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("base.raw"), vec![7; 1 << 16]).unwrap();
    let image = directory.path().join("top.qcow2");
    let backing = ["-b", "base.raw", "-F", "raw", "1M"];
    if Guest::create(&image, false, "", &backing).is_none() {
        return;
    }
    let error = OpenOptions::new().open_disk(&image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert_eq!(error.path(), Some(image.as_path()));
    let text = "the image needs the backing file \"base.raw\", which was not opened";
    assert_eq!(error.message(), text);
    let disk = OpenOptions::new().gate(Arc::new(Named)).open_disk(&image).unwrap();
    assert!(all(disk.storage().as_ref()).iter().all(|&byte| byte == 0));
}

#[test]
fn a_cycle_of_backing_files_ends() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("ring.qcow2");
    fs::write(&image, b"").unwrap();
    let more = ["-u", "-b", "ring.qcow2", "-F", "qcow2", "1M"];
    let Some(guest) = Guest::create(&image, false, "", &more) else { return };
    let error = guest.disk(Sharing::None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("64 backing files"), "{error}");
}

#[test]
fn compressed_clusters_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut numbers = Numbers(5);
    // Some of it can be compressed, and some cannot.
    let mut bytes: Vec<u8> = b"the same words again ".repeat(250_000);
    bytes[2_000_000..3_000_000].fill_with(|| u8::try_from(numbers.below(256)).unwrap());
    fs::write(directory.path().join("pattern"), &bytes[..5 << 20]).unwrap();
    for (is_encrypted, options) in [
        (false, "cluster_size=512"),
        (false, ""),
        (true, "cluster_size=4k"),
        (false, "cluster_size=2M"),
    ] {
        let image = directory.path().join("it.qcow2");
        let Some(guest) = Guest::create(&image, is_encrypted, options, &["5M"]) else { return };
        let pattern = directory.path().join("pattern");
        guest.io(&format!("write -q -c -s {} 0 5M\n", pattern.display()));
        same(&guest, &mut numbers);
    }
}

#[test]
fn damage_to_a_compressed_cluster_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    let Some(guest) = Guest::create(&image, false, "", &["1M"]) else { return };
    guest.io("write -q -c -P 4 64k 64k\n");
    let l2 = word(&image, word(&image, 40)) & 0x00ff_ffff_ffff_fe00;
    let packed = word(&image, l2 + 8) & ((1 << 54) - 1);
    let disk = disk(changed(&image, packed, u64::MAX), false, Sharing::None).unwrap();
    let error = disk.read_exact_at(&mut [0; 512], 70_000).unwrap_err().to_string();
    assert!(error.contains("the compressed cluster at byte"), "{error}");
}

/// Compressed bytes that begin in a cluster of data and end in the cluster of another structure.
#[test]
fn compressed_bytes_that_reach_into_a_table_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    let options = "cluster_size=4k";
    let Some(guest) = Guest::create(&image, false, options, &["1M"]) else { return };
    guest.io("write -q -P 4 0 64k\n");
    let refcounts = word(&image, 48);
    let l2 = word(&image, word(&image, 40)) & 0x00ff_ffff_ffff_fe00;
    // From the last sector before the table on
    let entry = 1 << 62 | 1 << 58 | (refcounts - 512);
    let end = entry & !(1 << 58);
    for (entry, is_refused) in [(entry, true), (end, false)] {
        let disk = disk(changed(&image, l2, entry), false, Sharing::None).unwrap();
        let error = disk.read_exact_at(&mut [0; 512], 0).unwrap_err().to_string();
        let expected = "points into the refcount table";
        assert_eq!(error.contains(expected), is_refused && refcounts > 4096, "{error}");
    }
}

/// The data of a file that is shorter than the image's own.
#[test]
fn data_beyond_the_end_of_a_short_data_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    let data = directory.path().join("data.raw");
    let options = format!("data_file={}", data.display());
    let Some(guest) = Guest::create(&image, false, &options, &["1M"]) else { return };
    guest.io("write -q -P 3 64k 64k\n");
    let disk = guest.disk(Sharing::None).unwrap();
    disk.read_exact_at(&mut [0; 512], 65536).unwrap();
    fs::File::options().write(true).open(&data).unwrap().set_len(65536).unwrap();
    let disk = guest.disk(Sharing::None).unwrap();
    let error = disk.read_exact_at(&mut [0; 512], 65536).unwrap_err().to_string();
    assert!(error.contains("points beyond the end of the file"), "{error}");
}

/// The image's bytes with one word changed.
fn changed(image: &Path, at: u64, word: u64) -> Arc<dyn Storage> {
    let mut bytes = fs::read(image).unwrap();
    let at = usize::try_from(at).unwrap();
    bytes[at..at + 8].copy_from_slice(&word.to_be_bytes());
    Arc::new(MemoryStorage::new(bytes))
}

fn word(image: &Path, at: u64) -> u64 {
    let bytes = fs::read(image).unwrap();
    let at = usize::try_from(at).unwrap();
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

#[test]
fn entries_that_cannot_be_are_errors_that_name_them() {
    let directory = tempfile::tempdir().unwrap();
    let image = directory.path().join("it.qcow2");
    let Some(guest) = Guest::create(&image, false, "", &["1M"]) else { return };
    guest.io("write -q -P 3 64k 64k\n");
    let l1 = word(&image, 40);
    let l2 = word(&image, l1) & 0x00ff_ffff_ffff_fe00;
    let host = word(&image, l2 + 8) & 0x00ff_ffff_ffff_fe00;
    let refcounts = word(&image, 48);
    let copied = 1 << 63;
    for (at, entry, expected) in [
        (l2 + 8, copied | 1 << 40, "points beyond the end of the file"),
        (l2 + 8, copied | (host + 512), "not a multiple of the cluster size"),
        (l2 + 8, copied | host | 1 << 60, "reserved bit"),
        (l2 + 8, copied | host | 2, "reserved bit"),
        (l2 + 8, copied | l1, "points into the L1 table"),
        (l2 + 8, copied | refcounts, "points into the refcount table"),
        (l1, copied | 1 << 40, "points beyond the end of the file"),
        (l1, copied | (l2 + 512), "not a multiple of the cluster size"),
        (l1, copied | l2 | 1, "reserved bit"),
        (l1, copied | l1, "points into the L1 table"),
    ] {
        let disk = disk(changed(&image, at, entry), false, Sharing::None).unwrap();
        let error = disk.read_exact_at(&mut [0; 512], 65536).unwrap_err().to_string();
        assert!(error.contains("byte 65536 of the disk: the L"), "{error}");
        assert!(error.contains(expected) && error.contains(&format!("{entry:#018x}")), "{error}");
    }
    let disk = disk(changed(&image, l2 + 8, 0), false, Sharing::None).unwrap();
    assert!(all(disk.as_ref()).iter().all(|&byte| byte == 0));
}
