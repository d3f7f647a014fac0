//! Restores a backup as changes of keyslots. Keyslots that are the same in both headers are left alone,
//! and every secret of the backup opens the image before any present keyslot is erased.

use std::ops::Range;

use zerocopy::IntoBytes;

use super::raw::{HEADER_SIZE, KEYSLOTS, SECTOR};
use super::{ALIGNMENT, Area, Luks1Header};
use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::backup::Snapshot;
use crate::header::step::list;
use crate::header::{Leftover, Scheme, Sealed, SlotChange, Stage, Staging, Step};
use crate::overrides::{Override, Overrides};

impl Luks1Header {
    /// End of the last area, rounded up, but not into the payload.
    pub(in crate::header) fn end(&self) -> u64 {
        let sound = (0..KEYSLOTS).filter(|&index| !self.is_damaged(index));
        let ends = sound.map(|index| range(self.area(index)).end);
        let end = ends.max().unwrap_or_default().next_multiple_of(ALIGNMENT);
        if self.is_detached() { end } else { end.min(self.payload_offset()) }
    }

    /// Differences from `backup` that rule out a restore keyslot by keyslot. The caller compares the
    /// digest and the payload offset.
    pub(in crate::header) fn differences(&self, backup: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let cipher = |header: &Self| {
            let (cipher, hash) = (header.cipher_text(), header.hash_text());
            format!("{cipher} with a key of {} bytes, {hash}", header.key_size())
        };
        let (now, then) = (cipher(self), cipher(backup));
        if now != then {
            found.push(format!("the cipher is {now}, in the backup {then}"));
        }
        let damaged = self.damaged().chain(backup.damaged()).next();
        found.extend(damaged.map(|(index, why)| format!("keyslot {index} is damaged: {why}")));
        let differs = |&i: &usize| self.area(i) != backup.area(i);
        if let Some(keyslot) = (0..KEYSLOTS).find(differs).filter(|_| damaged.is_none()) {
            let (now, then) = (self.area(keyslot), backup.area(keyslot));
            found.push(format!(
                "the area of keyslot {keyslot} is at byte {}, in the backup at byte {}",
                now.offset, then.offset
            ));
        }
        found
    }

    /// Areas of active keyslots.
    pub(in crate::header) fn used(&self) -> Vec<Range<u64>> {
        let active = (0..KEYSLOTS).filter(|&index| self.is_active(index));
        active.map(|index| range(self.area(index))).collect()
    }
}

impl Snapshot<'_, Luks1Header> {
    /// Whether a keyslot that is active in both headers has the same entry and key material.
    pub fn has_same_keyslot(&self, backup: &Self, index: usize) -> Result<bool> {
        let (now, then) = (self.header.area(index), backup.header.area(index));
        let (entry, other) = (&self.header.raw.keyslots[index], &backup.header.raw.keyslots[index]);
        Ok(entry.as_bytes() == other.as_bytes()
            && self.range(&range(now))? == backup.range(&range(then))?)
    }

    /// Steps that write the header's sectors. The sector with the magic comes last.
    pub fn head(&self) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for sector in [SECTOR..HEAD, 0..SECTOR] {
            steps.extend(Step::overwrite(sector.start, &self.range(&sector)?));
        }
        Ok(steps)
    }

    /// Lowers the restoration of a backup of the same volume with the same areas. `kept` are the keyslots
    /// that are the same in it. Also returns warnings.
    ///
    /// Fails with [`ErrorKind::NoFreeKeyslot`] if there are fewer free keyslots than keyslots to
    /// replace, unless [`Override::InPlace`] is set.
    pub fn lower_restore(
        &self,
        backup: &Self,
        kept: &[usize],
        overrides: Overrides,
    ) -> Result<(Vec<Stage>, Vec<String>)> {
        let sorted = Sorted::new(self.header, backup.header, kept);
        let Sorted { replaced, spares, .. } = &sorted;
        let mut warnings = Vec::new();
        let (mut stages, after) = if spares.len() >= replaced.len() {
            self.lower_by_way_of_spares(backup, &sorted)?
        } else if overrides.has(Override::InPlace) {
            warnings.push(sorted.warning());
            self.header.lower_known(&sorted.one_by_one(backup)?)?
        } else {
            let (count, replaced) = (spares.len(), list(replaced));
            let text = format!("{count} free keyslots are too few to replace {replaced} safely");
            let error = Error::new(ErrorKind::NoFreeKeyslot, text).with_reason(Override::InPlace);
            return Err(error.with_hint(
                "erase other keyslots first, or use --in-place: a crash may then lose secrets",
            ));
        };
        stages.extend(after.rename(backup.header));
        Ok((stages, warnings))
    }

    /// Activates added keyslots and stages replacements in spare ones, then erases the old keyslots,
    /// then copies the staged keyslots to their own indices.
    fn lower_by_way_of_spares(
        &self,
        backup: &Self,
        sorted: &Sorted,
    ) -> Result<(Vec<Stage>, Luks1Header)> {
        let Sorted { added, erased, replaced, spares, unwiped } = sorted;
        let activate = |keyslot: usize, of: usize| -> Result<_> {
            Ok(SlotChange::Activate { keyslot, sealed: backup.sealed(of)? })
        };
        let deactivate = |&keyslot: &usize| SlotChange::Deactivate { keyslot };
        let staging = &spares[..replaced.len()];

        let arriving = added.iter().map(|&it| activate(it, it));
        let staged = staging.iter().zip(replaced).map(|(&spare, &of)| activate(spare, of));
        let mut changes = arriving.chain(staged).collect::<Result<Vec<_>>>()?;
        changes.extend(erased.iter().chain(replaced).map(deactivate));
        changes.extend(unwiped.iter().filter(|it| !staging.contains(it)).map(deactivate));
        let all = "all secrets of the backup open the image";
        let staged = match replaced.as_slice() {
            [] => all.to_owned(),
            _ => format!("{all}, those of {} by way of {}", list(replaced), list(staging)),
        };
        let (mut stages, mut after) = self.header.lower_known_after(&changes, "", &staged)?;
        if !replaced.is_empty() {
            let back = replaced.iter().map(|&it| activate(it, it));
            let mut changes = back.collect::<Result<Vec<_>>>()?;
            changes.extend(staging.iter().map(deactivate));
            let (more, last) = after.lower_known_after(&changes, &format!("{staged}; "), all)?;
            stages.extend(more);
            after = last;
        }
        Ok((stages, after))
    }

    /// Key material of an active keyslot, which can be written to any keyslot.
    fn sealed(&self, index: usize) -> Result<Sealed> {
        let (encryption, af_hash) = self.header.scheme()?;
        let slot = &self.header.raw.keyslots[index];
        let kdf = KdfAlg::Pbkdf2 { hash: af_hash, iterations: slot.iterations.get() };
        let scheme = Scheme { kdf, encryption: encryption.clone(), af_hash };
        let material = self.range(&range(self.header.area(index)))?;
        Ok(Sealed { scheme, salt: slot.salt, key_size: encryption.key_size(), material })
    }
}

