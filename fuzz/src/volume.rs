//! Reads and writes on a volume of any segments, against plain bytes: what is read is what was
//! written, what is refused changes nothing, and in the end the storage holds the bytes encrypted
//! sector by sector. An access whose storage fails leaves the bytes beside it alone.

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use arbitrary::Arbitrary;
use keyslot::crypto::CipherSpec;
use keyslot::header::Segment;
use keyslot::secret::SecretBytes;
use keyslot::volume::Keyring;
use keyslot::{ErrorKind, Volume, VolumeKey};

use super::memory::{Memory, memory};

/// Segments, and what is done to the volume that they are.
#[derive(Arbitrary, Debug)]
pub struct Run {
    shapes: Vec<Shape>,
    accesses: Vec<Access>,
}

#[derive(Arbitrary, Debug)]
struct Shape {
    cipher: u8,
    sector_size: u8,
    sectors: u8,
    /// Distance to the next
    gap: u8,
    iv_tweak: u64,
    /// More bytes than these sectors; if it is odd, it begins there
    skew: Option<u16>,
}

/// Offsets are in bytes, or in sectors of 512.
#[derive(Arbitrary, Debug)]
enum Access {
    Read { offset: u16, len: u16 },
    Write { offset: u16, len: u16, byte: u8, fault: Option<u8> },
    ReadSectors { first: u8, sectors: u8 },
    WriteSectors { first: u8, sectors: u8, byte: u8 },
    Beyond { offset: u64, len: u8 },
}

pub fn check(run: &Run) {
    let (segments, storage_len, is_valid) = segments(&run.shapes);
    let memory = memory(vec![BESIDE; storage_len]);
    let volume =
        match Volume::new(Arc::new(memory.clone()), segments.clone(), &Keyring::single(&KEY)) {
            Ok(volume) => volume,
            Err(error) => {
                let kinds = [ErrorKind::InvalidInput, ErrorKind::Unsupported];
                assert!(!is_valid && kinds.contains(&error.kind()), "{error:?}");
                return;
            }
        };
    assert!(is_valid, "{segments:?}");
    let mut plain = vec![0; segments.iter().map(|it| len(it.len)).sum()];
    assert_eq!(volume.len(), plain.len() as u64);
    volume.write_all_at(&plain, 0).expect("it is within");
    for access in run.accesses.iter().take(MOST_ACCESSES) {
        let before = memory.bytes();
        if apply(access, &volume, &memory, &segments, &mut plain).is_none() {
            assert!(memory.bytes() == before, "{access:?} was refused");
        }
    }
    assert!(memory.bytes() == encrypted(&segments, &plain, storage_len));
}

/// Does it to both. `None` if it is to change nothing.
fn apply(
    access: &Access,
    volume: &Volume,
    memory: &Memory,
    segments: &[Segment],
    plain: &mut [u8],
) -> Option<()> {
    match *access {
        Access::Read { offset, len } => {
            let mut buf = vec![0x77; usize::from(len)];
            let result = volume.read_exact_at(&mut buf, offset.into());
            match plain.get(usize::from(offset)..usize::from(offset) + buf.len()) {
                Some(plain) => assert!(result.is_ok() && buf == plain),
                None => assert_eq!(result.expect_err("past the end").kind(), ErrorKind::Io),
            }
            None
        }
        Access::Write { offset, len, byte, fault } => {
            let buf: Vec<_> = (0..len).map(|i| byte.wrapping_add(i.to_le_bytes()[0])).collect();
            memory.set_fault(fault);
            let result = volume.write_all_at(&buf, offset.into());
            memory.set_fault(None);
            let range = usize::from(offset)..usize::from(offset) + buf.len();
            let Some(there) = plain.get_mut(range.clone()) else {
                assert_eq!(result.expect_err("past the end").kind(), ErrorKind::Io);
                return None;
            };
            if result.is_ok() {
                there.copy_from_slice(&buf);
                return Some(());
            }
            assert!(fault.is_some());
            let mut now = vec![0; plain.len()];
            volume.read_exact_at(&mut now, 0).expect("it fails once");
            let reach = reach(segments, &range);
            assert!(now[..reach.start] == plain[..reach.start]);
            assert!(now[reach.end..] == plain[reach.end..]);
            plain.copy_from_slice(&now);
            Some(())
        }
        Access::ReadSectors { first, sectors } => {
            let mut buf = vec![0x77; 512 * usize::from(sectors)];
            let result = volume.read_sectors(first.into(), &mut buf);
            let range = 512 * usize::from(first)..512 * usize::from(first) + buf.len();
            match sectors_of(plain, &range, segments) {
                Ok(plain) => assert!(result.is_ok() && buf == plain),
                Err(kind) => assert_eq!(result.expect_err("no such sectors").kind(), kind),
            }
            None
        }
        Access::WriteSectors { first, sectors, byte } => {
            let mut buf = vec![byte; 512 * usize::from(sectors)];
            let result = volume.write_sectors(first.into(), &mut buf);
            let range = 512 * usize::from(first)..512 * usize::from(first) + buf.len();
            match sectors_of(plain, &range, segments) {
                Ok(plain) => {
                    result.expect("there are such sectors");
                    plain.fill(byte);
                    Some(())
                }
                Err(kind) => {
                    assert_eq!(result.expect_err("no such sectors").kind(), kind);
                    assert!(buf.iter().all(|it| *it == byte));
                    None
                }
            }
        }
        Access::Beyond { offset, len } => {
            let mut buf = vec![0; usize::from(len)];
            let is_within = offset.checked_add(len.into()).is_some_and(|end| end <= volume.len());
            assert_eq!(volume.read_exact_at(&mut buf, offset).is_ok(), is_within);
            if !is_within {
                volume.write_all_at(&buf, offset).expect_err("past the end");
                volume.write_sectors(offset, &mut buf).expect_err("past the end, or no sectors");
            }
            None
        }
    }
}

