//! Resolves a request to the keyslots that it changes.
//!
//! The plan is the difference between the keyslots before and after all changes.

use super::picture::{Opens, Picture, Slot};
use super::{NewSecret, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, Leftover, Occupant, Staging};
use crate::overrides::{Override, Overrides};

/// An amendment that passed all checks.
#[derive(Debug)]
pub struct Plan {
    /// Header that the plan was made for. The commit refuses any other
    pub(crate) header: Header,
    pub(crate) changes: Vec<PlannedChange>,
    pub(crate) warnings: Vec<String>,
    /// Whether tokens that lose their last keyslot stay
    pub(crate) keep_tokens: bool,
}

/// Planned change of one keyslot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlannedChange {
    /// An inactive keyslot becomes active.
    Add {
        /// Index of the keyslot
        keyslot: usize,
        /// New secret of the keyslot
        new: NewSecret,
    },
    /// A keyslot becomes inactive, or already is, and its key material is overwritten.
    Erase {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// An active keyslot gets another secret.
    Replace {
        /// Index of the keyslot
        keyslot: usize,
        /// New secret of the keyslot
        new: NewSecret,
        /// Method that keeps the image openable during the replacement
        staging: Staging,
        /// Whether the old keyslot is erased first, so that the new one inherits only its index
        is_new: bool,
    },
}

impl Plan {
    /// Planned changes, in the order of their writes.
    pub fn changes(&self) -> &[PlannedChange] {
        &self.changes
    }

    /// Warnings to show before the plan is carried out.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the plan needs the volume key. Erasing does not.
    pub fn needs_volume_key(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change, PlannedChange::Erase { .. }))
    }

    /// Plans `request` on an image with this header. `opens` returns those of the given active keyslots
    /// that a secret opens.
    pub(crate) fn new(header: &Header, request: Request, opens: &mut Opens<'_>) -> Result<Self> {
        let Request { changes, overrides, keep_tokens } = request;
        let before = header.occupants();
        let damaged = header.damaged();
        let is_damaged = |keyslot| damaged.iter().any(|(other, _)| *other == keyslot);
        let is_free = |keyslot: usize| before[keyslot].is_none() && !is_damaged(keyslot);
        let slots = (0..before.len()).map(|it| if is_free(it) { Slot::Free } else { Slot::Old });
        let mut picture = Picture {
            slots: slots.collect(),
            damaged: &damaged,
            occupants: before.clone(),
            rewipe: Vec::new(),
            leftovers: header.leftovers(),
            has_searched: false,
            overrides,
            opens,
        };
        for change in changes {
            picture.apply(change)?;
        }
        let Picture { slots, occupants, rewipe, has_searched, .. } = picture;
        check_occupants(header, &before, &slots, &occupants)?;
        let before: Vec<_> = before.iter().map(Option::is_some).collect();
        let empty =
            Self { header: header.clone(), changes: Vec::new(), warnings: Vec::new(), keep_tokens };
        let mut plan = empty.between(&before, slots, &rewipe, overrides)?;
        if has_searched {
            let untried = header.unusable().into_iter().chain(damaged);
            plan.warnings.extend(untried.map(|(keyslot, why)| {
                format!("keyslot {keyslot} was not tried, but the secret may open it: {why}")
            }));
        }
        Ok(plan)
    }

    /// Adds the changes that lead from `before` to `after`, and their warnings.
    fn between(
        mut self,
        before: &[bool],
        after: Vec<Slot>,
        rewipe: &[usize],
        overrides: Overrides,
    ) -> Result<Self> {
        let mut after = settle(&self.header, after)?;
        self.take_back(&mut after);
        let stagings = Self::arrange(&self.header, before, &after)?;
        let mut stagings = stagings.into_iter();
        let mut replacements = Vec::new();
        for (keyslot, slot) in after.into_iter().enumerate() {
            match (before[keyslot], slot) {
                (false, After::New { new, .. }) => {
                    self.changes.push(PlannedChange::Add { keyslot, new });
                }
                (true, After::New { new, is_new }) => {
                    let staging = stagings.next().unwrap_or(Staging::InPlace);
                    if staging == Staging::InPlace && !overrides.has(Override::InPlace) {
                        let what = self.header.no_room();
                        let text = format!(
                            "{what}, so keyslot {keyslot} can only be overwritten in place"
                        );
                        let hint = if before.iter().filter(|&&is_active| is_active).count() > 1 {
                            "erase another keyslot first, or use --in-place: a crash then loses this keyslot"
                        } else {
                            "use --in-place: a crash then loses this keyslot, which is the only one"
                        };
                        return Err(Error::new(ErrorKind::NoFreeKeyslot, text)
                            .with_reason(Override::InPlace)
                            .with_keyslot(keyslot)
                            .with_hint(hint));
                    }
                    replacements.push(PlannedChange::Replace { keyslot, new, staging, is_new });
                }
                (true, After::Free) => self.changes.push(PlannedChange::Erase { keyslot }),
                (false, After::Free) if rewipe.contains(&keyslot) => {
                    self.changes.push(PlannedChange::Erase { keyslot });
                }
                (false, After::Free) | (_, After::Old) => {}
            }
        }
        self.changes.append(&mut replacements);
        self.warn();
        Ok(self)
    }

    /// Erases the staging keyslot that an interrupted replacement of the same keyslot left, because
    /// its secret would otherwise stay valid unnoticed.
    fn take_back(&mut self, after: &mut [After]) {
        for leftover in self.header.leftovers() {
            if let Leftover::Staging { keyslot, staging } = leftover
                && matches!(after[keyslot], After::New { .. })
                && matches!(after[staging], After::Old)
            {
                after[staging] = After::Free;
                self.warnings.push(format!(
                    "keyslot {staging} is erased too: an interrupted replacement of keyslot {keyslot} left its new secret there"
                ));
            }
        }
    }

    /// Chooses the staging of each replaced keyslot, in the order of their indices.
    fn arrange(header: &Header, before: &[bool], after: &[After]) -> Result<Vec<Staging>> {
        let find = |was: bool, is: fn(&After) -> bool| -> Vec<usize> {
            (0..after.len()).filter(|&it| before[it] == was && is(&after[it])).collect()
        };
        let is_new: fn(&After) -> bool = |slot| matches!(slot, After::New { .. });
        let is_free: fn(&After) -> bool = |slot| matches!(slot, After::Free);
        let (erased, free) = (find(true, is_free), find(false, is_free));
        // A keyslot that is already free can be reserved before anything changes. Take the last one,
        // because cryptsetup takes no lock on LUKS1 and adds to the first.
        let spare = free.last().or(erased.first()).copied();
        header.arrange(find(false, is_new).len(), &erased, &find(true, is_new), spare)
    }
}

