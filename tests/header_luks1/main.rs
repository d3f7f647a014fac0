//! What is a LUKS1 header and what is not: one header, mutated, to us, to QEMU and to cryptsetup.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "../support/mod.rs"]
mod support;
mod table;

use std::path::Path;

use keyslot::header::luks1::Luks1Header;
use keyslot::{DiskFormat, ErrorKind, Image, Limits, OpenOptions, Result};
use support::amending::{directory, passphrase};
use support::parallel::in_parallel;
use table::{Case, Change, Cryptsetup, Qemu, differences, table};

fn image() -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/luks1_qemu.img");
    std::fs::read(path).unwrap()
}

fn mutated(base: &[u8], change: &Change) -> Vec<u8> {
    let mut image = base.to_vec();
    match change {
        Change::Bytes(changes) => {
            for (offset, bytes) in changes {
                image[*offset..*offset + bytes.len()].copy_from_slice(bytes);
            }
        }
        Change::Cut(len) => image.truncate(*len),
        Change::Instead(other) => image.clone_from(other),
    }
    image
}

fn all() -> Vec<Case> {
    table().into_iter().chain(differences()).collect()
}

/// Opens it, if there is no fault that QEMU would refuse it for.
fn strictly(path: &Path) -> Result<Image> {
    // As a LUKS image: a qcow2 image is something else.
    let image = OpenOptions::new().format(DiskFormat::Raw).open(path)?;
    image.header().luks1().map_or(Ok(()), Luks1Header::check_strictly)?;
    Ok(image)
}

/// Damage of an unused keyslot, a cipher that is not supported, and a payload elsewhere leave the
/// rest of the header usable.
#[test]
fn faults_of_one_item_do_not_refuse_the_header() {
    let base = image();
    let directory = directory();
    let path = &directory.path().join("image");
    let mut opened = Vec::new();
    for case in all().into_iter().filter(|case| case.ours.is_some()) {
        std::fs::write(path, mutated(&base, &case.change)).unwrap();
        let Ok(image) = Image::open(path) else { continue };
        let header = image.header();
        let secret = passphrase("hunter0");
        match header.unusable().first() {
            Some((keyslot, why)) => {
                assert_eq!((*keyslot, *why), (0, case.ours.unwrap().1), "{}", case.name);
                let error = image.unlock(&secret).unwrap_err();
                assert_eq!((error.kind(), error.message()), case.ours.unwrap(), "{}", case.name);
            }
            None if header.damaged().iter().any(|(keyslot, _)| *keyslot == 0) => {
                let error = image.unlock(&secret).unwrap_err();
                let hint = format!("keyslot 0 was not tried: {}", case.ours.unwrap().1);
                assert_eq!(error.hint(), Some(&*hint), "{}", case.name);
            }
            None => assert_eq!(image.unlock(&secret).unwrap().keyslot(), Some(0), "{}", case.name),
        }
        assert_eq!(header.uuid(), "bc5a52b1-9c2e-400d-a529-130284875d8e");
        opened.push(case.name);
    }
    assert_eq!(opened, OPENED);
}

/// Rows of the table that are refused under the name `qemu-img` alone.
const OPENED: [&str; 31] = [
    "payload 0",
    "stripes 3999",
    "state one off",
    "state 0",
    "payload in the last area",
    "material at the payload",
    "material into the payload",
    "the same material",
    "a sector of the same material",
    "the last two overlap",
    "empty mode with a dash",
    "unknown mode",
    "upper case mode",
    "lrw",
    "unknown hash of a mode",
    "unknown iv generator",
    "essiv with too long a hash",
    "essiv with an odd hash",
    "unknown cipher",
    "upper case cipher",
    "empty cipher",
    "cast6",
    "cast5 in xts",
    "unknown hash",
    "empty hash",
    "key of 31 bytes",
    "key of 62 bytes",
    "key of 33 bytes in cbc",
    "material wraps to 0",
    "material at the end of numbers",
    "escape sequence for a hash",
];

/// The literal texts, so nothing needs to be installed.
#[test]
fn we_say() {
    let base = image();
    let directory = directory();
    let path = &directory.path().join("image");
    for case in all() {
        std::fs::write(path, mutated(&base, &case.change)).unwrap();
        let found = strictly(path).err();
        let found = found.as_ref().map(|error| (error.kind(), error.message()));
        assert_eq!(found, case.ours, "{}", case.name);
    }
}

/// We refuse what either of the peers refuses, but for what stands in the table with a reason.
#[test]
fn what_we_take_and_a_peer_refuses_has_a_reason() {
    for case in all() {
        let refused = case.qemu != Qemu::Opens || case.cryptsetup == Cryptsetup::Refuses;
        let lenient = case.ours.is_none() && refused;
        assert_eq!(lenient, !case.because.is_empty(), "{}", case.name);
    }
    for case in table() {
        let name = case.name;
        assert!(case.qemu != Qemu::Same || case.ours.is_some(), "{name}");
    }
}

#[test]
fn qemu_says() {
    let Some(qemu) = support::qemu::Qemu::find() else { return };
    let base = image();
    in_parallel(all(), |case| {
        let directory = directory();
        let path = &directory.path().join("image");
        std::fs::write(path, mutated(&base, &case.change)).unwrap();
        let info = qemu.info(path).err();
        let wanted = match case.qemu {
            Qemu::Same => case.ours.map(|(_, text)| text),
            Qemu::Says(text) => Some(text),
            Qemu::Opens | Qemu::SaysReading(_) => None,
        };
        assert_eq!(info.as_deref(), wanted);
        if let Qemu::SaysReading(text) = case.qemu {
            assert_eq!(qemu.reading(path, "hunter0").as_deref(), Some(text));
        }
    });
}

