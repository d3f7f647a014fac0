//! A volume is as good as plain bytes, at any offset; and its storage holds them as the cipher says.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::error::Error as _;
use std::io;
use std::sync::{Arc, LazyLock};

use keyslot::crypto::CipherSpec;
use keyslot::header::Segment;
use keyslot::storage::Storage;
use keyslot::volume::{Keyring, VolumeStorage};
use keyslot::{ErrorKind, Operation, Volume, VolumeKey};
use proptest::collection::vec;
use proptest::prelude::*;
use support::disk::Disk;

static KEY: LazyLock<VolumeKey> = LazyLock::new(|| VolumeKey::random(32).unwrap());
const CIPHERS: [(&str, &str); 4] = [
    ("aes", "xts-plain64"),
    ("aes", "cbc-essiv:sha256"),
    ("serpent", "xts-plain"),
    ("twofish", "ctr-plain64be"),
];
/// What is in the storage beside the segments.
const BESIDE: u8 = 0xee;

/// A segment's cipher, sector size (as a power), sectors, distance to its neighbour and first IV.
type Shape = (usize, usize, u64, u64, u64);

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let first_iv =
        prop_oneof![Just(0_u64), Just(u64::from(u32::MAX) - 2), Just(u64::MAX - 2), any::<u64>()];
    vec((0..CIPHERS.len(), 0..4_usize, 0..6_u64, 0..3_u64, first_iv), 0..5)
}

/// Segments of these shapes, which are in the storage the other way round than in the volume.
fn segments(shapes: &[Shape]) -> (Vec<Segment>, usize) {
    let mut offset = 512;
    let mut segments = Vec::new();
    for &(cipher, power, sectors, gap, iv_tweak) in shapes {
        let (sector_size, (name, mode)) = (512 << power, CIPHERS[cipher]);
        let encryption = CipherSpec::parse(name, mode, 32).unwrap();
        let len = sectors * sector_size as u64;
        segments.push(Segment { offset, len, iv_tweak, sector_size, encryption, key: 0 });
        offset += len + gap * 512;
    }
    segments.reverse();
    (segments, usize::try_from(offset).unwrap() + 512)
}

#[derive(Clone, Debug)]
enum Access {
    Read { offset: u64, len: usize },
    Write { offset: u64, bytes: Vec<u8> },
    WriteZeros { offset: u64, len: usize },
    ReadSectors { first: u64, sectors: usize },
    WriteSectors { first: u64, sectors: usize, byte: u8 },
}

fn accesses() -> impl Strategy<Value = Vec<Access>> {
    let access = prop_oneof![
        (0..20_000_u64, 0..9000_usize).prop_map(|(offset, len)| Access::Read { offset, len }),
        (0..20_000_u64, vec(any::<u8>(), 0..9000))
            .prop_map(|(offset, bytes)| Access::Write { offset, bytes }),
        (0..20_000_u64, 0..9000_usize).prop_map(|(offset, len)| Access::WriteZeros { offset, len }),
        (0..40_u64, 0..17_usize)
            .prop_map(|(first, sectors)| Access::ReadSectors { first, sectors }),
        (0..40_u64, 0..17_usize, any::<u8>())
            .prop_map(|(first, sectors, byte)| Access::WriteSectors { first, sectors, byte }),
    ];
    vec(access, 1..12)
}

/// The plain bytes, and what of them is in which segment.
struct Model {
    segments: Vec<Segment>,
    plain: Vec<u8>,
    storage_len: usize,
}

impl Model {
    /// Segments full of a pattern, and a volume of them.
    fn new(shapes: &[Shape]) -> (Self, Volume, Arc<Disk>) {
        let (segments, storage_len) = segments(shapes);
        let len: u64 = segments.iter().map(|segment| segment.len).sum();
        let plain = (0..len).map(|i| ((i * 7 + i / 512) % 251) as u8).collect();
        let model = Self { segments, plain, storage_len };
        let disk = Arc::new(Disk::new(&model.encrypted()));
        let storage: Arc<dyn Storage> = Arc::<Disk>::clone(&disk);
        let volume = Volume::new(storage, model.segments.clone(), &Keyring::single(&KEY)).unwrap();
        assert_eq!(volume.len(), len);
        (model, volume, disk)
    }