/// The segments, the length of a storage for them, and whether they are any.
fn segments(shapes: &[Shape]) -> (Vec<Segment>, usize, bool) {
    let mut offset = 512;
    let mut is_valid = true;
    let mut segments = Vec::new();
    for shape in shapes.iter().take(MOST_SEGMENTS) {
        let (name, mode) = CIPHERS[usize::from(shape.cipher) % CIPHERS.len()];
        let encryption = CipherSpec::parse(name, mode, 32).expect("a cipher");
        let (sector_size, exists) = match shape.sector_size {
            252 => (0, false),
            253 => (256, false),
            254 => (513, false),
            255 => (8192, false),
            byte => (512 << (byte & 3), true),
        };
        let mut segment = Segment {
            offset,
            len: u64::from(shape.sectors & 15) * sector_size as u64,
            iv_tweak: shape.iv_tweak,
            sector_size,
            encryption,
            key: 0,
        };
        offset += segment.len + 512 * u64::from(shape.gap & 3);
        is_valid &= exists;
        if let Some(skew) = shape.skew.map(|skew| u64::from(skew & 0xfff)) {
            let moved = if skew % 2 == 1 { &mut segment.offset } else { &mut segment.len };
            *moved += skew;
            is_valid &= exists && skew % 2 == 0 && skew.is_multiple_of(sector_size as u64);
            offset += skew.next_multiple_of(512);
        }
        segments.push(segment);
    }
    segments.reverse();
    (segments, len(offset) + 512, is_valid)
}

/// What the storage has to hold.
fn encrypted(segments: &[Segment], plain: &[u8], storage_len: usize) -> Vec<u8> {
    let mut storage = vec![BESIDE; storage_len];
    for (segment, place) in segments.iter().zip(places(segments)) {
        let cipher = segment.encryption.sector_cipher(KEY.as_bytes()).expect("a key of 32 bytes");
        let cipher = cipher.with_sector_size(segment.sector_size).expect("a size it has");
        let there = &mut storage[len(segment.offset)..][..place.len()];
        there.copy_from_slice(&plain[place]);
        let mut iv = segment.iv_tweak;
        for sector in there.chunks_mut(segment.sector_size) {
            cipher.encrypt(iv, sector);
            iv = iv.wrapping_add(sector.len() as u64 / 512);
        }
    }
    storage
}

/// The bytes of a range of whole sectors.
fn sectors_of<'a>(
    plain: &'a mut [u8],
    range: &Range<usize>,
    segments: &[Segment],
) -> Result<&'a mut [u8], ErrorKind> {
    let is_aligned = segments.iter().zip(places(segments)).all(|(segment, place)| {
        let here = range.start.max(place.start)..range.end.min(place.end);
        let whole = |at: usize| (at - place.start).is_multiple_of(segment.sector_size);
        here.is_empty() || whole(here.start) && whole(here.end)
    });
    let there = plain.get_mut(range.clone()).ok_or(ErrorKind::Io)?;
    if is_aligned { Ok(there) } else { Err(ErrorKind::InvalidInput) }
}

/// The bytes that a write to this range changes if it fails. A storage writes 512 bytes whole; of
/// larger sectors it may write a part, and then all of them is something else.
fn reach(segments: &[Segment], range: &Range<usize>) -> Range<usize> {
    let mut reach = range.clone();
    for (segment, place) in segments.iter().zip(places(segments)) {
        let size = segment.sector_size;
        if size > 512 && place.contains(&range.start) {
            reach.start -= (range.start - place.start) % size;
        }
        if size > 512 && place.start < range.end && range.end <= place.end {
            reach.end = place.start + (range.end - place.start).next_multiple_of(size);
        }
    }
    reach
}

/// Where each segment is in the volume.
fn places(segments: &[Segment]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    segments.iter().map(move |segment| {
        let place = start..start + len(segment.len);
        start = place.end;
        place
    })
}

fn len(bytes: u64) -> usize {
    usize::try_from(bytes).expect("small")
}

static KEY: LazyLock<VolumeKey> = LazyLock::new(|| {
    SecretBytes::from_slice(b"a key that is of exactly 32 byte").expect("memory").into()
});
const CIPHERS: [(&str, &str); 4] = [
    ("aes", "xts-plain64"),
    ("aes", "cbc-essiv:sha256"),
    ("aes", "ctr-plain64be"),
    ("serpent", "xts-plain"),
];
/// What is in the storage beside the segments.
const BESIDE: u8 = 0xee;
const MOST_SEGMENTS: usize = 4;
const MOST_ACCESSES: usize = 16;
