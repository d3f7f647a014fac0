//! Model of the keyslots that a plan is computed on. Each change is judged on the result of the changes
//! before it, with QEMU's checks in QEMU's order (`qcrypto_block_luks_amend_options` and the
//! two functions below it).

use super::{AmendFault, Change, ChangeKind};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{HeldKey, Leftover, Occupant};
use crate::kdf::Pbkdf;
use crate::overrides::{Override, Overrides};
use crate::secret::Passphrase;
use crate::unlock::{INTERRUPTED, wrong_secret};

/// Callback that returns those of the given keyslots that a secret opens
pub(super) type Opens<'a> = dyn FnMut(&[usize], &Passphrase) -> Result<Vec<usize>> + 'a;

/// State of the keyslots after the changes so far.
pub(super) struct Picture<'a> {
    pub slots: Vec<Slot>,
    /// Keyslots that cannot be changed because their entries are damaged, with the faults
    pub damaged: &'a [(usize, &'a str)],
    /// Occupants of the keyslots
    pub occupants: Vec<Option<Occupant>>,
    /// Inactive keyslots to overwrite again
    pub rewipe: Vec<usize>,
    /// Leftovers of interrupted amendments
    pub leftovers: Vec<Leftover>,
    /// Whether a secret was tried on all keyslots
    pub has_searched: bool,
    pub overrides: Overrides,
    pub opens: &'a mut Opens<'a>,
}

pub(super) enum Slot {
    Free,
    /// Unchanged, as on disk
    Old,
    New {
        secret: Passphrase,
        pbkdf: Pbkdf,
        /// Whether the new keyslot inherits nothing from an old one
        is_new: bool,
    },
}

