//! An amendment changes the bytes of the keyslots it is about and no others: whole files are
//! compared. What nobody understands (behind the NUL of a string, in the UUID, between header and
//! key material) survives.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::ops::Range;
use std::path::{Path, PathBuf};

use keyslot::Image;
use support::amending::{active, add, directory, erase, opener, replace};
use tempfile::TempDir;

const IMAGES: [&str; 4] = [
    "luks1_qemu.img",
    "luks1_cryptsetup_aes128_cbc_essiv.img",
    "luks1_cryptsetup_whirlpool.img",
    "luks1_old_layout.img",
];
/// Opens the images of [`each_keyslot`].
const OPENER: &str = "opener";

/// For every image and keyslot: that keyslot inactive, and one other active, with [`OPENER`].
fn each_keyslot(mut check: impl FnMut(&Sample)) {
    for name in IMAGES {
        for keyslot in 0..8 {
            let sample = Sample::make(name, keyslot);
            check(&sample);
            // It is still a whole image.
            assert!(opener(&sample.image, OPENER).is_some(), "{sample:?}");
        }
    }
}

#[test]
fn an_add() {
    each_keyslot(|sample| {
        let before = sample.bytes();
        add(&sample.image, OPENER, "new", Some(i64::try_from(sample.keyslot).unwrap()));
        assert_eq!(opener(&sample.image, "new"), Some(sample.keyslot));
        let after = sample.bytes();
        sample.differ_only_in(&before, &after, &[sample.entry(), sample.area()]);
        let entry = &after[sample.entry()];
        assert_eq!(entry[..8], [0x00, 0xac, 0x71, 0xf3, 0, 0, 0x03, 0xe8]);
        assert_eq!(entry[40..], before[sample.entry()][40..], "offset and stripes");
    });
}

#[test]
fn an_erase() {
    each_keyslot(|sample| {
        add(&sample.image, OPENER, "new", Some(i64::try_from(sample.keyslot).unwrap()));
        let before = sample.bytes();
        erase(&sample.image, sample.keyslot);
        let after = sample.bytes();
        sample.differ_only_in(&before, &after, &[sample.entry(), sample.area()]);
        let entry = &after[sample.entry()];
        assert_eq!(entry[..8], [0, 0, 0xde, 0xad, 0, 0, 0, 0]);
        assert_eq!(entry[8..40], [0; 32], "salt");
        assert_eq!(entry[40..], before[sample.entry()][40..], "offset and stripes");
        assert!(after[sample.area()].iter().all(|&byte| byte == 0));
    });
}

/// With a staging keyslot that was never used: it is blank in the end, its entry as it was.
#[test]
fn a_replace() {
    each_keyslot(|sample| {
        add(&sample.image, OPENER, "old", Some(i64::try_from(sample.keyslot).unwrap()));
        let before = sample.bytes();
        assert_eq!(replace(&sample.image, "old", "new"), sample.keyslot);
        assert_eq!(opener(&sample.image, "old"), None);
        assert_eq!(opener(&sample.image, "new"), Some(sample.keyslot));
        let after = sample.bytes();
        let used = active(&sample.image);
        let staging = (0..8).rfind(|keyslot| !used.contains(keyslot)).unwrap();
        let staging_area = sample.area_of(staging);
        assert!(after[staging_area.clone()].iter().all(|&byte| byte == 0));
        sample.differ_only_in(&before, &after, &[sample.entry(), sample.area(), staging_area]);
        let entry = &after[sample.entry()];
        assert_eq!(entry[..8], [0x00, 0xac, 0x71, 0xf3, 0, 0, 0x03, 0xe8]);
        assert_ne!(entry[8..40], before[sample.entry()][8..40], "salt");
        assert_eq!(entry[40..], before[sample.entry()][40..], "offset and stripes");
        assert_eq!(Image::open(&sample.image).unwrap().header().leftovers(), []);
    });
}

/// A copy of one of the images, with garbage wherever nobody looks.
#[derive(Debug)]
struct Sample {
    _directory: TempDir,
    image: PathBuf,
    keyslot: usize,
}

impl Sample {
    fn make(name: &str, keyslot: usize) -> Self {
        let directory = directory();
        let image = directory.path().join(name);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        let mut bytes = std::fs::read(&source).unwrap();
        let opened = Image::open(source).unwrap();
        let first_area = opened.keyslots().map(|keyslot| keyslot.area.offset).min().unwrap();
        for field in [8..40, 40..72, 72..104, 168..208] {
            let field = &mut bytes[field];
            let end = field.iter().position(|&byte| byte == 0).unwrap();
            field[end + 1..].fill(0xee);
        }
        bytes[592..usize::try_from(first_area).unwrap()].fill(0xee);
        let payload = usize::try_from(opened.header().payload_offset()).unwrap();
        bytes[payload + 4096 - 512..].fill(0xee);
        std::fs::write(&image, bytes).unwrap();

        // Whatever is active in it gives way to one keyslot beside the one to change.
        let beside = (keyslot + 1) % 8;
        let first = active(&image)[0];
        let secret = format!("hunter{first}");
        let parked = (0..8).find(|i| ![first, beside, keyslot].contains(i) && *i != 7).unwrap();
        add(&image, &secret, OPENER, Some(i64::try_from(parked).unwrap()));
        for other in active(&image).into_iter().filter(|&other| other != parked) {
            erase(&image, other);
        }
        add(&image, OPENER, "beside", Some(i64::try_from(beside).unwrap()));
        erase(&image, parked);
        assert_eq!(replace(&image, "beside", OPENER), beside);
        Self { _directory: directory, image, keyslot }
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::read(&self.image).unwrap()
    }

    fn entry(&self) -> Range<usize> {
        208 + 48 * self.keyslot..208 + 48 * (self.keyslot + 1)
    }

    fn area(&self) -> Range<usize> {
        self.area_of(self.keyslot)
    }

    fn area_of(&self, keyslot: usize) -> Range<usize> {
        let opened = Image::open(&self.image).unwrap();
        let area = opened.header().keyslot(keyslot).unwrap().area;
        let start = usize::try_from(area.offset).unwrap();
        start..start + area.len
    }

    fn differ_only_in(&self, before: &[u8], after: &[u8], places: &[Range<usize>]) {
        assert_eq!(before.len(), after.len(), "{self:?}");
        let changed = (0..before.len()).filter(|&i| before[i] != after[i]);
        for i in changed {
            assert!(places.iter().any(|place| place.contains(&i)), "byte {i} of {self:?}");
        }
        assert_eq!(after[72..104].last(), Some(&0xee));
    }
}
