//! Reads the copies of the header, and finds the fault of each.

use std::io;

use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use super::full;
use crate::error::{Error, ErrorKind};
use crate::header::luks2::corrupt;
use crate::header::luks2::raw::{BINARY_SIZE, HDR_SIZES, RawHeader, Which};
use crate::storage::{SharedBytes, Storage, zeroed};

/// A copy whose checksum is right.
pub(super) struct Whole {
    pub raw: Box<RawHeader>,
    pub json_area: Vec<u8>,
}

impl Whole {
    pub fn bytes(&self) -> SharedBytes {
        [self.raw.as_bytes(), &self.json_area].concat().into()
    }
}

/// Fault of a copy.
pub(super) struct Bad {
    pub error: Error,
    pub fault: Fault,
    /// SHA-256 of the bytes that were read
    pub read: [u8; 32],
    /// `seqid` of the copy, if the copy may be intact
    pub seqid: Option<u64>,
}

/// The fault of a copy, as far as a decision depends on it.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Fault {
    /// The magic is not at its place.
    Magic,
    /// No magic is at any place.
    Absent,
    Other,
}

pub(super) type Checked<T> = std::result::Result<T, Bad>;

/// Primary and secondary copy, or the fault of each
pub(super) type Copies = [Checked<Whole>; 2];

pub(super) fn read_erased(storage: &dyn Storage, image_len: u64) -> io::Result<Option<[Whole; 2]>> {
    let Ok(primary) = read_copy(storage, image_len, Which::Primary, 0, Magic::Supplied)? else {
        return Ok(None);
    };
    let offset = primary.raw.hdr_size.get();
    let secondary = read_copy(storage, image_len, Which::Secondary, offset, Magic::Supplied)?;
    Ok(secondary.ok().map(|secondary| [primary, secondary]))
}

/// Locates the secondary copy by the primary's `hdr_size`, or, if the primary is damaged, at each
/// of the nine possible offsets.
pub(super) fn read_once(storage: &dyn Storage, image_len: u64) -> io::Result<Copies> {
    let primary = read_copy(storage, image_len, Which::Primary, 0, Magic::Read)?;
    let secondary = match &primary {
        Ok(primary) => {
            let offset = primary.raw.hdr_size.get();
            read_copy(storage, image_len, Which::Secondary, offset, Magic::Read)?
        }
        Err(_) => search(storage, image_len)?,
    };
    Ok([primary, secondary])
}

/// Finds the first intact secondary copy, or collects the faults at the nine possible offsets.
pub(super) fn search(storage: &dyn Storage, image_len: u64) -> io::Result<Checked<Whole>> {
    let mut reasons = Vec::new();
    let mut read = Sha256::new();
    let mut others = 0;
    let mut found = None;
    for offset in HDR_SIZES {
        match read_copy(storage, image_len, Which::Secondary, offset, Magic::Read)? {
            Ok(copy) => return Ok(Ok(copy)),
            Err(bad) if has_magic(storage, image_len, offset)? => {
                read.update(bad.read);
                reasons.push(format!("at byte {offset}: {}", full(&bad.error)));
                found.get_or_insert(bad);
            }
            Err(bad) => {
                read.update(bad.read);
                others += 1;
            }
        }
    }
    let read = read.finalize().into();
    let Some(Bad { error, seqid, fault, .. }) = found else {
        let (error, fault) = (corrupt("not found"), Fault::Absent);
        return Ok(Err(Bad { error, fault, read, seqid: None }));
    };
    reasons.push(format!("at the {others} other offsets: not found"));
    let error = Error::new(error.kind(), reasons.join("; "));
    Ok(Err(Bad { error, fault, read, seqid }))
}

/// Offsets at which the magic of a secondary copy is, intact or not.
pub(crate) fn secondary_copies(storage: &dyn Storage) -> io::Result<Vec<u64>> {
    let len = storage.len()?;
    let mut found = Vec::new();
    for offset in HDR_SIZES {
        if has_magic(storage, len, offset)? {
            found.push(offset);
        }
    }
    Ok(found)
}

/// Whether the magic of a secondary copy is at byte `offset`.
fn has_magic(storage: &dyn Storage, image_len: u64, offset: u64) -> io::Result<bool> {
    let mut magic = [0; 6];
    if image_len < offset + magic.len() as u64 {
        return Ok(false);
    }
    storage.read_exact_at(&mut magic, offset)?;
    Ok(magic == *Which::Secondary.magic())
}

/// Treatment of a copy's magic: read from the storage, or filled in.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Magic {
    Read,
    Supplied,
}

fn read_copy(
    storage: &dyn Storage,
    image_len: u64,
    which: Which,
    offset: u64,
    magic: Magic,
) -> io::Result<Checked<Whole>> {
    let fits = |len: u64| offset.checked_add(len).is_some_and(|end| end <= image_len);
    let mut read = Sha256::new();
    let bad = |error, fault, read: Sha256| {
        Ok(Err(Bad { error, fault, read: read.finalize().into(), seqid: None }))
    };
    if !fits(BINARY_SIZE as u64) {
        return bad(corrupt("the image is truncated"), Fault::Other, read);
    }
    let mut head = [0; BINARY_SIZE];
    storage.read_exact_at(&mut head, offset)?;
    read.update(head);
    if magic == Magic::Supplied {
        head[..6].copy_from_slice(which.magic());
    }
    let raw = match RawHeader::parse(&head, which, offset) {
        Ok(raw) => Box::new(raw),
        Err(_) if head[..SECTOR].iter().all(|&byte| byte == 0) => {
            return bad(corrupt("it begins with zeros"), Fault::Other, read);
        }
        Err(error) if head[..6] != *which.magic() => return bad(error, Fault::Magic, read),
        Err(error) => return bad(error, Fault::Other, read),
    };
    if !fits(raw.hdr_size.get()) {
        return bad(corrupt("the image is truncated"), Fault::Other, read);
    }
    // `hdr_size` is one of nine values, at most 4 MiB.
    let len = usize::try_from(raw.hdr_size.get()).unwrap_or(0).saturating_sub(BINARY_SIZE);
    let mut json_area = zeroed(len).map_err(|_| io::ErrorKind::OutOfMemory)?;
    storage.read_exact_at(&mut json_area, offset + BINARY_SIZE as u64)?;
    Ok(match raw.verify(&json_area) {
        Ok(()) => Ok(Whole { raw, json_area }),
        Err(error) => {
            // An unknown checksum algorithm cannot be verified; the copy may still be valid.
            let may_be_whole = error.kind() == ErrorKind::Unsupported;
            let seqid = may_be_whole.then(|| raw.seqid.get());
            read.update(&json_area);
            Err(Bad { error, fault: Fault::Other, read: read.finalize().into(), seqid })
        }
    })
}

pub(super) fn same(one: &Copies, other: &Copies) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Ok(one), Ok(other)) => {
            one.raw.as_bytes() == other.raw.as_bytes() && one.json_area == other.json_area
        }
        (Err(one), Err(other)) => one.read == other.read,
        _ => false,
    })
}

const SECTOR: usize = 512;
