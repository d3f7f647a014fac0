//! Repair: finishes or reverts interrupted amendments, and fixes damaged entries.

use super::Luks1Header;
use super::raw::ACTIVE;
use super::steps::{Lowering, Order};
use crate::error::Result;
use crate::header::{Leftover, Stage, Step};
use crate::overrides::Overrides;

impl Luks1Header {
    /// Lowers the repair of the header to writes: finishes or reverts interrupted amendments, and fixes
    /// damaged entries. `None` if nothing needs repair.
    pub(in crate::header) fn lower_repair(
        &self,
        overrides: Overrides,
    ) -> Result<Option<(Vec<Stage>, Self)>> {
        let mended = self.mend(overrides)?;
        if self.leftovers().is_empty() && mended.is_none() {
            return Ok(None);
        }
        let mut lowering = Lowering::new(self);
        if let Some(mended) = mended {
            lowering.entries(&mended.raw, Order::FrontToBack, "some entries may be repaired");
            lowering.header.meaning = mended.meaning;
            lowering.done.push_str("damaged entries are repaired; ");
        }
        // Repair one leftover at a time, because contradictory marks change their meaning once one is
        // repaired. The loop ends, because each repair makes a keyslot inactive or removes a mark.
        while let Some(&leftover) = lowering.header.leftovers().first() {
            lowering.repair(leftover);
        }
        Ok(Some((lowering.stages, lowering.header)))
    }
}

impl Lowering {
    /// Finishes a replacement, or reverts it if the old secret is still in its keyslot.
    fn repair(&mut self, leftover: Leftover) {
        match leftover {
            Leftover::Wipe { keyslot } => self.wipe(&[keyslot]),
            Leftover::Staging { staging, .. } => self.unstage(staging),
            Leftover::Twins { keyslot, staging } => {
                let (from, to) = (self.header.area(staging), self.header.area(keyslot));
                let verify = Step::VerifyCopy { from: from.offset, to: to.offset, len: from.len };
                let nothing = self.nothing();
                self.stage([verify], nothing);
                self.unstage(staging);
            }
            Leftover::Replace { keyslot, staging } => {
                let unsure = format!(
                    "keyslot {keyslot} is half replaced: the new secret opens keyslot {staging}"
                );
                let (from, to) = (self.header.area(staging), self.header.area(keyslot));
                let (from, to, len) = (from.offset, to.offset, from.len);
                let copy =
                    [Step::Copy { from, to, len }, Step::Sync, Step::VerifyCopy { from, to, len }];
                self.stage(copy, &unsure);
                let mut replaced = self.header.raw.clone();
                let staged = replaced.keyslots[staging].clone();
                let slot = &mut replaced.keyslots[keyslot];
                (slot.state, slot.iterations, slot.salt) =
                    (ACTIVE.into(), staged.iterations, staged.salt);
                self.entries(&replaced, Order::BackToFront, &unsure);
                self.unstage(staging);
            }
            Leftover::Area(_) => {}
        }
    }
}
