//! Restores a backup. Key material goes to areas that no present keyslot uses. Then one atomic commit of
//! the metadata activates all of the backup. Areas without a reference are overwritten after it.

use std::ops::Range;

use zerocopy::byteorder::big_endian::U64;

use super::areas::{Areas, are_apart, without};
use super::write::Writer;
use super::{Luks2Header, Slot, keyslot};
use crate::error::{Error, ErrorKind, Result};
use crate::header::backup::Snapshot;
use crate::header::{Stage, Step};
use crate::overrides::Override;

impl Luks2Header {
    /// End of the region for the areas of keyslots.
    pub(in crate::header) fn end(&self) -> u64 {
        self.areas().end
    }

    /// Whether both headers have the same layout of copies and areas.
    pub(in crate::header) fn has_same_places(&self, backup: &Self) -> bool {
        self.hdr_size() == backup.hdr_size() && self.areas() == backup.areas()
    }

    /// Differences from `backup` that rule out a restore keyslot by keyslot. The caller compares the
    /// digest and the payload offset.
    pub(in crate::header) fn differences(&self, backup: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let size = |header: &Self| header.metadata.config().keyslots_size;
        for (what, now, then) in [
            ("hdr_size", self.hdr_size(), backup.hdr_size()),
            ("config.keyslots_size", size(self), size(backup)),
        ] {
            if now != then {
                found.push(format!("{what} is {now}, in the backup {then}"));
            }
        }
        let segments = |header: &Self| header.metadata.value().get("segments").cloned();
        if segments(self) != segments(backup) {
            found.push("the segments differ from those in the backup".to_owned());
        }
        found
    }

    /// Warning about a copy that this crate cannot read.
    pub(in crate::header) fn unread(&self) -> Option<&str> {
        self.unread.as_deref()
    }

    /// Areas of keyslots, and areas that are not overwritten yet.
    pub(in crate::header) fn used(&self) -> Vec<Range<u64>> {
        let areas = self.metadata.keyslots().iter().map(Slot::range);
        areas.chain(self.metadata.config().unwiped.clone()).collect()
    }

    /// Whether the image does not begin with a LUKS magic.
    pub(in crate::header) fn is_foreign(&self) -> bool {
        self.is_foreign
    }
}

