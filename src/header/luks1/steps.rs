//! The order of writes that keeps a LUKS1 image openable at every instant.
//!
//! The disk promises a sector of 512 bytes whole and nothing else: between two syncs any subset
//! of the sectors written may arrive. Hence
//!
//! - what is in the header now is written again and synced before anything changes: it may have
//!   come from somebody who did not sync, or whose sync failed;
//! - key material is durable and read back before the entry that activates it is written;
//! - an entry is inactive, durably, before its key material is overwritten;
//! - keyslots are activated from the back of the header to the front and deactivated from the
//!   front to the back, one sector at a time with a sync between: the state word of keyslot 6 is
//!   in the sector before the rest of its entry, so it is written last, and first;
//! - changes that fit one sector are one write: they happen all or not at all.
//!
//! An inactive entry with an iteration count is a mark: the keyslot's area is not overwritten yet,
//! or, if an active keyslot has the same salt, it waits for the secret of that one. QEMU and
//! cryptsetup ignore both words of an inactive entry.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::raw::{ACTIVE, HEADER_SIZE, INACTIVE, KEYSLOTS, SECTOR};
use super::{Header, RawHeader};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Sealed, SlotChange, Stage, Step};

impl Header {
    /// The writes that make `changes`, and the header after them.
    pub(in crate::header) fn lower(&self, changes: &[SlotChange]) -> Result<(Vec<Stage>, Self)> {
        self.check_changes(changes)?;
        let mut lowering =
            Lowering { header: self.clone(), stages: Vec::new(), done: String::new() };
        lowering.settle();
        lowering.add_and_erase(changes)?;
        for change in changes {
            if let SlotChange::Replace { keyslot, sealed, staging } = change {
                lowering.replace(*keyslot, sealed, *staging)?;
            }
        }
        Ok((lowering.stages, lowering.header))
    }
}

struct Lowering {
    /// The header as it is when all stages so far are done
    header: Header,
    stages: Vec<Stage>,
    /// What is done by then, for the texts of later stages
    done: String,
}

impl Lowering {
    /// The header as it was read, durably.
    fn settle(&mut self) {
        let bytes = self.header.as_bytes().into();
        let steps = vec![Step::Write { offset: 0, bytes }, Step::Sync];
        self.stage(steps, "nothing has changed");
    }

    fn stage(&mut self, steps: Vec<Step>, on_failure: &str) {
        let on_failure = format!("{}{on_failure}", self.done);
        self.stages.push(Stage { steps, on_failure });
    }

    /// All keyslots that only come or only go, in one commit.
    fn add_and_erase(&mut self, changes: &[SlotChange]) -> Result<()> {
        let mut added = self.header.raw.clone();
        let mut erased = Vec::new();
        let mut names = Vec::new();
        if changes.len() > 1 {
            self.reserve(changes)?;
        }
        for change in changes {
            match change {
                SlotChange::Activate { keyslot, sealed } => {
                    self.material(*keyslot, sealed, "nothing has changed")?;
                    activate(&mut added, *keyslot, sealed);
                    names.push(*keyslot);
                }
                SlotChange::Deactivate { keyslot } => {
                    erased.push(*keyslot);
                    names.push(*keyslot);
                }
                SlotChange::Replace { .. } => {}
            }
        }
        let mut after = added.clone();
        for &keyslot in &erased {
            deactivate(&mut after, keyslot);
        }

        if names.is_empty() {
            return Ok(());
        }
        let names = list(&names);
        let unsure = format!("{names} may have changed or not, and nothing else has");
        let sectors = self.header.changed_sectors(&after);
        if sectors.len() == 1 {
            self.entries(&after, Order::FrontToBack, &unsure);
        } else {
            self.entries(&added, Order::BackToFront, &unsure);
            self.entries(&after, Order::FrontToBack, &unsure);
        }
        self.wipe(&erased)?;
        self.done = format!("{names} changed as asked; ");
        Ok(())
    }

    /// Writes to the staging areas of replacements while nothing has changed yet: in a sparse
    /// file they may be holes, and this is where a full disk shows.
    fn reserve(&mut self, changes: &[SlotChange]) -> Result<()> {
        for change in changes {
            if let SlotChange::Replace { sealed, staging: Some(staging), .. } = change
                && !self.header.keyslot(*staging).active
            {
                self.material(*staging, sealed, "nothing has changed")?;
            }
        }
        Ok(())
    }

    /// The new secret into the staging keyslot, the old one out of its keyslot, the new one into
    /// it (the same key material, so one derivation serves both), and the staging keyslot wiped.
    fn replace(&mut self, keyslot: usize, sealed: &Sealed, staging: Option<usize>) -> Result<()> {
        let safe = match staging {
            Some(staging) => {
                let nothing = format!("keyslot {keyslot} is unchanged");
                self.material(staging, sealed, &nothing)?;
                let mut staged = self.header.raw.clone();
                activate(&mut staged, staging, sealed);
                self.entries(&staged, Order::BackToFront, &nothing);
                format!("the new secret opens keyslot {staging}")
            }
            None => String::from("neither secret may open it"),
        };
        let unsure = format!("keyslot {keyslot} is half replaced: {safe}");
        let mut waiting = self.header.raw.clone();
        activate(&mut waiting, keyslot, sealed);
        waiting.keyslots[keyslot].state = INACTIVE.into();
        self.entries(&waiting, Order::FrontToBack, &unsure);
        self.material(keyslot, sealed, &unsure)?;
        let mut replaced = self.header.raw.clone();
        activate(&mut replaced, keyslot, sealed);
        self.entries(&replaced, Order::BackToFront, &unsure);

        let replaced = format!("{}keyslot {keyslot} replaced; ", self.done);
        let Some(staging) = staging else {
            self.done = replaced;
            return Ok(());
        };
        let unsure = format!("keyslot {keyslot} is replaced, a copy is still in keyslot {staging}");
        let mut unstaged = self.header.raw.clone();
        deactivate(&mut unstaged, staging);
        self.entries(&unstaged, Order::FrontToBack, &unsure);
        self.wipe(&[staging])?;
        self.done = replaced;
        Ok(())
    }

