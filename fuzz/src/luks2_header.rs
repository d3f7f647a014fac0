//! A LUKS2 header of any bytes: refused, or within the bounds that everything above relies on, and
//! the same when its metadata is written and read again.
//!
//! The first byte of the input says what the rest is: an image as it is; or, with bit 0, the JSON
//! text of a header whose binary part and checksums are right; with bit 1 only in the secondary copy,
//! and with bit 2 in a copy of 32768 bytes.

use std::ops::Range;

use keyslot::crypto::{HashAlg, KdfAlg};
use keyslot::header::{Header, luks2};
use keyslot::storage::Storage;
use keyslot::unlock::opens;
use keyslot::{Limits, Passphrase};

use super::disk::{Disk, disk};

pub fn check(data: &[u8]) {
    let Some((&kind, rest)) = data.split_first() else { return };
    if kind & 1 == 0 {
        if let Ok(Header::Luks2(header)) = Header::read(&disk(rest, LEN)) {
            is_sound(&header);
        }
        return;
    }
    let hdr_size = if kind & 4 == 0 { 16384 } else { 32768 };
    let Some(bytes) = image(rest, hdr_size, kind & 2 == 0) else { return };
    let disk = disk(&bytes, LEN);
    let Ok(header) = Header::read(&disk) else { return };
    let Header::Luks2(luks2) = &header else { unreachable!("its magic says LUKS2") };
    assert_eq!(luks2.metadata().text().as_bytes(), rest);
    assert_eq!(luks2.warning().is_some(), kind & 2 != 0);
    is_sound(luks2);
    survives(luks2, hdr_size);
    uses(&header, &disk);
}

/// No area reaches into the header, another area or the data, and every number is usable.
fn is_sound(header: &luks2::Luks2Header) {
    let metadata = header.metadata();
    let start = 2 * header.hdr_size();
    let end = start + metadata.config().keyslots_size;
    let areas: Vec<Range<u64>> =
        metadata.keyslots().iter().map(|slot| slot.offset..slot.offset + slot.size).collect();
    for (i, area) in areas.iter().enumerate() {
        assert!(start <= area.start && area.start < area.end && area.end <= end);
        for other in &areas[i + 1..] {
            assert!(area.end <= other.start || other.end <= area.start);
        }
    }
    let usable: Vec<_> = header.keyslots().collect();
    let unusable: Vec<_> = header.unusable().map(|(index, _)| index).collect();
    assert_eq!(usable.len() + unusable.len(), areas.len());
    for keyslot in usable {
        let index = keyslot.index;
        assert!(index < 32 && !unusable.contains(&index));
        let slot = metadata.keyslots().iter().find(|slot| slot.number as usize == index);
        let slot = slot.expect("it is there");
        assert!(keyslot.area.offset == slot.offset && keyslot.area.len as u64 <= slot.size);
        assert!(keyslot.area.len >= keyslot.key_size * keyslot.stripes as usize);
        assert!(keyslot.key_size > 0 && keyslot.digest.iterations > 0);
        assert!((16..=64).contains(&keyslot.digest.value.len()));
        assert!(keyslot.kdf.salt.len() == 32);
        match keyslot.kdf.alg {
            KdfAlg::Pbkdf2 { iterations, .. } => assert!(iterations > 0),
            KdfAlg::Argon2 { time, memory, parallelism, .. } => {
                assert!(time > 0 && parallelism > 0);
                assert!(u64::from(memory) >= 8 * u64::from(parallelism));
            }
            _ => {}
        }
    }
    for segment in metadata.segments().iter().filter(|segment| !segment.is_backup()) {
        assert!(segment.offset == 0 || segment.offset >= end);
        assert!(segment.size.is_none_or(|size| segment.offset.checked_add(size).is_some()));
    }
    for text in [header.uuid(), header.label(), header.subsystem()] {
        assert!(text.chars().count() <= 48 && !text.contains(char::is_control));
    }
}

/// Written without the spaces, it is the same, unknown members and long numbers included.
fn survives(header: &luks2::Luks2Header, hdr_size: usize) {
    let value = header.metadata().value();
    let text = value.to_string();
    // Escapes that were not needed are gone, those that are needed were there.
    let bytes = image(text.as_bytes(), hdr_size, true).expect("it was as long before");
    let Ok(Header::Luks2(again)) = Header::read(&disk(&bytes, LEN)) else { panic!("{text}") };
    assert!(again.metadata().value() == value, "{text}");
    assert_eq!(again.metadata().text(), text);
}

/// Whatever is asked of it, the answer is no panic.
fn uses(header: &Header, disk: &Disk<'_>) {
    let len = disk.len().expect("a length");
    let volume_len = header.volume_len(len);
    if let Ok(segments) = header.segments(len) {
        assert_eq!(
            segments.iter().map(|segment| segment.len).sum::<u64>(),
            volume_len.unwrap_or(0)
        );
        assert!(segments.iter().all(|segment| segment.offset + segment.len <= len));
    }
    let wrong = Passphrase::new(b"wrong").expect("memory");
    let limits = Limits::NONE.with_iterations(4).with_memory(64);
    if let Some(keyslot) = header.keyslots().next().filter(|keyslot| keyslot.key_size <= 64) {
        let cheap = !matches!(keyslot.kdf.alg, KdfAlg::Argon2 { time, parallelism, .. } if time > 4 || parallelism > 4);
        if cheap {
            assert!(!matches!(opens(disk, &keyslot, &wrong, limits), Ok(Some(_))));
        }
    }
}

/// An image with this metadata and room for its keyslots; `None` if it is too long.
fn image(text: &[u8], hdr_size: usize, with_primary: bool) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 2 * hdr_size];
    for (copy, magic) in [b"LUKS\xba\xbe", b"SKUL\xba\xbe"].into_iter().enumerate() {
        if copy == 0 && !with_primary {
            continue;
        }
        let offset = copy * hdr_size;
        let header = &mut bytes[offset..offset + hdr_size];
        header[..6].copy_from_slice(magic);
        header[7] = 2;
        header[8..16].copy_from_slice(&(hdr_size as u64).to_be_bytes());
        header[72..78].copy_from_slice(b"sha256");
        header[256..264].copy_from_slice(&(offset as u64).to_be_bytes());
        // A NUL at the end belongs to it.
        header.get_mut(4096..hdr_size - 1)?.get_mut(..text.len())?.copy_from_slice(text);
        let checksum = HashAlg::Sha256.digest(&[&*header]);
        header[448..480].copy_from_slice(&checksum);
    }
    Some(bytes)
}

/// Length of an image in bytes
const LEN: u64 = 1 << 32;
