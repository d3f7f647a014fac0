//! Which keyslots a request is about, and what becomes of each.
//!
//! What differs between the first state and the last of a picture of the keyslots is the plan.

use super::Request;
use super::picture::{Opens, Picture, Slot};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, HeldKey, Leftover, Occupant, Priority, Staging};
use crate::keyslot::Pbkdf;
use crate::secret::Passphrase;

/// An amendment that passed all checks: what becomes of which keyslot.
#[derive(Debug)]
pub struct Plan {
    /// The header it was made for; the commit refuses another
    pub(crate) header: Header,
    pub(crate) changes: Vec<PlannedChange>,
    pub(crate) warnings: Vec<String>,
}

/// What becomes of one keyslot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlannedChange {
    /// An inactive keyslot becomes active.
    Add {
        /// Index of the keyslot
        keyslot: usize,
        /// What it will open with
        secret: Passphrase,
        /// Its KDF, and how long that shall take
        pbkdf: Pbkdf,
    },
    /// A keyslot becomes inactive (or is so) and its key material is overwritten.
    Erase {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// An active keyslot gets another secret.
    Replace {
        /// Index of the keyslot
        keyslot: usize,
        /// What it will open with
        secret: Passphrase,
        /// Its KDF, and how long that shall take
        pbkdf: Pbkdf,
        /// What keeps the image openable meanwhile
        staging: Staging,
        /// Whether the keyslot was erased first and has nothing of the old one but its index
        is_new: bool,
    },
}

impl Plan {
    /// The changes, in the order in which they are written.
    pub fn changes(&self) -> &[PlannedChange] {
        &self.changes
    }

    /// What somebody should know before it is done.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Whether the volume key is needed: not for an erase.
    pub fn needs_volume_key(&self) -> bool {
        self.changes.iter().any(|change| !matches!(change, PlannedChange::Erase { .. }))
    }

    /// The plan for `request` on an image with this header. `opens` says which of some keyslots that
    /// are active there open with a secret.
    pub(crate) fn new(header: &Header, request: Request, opens: &mut Opens<'_>) -> Result<Self> {
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
            force: request.force,
            opens,
        };
        for change in request.changes {
            picture.apply(change)?;
        }
        let Picture { slots, occupants, rewipe, has_searched, .. } = picture;
        check_occupants(header, &before, &slots, &occupants)?;
        let before: Vec<_> = before.iter().map(Option::is_some).collect();
        let mut plan = Self::between(header, &before, slots, &rewipe, request.force)?;
        if has_searched {
            let untried = header.unusable().into_iter().chain(damaged);
            plan.warnings.extend(untried.map(|(keyslot, why)| {
                format!("keyslot {keyslot} was not tried, the secret may open it: {why}")
            }));
        }
        Ok(plan)
    }

    /// What has to be written to get from `before` to `after`.
    fn between(
        header: &Header,
        before: &[bool],
        after: Vec<Slot>,
        rewipe: &[usize],
        force: bool,
    ) -> Result<Self> {
        let mut after = settle_kdfs(header, after)?;
        let mut plan = Self { header: header.clone(), changes: Vec::new(), warnings: Vec::new() };
        plan.take_back(&mut after);
        let stagings = Self::arrange(header, before, &after)?;
        let mut stagings = stagings.into_iter();
        let mut replacements = Vec::new();
        for (keyslot, slot) in after.into_iter().enumerate() {
            match (before[keyslot], slot) {
                (false, Slot::New { secret, pbkdf, .. }) => {
                    plan.changes.push(PlannedChange::Add { keyslot, secret, pbkdf });
                }
                (true, Slot::New { secret, pbkdf, is_new }) => {
                    let staging = stagings.next().unwrap_or(Staging::InPlace);
                    if staging == Staging::InPlace && !force {
                        let what = header.no_room();
                        let text = format!(
                            "{what}, so keyslot {keyslot} can only be overwritten in place"
                        );
                        return Err(Error::new(ErrorKind::NoFreeKeyslot, text).with_hint(
                            "erase another first; forced, a crash meanwhile loses this one",
                        ));
                    }
                    replacements.push(PlannedChange::Replace {
                        keyslot,
                        secret,
                        pbkdf,
                        staging,
                        is_new,
                    });
                }
                (true, Slot::Free) => plan.changes.push(PlannedChange::Erase { keyslot }),
                (false, Slot::Free) if rewipe.contains(&keyslot) => {
                    plan.changes.push(PlannedChange::Erase { keyslot });
                }
                (false, Slot::Free) | (_, Slot::Old) => {}
            }
        }
        plan.changes.append(&mut replacements);
        plan.warn();
        plan.warn_of_rest();
        Ok(plan)
    }

    /// Erases the staging keyslot that an earlier, interrupted replacement of the same keyslot left:
    /// its secret would stay valid unnoticed.
    fn take_back(&mut self, after: &mut [Slot]) {
        for leftover in self.header.leftovers() {
            if let Leftover::Staging { keyslot, staging } = leftover
                && matches!(after[keyslot], Slot::New { .. })
                && matches!(after[staging], Slot::Old)
            {
                after[staging] = Slot::Free;
                self.warnings.push(format!(
                    "keyslot {staging} is erased too: an interrupted replacement of keyslot {keyslot} left its new secret there"
                ));
            }
        }
    }

    /// Warns if an erase leaves no keyslot that a typed secret opens without naming it.
    fn warn_of_rest(&mut self) {
        let erases = |it: &PlannedChange| matches!(it, PlannedChange::Erase { .. });
        if self.changes.is_empty() || !self.changes.iter().all(erases) {
            return;
        }
        let is_erased = |keyslot: usize| {
            let is_it = |it: &PlannedChange| matches!(it, PlannedChange::Erase { keyslot: other } if *other == keyslot);
            self.changes.iter().any(is_it)
        };
        let occupants = self.header.occupants();
        let left = |keyslot: &usize| occupants[*keyslot].is_some() && !is_erased(*keyslot);
        let left: Vec<_> = (0..occupants.len()).filter(left).collect();
        self.warnings.extend(warning_of_rest(&self.header, &occupants, &left));
    }

    /// What keeps each replaced keyslot's key at hand, in the order of their indices.
    fn arrange(header: &Header, before: &[bool], after: &[Slot]) -> Result<Vec<Staging>> {
        let find = |was: bool, is: fn(&Slot) -> bool| -> Vec<usize> {
            (0..after.len()).filter(|&it| before[it] == was && is(&after[it])).collect()
        };
        let is_new: fn(&Slot) -> bool = |slot| matches!(slot, Slot::New { .. });
        let is_free: fn(&Slot) -> bool = |slot| matches!(slot, Slot::Free);
        let (erased, free) = (find(true, is_free), find(false, is_free));
        // One that is free already can be reserved before anything changes.
        let spare = free.first().or(erased.first()).copied();
        header.arrange(find(false, is_new).len(), &erased, &find(true, is_new), spare)
    }

    fn warn(&mut self) {
        for change in &self.changes {
            let (PlannedChange::Add { keyslot, secret, .. }
            | PlannedChange::Replace { keyslot, secret, .. }) = change
            else {
                continue;
            };
            if !secret.is_qemu_compatible() {
                self.warnings.push(format!(
                    "QEMU cannot use the new secret of keyslot {keyslot}: it is not UTF-8 text without NUL"
                ));
            }
            if let PlannedChange::Replace { staging: Staging::InPlace, .. } = change {
                self.warnings.push(format!(
                    "keyslot {keyslot} is overwritten in place: if this is interrupted, neither the old nor the new secret opens it"
                ));
            }
        }
    }
}

