//! Which of the two copies counts.
//!
//! A copy counts if its checksum is right and its metadata valid, and of two such the one with the
//! higher `seqid`, or the primary. Nothing is repaired: what is wrong with the other is only said.

use std::cmp::Ordering;
use std::io;

use zerocopy::IntoBytes;

use super::corrupt;
use super::metadata::Metadata;
use super::raw::{BINARY_SIZE, HDR_SIZES, RawHeader, WRONG_MAGIC, Which};
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The copy that counts, and what is to be said of the other.
pub(super) struct Chosen {
    pub which: Which,
    pub raw: Box<RawHeader>,
    pub metadata: Metadata,
    pub warning: Option<String>,
    /// Those of the copies whose checksums are right
    pub salts: [Option<[u8; 64]>; 2],
    /// Whether the image begins with something else
    pub is_foreign: bool,
}

/// A copy whose checksum is right.
struct Whole {
    raw: Box<RawHeader>,
    json_area: Vec<u8>,
}

/// One whose metadata is valid, too
type Valid = (Box<RawHeader>, Metadata);

/// Primary and secondary, or what is wrong with each
type Copies = [Result<Whole>; 2];

/// Reads both copies, until two reads agree.
pub(super) fn read(storage: &dyn Storage, image_len: u64, attempts: usize) -> Result<Chosen> {
    let failed = |error| Error::io("read the header", error);
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

/// Whether a secondary copy is there, for an image whose start says nothing.
pub(super) fn has_secondary(storage: &dyn Storage, image_len: u64) -> Result<bool> {
    let found = search(storage, image_len).map_err(|error| Error::io("read the header", error))?;
    Ok(found.is_ok())
}

/// Where the secondary copy is, the primary says; and if that cannot be trusted, it is looked for
/// at all places where it can be.
fn read_once(storage: &dyn Storage, image_len: u64) -> io::Result<Copies> {
    let primary = read_copy(storage, image_len, Which::Primary, 0)?;
    let secondary = match &primary {
        Ok(primary) => read_copy(storage, image_len, Which::Secondary, primary.raw.hdr_size.get())?,
        Err(_) => search(storage, image_len)?,
    };
    Ok([primary, secondary])
}

fn search(storage: &dyn Storage, image_len: u64) -> io::Result<Result<Whole>> {
    for offset in HDR_SIZES {
        let copy = read_copy(storage, image_len, Which::Secondary, offset)?;
        if copy.is_ok() {
            return Ok(copy);
        }
    }
    Ok(Err(corrupt("there is none")))
}

fn read_copy(
    storage: &dyn Storage,
    image_len: u64,
    which: Which,
    offset: u64,
) -> io::Result<Result<Whole>> {
    let fits = |len: u64| offset.checked_add(len).is_some_and(|end| end <= image_len);
    if !fits(BINARY_SIZE as u64) {
        return Ok(Err(corrupt("the image is truncated")));
    }
    let mut head = [0; BINARY_SIZE];
    storage.read_exact_at(&mut head, offset)?;
    let raw = match RawHeader::parse(&head, which, offset) {
        Ok(raw) => Box::new(raw),
        Err(error) => return Ok(Err(error)),
    };
    if !fits(raw.hdr_size.get()) {
        return Ok(Err(corrupt("the image is truncated")));
    }
    // One of nine sizes, at most 4 MiB.
    let len = usize::try_from(raw.hdr_size.get()).unwrap_or(0).saturating_sub(BINARY_SIZE);
    let mut json_area = vec![0; len];
    storage.read_exact_at(&mut json_area, offset + BINARY_SIZE as u64)?;
    Ok(raw.verify(&json_area).map(|()| Whole { raw, json_area }))
}

fn same(one: &Copies, other: &Copies) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Ok(one), Ok(other)) => {
            one.raw.as_bytes() == other.raw.as_bytes() && one.json_area == other.json_area
        }
        (Err(one), Err(other)) => one.message() == other.message(),
        _ => false,
    })
}

fn choose(copies: Copies) -> Result<Chosen> {
    let valid = |copy: Whole| {
        let metadata = Metadata::parse(&copy.json_area, copy.raw.hdr_size.get())?;
        Ok::<Valid, Error>((copy.raw, metadata))
    };
    let salts = [0, 1].map(|i| copies[i].as_ref().ok().map(|copy| copy.raw.salt));
    let is_foreign = matches!(&copies[0], Err(error) if error.message() == WRONG_MAGIC);
    let [primary, secondary] = copies.map(|copy| copy.and_then(valid));
    let chosen = |which, (raw, metadata): Valid, warning| Chosen {
        which,
        raw,
        metadata,
        warning,
        salts,
        is_foreign,
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
                            "both copies of the header have seqid {one} and differ: the primary counts"
                        )
                    });
                    chosen(Which::Primary, primary, warning)
                }
            })
        }
        (Ok(primary), Err(error)) => {
            Ok(chosen(Which::Primary, primary, Some(damaged(Which::Secondary, &error))))
        }
        (Err(error), Ok(secondary)) => {
            Ok(chosen(Which::Secondary, secondary, Some(damaged(Which::Primary, &error))))
        }
        (Err(primary), Err(secondary)) => Err(neither(&primary, &secondary)),
    }
}

/// Whether two copies with the same `seqid` say the same. Their salts never do.
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

/// The error of an image without a copy that counts.
fn neither(primary: &Error, secondary: &Error) -> Error {
    let (one, other) = (full(primary), full(secondary));
    let kind = match primary.kind() {
        ErrorKind::Unsupported => ErrorKind::Unsupported,
        _ => ErrorKind::Corrupt,
    };
    let error = Error::new(kind, format!("LUKS2 header: {one}"));
    if one == other { error } else { error.with_hint(format!("its secondary copy: {other}")) }
}

/// What a JSON parser says belongs to it.
fn full(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{}: {source}", error.message()),
        None => error.message().to_owned(),
    }
}
