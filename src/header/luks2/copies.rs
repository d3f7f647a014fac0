//! Choice between the two copies of the header.
//!
//! A copy is valid if its checksum and its metadata are. Of two valid copies, the one with the higher
//! `seqid` is used, or else the primary. A fault of the other copy is reported, but not repaired.
//!
//! `wipefs`, `mkswap` and similar tools erase only the magic of each copy. To recognise such a header, the
//! magic is filled in, and the checksum shows whether the rest is intact.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use zerocopy::IntoBytes;

use super::corrupt;
use super::metadata::Metadata;
use super::raw::{BINARY_SIZE, HDR_SIZES, RawHeader, Which};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::{SharedBytes, Storage, zeroed};

/// The chosen copy, and the report on the other.
pub(super) struct Chosen {
    pub which: Which,
    pub raw: Box<RawHeader>,
    pub metadata: Metadata,
    pub warning: Option<String>,
    /// Bytes of the copies whose checksums are right
    pub bytes: [Option<SharedBytes>; 2],
    /// Whether the image does not begin with a LUKS magic
    pub is_foreign: bool,
    /// Whether the magic of both copies is erased
    pub is_erased: bool,
    /// Warning about a copy that may be newer, but that this crate cannot read
    pub unread: Option<String>,
}

/// A copy whose checksum is right.
struct Whole {
    raw: Box<RawHeader>,
    json_area: Vec<u8>,
}

impl Whole {
    fn bytes(&self) -> SharedBytes {
        [self.raw.as_bytes(), &self.json_area].concat().into()
    }
}

/// A copy whose metadata is valid, too
type Valid = (Box<RawHeader>, Arc<Metadata>);

/// Fault of a copy.
struct Bad {
    error: Error,
    fault: Fault,
    /// SHA-256 of the bytes that were read
    read: [u8; 32],
    /// `seqid` of the copy, if the copy may be intact
    seqid: Option<u64>,
}

/// The fault of a copy, as far as a decision depends on it.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Fault {
    /// The magic is not at its place.
    Magic,
    /// No magic is at any place.
    Absent,
    Other,
}

type Checked<T> = std::result::Result<T, Bad>;

/// Primary and secondary copy, or the fault of each
type Copies = [Checked<Whole>; 2];

/// Reads both copies until two reads agree.
pub(super) fn read(storage: &dyn Storage, image_len: u64, attempts: usize) -> Result<Chosen> {
    let failed = |error| Error::failed(Operation::Read, "the header", error);
    let mut copies = read_once(storage, image_len).map_err(failed)?;
    for _ in 0..attempts {
        let again = read_once(storage, image_len).map_err(failed)?;
        if same(&copies, &again) {
            return choose(again);
        }
        copies = again;
    }
    let changing = io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing");
    Err(failed(changing))
}

/// Remains of a header in an image that does not begin with one.
pub(super) enum Trace {
    /// An intact secondary copy
    Secondary,
    /// The magic of a damaged secondary copy
    Damaged,
    /// Both copies, intact except for the magic of one or both
    Erased,
    /// No remains
    None,
}

/// Searches for the remains of a header.
pub(super) fn trace(storage: &dyn Storage, image_len: u64) -> Result<Trace> {
    let failed = |error| Error::failed(Operation::Read, "the header", error);
    let found = search(storage, image_len).map_err(failed)?;
    if found.is_ok() {
        return Ok(Trace::Secondary);
    }
    if read_erased(storage, image_len).map_err(failed)?.is_some() {
        return Ok(Trace::Erased);
    }
    let has_magic = found.is_err_and(|bad| bad.fault != Fault::Absent);
    Ok(if has_magic { Trace::Damaged } else { Trace::None })
}

/// Reads both copies with their magics filled in. `None` if a checksum is still wrong.
pub(super) fn erased(storage: &dyn Storage, image_len: u64) -> Result<Option<Chosen>> {
    let failed = |error| Error::failed(Operation::Read, "the header", error);
    let Some(copies) = read_erased(storage, image_len).map_err(failed)? else { return Ok(None) };
    let chosen = choose(copies.map(Ok))?;
    Ok(Some(Chosen { warning: Some(ERASED.to_owned()), is_erased: true, ..chosen }))
}

fn read_erased(storage: &dyn Storage, image_len: u64) -> io::Result<Option<[Whole; 2]>> {
    let Ok(primary) = read_copy(storage, image_len, Which::Primary, 0, Magic::Supplied)? else {
        return Ok(None);
    };
    let offset = primary.raw.hdr_size.get();
    let secondary = read_copy(storage, image_len, Which::Secondary, offset, Magic::Supplied)?;
    Ok(secondary.ok().map(|secondary| [primary, secondary]))
}

