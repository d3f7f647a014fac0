//! What QEMU writes into an image, a volume reads, and the other way round.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::Path;

use keyslot::crypto::CipherSpec;
use keyslot::{CreateOptions, OpenOptions, Sharing, Volume};
use support::amending::{directory, passphrase};
use support::parallel::in_parallel;
use support::qemu::Qemu;

const LEN: usize = 1 << 20;
const SECRET: &str = "hunter0";
/// Where the accesses are: on the edges of sectors, across them, and over more than a
/// writing of ours or of QEMU's takes at once.
const RANGES: [(usize, usize); 8] = [
    (0, 1),
    (100, 300),
    (500, 24),
    (4096, 4096),
    (10_000, 1000),
    (20_480, 513),
    (100_001, 700_000),
    (LEN - 77, 77),
];

fn volume(image: &Path, sharing: Sharing) -> Volume {
    let image = OpenOptions::new().sharing(sharing).open(image).unwrap();
    let unlocked = image.unlock(&passphrase(SECRET)).unwrap();
    image.volume(&unlocked).unwrap()
}

fn all(image: &Path) -> Vec<u8> {
    let volume = volume(image, Sharing::ReadData);
    let mut bytes = vec![0; usize::try_from(volume.len()).unwrap()];
    volume.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// An image of ours, with nothing in it yet.
fn create(image: &Path, (cipher, mode, key_size): (&str, &str, usize)) {
    let spec = CipherSpec::parse(cipher, mode, key_size).unwrap();
    let options = CreateOptions::new().unwrap().cipher(spec);
    let cost = keyslot::kdf::Cost::Iterations(1000);
    options.cost(cost).create(image, LEN as u64, &passphrase(SECRET)).unwrap();
}

/// Each way, on an image of each cipher; nothing written yet, it is noise, and the same noise.
#[test]
fn both_ways() {
    let Some(qemu) = Qemu::find() else { return };
    let directory = directory();
    let ciphers = [
        ("aes", "xts-plain64", 64),
        ("aes", "xts-plain", 32),
        ("aes", "cbc-essiv:sha256", 32),
        ("aes", "ctr-plain64", 16),
        ("serpent", "xts-plain64", 64),
        ("twofish", "cbc-plain64", 32),
        ("cast5", "cbc-plain64", 16),
    ];
    in_parallel(ciphers.to_vec(), |&cipher| {
        let (name, mode, key_size) = cipher;
        let mode = mode.replace(':', "-");
        let image = &directory.path().join(format!("{name}-{mode}-{key_size}.img"));
        create(image, cipher);
        let mut expected = all(image);
        assert_eq!(expected.len(), LEN);
        assert!(qemu.payload(image, SECRET) == expected, "a fresh image");

        for (i, (offset, len)) in (1..).zip(RANGES) {
            let command = format!("write -q -P {i} {offset} {len}");
            qemu.io_ok(image, SECRET, &[&command]);
            expected[offset..offset + len].fill(i);
        }
        assert!(all(image) == expected, "written by QEMU");

        let volume = volume(image, Sharing::WriteData);
        for (i, (offset, len)) in (50..).zip(RANGES) {
            volume.write_all_at(&vec![i; len], offset as u64).unwrap();
            expected[offset..offset + len].fill(i);
        }
        let mut sectors = vec![99; 8192];
        volume.write_sectors(40, &mut sectors).unwrap();
        expected[40 * 512..][..8192].fill(99);
        drop(volume);
        assert!(qemu.payload(image, SECRET) == expected, "written by keyslot");
    });
}

/// An image of QEMU's, and one of ours, of which nothing but the header was written: zeros on the
/// disk are noise, to both of us.
#[test]
fn holes_are_noise() {
    let Some(qemu) = Qemu::find() else { return };
    let directory = directory();
    let image = &directory.path().join("disk.img");
    qemu.create(image, "", SECRET);
    let noise = all(image);
    assert!(noise[..4096] == [0xa5; 4096] && noise[4096..8192] != [0; 4096]);
    assert!(qemu.payload(image, SECRET) == noise);
}

/// A file that ends in the middle of a sector has all of that sector.
#[test]
fn the_last_sector_counts() {
    let Some(qemu) = Qemu::find() else { return };
    let directory = directory();
    let image = &directory.path().join("disk.img");
    create(image, ("aes", "xts-plain64", 64));
    let full = fs::metadata(image).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(image).unwrap();
    for more in [1, 511, 512, 700] {
        file.set_len(full + more).unwrap();
        let len = qemu.info(image).unwrap()["virtual-size"].as_u64().unwrap();
        let found = all(image);
        assert_eq!(found.len() as u64, len, "{more}");
        assert!(qemu.payload(image, SECRET) == found, "{more}");

        let volume = volume(image, Sharing::WriteData);
        volume.write_all_at(&[7; 10], len - 20).unwrap();
        drop(volume);
        let mut expected = found;
        let at = expected.len() - 20;
        expected[at..at + 10].fill(7);
        assert!(qemu.payload(image, SECRET) == expected, "{more}");
    }
}
