//! Which of the two copies counts, whatever became of the other.

use keyslot::header::Header;
use keyslot::header::luks2::Which;
use keyslot::storage::{MemoryStorage, ReadOnlyBytes, Storage};
use serde_json::json;

use crate::support::amending::directory;
use crate::support::cryptsetup::Cryptsetup;
use crate::support::luks2::{Change, Luks2};
use crate::support::parallel::in_parallel;
use crate::support::watched::{Watch, Watched};
use crate::table::{binary, both, only, set};

fn read(image: &Luks2) -> keyslot::header::luks2::Luks2Header {
    match Header::read(&ReadOnlyBytes(image.bytes.clone())).unwrap() {
        Header::Luks2(header) => header,
        _ => panic!("it is LUKS2"),
    }
}

/// A change that tells the copies apart, in one of them.
fn marked(copy: usize, seqid: u64) -> Change {
    both(
        only(copy, set(vec![("/somebody", json!("was here"))])),
        only(copy, binary(16, &seqid.to_be_bytes())),
    )
}

fn is_marked(image: &Luks2) -> bool {
    read(image).metadata().value().get("somebody").is_some()
}

#[test]
fn the_higher_seqid_counts_in_both_orders() {
    let base = Luks2::testdata("luks2_keyslots.img");
    let seqid = read(&base).seqid();
    assert_eq!((seqid, read(&base).warning()), (11, None));
    for (copy, changed, marked_counts, which, warning) in [
        (
            0,
            12,
            true,
            Which::Primary,
            "the secondary copy of the header is older than the other: seqid 11, not 12",
        ),
        (
            1,
            12,
            true,
            Which::Secondary,
            "the primary copy of the header is older than the other: seqid 11, not 12",
        ),
        (
            0,
            10,
            false,
            Which::Secondary,
            "the primary copy of the header is older than the other: seqid 10, not 11",
        ),
        (
            1,
            10,
            false,
            Which::Primary,
            "the secondary copy of the header is older than the other: seqid 10, not 11",
        ),
        (
            0,
            11,
            true,
            Which::Primary,
            "both copies of the header have seqid 11 and differ: the primary is used",
        ),
        (
            1,
            11,
            false,
            Which::Primary,
            "both copies of the header have seqid 11 and differ: the primary is used",
        ),
        (
            1,
            u64::MAX,
            true,
            Which::Secondary,
            "the primary copy of the header is older than the other: seqid 11, not 18446744073709551615",
        ),
    ] {
        let image = base.with(&marked(copy, changed));
        let header = read(&image);
        assert_eq!(is_marked(&image), marked_counts, "{copy} {changed}");
        assert_eq!((header.which(), header.warning()), (which, Some(warning)));
    }
}

#[test]
fn copies_that_differ_outside_of_the_metadata() {
    let base = Luks2::testdata("luks2_keyslots.img");
    for (offset, differs) in [(24, true), (104, false), (168, true), (208, true), (264, false)] {
        let image = base.with(&only(1, binary(offset, b"x")));
        assert_eq!(read(&image).warning().is_some(), differs, "{offset}");
    }
}

/// Every byte of what is checked in a copy, and every kind of damage: the other one counts.
#[test]
fn one_damaged_copy_is_none() {
    let base = Luks2::testdata("luks2_keyslots.img");
    let text = base.text(0);
    let places = (0..512).chain((512..4096).step_by(97)).chain((4096..16384).step_by(61));
    for copy in [0, 1] {
        for at in places.clone().chain([4095, 4096, 4096 + text.len() - 1, 16383]) {
            // Behind a checksum of 32 bytes is nothing.
            if (480..512).contains(&at) {
                continue;
            }
            let mut image = base.clone();
            image.bytes[16384 * copy + at] ^= 0x20;
            survives(&image, copy, &text, at);
        }
        for (i, (from, to)) in [(0, 512), (0, 4096), (4096, 16384), (0, 16384)].iter().enumerate() {
            for fill in [0, 0xff] {
                let mut image = base.clone();
                image.bytes[16384 * copy + from..16384 * copy + to].fill(fill);
                survives(&image, copy, &text, i);
            }
        }
        // Right checksums, and metadata that is not valid.
        for change in [
            set(vec![("/keyslots/0/key_size", json!(0))]),
            both(set(vec![("/config", json!(0))]), binary(16, &99_u64.to_be_bytes())),
            binary(8, &32768_u64.to_be_bytes()),
            binary(256, &4096_u64.to_be_bytes()),
        ] {
            survives(&base.with(&only(copy, change)), copy, &text, 0);
        }
    }
}

fn survives(image: &Luks2, damaged: usize, text: &str, at: usize) {
    let header = read(image);
    assert_eq!(header.metadata().text(), text, "{damaged} {at}");
    assert_eq!(header.which(), [Which::Secondary, Which::Primary][damaged], "{at}");
    let warning = header.warning().unwrap();
    let name = ["primary", "secondary"][damaged];
    assert!(
        warning.starts_with(&format!("the {name} copy of the header is damaged: ")),
        "{warning}"
    );
}

