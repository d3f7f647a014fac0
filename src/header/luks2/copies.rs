//! Choice between the two copies of the header.
//!
//! A copy is valid if its checksum and its metadata are. Of two valid copies, the one with the higher
//! `seqid` is used, or else the primary. A fault of the other copy is reported, but not repaired.
//!
//! `wipefs`, `mkswap` and similar tools erase only the magic of each copy. To recognise such a header, the
//! magic is filled in, and the checksum shows whether the rest is intact.

mod read;

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

pub(crate) use self::read::secondary_copies;
use self::read::{Bad, Copies, Fault, Whole, read_erased, read_once, same, search};
use super::corrupt;
use super::metadata::Metadata;
use super::raw::{RawHeader, Which};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::{SharedBytes, Storage};

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

/// A copy whose metadata is valid, too
type Valid = (Box<RawHeader>, Arc<Metadata>);

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