/// The warning if none of the keyslots that are `left` opens the image with a typed secret unless it
/// is named.
fn warning_of_rest(
    header: &Header,
    occupants: &[Option<Occupant>],
    left: &[usize],
) -> Option<String> {
    let holds = |keyslot: &usize| occupants[*keyslot].is_some_and(|it| it.key == HeldKey::Volume);
    let (holders, others): (Vec<usize>, Vec<usize>) = left.iter().copied().partition(holds);
    let Some(first) = holders.first() else {
        return Some(match others.first() {
            Some(keyslot) => format!(
                "no keyslot with the volume key is left, nothing opens the image: keyslot {keyslot} holds another key"
            ),
            None => "no keyslot is left, nothing opens the image".to_owned(),
        });
    };
    let tokens: Option<Vec<_>> = holders.iter().map(|&it| header.token_only(it)).collect();
    if let Some(tokens) = tokens {
        return Some(format!(
            "what is left to open the image is a token's: keyslot {first} is opened by {}",
            tokens[0]
        ));
    }
    let limits: Option<Vec<_>> =
        holders.iter().map(|&it| Some(format!("keyslot {it} {}", limit(header, it)?))).collect();
    let text = limits?.join(", ");
    Some(format!("no keyslot is left that a secret opens without naming it: {text}"))
}

/// The reason why a keyslot is not opened by a secret alone, if there is one.
fn limit(header: &Header, keyslot: usize) -> Option<String> {
    if let Some(token) = header.token_only(keyslot) {
        return Some(format!("is opened by {token}"));
    }
    match header.keyslot(keyslot) {
        Some(keyslot) if keyslot.priority == Priority::Ignore => Some("is ignored".to_owned()),
        Some(_) => None,
        None => Some("cannot be opened by this program".to_owned()),
    }
}

/// Refuses to write the volume key to where another key is, or anything to where nobody knows what is:
/// the keyslot would keep what says so, and would not open.
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
                "it holds another key than the volume key"
            }
            None => continue,
        };
        let text = format!("keyslot {keyslot} cannot be overwritten: {why}");
        return Err(Error::new(ErrorKind::InvalidInput, text)
            .with_hint("erase it first, in an amendment of its own"));
    }
    Ok(())
}

/// Says of each new secret which KDF it has. Refuses one that the header cannot have, or nobody can.
fn settle_kdfs(header: &Header, mut slots: Vec<Slot>) -> Result<Vec<Slot>> {
    for (keyslot, slot) in slots.iter_mut().enumerate() {
        if let Slot::New { pbkdf, is_new, .. } = slot {
            let template =
                if *is_new { header.new_template()? } else { header.template(keyslot)? };
            let kind = pbkdf.kind.insert(pbkdf.kind_or(template.kdf));
            if !header.has_kdf(*kind) {
                let text = "LUKS1 has no KDF but pbkdf2";
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            pbkdf.check(template.kdf)?;
        }
    }
    Ok(slots)
}