    /// What the storage has to hold, sector by sector.
    fn encrypted(&self) -> Vec<u8> {
        let mut storage = vec![BESIDE; self.storage_len];
        let mut plain = &self.plain[..];
        for segment in &self.segments {
            let cipher = segment.encryption.sector_cipher(KEY.as_bytes()).unwrap();
            let cipher = cipher.with_sector_size(segment.sector_size).unwrap();
            let mut offset = usize::try_from(segment.offset).unwrap();
            let mut iv = segment.iv_tweak;
            let (here, later) = plain.split_at(usize::try_from(segment.len).unwrap());
            for sector in here.chunks(segment.sector_size) {
                let encrypted = &mut storage[offset..offset + sector.len()];
                encrypted.copy_from_slice(sector);
                cipher.encrypt(iv, encrypted);
                iv = iv.wrapping_add(sector.len() as u64 / 512);
                offset += sector.len();
            }
            plain = later;
        }
        storage
    }

    fn range(&mut self, offset: u64, len: usize) -> Option<&mut [u8]> {
        let offset = usize::try_from(offset).unwrap();
        self.plain.get_mut(offset..offset + len)
    }

    /// Whether both ends of a range are between two sectors.
    fn is_aligned(&self, first: u64, sectors: usize) -> bool {
        let ends = [first * 512, (first + sectors as u64) * 512];
        let mut start = 0;
        self.segments.iter().all(|segment| {
            let here = start..=start + segment.len;
            start += segment.len;
            let size = segment.sector_size as u64;
            sectors == 0
                || ends.iter().all(|end| !here.contains(end) || (end - here.start()) % size == 0)
        })
    }

    fn check(&mut self, volume: &Volume, access: &Access) {
        match access {
            Access::Read { offset, len } => {
                let mut buf = vec![0; *len];
                let result = volume.read_exact_at(&mut buf, *offset);
                match self.range(*offset, *len) {
                    Some(plain) => assert!(result.is_ok() && plain == buf),
                    None => is_past_the_end(result),
                }
            }
            Access::Write { offset, bytes } => {
                let result = volume.write_all_at(bytes, *offset);
                match self.range(*offset, bytes.len()) {
                    Some(plain) => {
                        result.unwrap();
                        plain.copy_from_slice(bytes);
                    }
                    None => is_past_the_end(result),
                }
            }
            Access::WriteZeros { offset, len } => {
                let result = volume.write_zeros_at(*offset, *len as u64);
                match self.range(*offset, *len) {
                    Some(plain) => {
                        result.unwrap();
                        plain.fill(0);
                    }
                    None => is_past_the_end(result),
                }
            }
            Access::ReadSectors { first, sectors } => {
                let mut buf = vec![0x77; sectors * 512];
                let result = volume.read_sectors(*first, &mut buf);
                let aligned = self.is_aligned(*first, *sectors);
                match self.range(first * 512, sectors * 512) {
                    Some(plain) if aligned => assert!(result.is_ok() && plain == buf),
                    Some(_) => is_invalid(result),
                    None => is_past_the_end(result),
                }
            }
            Access::WriteSectors { first, sectors, byte } => {
                let mut buf = vec![*byte; sectors * 512];
                let result = volume.write_sectors(*first, &mut buf);
                let aligned = self.is_aligned(*first, *sectors);
                match self.range(first * 512, sectors * 512) {
                    Some(plain) if aligned => {
                        result.unwrap();
                        plain.fill(*byte);
                        assert!(buf.is_empty() || buf.iter().any(|it| it != byte), "ciphertext");
                        return;
                    }
                    Some(_) => is_invalid(result),
                    None => is_past_the_end(result),
                }
                assert!(buf.iter().all(|it| it == byte), "a refused buffer is left alone");
            }
        }
    }
}

fn is_past_the_end(result: keyslot::Result<()>) {
    let error = result.unwrap_err();
    let cause = error.source().unwrap().downcast_ref::<io::Error>().unwrap();
    assert_eq!((error.kind(), cause.kind()), (ErrorKind::Io, io::ErrorKind::UnexpectedEof));
}

