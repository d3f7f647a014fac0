//! Lowers changes of keyslots to writes. All changes that fit at once are one atomic commit of the
//! metadata. A replacement that must wait for an area that another one frees goes into a later commit.

use std::ops::Range;

use super::areas::{Areas, without};
use super::write::Writer;
use super::{Luks2Header, Slot};
use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::step::{list, unchanged};
use crate::header::{Sealed, SlotChange, Stage, Staging, Step};
use crate::overrides::{Override, Overrides};
use crate::storage::check_room;

impl Luks2Header {
    /// Lowers `changes` to writes. Also returns the header after them. Tokens that lose their last
    /// keyslot are removed unless `keep_tokens` is set.
    pub(in crate::header) fn lower(
        &self,
        changes: &[SlotChange],
        keep_tokens: bool,
    ) -> Result<(Vec<Stage>, Self)> {
        let sorted = self.sort(changes)?;
        let slots = |numbers: &mut dyn Iterator<Item = usize>| -> Vec<_> {
            numbers.filter_map(|number| self.slot(number)).collect()
        };
        let erased = slots(&mut sorted.erased.iter().copied());
        let replaced = slots(&mut sorted.replaced.iter().map(|(keyslot, _)| *keyslot));
        let added: Vec<_> = sorted.added.iter().map(|(_, sealed)| key_size(sealed)).collect();
        let arranged = Areas::of(self).arrange(&added, &erased, &replaced)?;

        let mut writer = Writer::new(self)?;
        writer.keep_tokens = keep_tokens;
        let mut round = Round { added: Vec::new(), replaced: Vec::new(), erased: sorted.erased };
        round.added.extend(sorted.added.into_iter().zip(arranged.added));
        for number in 0.. {
            let mut rest: Vec<_> = sorted.in_place.iter().map(|(keyslot, _)| *keyslot).collect();
            for (&(keyslot, sealed), place) in sorted.replaced.iter().zip(&arranged.replaced) {
                match place {
                    Some((of, area)) if *of == number => {
                        let (area, is_new) = (area.clone(), sorted.new.contains(&keyslot));
                        round.replaced.push(Replaced { keyslot, sealed, area, is_new });
                    }
                    Some((of, _)) if *of > number => rest.push(keyslot),
                    Some(_) => {}
                    None => return Err(unfit(keyslot)),
                }
            }
            if round.is_empty() {
                break;
            }
            writer.round(&round, &rest)?;
            round = Round::default();
        }
        let mut left = sorted.in_place.iter();
        while let Some(&(keyslot, sealed)) = left.next() {
            let rest: Vec<_> = left.clone().map(|(keyslot, _)| *keyslot).collect();
            writer.rest = unchanged(&rest);
            writer.replace_in_place(keyslot, sealed, sorted.new.contains(&keyslot))?;
        }
        // Erasing a keyslot that does not exist overwrites the areas that may be left of it.
        writer.wipe(writer.header.metadata.config().unwiped.clone())?;
        writer.finish()
    }

    /// Lowers a repair to writes: rewrites both copies, and overwrites areas that an interrupted
    /// amendment left.
    pub(in crate::header) fn lower_repair(
        &self,
        overrides: Overrides,
    ) -> Result<(Vec<Stage>, Self)> {
        let refusal = match &self.unread {
            Some(unread) => Some((
                Override::NewerCopy,
                format!("{unread}; it may be newer than the other copy"),
            )),
            None if self.is_foreign => Some((
                Override::ForeignData,
                "the image does not begin with a LUKS header; its first bytes would be overwritten"
                    .to_owned(),
            )),
            None if self.is_erased => Some((
                Override::ForeignData,
                "the magic of the header is erased: the image may be in use for something else"
                    .to_owned(),
            )),
            None => None,
        };
        if let Some((needed, text)) = refusal.filter(|(needed, _)| !overrides.has(*needed)) {
            return Err(needed.refused(text));
        }
        let mut writer = Writer::new(self)?;
        writer.done.push_str("both copies of the header are written; ");
        writer.wipe(self.areas_to_wipe().to_vec())?;
        writer.finish()
    }

    /// Areas left unwiped by an interrupted amendment. Empty if the header has unknown requirements,
    /// which may forbid wiping.
    pub(in crate::header) fn areas_to_wipe(&self) -> &[Range<u64>] {
        let config = self.metadata.config();
        if config.requirements.is_empty() { &config.unwiped } else { &[] }
    }