/// Locates the secondary copy by the primary's `hdr_size`, or, if the primary is damaged, at each
/// of the nine possible offsets.
fn read_once(storage: &dyn Storage, image_len: u64) -> io::Result<Copies> {
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
fn search(storage: &dyn Storage, image_len: u64) -> io::Result<Checked<Whole>> {
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

fn same(one: &Copies, other: &Copies) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Ok(one), Ok(other)) => {
            one.raw.as_bytes() == other.raw.as_bytes() && one.json_area == other.json_area
        }
        (Err(one), Err(other)) => one.read == other.read,
        _ => false,
    })
}

fn choose(copies: Copies) -> Result<Chosen> {
    let same_area = match &copies {
        [Ok(one), Ok(other)] => one.json_area == other.json_area,
        _ => false,
    };
    // Equal texts are parsed once, because they may have many values.
    let mut parsed: Option<Arc<Metadata>> = None;
    let mut valid = |copy: Whole| {
        let seqid = Some(copy.raw.seqid.get());
        if let Some(same) = parsed.as_ref().filter(|_| same_area) {
            return Ok::<Valid, Bad>((copy.raw, Arc::clone(same)));
        }
        let metadata = Metadata::parse(&copy.json_area, copy.raw.hdr_size.get());
        let (fault, read) = (Fault::Other, [0; 32]);
        let metadata = metadata.map_err(|error| Bad { error, fault, read, seqid })?;
        let metadata = Arc::new(metadata);
        parsed = Some(Arc::clone(&metadata));
        Ok((copy.raw, metadata))
    };
    let bytes = [0, 1].map(|i| copies[i].as_ref().ok().map(Whole::bytes));
    let is_foreign = matches!(&copies[0], Err(bad) if bad.fault == Fault::Magic);
    let [primary, secondary] = copies.map(|copy| copy.and_then(&mut valid));
    drop(parsed);
    let chosen = |which, (raw, metadata): Valid, warning| Chosen {
        which,
        raw,
        metadata: Arc::unwrap_or_clone(metadata),
        warning,
        bytes: bytes.clone(),
        is_foreign,
        is_erased: false,
        unread: None,
    };
    let beside = |chosen: Chosen, bad: &Bad| {
        let newer = bad.seqid.is_some_and(|seqid| seqid >= chosen.raw.seqid.get());
        Chosen { unread: chosen.warning.clone().filter(|_| newer), ..chosen }
    };
    match (primary, secondary) {
        (Ok(primary), Ok(secondary)) => {
            let (one, other) = (primary.0.seqid.get(), secondary.0.seqid.get());
            Ok(match one.cmp(&other) {
                Ordering::Less => {
                    chosen(Which::Secondary, secondary, Some(older(Which::Primary, one, other)))
                }
                Ordering::Greater => {
                    chosen(Which::Primary, primary, Some(older(Which::Secondary, other, one)))
                }
                Ordering::Equal => {
                    let warning = (!agree(&primary, &secondary)).then(|| {
                        format!(
                            "both copies of the header have seqid {one} and differ: the primary is used"
                        )
                    });
                    chosen(Which::Primary, primary, warning)
                }
            })
        }
        (Ok(primary), Err(bad)) => {
            let warning = Some(damaged(Which::Secondary, &bad.error));
            Ok(beside(chosen(Which::Primary, primary, warning), &bad))
        }
        (Err(bad), Ok(secondary)) => {
            let warning = Some(damaged(Which::Primary, &bad.error));
            Ok(beside(chosen(Which::Secondary, secondary, warning), &bad))
        }
        (Err(primary), Err(secondary)) => Err(neither(&primary.error, &secondary.error)),
    }
}

/// Whether two copies with the same `seqid` have the same contents, apart from their salts.
fn agree((raw, metadata): &Valid, other: &Valid) -> bool {
    let (other_raw, other_metadata) = other;
    metadata.text() == other_metadata.text()
        && raw.uuid == other_raw.uuid
        && raw.label == other_raw.label
        && raw.subsystem == other_raw.subsystem
}

fn older(which: Which, seqid: u64, newer: u64) -> String {
    let name = which.name();
    format!("the {name} copy of the header is older than the other: seqid {seqid}, not {newer}")
}

fn damaged(which: Which, error: &Error) -> String {
    format!("the {} copy of the header is damaged: {}", which.name(), full(error))
}

/// Error for an image without a valid copy.
fn neither(primary: &Error, secondary: &Error) -> Error {
    let (one, other) = (full(primary), full(secondary));
    let kind = match primary.kind() {
        ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Corrupt,
    };
    let error = Error::new(kind, format!("LUKS2 header: {one}"));
    if one == other { error } else { error.with_hint(format!("its secondary copy: {other}")) }
}

/// Error for a header whose magic is erased in both copies.
pub(super) fn erased_error() -> Error {
    corrupt(format!("LUKS2 header: {ERASED}")).with_hint(
        "use 'keyslot repair --foreign-data' to restore it; both copies are otherwise intact",
    )
}

/// Message of an error together with that of its source, such as a JSON parser's.
fn full(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {source}", error.message()),
        None => error.message().to_owned(),
    }
}

const ERASED: &str = "the magic is erased, the first six bytes of each copy";
const SECTOR: usize = 512;