fn is_invalid(result: keyslot::Result<()>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidInput);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_is_as_good_as_plain_bytes(shapes in shapes(), accesses in accesses()) {
        let (mut model, volume, disk) = Model::new(&shapes);
        for access in &accesses {
            model.check(&volume, access);
        }
        prop_assert!(disk.bytes() == model.encrypted());
    }

    /// One operation of the storage fails: a read or a write of the edges, or of what is between.
    #[test]
    fn what_fails_leaves_other_bytes_alone(
        shapes in shapes(),
        at in any::<prop::sample::Index>(),
        bytes in vec(any::<u8>(), 1..5000),
        fault in 0..4_usize,
    ) {
        let (model, volume, disk) = Model::new(&shapes);
        prop_assume!(model.plain.len() > bytes.len());
        let offset = at.index(model.plain.len() - bytes.len());
        disk.set_fault(fault);
        let result = volume.write_all_at(&bytes, offset as u64);
        disk.set_fault(usize::MAX);

        let mut plain = vec![0; model.plain.len()];
        volume.read_exact_at(&mut plain, 0).unwrap();
        let (there, end) = (&plain[offset..offset + bytes.len()], offset + bytes.len());
        prop_assert!(plain[..offset] == model.plain[..offset]);
        prop_assert!(plain[end..] == model.plain[end..]);
        match result {
            Ok(()) => prop_assert!(there == bytes),
            Err(error) => {
                prop_assert_eq!(error.kind(), ErrorKind::Io);
                let text = error.to_string();
                prop_assert!(text.contains(" of the volume (byte "), "{}", text);
                let mut mixture = there.iter().zip(&bytes).zip(&model.plain[offset..]);
                let is_mixed = mixture.all(|((it, new), old)| it == new || it == old);
                prop_assert!(is_mixed);
            }
        }
    }
}

#[test]
fn a_write_whose_reads_fail_writes_nothing() {
    let (_, volume, disk) = Model::new(&[(0, 0, 2000, 0, 0)]);
    let before = disk.bytes();
    for fault in [0, 1] {
        disk.set_fault(fault);
        let error = volume.write_all_at(&vec![1; 900_000], 100).unwrap_err();
        assert!(error.to_string().starts_with("cannot read 512 bytes at byte "), "{error}");
        disk.set_fault(usize::MAX);
        assert_eq!(disk.bytes(), before);
    }
}

#[test]
fn large_accesses() {
    for power in 0..4 {
        let (mut model, volume, disk) = Model::new(&[(0, power, 300, 1, 5), (1, 0, 2000, 0, 9)]);
        let whole = usize::try_from(volume.len()).unwrap();
        for (offset, len) in [(0, whole), (1, whole - 1), (0, whole - 1), (511, 256 << 10)] {
            let bytes: Vec<_> = (0..len)
                .map(|i| [i, i >> 9, len].map(|it| it.to_le_bytes()[0]))
                .map(|[a, b, c]| a ^ b ^ c)
                .collect();
            model.check(&volume, &Access::Write { offset, bytes });
            model.check(&volume, &Access::Read { offset, len });
            assert!(disk.bytes() == model.encrypted());
        }
    }
}

#[test]
fn segments_that_cannot_be_are_refused() {
    let good = segments(&[(0, 3, 2, 0, 0)]).0.remove(0);
    for (segment, text) in [
        (
            Segment { len: 4608, ..good.clone() },
            "segment 1 has 4608 bytes, which is not a multiple of the sector size 4096",
        ),
        (
            Segment { offset: 100, ..good.clone() },
            "segment 1 begins at byte 100, which is not a multiple of 512",
        ),
        (
            Segment { offset: u64::MAX - 511, len: 8192, ..good.clone() },
            "segment 1 has 8192 bytes from byte 18446744073709551104, which exceeds 2^64",
        ),
        (
            Segment { len: u64::MAX - 12287, offset: 0, ..good.clone() },
            "segment 1 makes the volume longer than 2^64 bytes",
        ),
        (
            Segment { sector_size: 0, len: 0, ..good.clone() },
            "segment 1: sectors of 0 bytes are not supported",
        ),
        (
            Segment { sector_size: 8192, ..good.clone() },
            "segment 1: sectors of 8192 bytes are not supported",
        ),
    ] {
        let first = Segment { len: 16384, ..good.clone() };
        let error =
            Volume::new(Arc::new(Disk::new(&[])), vec![first, segment], &Keyring::single(&KEY))
                .unwrap_err();
        assert_eq!(error.message(), text);
        assert!([ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()));
    }
}

