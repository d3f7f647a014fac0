//! Plans the restoration of a backup: the checks, the fate of each keyslot, and the writes.
//!
//! If both headers belong to the same volume, the restoration is an amendment and keeps its promise. If
//! the image has no header left, nothing can be lost. Anything else needs an override, and a warning says
//! that an interruption may lose secrets.

use std::ops::Range;

use super::backup::{Content, Present, Snapshot};
use super::step::list;
use super::{Backup, Digest, Header, Stage, Step, luks1};
use crate::error::{Error, ErrorKind, Result};
use crate::overrides::{Override, Overrides};
use crate::storage::transfer::length;
use crate::storage::{Storage, pieces};

/// Fate of a keyslot when a backup is restored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// The keyslot is the same in the backup and stays.
    Kept,
    /// The keyslot is only in the backup and is added.
    Added,
    /// The keyslot differs in the backup and is replaced.
    Replaced,
    /// The keyslot is not in the backup and is erased.
    Erased,
}

/// A restoration, lowered to writes.
#[derive(Debug)]
pub(crate) struct Lowered {
    pub stages: Vec<Stage>,
    /// Keyslots that are or will be active, by index
    pub fates: Vec<(usize, Fate)>,
    /// Warnings to show before the restoration is carried out
    pub warnings: Vec<String>,
}

/// Lowers the restoration of a backup to the image in `storage`. `present` is the image's valid header,
/// if it has one. Otherwise `erased` may be a header that is valid except for an erased magic.
pub(crate) fn lower_restore(
    storage: &dyn Storage,
    present: Option<&Present>,
    erased: Option<&Header>,
    backup: &Backup,
    overrides: Overrides,
) -> Result<Lowered> {
    let image_len = length(storage)?;
    let is_foreign = overrides.has(Override::ForeignHeader);
    check_room(backup, image_len, is_foreign)?;
    let present = present.map(Present::header);
    let now = present.or(erased);
    let differences = now.map_or(Vec::new(), |now| differences(now, backup.header()));
    if let Some(present) = present {
        check_requirements(present)?;
    }
    if present.is_some() || !is_foreign {
        check_requirements(backup.header()).map_err(|error| backup.named(error))?;
    }
    if let Some(first) = differences.first().filter(|_| !is_foreign) {
        return Err(Override::ForeignHeader.refused(first.as_str()));
    }
    let is_same_volume = differences.is_empty();
    let mut warnings = differences;
    if let Some(unread) = now.and_then(Header::luks2).and_then(super::luks2::Luks2Header::unread) {
        let text = format!("{unread}; it may be newer than the other copy");
        if !overrides.has(Override::NewerCopy) {
            return Err(Override::NewerCopy.refused(text));
        }
        warnings.push(text);
    }
    let fates = fates(storage, present, backup)?;
    let stages = match present {
        None => overwrite(None, backup)?,
        Some(present) => {
            let content = Content::Image(storage);
            let now = Now { header: present, content, kept: &kept(&fates), is_same_volume };
            replace(&now, backup, overrides, &mut warnings)?
        }
    };
    warn(present, backup, &fates, &mut warnings);
    Ok(Lowered { stages, fates, warnings })
}

