//! The order of writes that keeps a LUKS1 image openable at every instant.
//!
//! The only guarantee of the disk is that a sector of 512 bytes is written whole. Between two syncs, any
//! subset of the written sectors may arrive. Hence:
//!
//! - The present header is made durable and verified before anything changes, because it may come from a
//!   program that did not sync, or whose sync failed. For that, a few bytes that no program changes are
//!   written in each of its two sectors. The system then writes the whole sector, including any bytes
//!   that another program put there since it was read.
//! - Key material is durable and verified before the entry that activates it is written.
//! - An entry is durably inactive before its key material is overwritten.
//! - Keyslots are activated from the back of the header to the front and deactivated from the front to
//!   the back, one sector at a time with a sync between. The state word of keyslot 6 is in the sector
//!   before the rest of its entry, so it is written last in an activation and first in a deactivation.
//! - Changes that fit one sector are one write, and therefore atomic.
//! - `cryptsetup` takes no lock on LUKS1. Immediately before each write, the header is therefore compared
//!   with the result of the steps before, and only bytes that change are written. Afterwards the whole
//!   entry is verified, and the key material again once its keyslot is active. This detects another
//!   program that took the same keyslot at the same moment.
//!
//! An interruption leaves one of these states, so the same argument holds for the next amendment.
//! `marks.rs` describes how its leftovers are found.

use std::ops::Range;

use super::entries::activate;
use super::marks::mark;
use super::raw::INACTIVE;
use super::{Luks1Header, RawHeader, field};
use crate::error::{Error, ErrorKind, Result};
use crate::header::step::{list, unchanged};
use crate::header::{Edit, Sealed, SlotChange, Stage, Staging, Step};

impl Luks1Header {
    /// Lowers `changes` to writes. Also returns the header after them.
    pub(in crate::header) fn lower(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.check_changes(changes)?;
        Lowering::new(self).lower(changes)
    }

    /// Lowers changes whose key material comes from a backup, so that its salts may be known.
    pub(super) fn lower_known(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.check_changes(changes)?;
        Lowering { is_known: true, ..Lowering::new(self) }.lower(changes)
    }

    /// Lowers changes that only add or erase, with key material from a backup. `done` describes the
    /// result of earlier changes, `sure` the result of these.
    pub(super) fn lower_known_after(
        &self,
        changes: &[SlotChange],
        done: &str,
        sure: &str,
    ) -> Result<(Vec<Stage>, Self)> {
        self.check_changes(changes)?;
        let lowering =
            if done.is_empty() { Lowering::new(self) } else { Lowering::after(self, done) };
        let mut lowering = Lowering { is_known: true, ..lowering };
        lowering.add_and_erase(changes, Some(sure))?;
        Ok((lowering.stages, lowering.header))
    }

    /// Lowers edits to writes. LUKS1 supports only a new UUID, which is in one sector.
    pub(in crate::header) fn lower_edits(&self, edits: &[Edit]) -> Result<(Vec<Stage>, Self)> {
        let mut raw = self.raw.clone();
        for edit in edits {
            let Edit::SetUuid(uuid) = edit else {
                let text = "a LUKS1 header has no tokens, no priorities, no label and no subsystem";
                return Err(Error::new(ErrorKind::InvalidInput, text));
            };
            raw.uuid = field(&uuid.hyphenated().to_string(), "uuid")?;
        }
        let mut lowering = Lowering::new(self);
        lowering.entries(&raw, Order::FrontToBack, "it may or may not have taken effect");
        Ok((lowering.stages, lowering.header))
    }
}

pub(super) struct Lowering {
    /// Header after all stages so far
    pub header: Luks1Header,
    pub stages: Vec<Stage>,
    /// Changes done by all stages so far, for the texts of later stages
    pub done: String,
    /// Changes that wait for a later stage, for the texts of stages that change something
    rest: String,
    /// Whether key material comes from a backup, so that its salt may be known
    is_known: bool,
}

impl Lowering {
    /// Begins a change by making the present header durable. The caller has just compared it.
    pub fn new(header: &Luks1Header) -> Self {
        let mut lowering = Self::after(header, "");
        let on_failure = "nothing has changed".to_owned();
        let bytes = header.as_bytes();
        let constant = CONSTANT
            .map(|range| Step::Write { offset: range.start as u64, bytes: bytes[range].into() });
        let whole = Step::Verify { offset: 0, bytes: bytes.into() };
        let steps = constant.into_iter().chain([Step::Sync, whole]).collect();
        lowering.stages.push(Stage { steps, on_failure });
        lowering
    }