#[test]
fn a_key_that_does_not_fit_is_refused() {
    let key = VolumeKey::random(16).unwrap();
    let segments = segments(&[(0, 0, 1, 0, 0)]).0;
    let error =
        Volume::new(Arc::new(Disk::new(&[])), segments, &Keyring::single(&key)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

/// Segments may promise what the storage does not have: that is an error when it is wanted.
#[test]
fn a_storage_that_ends_early_is_an_error() {
    let huge = segments(&[(0, 0, 1 << 40, 0, 0)]).0;
    let volume =
        Volume::new(Arc::new(Disk::new(&[0; 2048])), huge, &Keyring::single(&KEY)).unwrap();
    let mut buf = [0; 1024];
    volume.read_exact_at(&mut buf, 512).unwrap();
    is_past_the_end(volume.read_exact_at(&mut buf, 1024));
    is_past_the_end(volume.read_exact_at(&mut buf, 1 << 48));
    let error = volume.read_exact_at(&mut buf, 1000).unwrap_err();
    assert_eq!(
        error.message(),
        "cannot read 512 bytes at byte 1536 of the volume (byte 2048 of the image)"
    );
    is_past_the_end(volume.read_exact_at(&mut buf, u64::MAX));
    is_past_the_end(volume.read_sectors(u64::MAX, &mut buf));
}

/// Also what is written piece by piece: what does not fit changes nothing.
#[test]
fn nothing_is_written_of_what_goes_past_the_end() {
    const LEN: u64 = 3 << 20;
    let (_, volume, disk) = Model::new(&[(0, 3, LEN / 4096, 0, 0)]);
    let before = disk.bytes();
    let volume = Arc::new(volume);
    let storage: &dyn Storage = &VolumeStorage::from(Arc::clone(&volume));
    for (offset, len) in [(0, LEN + 1), (4097, LEN), (LEN, 1), (1, u64::MAX), (u64::MAX, 2)] {
        is_past_the_end(volume.write_zeros_at(offset, len));
        let error = storage.write_zeros_at(offset, len).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
    is_past_the_end(volume.write_all_at(&vec![0; 2 << 20], LEN / 2));
    is_past_the_end(volume.write_sectors(LEN / 1024, &mut vec![0; 2 << 20]));
    assert!(disk.bytes() == before);
    let written = volume.write_all_at(&[0; 2], LEN - 1).unwrap_err();
    let read = volume.read_exact_at(&mut [0; 2], LEN - 1).unwrap_err();
    let operations = (written.operation(), read.operation());
    assert_eq!(operations, (Some(Operation::Write), Some(Operation::Read)));
    let text =
        format!("cannot read 2 bytes at byte {} of the volume, which has {LEN} bytes", LEN - 1);
    assert_eq!(read.message(), text);

    volume.write_zeros_at(1, LEN - 2).unwrap();
    let mut plain = vec![7; 3 << 20];
    volume.read_exact_at(&mut plain, 0).unwrap();
    assert!(plain[1..plain.len() - 1].iter().all(|byte| *byte == 0));
    assert_ne!((plain[0], plain[plain.len() - 1]), (7, 0));
}

#[test]
fn a_volume_is_a_storage() {
    let (model, volume, _disk) = Model::new(&[(0, 3, 3, 0, 0), (1, 0, 3, 0, 0)]);
    let storage: &dyn Storage = &VolumeStorage::from(volume);
    assert_eq!(storage.len().unwrap(), model.plain.len() as u64);
    storage.write_all_at(b"keyslot", 4093).unwrap();
    let mut buf = [0; 7];
    storage.read_exact_at(&mut buf, 4093).unwrap();
    assert_eq!(&buf, b"keyslot");
    storage.sync_data().unwrap();
    let error = storage.read_exact_at(&mut buf, storage.len().unwrap()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(
        error.to_string(),
        "cannot read 7 bytes at byte 13824 of the volume, which has 13824 bytes"
    );
}