/// Refuses an image too small for the header and some data behind it.
fn check_room(backup: &Backup, image_len: u64, is_foreign: bool) -> Result<()> {
    let (end, payload) = (backup.as_bytes().len() as u64, backup.header().payload_offset());
    if end > image_len {
        let text = format!("the image has {image_len} bytes, the backup {end}");
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    // A detached LUKS2 header has the offset 0.
    if payload == 0 || payload < image_len {
        return Ok(());
    }
    let text = format!("the image has {image_len} bytes, its data would begin at byte {payload}");
    let hint = "give the backup first, then the image";
    match backup.header() {
        Header::Luks1(_) if payload > image_len => {
            Err(Error::new(ErrorKind::InvalidInput, text).with_hint(hint))
        }
        _ if is_foreign => Ok(()),
        _ => {
            let hint = format!("{hint}; use --foreign-header to restore it anyway");
            Err(Override::ForeignHeader.refused(text).with_hint(hint))
        }
    }
}

fn check_requirements(header: &Header) -> Result<()> {
    match header {
        Header::Luks1(_) => Ok(()),
        Header::Luks2(header) => header.check_requirements(),
    }
}

/// Differences that show that the backup was made of another image.
fn differences(now: &Header, then: &Header) -> Vec<String> {
    let (format, other) = (now.format(), then.format());
    if format != other {
        return vec![format!("the image has a {format} header, the backup a {other} header")];
    }
    let mut found = Vec::new();
    let same = |(one, other): (Digest<'_>, Digest<'_>)| {
        (one.hash, one.iterations, one.salt, one.value)
            == (other.hash, other.iterations, other.salt, other.value)
    };
    let has_same_digest = match (now, then) {
        (Header::Luks1(now), Header::Luks1(then)) => now.has_same_digest(then),
        _ => now.digest().zip(then.digest()).is_some_and(same),
    };
    if !has_same_digest {
        found.push("the backup has the digest of another volume key".to_owned());
    }
    let (payload, other) = (now.payload_offset(), then.payload_offset());
    if payload != other {
        found.push(format!("the data begins at byte {payload}, in the backup at byte {other}"));
    }
    found.extend(match (now, then) {
        (Header::Luks1(now), Header::Luks1(then)) => now.differences(then),
        (Header::Luks2(now), Header::Luks2(then)) => now.differences(then),
        _ => Vec::new(),
    });
    found
}

/// A valid header that is to be replaced.
struct Now<'a> {
    header: &'a Header,
    content: Content<'a>,
    /// Keyslots that are the same in the backup, so that their areas are not read again
    kept: &'a [usize],
    is_same_volume: bool,
}

/// Keyslots that are the same in both headers.
fn kept(fates: &[(usize, Fate)]) -> Vec<usize> {
    fates.iter().filter(|(_, fate)| *fate == Fate::Kept).map(|(index, _)| *index).collect()
}

/// Lowers the replacement of one valid header by another, as an amendment if possible.
fn replace(
    now: &Now<'_>,
    backup: &Backup,
    overrides: Overrides,
    warnings: &mut Vec<String>,
) -> Result<Vec<Stage>> {
    let Now { header: present, content, kept, is_same_volume } = *now;
    let in_place = overrides.has(Override::InPlace);
    let other = backup.content();
    match (present, backup.header()) {
        (Header::Luks1(now), Header::Luks1(then)) if is_same_volume => {
            let (now, then) =
                (Snapshot { header: now, content }, Snapshot { header: then, content: other });
            match now.lower_restore(&then, kept, overrides) {
                // An unsupported cipher rules out writing single keyslots, but not the whole header.
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    if !in_place {
                        let error = error.with_reason(Override::InPlace);
                        return Err(
                            error.with_hint("use --in-place to overwrite the header in place")
                        );
                    }
                }
                result => {
                    let (stages, warning) = result?;
                    warnings.extend(warning);
                    return Ok(stages);
                }
            }
        }
        (Header::Luks2(now), Header::Luks2(then)) if now.has_same_places(then) => {
            let (now, then) =
                (Snapshot { header: now, content }, Snapshot { header: then, content: other });
            match now.lower_restore(&then, kept) {
                Err(error) if in_place && error.kind() == ErrorKind::NoFreeKeyslot => {}
                result => return result,
            }
        }
        _ => {}
    }
    if !in_place {
        let text = "the header can only be overwritten in place: an interruption would lose its secrets and those of the backup";
        return Err(Override::InPlace.refused(text));
    }
    warnings.push(
        "the header is overwritten in place: if this is interrupted, neither its secrets nor those of the backup may open the image".to_owned(),
    );
    overwrite(Some(present), backup)
}