/// Refuses to overwrite a keyslot that holds another key, or whose contents this crate does not
/// understand. The keyslot would keep its old digest or type, and would not open.
fn check_occupants(
    header: &Header,
    before: &[Option<Occupant>],
    after: &[Slot],
    occupants: &[Option<Occupant>],
) -> Result<()> {
    let unusable = header.unusable();
    for (keyslot, slot) in after.iter().enumerate() {
        let (Some(occupant), Slot::New { .. }) = (before[keyslot], slot) else { continue };
        let why = match unusable.iter().find(|(other, _)| *other == keyslot) {
            Some((_, why)) => why,
            None if occupants[keyslot].is_some_and(|it| it.key != occupant.key) => {
                "it does not hold the volume key"
            }
            None => continue,
        };
        let text = format!("keyslot {keyslot} cannot be overwritten: {why}");
        return Err(Error::new(ErrorKind::InvalidInput, text)
            .with_keyslot(keyslot)
            .with_hint("erase the keyslot first, in a separate amendment"));
    }
    Ok(())
}

/// A keyslot as the plan leaves it.
enum After {
    Free,
    Old,
    New { new: NewSecret, is_new: bool },
}

/// Determines the parameters of each new secret's keyslot. Refuses a KDF or hash that the format does
/// not support, and KDF parameters out of range.
fn settle(header: &Header, slots: Vec<Slot>) -> Result<Vec<After>> {
    let settled = slots.into_iter().enumerate().map(|(keyslot, slot)| match slot {
        Slot::Free => Ok(After::Free),
        Slot::Old => Ok(After::Old),
        Slot::New { secret, mut pbkdf, is_new } => {
            let template =
                if is_new { header.new_template()? } else { header.template(keyslot)? };
            let kind = pbkdf.kind.insert(pbkdf.kind_or(template.kdf));
            if !header.has_kdf(*kind) {
                let text = "LUKS1 supports only pbkdf2";
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            let only = header.luks1().and_then(crate::header::luks1::Luks1Header::hash);
            if let (Some(only), Some(asked)) = (only, pbkdf.hash)
                && only != asked
            {
                let (only, asked) = (only.name(), asked.name());
                let text = format!("hash {asked}: this LUKS1 header uses {only} for all keyslots");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            pbkdf.check(template.kdf)?;
            Ok(After::New { new: NewSecret { secret, pbkdf, template, kdf: None }, is_new })
        }
    });
    settled.collect()
}