impl Snapshot<'_, Luks2Header> {
    /// Whether a keyslot is the same in both headers, regardless of the offset of its area.
    pub fn has_same_keyslot(&self, backup: &Self, index: usize) -> Result<bool> {
        let slot = |it: &Self| {
            let range = it.header.slot(index)?.range();
            let keyslots = it.header.metadata.value().get("keyslots")?;
            let mut value = keyslots.get(&index.to_string())?.clone();
            value.as_object_mut()?.remove("priority");
            value.as_object_mut()?.get_mut("area")?.as_object_mut()?.remove("offset");
            Some((value, range))
        };
        match (slot(self), slot(backup)) {
            (Some((now, area)), Some((then, other))) => {
                Ok(now == then && self.range(&area)? == backup.range(&other)?)
            }
            _ => Ok(false),
        }
    }

    /// Steps that write both copies as they are. If one is damaged, both are rebuilt from the valid one.
    /// The primary comes last.
    pub fn head(&self) -> Result<Vec<Step>> {
        let hdr_size = self.header.hdr_size();
        if self.header.warning.is_some() {
            return self.header.write_copies();
        }
        let mut steps = Vec::new();
        for copy in [hdr_size..2 * hdr_size, 0..hdr_size] {
            steps.extend(Step::overwrite(copy.start, &self.range(&copy)?));
        }
        Ok(steps)
    }

    /// Lowers the restoration of a backup whose header has the same layout. `kept` are the keyslots that
    /// are the same in it.
    ///
    /// Fails with [`ErrorKind::NoFreeKeyslot`] if there is no room for its key material beside the
    /// present one.
    pub fn lower_restore(&self, backup: &Self, kept: &[usize]) -> Result<Vec<Stage>> {
        let places = self.places(backup, kept)?;
        let (present, header) = (self.header, backup.header);
        let used: Vec<_> = places.iter().map(|place| place.area.clone()).collect();
        let mut unwiped: Vec<Range<u64>> = Vec::new();
        for range in present.used().into_iter().chain(header.metadata.config().unwiped.clone()) {
            let new = without(&without(&[range], &used), &unwiped);
            unwiped.extend(new);
        }

        let mut writer = Writer::new(present)?;
        let coming: Vec<_> = places.iter().filter(|place| !place.is_there).collect();
        if !coming.is_empty() {
            // The salts of restored key material are known from the backup, so its areas are marked
            // before they are written. An interruption then leaves no unmarked secret.
            let mut marks = present.metadata.config().unwiped.clone();
            marks.extend(coming.iter().map(|place| place.area.clone()));
            let marked =
                present.metadata.edited(present.hdr_size(), |draft| draft.set_unwiped(&marks))?;
            let nothing = "nothing has changed but marks of areas to be overwritten";
            writer.commit(marked, nothing, nothing)?;
        }
        for Place { slot, area, .. } in places.iter().filter(|place| !place.is_there) {
            let steps = Step::overwrite(area.start, &backup.range(&slot.range())?);
            writer.stage(steps.to_vec(), "nothing has changed");
        }
        let metadata = header.metadata.edited(header.hdr_size(), |draft| {
            for Place { slot, area, .. } in &places {
                if slot.range() != *area {
                    draft.move_keyslot(slot.number, area)?;
                }
            }
            draft.set_unwiped(&unwiped)
        })?;
        let seqid = writer.header.seqid().max(header.seqid());
        writer.header.raw.clone_from(&header.raw);
        writer.header.raw.seqid = U64::new(seqid);
        let unsure = "the header may or may not be restored, and nothing else has changed";
        writer.commit(metadata, unsure, "the header is restored")?;
        writer.done.push_str("the header is restored; ");
        writer.wipe(unwiped)?;
        writer.finish().map(|(stages, _)| stages)
    }

    /// Chooses an area for each keyslot of the backup without touching an area in use: the area that
    /// already holds its key material, else its own area if free, else a gap.
    fn places<'a>(
        &self,
        backup: &Snapshot<'a, Luks2Header>,
        kept: &[usize],
    ) -> Result<Vec<Place<'a>>> {
        let mut areas = Areas::of(self.header);
        let mut places: Vec<Place<'a>> = Vec::new();
        let mut slots: Vec<_> = backup.header.metadata.keyslots().iter().collect();
        for choice in [Choice::Own, Choice::AsNow, Choice::Free, Choice::Gap] {
            let mut left = Vec::new();
            for slot in slots {
                let is_apart =
                    |area: &Range<u64>| places.iter().all(|place| are_apart(&place.area, area));
                let holds = |area: Option<Range<u64>>| -> Result<_> {
                    let Some(area) = area.filter(is_apart) else { return Ok(None) };
                    let index = slot.number as usize;
                    let is_present = self.header.slot(index).is_some_and(|it| it.range() == area);
                    let is_it = is_present && kept.contains(&index)
                        || self.range(&area)? == backup.range(&slot.range())?;
                    Ok(is_it.then_some(area))
                };
                let own = slot.range();
                let area = match choice {
                    Choice::Own => holds(Some(own))?,
                    Choice::AsNow => {
                        holds(self.header.slot(slot.number as usize).map(Slot::range))?
                    }
                    Choice::Free => Some(own).filter(|own| areas.is_free(own)),
                    // A keyslot of unknown type may store its own offset, so it is not moved.
                    Choice::Gap if slot.kind == keyslot::KIND => areas.take_len(slot.size),
                    Choice::Gap => None,
                };
                match area {
                    Some(area) => {
                        areas.reserve(area.clone());
                        let is_there = matches!(choice, Choice::Own | Choice::AsNow);
                        places.push(Place { slot, area, is_there });
                    }
                    None => left.push(slot),
                }
            }
            slots = left;
        }
        let Some(slot) = slots.first() else { return Ok(places) };
        let Slot { number, size, .. } = slot;
        let text = format!(
            "no room for keyslot {number} of the backup: no gap between areas has {size} bytes"
        );
        let error = Error::new(ErrorKind::NoFreeKeyslot, text).with_reason(Override::InPlace);
        Err(error.with_hint(
            "erase a keyslot first, or use --in-place: a crash may then lose all secrets",
        ))
    }
}

/// Area chosen for a keyslot of the backup.
struct Place<'a> {
    slot: &'a Slot,
    area: Range<u64>,
    /// Whether the area already holds its key material
    is_there: bool,
}

/// Candidates for an area. Each is tried for all keyslots before the next.
#[derive(Clone, Copy)]
enum Choice {
    /// Its own area, which still holds its key material
    Own,
    /// The present area of the keyslot, if that holds the same key material
    AsNow,
    /// Its own area, if free
    Free,
    /// A gap
    Gap,
}