impl Picture<'_> {
    pub fn apply(&mut self, change: Change) -> Result<()> {
        match change {
            Change::Add { keyslot, new_secret, pbkdf } => self.add(keyslot, new_secret, pbkdf),
            Change::Erase { keyslot: Some(keyslot), old_secret } => {
                self.erase_keyslot(keyslot, old_secret)
            }
            Change::Erase { keyslot: None, old_secret: Some(old_secret) } => {
                self.erase_matching(&old_secret?)
            }
            Change::Erase { keyslot: None, old_secret: None } => {
                Err(AmendFault::NoTarget { change: ChangeKind::Erase }.into())
            }
            Change::Replace { keyslot, old_secret, new_secret, pbkdf } => {
                self.replace(keyslot, old_secret, new_secret, pbkdf)
            }
        }
    }

    fn add(
        &mut self,
        keyslot: Option<i64>,
        secret: Result<Passphrase>,
        pbkdf: Pbkdf,
    ) -> Result<()> {
        let keyslot = if let Some(number) = keyslot {
            let keyslot = self.in_range(number, ChangeKind::Add)?;
            if self.is_active(keyslot) && !self.overrides.has(Override::OverwriteKeyslot) {
                return Err(AmendFault::Active { keyslot }.into());
            }
            keyslot
        } else {
            let free = self.slots.iter().position(|slot| matches!(slot, Slot::Free));
            free.ok_or(AmendFault::AllInUse)?
        };
        self.slots[keyslot] = Slot::New { secret: secret?, pbkdf, is_new: true };
        self.occupants[keyslot] = Some(Occupant { key: HeldKey::Volume, is_usable: true });
        Ok(())
    }

    fn erase_keyslot(&mut self, number: i64, secret: Option<Result<Passphrase>>) -> Result<()> {
        let secret = secret.transpose()?;
        let keyslot = self.in_range(number, ChangeKind::Erase)?;
        if let Some(secret) = secret {
            self.must_open(keyslot, &secret, ChangeKind::Erase)?;
        }
        let erases_inactive = self.overrides.has(Override::EraseInactive);
        if !self.is_active(keyslot) && !erases_inactive && !self.is_unfinished(keyslot) {
            return Err(AmendFault::AlreadyErased { keyslot }.into());
        }
        if self.loses_a_key(&[keyslot]) && !self.overrides.has(Override::LoseKey) {
            return Err(AmendFault::LastHolder { keyslot }.into());
        }
        if matches!(self.slots[keyslot], Slot::Free) {
            self.rewipe.push(keyslot);
        }
        self.erase(keyslot);
        Ok(())
    }

    fn erase_matching(&mut self, secret: &Passphrase) -> Result<()> {
        let matching = self.matching(secret)?;
        if matching.is_empty() {
            return Err(self.no_match(ChangeKind::Erase, secret));
        }
        if self.loses_a_key(&matching) && !self.overrides.has(Override::LoseKey) {
            return Err(AmendFault::LastHolders.into());
        }
        for keyslot in matching {
            self.erase(keyslot);
        }
        Ok(())
    }

    fn replace(
        &mut self,
        number: Option<i64>,
        old_secret: Option<Result<Passphrase>>,
        new_secret: Result<Passphrase>,
        pbkdf: Pbkdf,
    ) -> Result<()> {
        let old_secret = old_secret.transpose()?;
        let keyslots = match (number, old_secret) {
            (Some(number), old_secret) => {
                let keyslot = self.in_range(number, ChangeKind::Replace)?;
                if !self.is_active(keyslot) {
                    let is_it = |it: &Leftover| matches!(it, Leftover::Replace { keyslot: of, .. } if *of == keyslot);
                    let is_interrupted = self.leftovers.iter().any(is_it);
                    let add = "add a secret to it instead";
                    return Err(Error::from(AmendFault::Inactive { keyslot })
                        .with_hint(if is_interrupted { INTERRUPTED } else { add }));
                }
                if let Some(secret) = old_secret {
                    self.must_open(keyslot, &secret, ChangeKind::Replace)?;
                }
                vec![keyslot]
            }
            (None, Some(old_secret)) => {
                // The secret of any other key is replaced only in a keyslot that is named.
                let mut keyslots = self.matching(&old_secret)?;
                let others: Vec<_> =
                    keyslots.extract_if(.., |it| !self.holds_volume_key(*it)).collect();
                if let (true, Some(keyslot)) = (keyslots.is_empty(), others.first()) {
                    let error = Error::from(AmendFault::Unbound { keyslot: *keyslot });
                    return Err(error.with_hint("use --keyslot to select it"));
                }
                if keyslots.is_empty() {
                    return Err(self.no_match(ChangeKind::Replace, &old_secret));
                }
                keyslots
            }
            (None, None) => {
                return Err(AmendFault::NoTarget { change: ChangeKind::Replace }.into());
            }
        };
        let secret = new_secret?;
        for keyslot in keyslots {
            let is_new = matches!(self.slots[keyslot], Slot::New { is_new: true, .. });
            self.slots[keyslot] = Slot::New { secret: secret.clone(), pbkdf, is_new };
        }
        Ok(())
    }

    /// Whether an erase of this inactive keyslot finds material left to overwrite. LUKS2 does not
    /// record which keyslot a leftover area belonged to, so any such area counts.
    fn is_unfinished(&self, keyslot: usize) -> bool {
        self.leftovers.iter().any(|leftover| match *leftover {
            Leftover::Wipe { keyslot: of } | Leftover::Replace { keyslot: of, .. } => of == keyslot,
            Leftover::Area(_) => true,
            Leftover::Twins { .. } | Leftover::Staging { .. } => false,
        })
    }

    fn no_match(&self, change: ChangeKind, secret: &Passphrase) -> Error {
        let error = does_not_open(AmendFault::NoMatch { change }, secret);
        if self.leftovers.is_empty() {
            return error;
        }
        error.with_hint(INTERRUPTED)
    }

    fn in_range(&self, number: i64, change: ChangeKind) -> Result<usize> {
        let keyslots = self.slots.len();
        let keyslot = usize::try_from(number).ok().filter(|&keyslot| keyslot < keyslots);
        let keyslot = keyslot.ok_or(AmendFault::OutOfRange { number, keyslots, change })?;
        match self.damaged.iter().find(|(other, _)| *other == keyslot) {
            Some((_, why)) => {
                let text = format!("the entry of keyslot {keyslot} is damaged: {why}");
                Err(Error::new(ErrorKind::Corrupt, text)
                    .with_keyslot(keyslot)
                    .with_hint("use 'keyslot repair' to fix the entry"))
            }
            None => Ok(keyslot),
        }
    }

    fn is_active(&self, keyslot: usize) -> bool {
        !matches!(self.slots[keyslot], Slot::Free)
    }

    fn erase(&mut self, keyslot: usize) {
        self.slots[keyslot] = Slot::Free;
        self.occupants[keyslot] = None;
    }

    fn holds_volume_key(&self, keyslot: usize) -> bool {
        self.occupants[keyslot].is_some_and(|it| it.is_volume_key())
    }

    /// Whether erasing these keyslots loses a key that data is encrypted with. A key counts as lost
    /// too if this crate could open it before and cannot open any keyslot that still holds it.
    fn loses_a_key(&self, erased: &[usize]) -> bool {
        let left = || {
            let left = (0..self.slots.len()).filter(|keyslot| !erased.contains(keyslot));
            left.filter_map(|keyslot| self.occupants[keyslot])
        };
        let erased = erased.iter().filter_map(|&keyslot| self.occupants[keyslot]);
        let mut bound = erased.filter(|it| it.key != HeldKey::Unbound);
        bound.any(|gone| {
            let serves = |it: Occupant| it.key == gone.key && (it.is_usable || !gone.is_usable);
            !left().any(serves)
        })
    }

    /// Returns those of `keyslots` that a secret opens.
    fn opened(&mut self, keyslots: &[usize], secret: &Passphrase) -> Result<Vec<usize>> {
        let on_disk = |&&keyslot: &&usize| matches!(self.slots[keyslot], Slot::Old);
        let on_disk: Vec<_> = keyslots.iter().filter(on_disk).copied().collect();
        let opened = (self.opens)(&on_disk, secret)?;
        let matches = |&&keyslot: &&usize| match &self.slots[keyslot] {
            Slot::Free => false,
            Slot::Old => opened.contains(&keyslot),
            Slot::New { secret: new, .. } => new == secret,
        };
        Ok(keyslots.iter().filter(matches).copied().collect())
    }

    fn matching(&mut self, secret: &Passphrase) -> Result<Vec<usize>> {
        self.has_searched = true;
        let all: Vec<_> = (0..self.slots.len()).collect();
        self.opened(&all, secret)
    }

    fn must_open(&mut self, keyslot: usize, secret: &Passphrase, change: ChangeKind) -> Result<()> {
        if !self.opened(&[keyslot], secret)?.is_empty() {
            return Ok(());
        }
        Err(does_not_open(AmendFault::WrongSecret { keyslot, change }, secret))
    }
}

/// Error for a fault that the secret itself may explain, such as by a trailing newline.
fn does_not_open(fault: AmendFault, secret: &Passphrase) -> Error {
    fault.mark(wrong_secret(fault.to_string(), secret))
}
