//! The order of writes that keeps a LUKS1 image openable at every instant.
//!
//! The disk promises a sector of 512 bytes whole and nothing else: between two syncs any subset
//! of the sectors written may arrive. Hence
//!
//! - what is in the header now is made durable and read back before anything changes: it may have come
//!   from a program that did not sync, or whose sync failed. In each of its two sectors a few bytes that
//!   no program changes are written: the system then writes all of the sector, with whatever
//!   another program may have put there since it was read;
//! - key material is durable and read back before the entry that activates it is written;
//! - an entry is inactive, durably, before its key material is overwritten;
//! - keyslots are activated from the back of the header to the front and deactivated from the
//!   front to the back, one sector at a time with a sync between: the state word of keyslot 6 is
//!   in the sector before the rest of its entry, so it is written last, and first;
//! - changes that fit one sector are one write: they happen all or not at all;
//! - `cryptsetup` takes no lock on LUKS1, so the header is compared with what the steps before it left
//!   immediately before each write, and only bytes that change are written. Afterwards the whole entry
//!   is read back, and the key material of a keyslot once more when it is active: another program
//!   that took the same keyslot at the same moment shows there.
//!
//! An interruption leaves one of these states, and so the argument begins again with the next
//! amendment. `marks.rs` says how its leftovers are found.

use std::ops::Range;

use super::entries::activate;
use super::marks::mark;
use super::raw::INACTIVE;
use super::{Luks1Header, RawHeader, field};
use crate::error::{Error, ErrorKind, Result};
use crate::header::step::{list, unchanged};
use crate::header::{Edit, Sealed, SlotChange, Stage, Staging, Step};

impl Luks1Header {
    /// The writes that make `changes`, and the header after them.
    pub(in crate::header) fn lower(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.check_changes(changes)?;
        Lowering::new(self).lower(changes)
    }

    /// The same with key material of a backup, whose salt is known.
    pub(super) fn lower_known(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.check_changes(changes)?;
        Lowering { is_known: true, ..Lowering::new(self) }.lower(changes)
    }

    /// The same with changes that only add or erase. `done` is what earlier changes did, `sure` what
    /// these will have done.
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

    /// The writes that set the UUID, all that LUKS1 has beside its keyslots. It is in one sector.
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
    /// The header as it is when all stages so far are done
    pub header: Luks1Header,
    pub stages: Vec<Stage>,
    /// What is done by then, for the texts of later stages
    pub done: String,
    /// What waits for a later stage, for the texts of stages that change something
    rest: String,
    /// Whether key material is from a backup: somebody may know its salt
    is_known: bool,
}

impl Lowering {
    /// Begins a change: with the header as it was read, durably. The caller has just compared it.
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

    /// Goes on after stages that have `done` what it says.
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

    /// The clause for a failure that leaves the image as the stages so far did.
    pub fn nothing(&self) -> &'static str {
        if self.done.is_empty() { "nothing has changed" } else { "nothing else has changed" }
    }

    /// All keyslots that only come or only go, in one commit.
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

    /// So that a full disk shows before anything has changed, and not when an area is overwritten.
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

    /// Writes to the staging areas of replacements while nothing has changed yet: in a sparse
    /// file they may be holes, and this is where a full disk shows.
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

    /// Erases a staging keyslot whose secret opens another.
    pub fn unstage(&mut self, staging: usize) {
        let on_failure = format!("a copy of a secret may still be in keyslot {staging}");
        let mut unstaged = self.header.raw.clone();
        mark(&mut unstaged, staging);
        self.entries(&unstaged, Order::FrontToBack, &on_failure);
        self.wipe(&[staging]);
    }

    /// The new secret into the staging keyslot, the old one out of its keyslot, the new one into
    /// it (the same key material, so one derivation serves both), and the staging keyslot wiped.
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

    /// Key material into a keyslot's area. An area that nothing else points at is marked before, if the
    /// salt is known: an interruption must not leave a secret that was erased.
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

    /// The header's entries from what they are to what they are in `to`, a sector at a time.
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

    /// Reads the key material of an active keyslot back once more.
    fn verify(&mut self, keyslot: usize, sealed: &Sealed, on_failure: &str) {
        let (offset, bytes) = (self.header.area(keyslot).offset, sealed.material.clone());
        self.stage([Step::Verify { offset, bytes }], on_failure);
    }

    /// Overwrites inactive keyslots; then the mark goes.
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

/// The keyslots that changes replace.
fn replaced(changes: &[SlotChange]) -> Vec<usize> {
    let replaced = changes.iter().filter_map(|change| match change {
        SlotChange::Replace { keyslot, .. } => Some(*keyslot),
        _ => None,
    });
    replaced.collect()
}

/// Bytes that are the same in every LUKS1 header, or at least in every state of one: the magic in the first
/// sector, and in the second where the key material of keyslot 7 begins.
const CONSTANT: [Range<usize>; 2] = [0..6, 584..588];