#[test]
fn cryptsetup_says() {
    let Some(cryptsetup) = support::cryptsetup::Cryptsetup::find() else { return };
    let base = image();
    in_parallel(all(), |case| {
        let directory = directory();
        let path = &directory.path().join("image");
        std::fs::write(path, mutated(&base, &case.change)).unwrap();
        assert_eq!(cryptsetup.accepts(path), case.cryptsetup == Cryptsetup::Accepts);
    });
}

/// The header is valid, but unlocking it would take minutes, and is refused before anything is derived.
#[test]
fn work_beyond_the_limit() {
    let base = image();
    let directory = directory();
    let path = &directory.path().join("image");
    for (offset, iterations, text) in [
        (
            208 + 4,
            u32::MAX,
            "keyslot 0 asks for 10 minutes of work (4294967295 iterations), the limit is 2 minutes",
        ),
        (
            208 + 4,
            u32::MAX / 4,
            "keyslot 0 asks for 2 minutes of work (1073741823 iterations), the limit is 2 minutes",
        ),
        (
            164,
            u32::MAX,
            "the volume key digest asks for 5 minutes of work (4294967295 iterations), the limit is 2 minutes",
        ),
    ] {
        let mut image = base.clone();
        image[offset..offset + 4].copy_from_slice(&iterations.to_be_bytes());
        std::fs::write(path, image).unwrap();
        let error = Image::open(path).unwrap().unlock(&passphrase("hunter0")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Limit);
        assert_eq!(error.message(), text);
    }
}

#[test]
fn the_limit_is_the_callers() {
    let directory = directory();
    let path = &directory.path().join("image");
    std::fs::write(path, image()).unwrap();
    let open = |iterations| {
        let image =
            OpenOptions::new().limits(Limits::NONE.with_iterations(iterations)).open(path).unwrap();
        image.unlock(&passphrase("hunter0")).map_err(|error| error.kind()).map(|_| ())
    };
    assert_eq!(open(1000), Err(ErrorKind::Limit));
    assert_eq!(open(Limits::NONE.iterations), Ok(()));
}

/// Every byte of the header with every value, and every number with every extreme: no panic, and
/// what passes has its keyslots between the header and the payload, and none on another.
#[test]
fn no_header_is_half_valid() {
    let base = image();
    let len = base.len() as u64;
    let mut header = base[..592].to_vec();
    let mut valid = 0;
    for at in 0..header.len() {
        let was = header[at];
        for value in 0..=255 {
            header[at] = value;
            valid += usize::from(is_sound(&header, len));
        }
        header[at] = was;
    }
    let numbers = [104, 108, 164].into_iter();
    let slots = (0..8).flat_map(|i| [0, 4, 40, 44].map(|field| 208 + 48 * i + field));
    let numbers: Vec<usize> = numbers.chain(slots).collect();
    let mut extremes: Vec<u32> = vec![0x0000_dead, 0x00ac_71f3, 4000, 4036, 4040, 1_073_742];
    for bit in 0..32 {
        let power = 1_u32 << bit;
        extremes.extend([power - 1, power, power + 1, 0_u32.wrapping_sub(power)]);
    }
    for &one in &numbers {
        for &value in &extremes {
            let mut header = base[..592].to_vec();
            header[one..one + 4].copy_from_slice(&value.to_be_bytes());
            valid += usize::from(is_sound(&header, len));
            for other in [104, 108, 208 + 40, 208 + 7 * 48 + 40] {
                for value in [0, 1, 8, 16, 32, 4040, 1 << 31, 0xffff_fe08, u32::MAX] {
                    let mut header = header.clone();
                    header[other..other + 4].copy_from_slice(&value.to_be_bytes());
                    valid += usize::from(is_sound(&header, len));
                }
            }
        }
    }
    // Salts, the digest, the UUID, and what is behind a NUL are free; most else is not.
    assert!(valid > 100_000, "{valid}");
}

/// Whether it is valid; then it must be sound.
fn is_sound(bytes: &[u8], image_len: u64) -> bool {
    let Ok(header) = Luks1Header::parse(bytes, Some(image_len)) else { return false };
    assert_eq!(header.as_bytes(), bytes);
    let payload = header.payload_offset();
    let limit = if payload == 0 { image_len } else { payload.min(image_len) };
    let areas: Vec<_> = header.keyslots().map(|keyslot| keyslot.area).collect();
    for (i, area) in areas.iter().enumerate() {
        let end = area.offset + area.len as u64;
        assert!(area.offset >= 592 && end <= limit, "{header:?}");
        for other in &areas[i + 1..] {
            let other_end = other.offset + other.len as u64;
            assert!(end <= other.offset || other_end <= area.offset, "{header:?}");
        }
    }
    true
}

/// A LUKS2 image is none of LUKS1, to QEMU neither.
#[test]
fn luks2_is_told_apart() {
    let Some(cryptsetup) = support::peer("cryptsetup") else { return };
    let directory = directory();
    let path = &directory.path().join("image");
    std::fs::File::create(path).unwrap().set_len(20 << 20).unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "hunter0").unwrap();
    let mut command = std::process::Command::new(cryptsetup);
    command.args(["luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2"]);
    command.args(["--pbkdf-force-iterations", "1000"]).args([path, &key]);
    support::run_ok(&mut command);
    assert_eq!(Image::open(path).unwrap().header().format(), "LUKS2");
    let bytes = std::fs::read(path).unwrap();
    let error = Luks1Header::parse(&bytes, Some(bytes.len() as u64)).unwrap_err();
    let found = (error.kind(), error.message());
    assert_eq!(found, (ErrorKind::Unsupported, "LUKS version 2 is not supported"));
    let Some(qemu) = support::qemu::Qemu::find() else { return };
    assert_eq!(qemu.info(path).unwrap_err(), error.message());
}