    /// Sorts changes by their kind. Refuses changes that do not fit the header.
    fn sort<'a>(&self, changes: &'a [SlotChange]) -> Result<Sorted<'a>> {
        let mut sorted = Sorted::default();
        let mut touched = [false; KEYSLOTS];
        for change in changes {
            let (SlotChange::Activate { keyslot, .. }
            | SlotChange::Deactivate { keyslot }
            | SlotChange::Replace { keyslot, .. }) = *change;
            if touched.get_mut(keyslot).is_none_or(|it| std::mem::replace(it, true)) {
                return Err(unfit(keyslot));
            }
            if let SlotChange::Activate { sealed, .. } | SlotChange::Replace { sealed, .. } = change
                && !can_open(sealed)
            {
                return Err(unfit(keyslot));
            }
            let slot = self.slot(keyslot);
            match (change, slot) {
                (SlotChange::Activate { sealed, .. }, None) => {
                    sorted.added.push((keyslot, sealed));
                }
                (SlotChange::Deactivate { .. }, Some(_)) => sorted.erased.push(keyslot),
                (SlotChange::Deactivate { .. }, None) => {}
                (SlotChange::Replace { sealed, staging, is_new, .. }, Some(slot))
                    if slot.key_size == key_size(sealed) =>
                {
                    if *is_new {
                        sorted.new.push(keyslot);
                    }
                    match staging {
                        Staging::Area => sorted.replaced.push((keyslot, sealed)),
                        Staging::InPlace => sorted.in_place.push((keyslot, sealed)),
                        Staging::Keyslot(_) => return Err(unfit(keyslot)),
                    }
                }
                _ => return Err(unfit(keyslot)),
            }
        }
        Ok(sorted)
    }
}

