//! Which of the two copies counts.
//!
//! A copy counts if its checksum is right and its metadata valid, and of two such the one with the
//! higher `seqid`, or the primary. Nothing is repaired: what is wrong with the other is only said.

use std::cmp::Ordering;
use std::io;
use std::sync::Arc;

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
    /// The copies whose checksums are right, byte for byte
    pub bytes: [Option<Arc<[u8]>>; 2],
    /// Whether the image begins with something else
    pub is_foreign: bool,
    /// What is said of a copy that may well be newer, but has what this crate does not take
    pub unread: Option<String>,
}

/// A copy whose checksum is right.
struct Whole {
    raw: Box<RawHeader>,
    json_area: Vec<u8>,
}

impl Whole {
    fn bytes(&self) -> Arc<[u8]> {
        [self.raw.as_bytes(), &self.json_area].concat().into()
    }
}

/// One whose metadata is valid, too
type Valid = (Box<RawHeader>, Metadata);

/// What is wrong with a copy.
struct Bad {
    error: Error,
    /// Its number, if it may be whole all the same
    seqid: Option<u64>,
}

impl From<Error> for Bad {
    fn from(error: Error) -> Self {
        Self { error, seqid: None }
    }
}

type Checked<T> = std::result::Result<T, Bad>;

/// Primary and secondary, or what is wrong with each
type Copies = [Checked<Whole>; 2];

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

fn search(storage: &dyn Storage, image_len: u64) -> io::Result<Checked<Whole>> {
    for offset in HDR_SIZES {
        let copy = read_copy(storage, image_len, Which::Secondary, offset)?;
        if copy.is_ok() {
            return Ok(copy);
        }
    }
    Ok(Err(corrupt("there is none").into()))
}

fn read_copy(
    storage: &dyn Storage,
    image_len: u64,
    which: Which,
    offset: u64,
) -> io::Result<Checked<Whole>> {
    let fits = |len: u64| offset.checked_add(len).is_some_and(|end| end <= image_len);
    if !fits(BINARY_SIZE as u64) {
        return Ok(Err(corrupt("the image is truncated").into()));
    }
    let mut head = [0; BINARY_SIZE];
    storage.read_exact_at(&mut head, offset)?;
    let raw = match RawHeader::parse(&head, which, offset) {
        Ok(raw) => Box::new(raw),
        Err(_) if head[..SECTOR].iter().all(|&byte| byte == 0) => {
            return Ok(Err(corrupt("there are zeros where it begins").into()));
        }
        Err(error) => return Ok(Err(error.into())),
    };
    if !fits(raw.hdr_size.get()) {
        return Ok(Err(corrupt("the image is truncated").into()));
    }
    // One of nine sizes, at most 4 MiB.
    let len = usize::try_from(raw.hdr_size.get()).unwrap_or(0).saturating_sub(BINARY_SIZE);
    let mut json_area = vec![0; len];
    storage.read_exact_at(&mut json_area, offset + BINARY_SIZE as u64)?;
    Ok(match raw.verify(&json_area) {
        Ok(()) => Ok(Whole { raw, json_area }),
        Err(error) => {
            // Of a checksum that nobody here knows, nobody here can say that it is wrong.
            let may_be_whole = error.kind() == ErrorKind::Unsupported;
            let seqid = may_be_whole.then(|| raw.seqid.get());
            Err(Bad { error, seqid })
        }
    })
}

fn same(one: &Copies, other: &Copies) -> bool {
    one.iter().zip(other).all(|pair| match pair {
        (Ok(one), Ok(other)) => {
            one.raw.as_bytes() == other.raw.as_bytes() && one.json_area == other.json_area
        }
        (Err(one), Err(other)) => {
            one.error.message() == other.error.message() && one.seqid == other.seqid
        }
        _ => false,
    })
}

fn choose(copies: Copies) -> Result<Chosen> {
    let valid = |copy: Whole| {
        let seqid = Some(copy.raw.seqid.get());
        let metadata = Metadata::parse(&copy.json_area, copy.raw.hdr_size.get());
        let metadata = metadata.map_err(|error| Bad { error, seqid })?;
        Ok::<Valid, Bad>((copy.raw, metadata))
    };
    let bytes = [0, 1].map(|i| copies[i].as_ref().ok().map(Whole::bytes));
    let is_foreign = matches!(&copies[0], Err(bad) if bad.error.message() == WRONG_MAGIC);
    let [primary, secondary] = copies.map(|copy| copy.and_then(valid));
    let chosen = |which, (raw, metadata): Valid, warning| Chosen {
        which,
        raw,
        metadata,
        warning,
        bytes: bytes.clone(),
        is_foreign,
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
                            "both copies of the header have seqid {one} and differ: the primary counts"
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

const SECTOR: usize = 512;