/// cryptsetup, kept from repairing, comes to the same end. Only where the primary copy has its magic
/// and another version does it not look for the secondary one, which we do.
#[test]
fn cryptsetup_takes_the_same_copy() {
    let Some(cryptsetup) = Cryptsetup::find() else { return };
    let base = Luks2::testdata("luks2_keyslots.img");
    let mut changes = vec![Change::Bytes(0, vec![0; 16384]), Change::Bytes(16384, vec![0; 16384])];
    for copy in [0, 1] {
        for seqid in [0, 10, 11, 12, u64::MAX] {
            changes.push(only(copy, both(binary(16, &seqid.to_be_bytes()), binary(24, b"x\0"))));
        }
        let marked = |change| only(copy, both(binary(24, b"x\0"), change));
        for offset in [0, 6, 7, 8, 16, 24, 72, 104, 168, 256, 300, 448, 479, 480, 600, 4096, 9000] {
            changes.push(Change::Bytes(16384 * copy + offset, vec![0x33]));
            changes.push(marked(binary(offset, &[0x33])));
        }
        changes.push(marked(binary(6, &[0, 1])));
        changes.push(marked(set(vec![("/config", json!(0))])));
        changes.push(marked(Change::Text("{", " {")));
        changes.push(marked(binary(16, &[9])));
        changes.push(both(marked(set(vec![("/config", json!(0))])), marked(binary(16, &[9]))));
    }
    in_parallel(changes, |change| {
        let directory = directory();
        let path = &directory.path().join("image");
        let image = base.with(change);
        std::fs::write(path, &image.bytes).unwrap();
        let ours = Header::read(&ReadOnlyBytes(image.bytes)).ok();
        let ours = ours.as_ref().and_then(Header::luks2);
        let ours = ours.map(|header| (header.seqid().to_string(), header.label()));
        let theirs = cryptsetup.epoch_and_label(path);
        let version = &base.with(change).bytes[6..8];
        assert!(ours == theirs || (theirs.is_none() && *version != [0, 2]), "{ours:?} {theirs:?}");
    });
}

/// At each of the nine places where a secondary copy can be.
#[test]
fn the_secondary_copy_is_found() {
    let base = Luks2::testdata("luks2_keyslots.img");
    for power in 14..=22 {
        let size = 1_usize << power;
        let mut secondary = base.bytes[16384..32768].to_vec();
        secondary.resize(size, 0);
        let mut image = vec![0; 2 * size + 327_680];
        image[size..2 * size].copy_from_slice(&secondary);
        let metadata = base.text(1).replace("12288", &(size - 4096).to_string());
        let metadata = [(32768, "0"), (98304, "3"), (163_840, "5"), (229_376, "7")].iter().fold(
            metadata,
            |text, (offset, _)| {
                text.replace(
                    &format!("\"{offset}\""),
                    &format!("\"{}\"", offset - 32768 + 2 * size),
                )
            },
        );
        let metadata = metadata.replace("\"360448\"", &format!("\"{}\"", 2 * size + 327_680));
        let header = &mut image[size..2 * size];
        header[8..16].copy_from_slice(&(size as u64).to_be_bytes());
        header[256..264].copy_from_slice(&(size as u64).to_be_bytes());
        header[4096..].fill(0);
        header[4096..4096 + metadata.len()].copy_from_slice(metadata.as_bytes());
        header[448..512].fill(0);
        let sum = keyslot::crypto::HashAlg::Sha256.digest(&[header]);
        header[448..480].copy_from_slice(&sum);
        for start in
            [&b""[..], b"LUKS\xba\xbe\0\x02", b"LUKS\xba\xbe\0\x03", b"\xeb\x3c\x90mkfs.fat"]
        {
            image[..16].fill(0);
            image[..start.len()].copy_from_slice(start);
            let header = read(&Luks2 { bytes: image.clone(), hdr_size: size });
            assert_eq!((header.which(), header.hdr_size()), (Which::Secondary, size as u64));
        }
        // LUKS1, and the head of qcow2, are what they say.
        for start in [&b"LUKS\xba\xbe\0\x01"[..], b"QFI\xfb"] {
            image[..start.len()].copy_from_slice(start);
            assert!(Header::read(&ReadOnlyBytes(image.clone())).is_err());
        }
    }
}

/// Between two reads somebody writes: nothing torn is taken for whole.
#[test]
fn a_header_that_changes_is_read_again() {
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Debug)]
    struct Changing(Vec<MemoryStorage>, AtomicUsize);

    impl Watch for Changing {
        fn below(&self) -> &dyn Storage {
            &self.0[0]
        }

        fn read(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            let reads = self.1.fetch_add(1, Ordering::Relaxed);
            self.0.get(reads).or(self.0.last()).unwrap().read_exact_at(buf, offset)
        }
    }

    let base = Luks2::testdata("luks2_keyslots.img");
    let images = (0..10).map(|seqid| base.with(&binary(16, &(11_u64 + seqid).to_be_bytes())));
    let images = images.map(|image| MemoryStorage::new(image.bytes));
    let changing = Watched(Changing(images.collect(), AtomicUsize::new(0)));
    let Header::Luks2(header) = Header::read(&changing).unwrap() else { panic!("it is LUKS2") };
    assert_eq!((header.seqid(), header.warning()), (20, None));
}