/// Changes, sorted by their kind.
#[derive(Default)]
struct Sorted<'a> {
    added: Vec<(usize, &'a Sealed)>,
    erased: Vec<usize>,
    replaced: Vec<(usize, &'a Sealed)>,
    in_place: Vec<(usize, &'a Sealed)>,
    /// Replaced keyslots that are erased first
    new: Vec<usize>,
}

/// Changes that are made in one commit.
#[derive(Default)]
struct Round<'a> {
    added: Vec<((usize, &'a Sealed), Range<u64>)>,
    replaced: Vec<Replaced<'a>>,
    erased: Vec<usize>,
}

struct Replaced<'a> {
    keyslot: usize,
    sealed: &'a Sealed,
    area: Range<u64>,
    is_new: bool,
}

impl Round<'_> {
    fn is_empty(&self) -> bool {
        self.added.is_empty() && self.replaced.is_empty() && self.erased.is_empty()
    }

    fn names(&self) -> String {
        let added = self.added.iter().map(|((keyslot, _), _)| *keyslot);
        let replaced = self.replaced.iter().map(|it| it.keyslot);
        let mut keyslots: Vec<_> = added.chain(replaced).chain(self.erased.clone()).collect();
        keyslots.sort_unstable();
        list(&keyslots)
    }
}

impl Writer {
    /// Writes new key material to free areas, commits the metadata, wipes the freed areas.
    fn round(&mut self, round: &Round<'_>, rest: &[usize]) -> Result<()> {
        self.rest.clear();
        let digest = self.header.volume_key_digest()?;
        let new_areas = round.added.iter().map(|((_, sealed), area)| (*sealed, area));
        let new_areas = new_areas.chain(round.replaced.iter().map(|it| (it.sealed, &it.area)));
        let mut taken = Vec::new();
        let nothing = self.nothing();
        let freed = round.erased.iter().copied().chain(round.replaced.iter().map(|it| it.keyslot));
        let freed: Vec<_> =
            freed.filter_map(|keyslot| self.header.slot(keyslot).map(Slot::range)).collect();
        self.reserve(&freed, nothing);
        for (sealed, area) in new_areas {
            // Overwrite the whole area, because its old bytes may be another keyslot's key material.
            let len = usize::try_from(area.end - area.start).unwrap_or(usize::MAX);
            check_room(len.saturating_mul(2)).map_err(|e| Error::io("make key material", e))?;
            let mut bytes = sealed.material.to_vec();
            bytes.resize(len, 0);
            self.stage(Step::overwrite(area.start, &bytes.into()).to_vec(), nothing);
            taken.push(area.clone());
        }
        let mut unwiped = without(&self.header.metadata.config().unwiped, &taken);
        unwiped.extend(freed);

        let metadata = self.header.metadata.edited(self.header.hdr_size(), |draft| {
            for ((keyslot, sealed), area) in &round.added {
                draft.add_keyslot(*keyslot, digest, sealed, area)?;
            }
            for Replaced { keyslot, sealed, area, is_new } in &round.replaced {
                if *is_new {
                    draft.remove_keyslot(*keyslot)?;
                    draft.add_keyslot(*keyslot, digest, sealed, area)?;
                } else {
                    draft.replace_keyslot(*keyslot, sealed, Some(area))?;
                    draft.release_openers(*keyslot)?;
                }
            }
            for &keyslot in &round.erased {
                draft.remove_keyslot(keyslot)?;
            }
            if !self.keep_tokens {
                draft.drop_stale_tokens(&self.header.metadata)?;
            }
            draft.set_unwiped(&unwiped)
        })?;
        let names = round.names();
        let unsure = format!("{names} may or may not have changed, and nothing else has");
        let sure = format!("{names} changed as asked");
        self.rest = unchanged(rest);
        self.commit(metadata, &unsure, &sure)?;
        self.done = format!("{}{sure}; ", self.done);
        self.wipe(unwiped)
    }

    /// Replaces a keyslot without a second area: removes the keyslot, overwrites its key material, and
    /// adds the keyslot again.
    fn replace_in_place(&mut self, keyslot: usize, sealed: &Sealed, is_new: bool) -> Result<()> {
        let area = self.header.slot(keyslot).ok_or_else(|| unfit(keyslot))?.range();
        let hdr_size = self.header.hdr_size();
        let metadata = self.header.metadata.clone();
        let mut unwiped = metadata.config().unwiped.clone();
        unwiped.push(area.clone());
        let without_it = metadata.edited(hdr_size, |draft| {
            draft.remove_keyslot(keyslot)?;
            if !self.keep_tokens {
                // An interruption turns the replacement into an erase.
                draft.drop_stale_tokens(&metadata)?;
            }
            draft.set_unwiped(&unwiped)
        })?;
        let digest = self.header.volume_key_digest()?;
        let with_it = metadata.edited(hdr_size, |draft| {
            if is_new {
                draft.remove_keyslot(keyslot)?;
                draft.add_keyslot(keyslot, digest, sealed, &area)?;
            } else {
                draft.replace_keyslot(keyslot, sealed, None)?;
                draft.release_openers(keyslot)?;
            }
            if self.keep_tokens { Ok(()) } else { draft.drop_stale_tokens(&metadata) }
        })?;
        let nothing = self.nothing();
        self.reserve(std::slice::from_ref(&area), nothing);
        let unsure = format!("keyslot {keyslot} is half replaced: neither secret may open it");
        self.commit(without_it, &unsure, &unsure)?;
        self.stage(Step::overwrite(area.start, &sealed.material).to_vec(), &unsure);
        let sure = format!("keyslot {keyslot} replaced");
        self.commit(with_it, &unsure, &sure)?;
        self.done = format!("{}{sure}; ", self.done);
        Ok(())
    }

    /// Clause for a failure that changes nothing beyond the stages so far.
    fn nothing(&self) -> &'static str {
        if self.done.is_empty() { "nothing has changed" } else { "nothing else has changed" }
    }

    /// Reserves areas, so that a full disk is detected before anything changes.
    fn reserve(&mut self, areas: &[Range<u64>], on_failure: &str) {
        let reserve =
            |area: &Range<u64>| Step::Reserve { offset: area.start, len: area.end - area.start };
        if !areas.is_empty() {
            self.stage(areas.iter().map(reserve).collect(), on_failure);
        }
    }

    /// Overwrites areas without a reference, then clears their mark.
    pub(super) fn wipe(&mut self, areas: Vec<Range<u64>>) -> Result<()> {
        if areas.is_empty() {
            return Ok(());
        }
        for area in areas {
            let steps = Step::wipe(area.start, area.end - area.start).to_vec();
            self.stage(steps, "old key material may be left on the medium");
        }
        let hdr_size = self.header.hdr_size();
        let metadata = self.header.metadata.edited(hdr_size, |draft| draft.set_unwiped(&[]))?;
        let clear = "old key material is overwritten, only a mark is left to clear";
        self.commit(metadata, clear, "old key material is overwritten")
    }
}

fn key_size(sealed: &Sealed) -> u32 {
    u32::try_from(sealed.key_size).unwrap_or(u32::MAX)
}

/// Whether the iteration count or number of passes is valid in a header.
fn can_open(sealed: &Sealed) -> bool {
    match sealed.scheme.kdf {
        KdfAlg::Pbkdf2 { iterations, .. } => iterations > 0,
        KdfAlg::Argon2 { time, .. } => time > 0,
    }
}

fn unfit(keyslot: usize) -> Error {
    let text = format!("the change of keyslot {keyslot} does not fit the header");
    Error::new(ErrorKind::InvalidInput, text)
}

/// Number of keyslots that cryptsetup supports
pub(super) const KEYSLOTS: usize = 32;