impl Luks1Header {
    /// Stage that restores the UUID and all other fields before the keyslots, which are in one sector.
    fn rename(&self, backup: &Self) -> Option<Stage> {
        let mut raw = backup.raw.clone();
        raw.keyslots.clone_from(&self.raw.keyslots);
        let sectors = self.changed_sectors(&raw);
        if sectors.is_empty() {
            return None;
        }
        let mut steps = vec![self.expected()];
        for (offset, bytes) in sectors {
            steps.extend(Step::overwrite(offset as u64, &bytes.into()));
        }
        let on_failure = "the keyslots are restored, the uuid may or may not be".to_owned();
        Some(Stage { steps, on_failure })
    }
}

/// Keyslots, sorted by their fate.
struct Sorted {
    added: Vec<usize>,
    erased: Vec<usize>,
    replaced: Vec<usize>,
    /// Keyslots that are inactive before and after
    spares: Vec<usize>,
    /// Spare keyslots that an interrupted amendment left without overwriting them
    unwiped: Vec<usize>,
}

impl Sorted {
    fn new(present: &Luks1Header, backup: &Luks1Header, kept: &[usize]) -> Self {
        let all = |now: bool, then: bool| -> Vec<usize> {
            let is = |header: &Luks1Header, i| header.is_active(i);
            let fits = |&i: &usize| is(present, i) == now && is(backup, i) == then;
            (0..KEYSLOTS).filter(fits).collect()
        };
        let mut replaced = all(true, true);
        replaced.retain(|index| !kept.contains(index));
        let mut spares = all(false, false);
        // Start with the last one, because cryptsetup takes no lock and adds to the first.
        spares.reverse();
        let left = present.leftovers().into_iter().filter_map(|left| match left {
            Leftover::Wipe { keyslot } | Leftover::Replace { keyslot, .. } => Some(keyslot),
            _ => None,
        });
        let unwiped = left.filter(|keyslot| spares.contains(keyslot)).collect();
        Self { added: all(false, true), erased: all(true, false), replaced, spares, unwiped }
    }

    /// Changes for a restoration without enough spare keyslots. All replacements use the same staging
    /// keyslot, one after the other.
    fn one_by_one(&self, backup: &Snapshot<'_, Luks1Header>) -> Result<Vec<SlotChange>> {
        let staging = self.staging().map_or(Staging::InPlace, Staging::Keyslot);
        let mut changes = Vec::new();
        for &keyslot in &self.added {
            changes.push(SlotChange::Activate { keyslot, sealed: backup.sealed(keyslot)? });
        }
        changes.extend(self.erased.iter().map(|&keyslot| SlotChange::Deactivate { keyslot }));
        for &keyslot in &self.replaced {
            let sealed = backup.sealed(keyslot)?;
            changes.push(SlotChange::Replace { keyslot, sealed, staging, is_new: false });
        }
        Ok(changes)
    }

    fn staging(&self) -> Option<usize> {
        self.spares.first().or(self.erased.first()).copied()
    }

    fn warning(&self) -> String {
        let replaced = list(&self.replaced);
        match self.staging() {
            Some(_) => format!(
                "{replaced}: replaced one after the other; if this is interrupted, a secret that moves to another keyslot may open none"
            ),
            None => format!(
                "{replaced}: overwritten in place; if this is interrupted, neither the old nor the new secret of one of them opens it"
            ),
        }
    }
}

fn range(area: Area) -> Range<u64> {
    area.offset..area.offset + area.len as u64
}

/// Length of the header in whole sectors, after which key material can begin
pub(in crate::header) const HEAD: u64 = (HEADER_SIZE as u64).next_multiple_of(SECTOR);
