//! Which keyslots a request is about, and what becomes of each.
//!
//! The plan is made on a picture of the keyslots: each change is judged on what the ones before
//! it leave, with QEMU's checks in QEMU's order (`qcrypto_block_luks_amend_options` and the two
//! functions below it). What differs between the picture's first state and its last is the plan.

use super::{Change, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::header::Header;
use crate::keyslot::{Cost, wrong_secret};
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
        /// How long that shall take
        cost: Cost,
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
        /// How long that shall take
        cost: Cost,
        /// The inactive keyslot that keeps the image openable meanwhile
        staging: Option<usize>,
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

    /// The plan for `request` on an image with this header. `opens` says whether a keyslot that is
    /// active there opens with a secret.
    pub(crate) fn new(
        header: &Header,
        request: Request,
        opens: &mut dyn FnMut(usize, &Passphrase) -> Result<bool>,
    ) -> Result<Self> {
        let before: Vec<_> = header.keyslots().map(|k| k.active).collect();
        let slots = before.iter().map(|&active| if active { Slot::Old } else { Slot::Free });
        let mut picture =
            Picture { slots: slots.collect(), rewipe: Vec::new(), force: request.force, opens };
        for change in request.changes {
            picture.apply(change)?;
        }
        let Picture { slots, rewipe, .. } = picture;
        Self::between(header, &before, slots, &rewipe, request.force)
    }

    /// What has to be written to get from `before` to `after`.
    fn between(
        header: &Header,
        before: &[bool],
        after: Vec<Slot>,
        rewipe: &[usize],
        force: bool,
    ) -> Result<Self> {
        let is_free = |keyslot: &usize| matches!(after[*keyslot], Slot::Free);
        // One that is free already can be reserved before anything changes.
        let mut free = (0..after.len()).filter(is_free);
        let staging = free.clone().find(|&keyslot| !before[keyslot]).or_else(|| free.next());
        let mut plan = Self { header: header.clone(), changes: Vec::new(), warnings: Vec::new() };
        let mut replacements = Vec::new();
        for (keyslot, slot) in after.into_iter().enumerate() {
            match (before[keyslot], slot) {
                (false, Slot::New { secret, cost }) => {
                    plan.changes.push(PlannedChange::Add { keyslot, secret, cost });
                }
                (true, Slot::New { secret, cost }) => {
                    if staging.is_none() && !force {
                        let text = format!(
                            "no keyslot is left free, so keyslot {keyslot} can only be overwritten in place"
                        );
                        return Err(Error::new(ErrorKind::NoFreeKeyslot, text).with_hint(
                            "erase another first; forced, a crash meanwhile loses this one",
                        ));
                    }
                    replacements.push(PlannedChange::Replace { keyslot, secret, cost, staging });
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
        Ok(plan)
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
            if let PlannedChange::Replace { staging: None, .. } = change {
                self.warnings.push(format!(
                    "keyslot {keyslot} is overwritten in place: if this is interrupted, neither the old nor the new secret opens it"
                ));
            }
        }
    }
}

/// The keyslots as they will be after the changes so far.
struct Picture<'a> {
    slots: Vec<Slot>,
    /// Inactive keyslots to overwrite all the same
    rewipe: Vec<usize>,
    force: bool,
    opens: &'a mut dyn FnMut(usize, &Passphrase) -> Result<bool>,
}

enum Slot {
    Free,
    /// As it is on disk
    Old,
    New {
        secret: Passphrase,
        cost: Cost,
    },
}

impl Picture<'_> {
    fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Add { keyslot, new_secret, cost } => self.add(keyslot, new_secret, cost),
            Change::Erase { keyslot: Some(keyslot), old_secret } => {
                self.erase_keyslot(keyslot, old_secret)
            }
            Change::Erase { keyslot: None, old_secret: Some(old_secret) } => {
                self.erase_matching(&old_secret?)
            }
            Change::Erase { keyslot: None, old_secret: None } => Err(invalid(
                "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given",
            )),
            Change::Replace { keyslot, old_secret, new_secret, cost } => {
                self.replace(keyslot, old_secret, new_secret, cost)
            }
        }
    }

    fn add(&mut self, keyslot: Option<i64>, secret: Result<Passphrase>, cost: Cost) -> Result<()> {
        let keyslot = match keyslot {
            Some(number) => {
                // QEMU prints this one unsigned.
                let shown = i32::try_from(number)
                    .map_or(number, |number| i64::from(number.cast_unsigned()));
                let keyslot = self.in_range(number, shown)?;
                if self.is_active(keyslot) && !self.force {
                    return Err(refused(format!(
                        "Refusing to overwrite active keyslot {keyslot} - please erase it first"
                    )));
                }
                keyslot
            }
            None => {
                self.slots.iter().position(|slot| matches!(slot, Slot::Free)).ok_or_else(|| {
                    let text = "Can't add a keyslot - all keyslots are in use";
                    Error::new(ErrorKind::NoFreeKeyslot, text)
                })?
            }
        };
        self.slots[keyslot] = Slot::New { secret: secret?, cost };
        Ok(())
    }

    fn erase_keyslot(&mut self, number: i64, secret: Option<Result<Passphrase>>) -> Result<()> {
        let secret = secret.transpose()?;
        let keyslot = self.in_range(number, number)?;
        if let Some(secret) = secret {
            self.must_open(keyslot, &secret, "for erase operation")?;
        }
        if !self.is_active(keyslot) && !self.force {
            return Err(refused(format!("Given keyslot {keyslot} is already erased (inactive) ")));
        }
        if self.active().eq([keyslot]) && !self.force {
            return Err(refused(format!(
                "Attempt to erase the only active keyslot {keyslot} which will erase all the data in the image irreversibly - refusing operation"
            )));
        }
        if matches!(self.slots[keyslot], Slot::Free) {
            self.rewipe.push(keyslot);
        }
        self.slots[keyslot] = Slot::Free;
        Ok(())
    }

    fn erase_matching(&mut self, secret: &Passphrase) -> Result<()> {
        let matching = self.matching(secret)?;
        if matching.is_empty() {
            let text = "No keyslots match given (old) password for erase operation";
            return Err(wrong_secret(text, secret));
        }
        if self.active().eq(matching.iter().copied()) && !self.force {
            return Err(refused(
                "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation",
            ));
        }
        for keyslot in matching {
            self.slots[keyslot] = Slot::Free;
        }
        Ok(())
    }

    fn replace(
        &mut self,
        number: Option<i64>,
        old_secret: Option<Result<Passphrase>>,
        new_secret: Result<Passphrase>,
        cost: Cost,
    ) -> Result<()> {
        let old_secret = old_secret.transpose()?;
        let keyslots = match (number, old_secret) {
            (Some(number), old_secret) => {
                let keyslot = self.in_range(number, number)?;
                if !self.is_active(keyslot) {
                    return Err(invalid(format!("keyslot {keyslot} is inactive"))
                        .with_hint("add a secret to it instead"));
                }
                if let Some(secret) = old_secret {
                    self.must_open(keyslot, &secret, "to replace")?;
                }
                vec![keyslot]
            }
            (None, Some(old_secret)) => {
                let keyslots = self.matching(&old_secret)?;
                if keyslots.is_empty() {
                    return Err(wrong_secret("no keyslot opens with the old secret", &old_secret));
                }
                keyslots
            }
            (None, None) => {
                return Err(invalid("to replace a secret, its keyslot or the secret is needed"));
            }
        };
        let secret = new_secret?;
        for keyslot in keyslots {
            self.slots[keyslot] = Slot::New { secret: secret.clone(), cost };
        }
        Ok(())
    }

    fn in_range(&self, number: i64, shown: i64) -> Result<usize> {
        let count = self.slots.len();
        usize::try_from(number).ok().filter(|&keyslot| keyslot < count).ok_or_else(|| {
            let last = count - 1;
            invalid(format!("Invalid keyslot {shown} specified, must be between 0 and {last}"))
        })
    }

    fn is_active(&self, keyslot: usize) -> bool {
        !matches!(self.slots[keyslot], Slot::Free)
    }

    fn active(&self) -> impl Iterator<Item = usize> {
        (0..self.slots.len()).filter(|&keyslot| self.is_active(keyslot))
    }

    fn matches(&mut self, keyslot: usize, secret: &Passphrase) -> Result<bool> {
        match &self.slots[keyslot] {
            Slot::Free => Ok(false),
            Slot::Old => (self.opens)(keyslot, secret),
            Slot::New { secret: new, .. } => Ok(new == secret),
        }
    }

    fn matching(&mut self, secret: &Passphrase) -> Result<Vec<usize>> {
        let mut matching = Vec::new();
        for keyslot in 0..self.slots.len() {
            if self.matches(keyslot, secret)? {
                matching.push(keyslot);
            }
        }
        Ok(matching)
    }

    fn must_open(&mut self, keyslot: usize, secret: &Passphrase, what: &str) -> Result<()> {
        if self.matches(keyslot, secret)? {
            return Ok(());
        }
        let text = format!("Given keyslot {keyslot} doesn't contain the given old password {what}");
        Err(wrong_secret(text, secret))
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn refused(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Refused, text)
}
