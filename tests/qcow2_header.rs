//! qcow2 headers with faults: each is refused by name, as by QEMU where QEMU checks it, and nothing is
//! written.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::process::Command;

use keyslot::ErrorKind::{self, Corrupt, NotLuks, Unsupported};
use keyslot::container::Qcow2Header;
use keyslot::storage::ReadOnlyBytes;
use keyslot::{DiskFormat, Image, OpenOptions};
use support::opener::{secret, small_key};
use support::{memory, peer, qcow2, run};

/// Result of `qemu-img info`
enum Qemu {
    /// The same text
    Same,
    /// Another text
    Says(&'static str),
    /// It opens the image
    Opens,
}
use Qemu::{Opens, Same, Says};

struct Row {
    name: &'static str,
    patches: Vec<(usize, Vec<u8>)>,
    error: (ErrorKind, &'static str),
    qemu: Qemu,
}

fn row(
    name: &'static str,
    patches: &[(usize, &[u8])],
    error: (ErrorKind, &'static str),
    qemu: Qemu,
) -> Row {
    let patches = patches.iter().map(|(at, bytes)| (*at, bytes.to_vec())).collect();
    Row { name, patches, error, qemu }
}

const CRYPTO: [u8; 8] = [0x05, 0x37, 0xbe, 0x77, 0, 0, 0, 16];
const MOST: &[u8] = &[0xff; 8];

#[rustfmt::skip]
fn rows() -> Vec<Row> {
    let second = [&CRYPTO[..], &2048_u64.to_be_bytes(), &512_u64.to_be_bytes()].concat();
    vec![
        row("magic", &[(0, b"QFJ")], (NotLuks, "Image is not in qcow2 format"), Same),
        row("version 1", &[(4, &[0, 0, 0, 1])], (Unsupported, "Unsupported qcow2 version 1"), Same),
        row("version 4", &[(4, &[0, 0, 0, 4])], (Unsupported, "Unsupported qcow2 version 4"), Same),
        row("2^8", &[(23, &[8])], (Unsupported, "Unsupported cluster size: 2^8"), Same),
        row("2^22", &[(23, &[22])], (Unsupported, "Unsupported cluster size: 2^22"), Same),
        row("2^64", &[(23, &[64])], (Unsupported, "Unsupported cluster size: 2^64"), Same),
        row("short", &[(100, &[0, 0, 0, 96])], (Corrupt, "qcow2 header too short"), Same),
        row("long", &[(100, &[0, 0, 2, 8])], (Corrupt, "qcow2 header exceeds cluster size"), Same),
        row("feature", &[(72, &[0, 0, 0, 0, 0, 0x10, 0, 0])],
            (Unsupported, "Unsupported qcow2 feature(s): Unknown incompatible feature: 100000"), Same),
        row("method 0", &[(35, &[0])],
            (Corrupt, "CRYPTO header extension only expected with LUKS encryption method"), Same),
        row("method 1", &[(35, &[1])],
            (Corrupt, "CRYPTO header extension only expected with LUKS encryption method"), Same),
        row("method 3", &[(35, &[3])], (Unsupported, "Unsupported encryption method 3"),
            Same),
        row("no extension", &[(112, &[0; 8])],
            (Corrupt, "Missing CRYPTO header for crypt method 2"), Same),
        row("size 8", &[(119, &[8])],
            (Corrupt, "CRYPTO header extension size 8, but expected size 16"), Same),
        row("too large", &[(116, &[0x7f])], (Corrupt, "Header extension too large"), Same),
        row("unaligned", &[(126, &[4, 8])],
            (Corrupt, "Encryption header offset '1032' is not a multiple of cluster size '512'"), Same),
        row("two extensions", &[(136, &second)],
            (Corrupt, "the qcow2 header has two CRYPTO extensions"), Says("Request for data outside of extension header")),
        row("no header", &[(120, &[0; 8])],
            (Corrupt, "the LUKS header at byte 0 overlaps the qcow2 header at byte 0"), Says("Volume is not in LUKS format")),
        row("on the refcount table", &[(126, &[2, 0])],
            (Corrupt, "the LUKS header at byte 512 overlaps the refcount table at byte 512"), Says("Volume is not in LUKS format")),
        row("on the L1 table", &[(36, &[0, 0, 0, 2]), (46, &[6, 0])],
            (Corrupt, "the LUKS header at byte 1024 overlaps the L1 table at byte 1536"), Opens),
        row("on the snapshots", &[(60, &[0, 0, 0, 1]), (70, &[8, 0])],
            (Corrupt, "the LUKS header at byte 1024 overlaps the snapshot table at byte 2048"),
            Opens),
        row("2^62 bytes", &[(128, &[0x40])], (Corrupt, "the LUKS header ends at byte"), Opens),
        row("2^64 bytes", &[(128, MOST)],
            (Corrupt, "the LUKS header has 18446744073709551615 bytes at byte 1024"), Opens),
        row("2^63", &[(120, &[0x80])], (Corrupt, "the LUKS header ends at byte"), Says("")),
        row("L1 of 2^32 entries", &[(36, &[0xff; 4])], (Corrupt, "Active L1 table too large"), Same),
        row("L1 too small", &[(29, &[1])], (Corrupt, "L1 table is too small"), Same),
        row("L1 unaligned", &[(47, &[8])], (Corrupt, "Active L1 table offset invalid"), Same),
        row("no refcounts", &[(59, &[0])],
            (Corrupt, "Image does not contain a reference count table"), Same),
        row("refcounts of 2^32 clusters", &[(56, &[0xff; 4])],
            (Corrupt, "Reference count table too large"), Same),
        row("refcounts unaligned", &[(55, &[8])],
            (Corrupt, "Reference count table offset invalid"), Same),
        row("refcount order 7", &[(99, &[7])],
            (Corrupt, "Reference count entry width too large; may not exceed 64 bits"), Same),
        row("snapshots", &[(60, &[0xff; 4])], (Corrupt, "Snapshot table too large"), Same),
        row("backing file offset", &[(8, &[0x7f])], (Corrupt, "Invalid backing file offset"), Same),
        row("backing file name", &[(14, &[1, 0, 0, 0, 1, 1])],
            (Corrupt, "Backing file name too long"), Same),
    ]
}

fn image() -> Vec<u8> {
    let mut image = qcow2::around(&memory::image(&small_key(), &[(0, &secret("a"))]));
    image[qcow2::AUTOCLEAR..qcow2::AUTOCLEAR + 8].fill(0);
    image
}

#[test]
fn faults_are_refused_by_name() {
    let qemu_img = peer("qemu-img");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.qcow2");
    let mut failures = Vec::new();
    for Row { name, patches, error: (kind, text), qemu } in rows() {
        let mut bytes = image();
        for (at, patch) in patches {
            bytes[at..at + patch.len()].copy_from_slice(&patch);
        }
        fs::write(&path, &bytes).unwrap();
        let open = OpenOptions::new().format(DiskFormat::Qcow2).write(true);
        let error = open.open(&path).unwrap_err();
        assert_eq!(error.kind(), kind, "{name}: {error}");
        assert!(error.message().starts_with(text), "{name}: {error}");
        assert_eq!(error.path(), Some(&*path), "{name}");
        assert!(fs::read(&path).unwrap() == bytes, "{name}");

        let Some(qemu_img) = &qemu_img else { continue };
        let output = run(Command::new(qemu_img).args(["info", "-f", "qcow2"]).arg(&path));
        let said = support::stderr(&output);
        let as_expected = match qemu {
            Opens => output.status.success(),
            Same => said.contains(text),
            Says(text) => !output.status.success() && said.contains(text),
        };
        if !as_expected {
            failures.push(format!("{name}: {said}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn an_image_cut_off_anywhere_is_refused() {
    let whole = image();
    assert!(Qcow2Header::read(&ReadOnlyBytes(&whole)).is_ok());
    for len in (0..1500).chain([whole.len() - 1]) {
        let header = Qcow2Header::read(&ReadOnlyBytes(&whole[..len]));
        assert!(header.is_err(), "{len} bytes");
    }
}

#[test]
fn every_value_of_every_byte_is_an_error_or_a_header() {
    let mut bytes = image();
    for at in 0..160 {
        let byte = bytes[at];
        for value in 0..=255 {
            bytes[at] = value;
            if let Ok(header) = Qcow2Header::read(&ReadOnlyBytes(&bytes))
                && let Some(area) = header.crypto_area()
            {
                assert!(area.end <= bytes.len() as u64, "byte {at}: {value}");
            }
        }
        bytes[at] = byte;
    }
}

#[test]
fn the_format_may_be_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image");
    fs::write(&path, image()).unwrap();
    let open = |format| OpenOptions::new().format(format).open(&path);
    assert!(Image::open(&path).unwrap().qcow2().is_some());
    assert!(open(DiskFormat::Qcow2).unwrap().qcow2().is_some());
    let error = open(DiskFormat::Raw).unwrap_err();
    assert_eq!(error.kind(), NotLuks);
    assert!(error.message().contains("the image is in qcow2 format"), "{error}");
    fs::write(&path, memory::image(&small_key(), &[(0, &secret("a"))])).unwrap();
    assert!(open(DiskFormat::Raw).unwrap().qcow2().is_none());
    assert_eq!(open(DiskFormat::Qcow2).unwrap_err().kind(), NotLuks);
}