/// Writes that put the bytes of the backup in place, first the areas, then the header. Key material of
/// `present` outside these areas is overwritten.
fn overwrite(present: Option<&Header>, backup: &Backup) -> Result<Vec<Stage>> {
    let content = backup.content();
    let (head_len, head) = match backup.header() {
        Header::Luks1(header) => (luks1::HEAD, Snapshot { header, content }.head()?),
        Header::Luks2(header) => (2 * header.hdr_size(), Snapshot { header, content }.head()?),
    };
    let end = backup.as_bytes().len() as u64;
    let whole = Snapshot { header: backup.header(), content };
    let (mut steps, mut checks) = (Vec::new(), Vec::new());
    for (offset, len) in pieces(head_len..end, PIECE) {
        let bytes = whole.range(&(offset..offset + len as u64))?;
        steps.push(Step::Write { offset, bytes: bytes.clone() });
        checks.push(Step::Verify { offset, bytes });
    }
    steps.push(Step::Sync);
    steps.extend(checks);
    steps.extend(head);
    let unsure = match present {
        None => "the image may have no valid header yet: restore it again",
        Some(_) => "the header is half overwritten: restore it again",
    };
    let mut stages = vec![Stage { steps, on_failure: unsure.to_owned() }];

    let payload = backup.header().payload_offset();
    let behind = end.max(head_len)..if payload == 0 { u64::MAX } else { payload };
    for area in present.map(used).unwrap_or_default() {
        let area = area.start.max(behind.start)..area.end.min(behind.end);
        let len = area.end.saturating_sub(area.start);
        if len > 0 {
            let on_failure =
                "the header is restored; old key material may be left on the medium".to_owned();
            stages.push(Stage { steps: Step::wipe(area.start, len).to_vec(), on_failure });
        }
    }
    Ok(stages)
}

/// Ranges that hold key material.
fn used(header: &Header) -> Vec<Range<u64>> {
    match header {
        Header::Luks1(header) => header.used(),
        Header::Luks2(header) => header.used(),
    }
}

fn fates(
    storage: &dyn Storage,
    present: Option<&Header>,
    backup: &Backup,
) -> Result<Vec<(usize, Fate)>> {
    let now = present.map(Header::occupants).unwrap_or_default();
    let then = backup.header().occupants();
    let is_in = |occupants: &[_], index| occupants.get(index).is_some_and(Option::is_some);
    let mut fates = Vec::new();
    for index in 0..now.len().max(then.len()) {
        let fate = match (is_in(&now, index), is_in(&then, index)) {
            (true, true) => match present {
                Some(present) if has_same_keyslot(storage, present, backup, index)? => Fate::Kept,
                _ => Fate::Replaced,
            },
            (true, false) => Fate::Erased,
            (false, true) => Fate::Added,
            (false, false) => continue,
        };
        fates.push((index, fate));
    }
    Ok(fates)
}

fn has_same_keyslot(
    storage: &dyn Storage,
    present: &Header,
    backup: &Backup,
    index: usize,
) -> Result<bool> {
    let (content, other) = (Content::Image(storage), backup.content());
    match (present, backup.header()) {
        (Header::Luks1(now), Header::Luks1(then)) => Snapshot { header: now, content }
            .has_same_keyslot(&Snapshot { header: then, content: other }, index),
        (Header::Luks2(now), Header::Luks2(then)) => Snapshot { header: now, content }
            .has_same_keyslot(&Snapshot { header: then, content: other }, index),
        _ => Ok(false),
    }
}

/// Adds the warnings that apply to every restoration.
fn warn(
    present: Option<&Header>,
    backup: &Backup,
    fates: &[(usize, Fate)],
    warnings: &mut Vec<String>,
) {
    if present.and_then(Header::luks2).is_some_and(super::luks2::Luks2Header::is_foreign) {
        warnings.push(
            "the image does not begin with a LUKS header; its first bytes are overwritten"
                .to_owned(),
        );
    }
    if let Some(warning) = backup.header().warning() {
        warnings.push(format!("in the backup, {warning}"));
    }
    for (keyslot, why) in backup.header().unusable() {
        warnings.push(format!(
            "keyslot {keyslot} of the backup cannot be opened by this program: {why}"
        ));
    }
    let comes = |fate: &Fate| matches!(fate, Fate::Added | Fate::Replaced);
    let back: Vec<_> = fates.iter().filter(|it| comes(&it.1)).map(|it| it.0).collect();
    if !back.is_empty() {
        let back = list(&back);
        warnings.push(format!(
            "restored: {back}; secrets erased since the backup will open the image again"
        ));
    }
}

/// Bytes that are written at once
const PIECE: usize = 1 << 20;