    /// Continues after stages with the result `done`.
    fn after(header: &Luks1Header, done: &str) -> Self {
        let (done, rest) = (done.to_owned(), String::new());
        Self { header: header.clone(), stages: Vec::new(), done, rest, is_known: false }
    }

    fn lower(mut self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Luks1Header)> {
        self.add_and_erase(changes, None)?;
        for (at, change) in changes.iter().enumerate() {
            if let SlotChange::Replace { keyslot, sealed, staging, .. } = change {
                self.rest = unchanged(&replaced(&changes[at + 1..]));
                self.replace(*keyslot, sealed, *staging)?;
            }
        }
        Ok((self.stages, self.header))
    }

    pub fn stage(&mut self, steps: impl IntoIterator<Item = Step>, on_failure: &str) {
        let compared = |step| match step {
            Step::Write { .. } | Step::Copy { .. } | Step::Wipe { .. } | Step::Reserve { .. } => {
                vec![self.header.expected(), step]
            }
            _ => vec![step],
        };
        let steps = steps.into_iter().flat_map(compared).collect();
        let on_failure = format!("{}{on_failure}{}", self.done, self.rest);
        self.stages.push(Stage { steps, on_failure });
    }

    /// Clause for a failure that changes nothing beyond the stages so far.
    pub fn nothing(&self) -> &'static str {
        if self.done.is_empty() { "nothing has changed" } else { "nothing else has changed" }
    }

    /// Adds and erases keyslots in one commit.
    fn add_and_erase(&mut self, changes: &[SlotChange], sure: Option<&str>) -> Result<()> {
        let mut erased = Vec::new();
        let mut names = Vec::new();
        if changes.len() > 1 {
            self.reserve(changes)?;
        }
        for change in changes {
            match change {
                SlotChange::Activate { keyslot, sealed } => {
                    let nothing = self.nothing();
                    self.material(*keyslot, sealed, nothing)?;
                    names.push(*keyslot);
                }
                SlotChange::Deactivate { keyslot } => {
                    erased.push(*keyslot);
                    names.push(*keyslot);
                }
                SlotChange::Replace { .. } => {}
            }
        }
        if names.is_empty() {
            return Ok(());
        }
        let mut added = self.header.raw.clone();
        for change in changes {
            if let SlotChange::Activate { keyslot, sealed } = change {
                activate(&mut added, *keyslot, sealed);
            }
        }
        let mut after = added.clone();
        for &keyslot in &erased {
            mark(&mut after, keyslot);
        }
        self.reserve_areas(&erased);
        let names = list(&names);
        let unsure = format!("{names} may or may not have changed, and nothing else has");
        let sectors = self.header.changed_sectors(&after);
        if sectors.len() == 1 {
            self.entries(&after, Order::FrontToBack, &unsure);
        } else {
            self.entries(&added, Order::BackToFront, &unsure);
            self.entries(&after, Order::FrontToBack, &unsure);
        }
        for change in changes {
            if let SlotChange::Activate { keyslot, sealed } = change {
                self.verify(*keyslot, sealed, &unsure);
            }
        }
        self.done = match sure {
            Some(sure) => format!("{sure}; "),
            None => format!("{}{names} changed as asked; ", self.done),
        };
        self.rest = unchanged(&replaced(changes));
        self.wipe(&erased);
        Ok(())
    }

    /// Reserves the areas of keyslots, so that a full disk is detected before anything changes.
    fn reserve_areas(&mut self, keyslots: &[usize]) {
        let reserve = |&keyslot: &usize| {
            let area = self.header.area(keyslot);
            Step::Reserve { offset: area.offset, len: area.len as u64 }
        };
        let steps: Vec<_> = keyslots.iter().map(reserve).collect();
        if !steps.is_empty() {
            let nothing = self.nothing();
            self.stage(steps, nothing);
        }
    }

    /// Writes to the staging areas of replacements before anything changes. In a sparse file they
    /// may be holes, so this detects a full disk early.
    fn reserve(&mut self, changes: &[SlotChange]) -> Result<()> {
        for change in changes {
            if let SlotChange::Replace { sealed, staging: Staging::Keyslot(staging), .. } = change
                && !self.header.is_active(*staging)
            {
                let nothing = self.nothing();
                self.material(*staging, sealed, nothing)?;
            }
        }
        Ok(())
    }

    /// Erases a staging keyslot whose secret also opens another keyslot.
    pub fn unstage(&mut self, staging: usize) {
        let on_failure = format!("a copy of a secret may still be in keyslot {staging}");
        let mut unstaged = self.header.raw.clone();
        mark(&mut unstaged, staging);
        self.entries(&unstaged, Order::FrontToBack, &on_failure);
        self.wipe(&[staging]);
    }

    /// Replaces a secret: puts the new one into the staging keyslot, removes the old one from its
    /// keyslot, puts the new one there, and wipes the staging keyslot. Both keyslots get the same key
    /// material, so one derivation is enough.
    fn replace(&mut self, keyslot: usize, sealed: &Sealed, staging: Staging) -> Result<()> {
        let safe = match staging {
            Staging::Keyslot(staging) => {
                let nothing = format!("keyslot {keyslot} is unchanged");
                self.material(staging, sealed, &nothing)?;
                let mut staged = self.header.raw.clone();
                activate(&mut staged, staging, sealed);
                self.entries(&staged, Order::BackToFront, &nothing);
                format!("the new secret opens keyslot {staging}")
            }
            _ => String::from("neither secret may open it"),
        };
        let unsure = format!("keyslot {keyslot} is half replaced: {safe}");
        let mut waiting = self.header.raw.clone();
        match staging {
            Staging::Keyslot(_) => {
                activate(&mut waiting, keyslot, sealed);
                waiting.keyslots[keyslot].state = INACTIVE.into();
            }
            _ => mark(&mut waiting, keyslot),
        }
        self.reserve_areas(&[keyslot]);
        self.entries(&waiting, Order::FrontToBack, &unsure);
        self.material(keyslot, sealed, &unsure)?;
        let mut replaced = self.header.raw.clone();
        activate(&mut replaced, keyslot, sealed);
        self.entries(&replaced, Order::BackToFront, &unsure);
        self.verify(keyslot, sealed, &unsure);

        self.done = format!("{}keyslot {keyslot} is replaced; ", self.done);
        if let Staging::Keyslot(staging) = staging {
            self.unstage(staging);
        }
        Ok(())
    }

    /// Writes key material to a keyslot's area. If the salt is known, the area is marked first, so that an
    /// interruption cannot leave an erased secret in an area without a mark.
    fn material(&mut self, keyslot: usize, sealed: &Sealed, on_failure: &str) -> Result<()> {
        let area = self.header.area(keyslot);
        if self.is_known && self.header.raw.keyslots[keyslot].salt != sealed.salt {
            let mut marked = self.header.raw.clone();
            mark(&mut marked, keyslot);
            self.entries(&marked, Order::FrontToBack, on_failure);
        }
        if sealed.material.len() != area.len {
            let len = sealed.material.len();
            let text = format!("key material of {len} bytes for an area of {} bytes", area.len);
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        self.header.check_scheme(&sealed.scheme)?;
        self.stage(Step::overwrite(area.offset, &sealed.material), on_failure);
        Ok(())
    }

    /// Changes the header's entries to those of `to`, one sector at a time.
    pub fn entries(&mut self, to: &RawHeader, order: Order, on_failure: &str) {
        let mut sectors = self.header.changed_sectors(to);
        if order == Order::BackToFront {
            sectors.reverse();
        }
        for (offset, bytes) in sectors {
            let (written, after) = self.header.write(offset, &bytes);
            self.stage(written, on_failure);
            self.header = after;
        }
    }

    /// Verifies the key material of an active keyslot again.
    fn verify(&mut self, keyslot: usize, sealed: &Sealed, on_failure: &str) {
        let (offset, bytes) = (self.header.area(keyslot).offset, sealed.material.clone());
        self.stage([Step::Verify { offset, bytes }], on_failure);
    }

    /// Overwrites inactive keyslots, then clears their marks.
    pub fn wipe(&mut self, keyslots: &[usize]) {
        if keyslots.is_empty() {
            return;
        }
        let names = list(keyslots);
        let on_failure =
            format!("{names}: inactive, but old key material may be left on the medium");
        let mut wiped = self.header.raw.clone();
        for &keyslot in keyslots {
            let area = self.header.area(keyslot);
            self.stage(Step::wipe(area.offset, area.len as u64), &on_failure);
            wiped.keyslots[keyslot].iterations = 0.into();
            wiped.keyslots[keyslot].salt = [0; 32];
        }
        self.entries(
            &wiped,
            Order::FrontToBack,
            &format!("{names}: inactive and overwritten, only a mark is left to clear"),
        );
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) enum Order {
    BackToFront,
    FrontToBack,
}

/// Keyslots that `changes` replace.
fn replaced(changes: &[SlotChange]) -> Vec<usize> {
    let replaced = changes.iter().filter_map(|change| match change {
        SlotChange::Replace { keyslot, .. } => Some(*keyslot),
        _ => None,
    });
    replaced.collect()
}

/// Bytes that no change of a LUKS1 header alters: the magic in the first sector, and the offset of keyslot
/// 7's key material in the second.
const CONSTANT: [Range<usize>; 2] = [0..6, 584..588];