    /// Key material into a keyslot's area.
    fn material(&mut self, keyslot: usize, sealed: &Sealed, on_failure: &str) -> Result<()> {
        let area = self.header.area(keyslot);
        if sealed.material.len() != area.len {
            let len = sealed.material.len();
            let text = format!("key material of {len} bytes for an area of {} bytes", area.len);
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        if sealed.iterations == 0 {
            // The whole header would be refused from then on.
            let text = "a keyslot cannot be written with an iteration count of 0";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        self.stage(overwrite(area.offset, &sealed.material), on_failure);
        Ok(())
    }

    /// The header's entries from what they are to what they are in `to`, a sector at a time.
    fn entries(&mut self, to: &RawHeader, order: Order, on_failure: &str) {
        let mut sectors = self.header.changed_sectors(to);
        if order == Order::BackToFront {
            sectors.reverse();
        }
        let steps: Vec<_> = sectors
            .into_iter()
            .flat_map(|(offset, bytes)| {
                [Step::Write { offset: offset as u64, bytes: bytes.into() }, Step::Sync]
            })
            .collect();
        if !steps.is_empty() {
            self.stage(steps, on_failure);
        }
        self.header.raw = to.clone();
    }

    /// Overwrites inactive keyslots: random bytes, so that what is below has to keep them (zeros
    /// may be stored as nothing, and the old bytes stay where they were); then zeros, so that
    /// the area is blank; then the mark goes.
    fn wipe(&mut self, keyslots: &[usize]) -> Result<()> {
        if keyslots.is_empty() {
            return Ok(());
        }
        let names = list(keyslots);
        let on_failure =
            format!("{names}: inactive, but old key material may be left on the medium");
        let mut wiped = self.header.raw.clone();
        for &keyslot in keyslots {
            let area = self.header.area(keyslot);
            let mut noise = vec![0; area.len];
            random::fill(&mut noise)?;
            let mut steps = overwrite(area.offset, &noise.into());
            steps.extend(overwrite(area.offset, &vec![0; area.len].into()));
            self.stage(steps, &on_failure);
            wiped.keyslots[keyslot].iterations = 0.into();
            wiped.keyslots[keyslot].salt = [0; 32];
        }
        self.entries(
            &wiped,
            Order::FrontToBack,
            &format!("{names}: inactive and overwritten, only a mark is left to clear"),
        );
        Ok(())
    }
}

impl Header {
    /// Refuses what would overwrite a keyslot that is not to be.
    fn check_changes(&self, changes: &[SlotChange]) -> Result<()> {
        let mut touched = [false; KEYSLOTS];
        for change in changes {
            let (keyslot, active, staging) = match *change {
                SlotChange::Activate { keyslot, .. } => (keyslot, Some(false), None),
                SlotChange::Deactivate { keyslot } => (keyslot, None, None),
                SlotChange::Replace { keyslot, staging, .. } => (keyslot, Some(true), staging),
            };
            let twice = touched.get_mut(keyslot).is_none_or(|it| std::mem::replace(it, true));
            if twice
                || active.is_some_and(|active| active != self.keyslot(keyslot).active)
                || staging.is_some_and(|staging| staging == keyslot || staging >= KEYSLOTS)
            {
                let text = format!("the change of keyslot {keyslot} does not fit the header");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }

    /// The runs of bytes in which `to` differs, one per sector: where, and what `to` has there.
    fn changed_sectors(&self, to: &RawHeader) -> Vec<(usize, Vec<u8>)> {
        let (from, to) = (self.raw.as_bytes(), to.as_bytes());
        let sector = usize::try_from(SECTOR).unwrap_or(usize::MAX);
        (0..HEADER_SIZE)
            .step_by(sector)
            .filter_map(|start| {
                let range = start..(start + sector).min(HEADER_SIZE);
                let differs = |&i: &usize| from[i] != to[i];
                let first = range.clone().find(differs)?;
                let last = range.rev().find(differs)?;
                Some((first, to[first..=last].to_vec()))
            })
            .collect()
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Order {
    BackToFront,
    FrontToBack,
}

fn overwrite(offset: u64, bytes: &Arc<[u8]>) -> Vec<Step> {
    vec![
        Step::Write { offset, bytes: Arc::clone(bytes) },
        Step::Sync,
        Step::Verify { offset, bytes: Arc::clone(bytes) },
    ]
}

fn activate(raw: &mut RawHeader, keyslot: usize, sealed: &Sealed) {
    let slot = &mut raw.keyslots[keyslot];
    slot.state = ACTIVE.into();
    slot.iterations = sealed.iterations.into();
    slot.salt = sealed.salt;
}

/// Inactive, and marked by an iteration count until its area is overwritten.
fn deactivate(raw: &mut RawHeader, keyslot: usize) {
    let slot = &mut raw.keyslots[keyslot];
    slot.state = INACTIVE.into();
    slot.salt = [0; 32];
    slot.iterations = slot.iterations.get().max(1).into();
}

/// `keyslot 3`, `keyslots 1, 4`
fn list(keyslots: &[usize]) -> String {
    let numbers: Vec<_> = keyslots.iter().map(ToString::to_string).collect();
    let plural = if numbers.len() == 1 { "" } else { "s" };
    format!("keyslot{plural} {}", numbers.join(", "))
}
