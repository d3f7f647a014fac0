//! What an amendment comes to, by the table of `qemu-img amend`, and
//! written without a look at `src/amend/plan.rs`: which secret is in which keyslot, and nothing
//! else.

use keyslot::ErrorKind;

/// The secret in each keyslot.
pub type Slots = [Option<usize>; 8];

/// A change whose secrets are known by number; one that cannot be had is an error.
#[derive(Clone, Copy, Debug)]
pub enum Change {
    Add { keyslot: Option<i64>, new: Secret, iterations: u32 },
    Erase { keyslot: Option<i64>, old: Option<Secret> },
    Replace { keyslot: Option<i64>, old: Option<Secret>, new: Secret, iterations: u32 },
}

pub type Secret = Result<usize, Missing>;

#[derive(Clone, Copy, Debug)]
pub struct Missing;

/// What becomes of a keyslot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Untouched,
    Added,
    Erased,
    Replaced,
}

/// An amendment that is not refused.
#[derive(Debug)]
pub struct Outcome {
    pub slots: Slots,
    pub fates: [Fate; 8],
    /// Whether a crash in the middle is survived
    pub staged: bool,
    /// Whether a keyslot would be written with an iteration count of zero
    pub worthless: bool,
}

/// The outcome of all `changes`, or the first reason to refuse them.
pub fn judge(before: &Slots, changes: &[Change], force: bool) -> Result<Outcome, ErrorKind> {
    let mut picture = Picture { slots: *before, written: [None; 8], wiped: [false; 8], force };
    for change in changes {
        match *change {
            Change::Add { keyslot, new, iterations } => picture.add(keyslot, new, iterations)?,
            Change::Erase { keyslot, old } => picture.erase(keyslot, old)?,
            Change::Replace { keyslot, old, new, iterations } => {
                picture.replace(keyslot, old, new, iterations)?;
            }
        }
    }
    let Picture { slots, written, wiped, .. } = picture;
    let fates = std::array::from_fn(|i| match (before[i], slots[i]) {
        (None, Some(_)) => Fate::Added,
        (Some(_), None) => Fate::Erased,
        (Some(_), Some(_)) if written[i].is_some() => Fate::Replaced,
        (None, None) if wiped[i] => Fate::Erased,
        _ => Fate::Untouched,
    });
    let staged = slots.contains(&None);
    if fates.contains(&Fate::Replaced) && !staged && !force {
        return Err(ErrorKind::NoFreeKeyslot);
    }
    let worthless = (0..8).any(|i| slots[i].is_some() && written[i] == Some(0));
    Ok(Outcome { slots, fates, staged, worthless })
}

struct Picture {
    slots: Slots,
    /// Iterations of the secrets that these changes wrote
    written: [Option<u32>; 8],
    wiped: [bool; 8],
    force: bool,
}

impl Picture {
    fn add(&mut self, keyslot: Option<i64>, new: Secret, iterations: u32) -> Result<(), ErrorKind> {
        let keyslot = match keyslot {
            None => self.slots.iter().position(Option::is_none).ok_or(ErrorKind::NoFreeKeyslot)?,
            Some(number) => {
                let keyslot = in_range(number)?;
                if self.slots[keyslot].is_some() && !self.force {
                    return Err(ErrorKind::Refused);
                }
                keyslot
            }
        };
        self.write(keyslot, had(new)?, iterations);
        Ok(())
    }

    fn erase(&mut self, keyslot: Option<i64>, old: Option<Secret>) -> Result<(), ErrorKind> {
        let old = old.map(had).transpose()?;
        let active = self.holding(|_| true);
        let erased = match (keyslot, old) {
            (None, None) => return Err(ErrorKind::InvalidInput),
            (None, Some(old)) => self.holding(|secret| secret == old),
            (Some(number), old) => {
                let keyslot = in_range(number)?;
                if old.is_some() && self.slots[keyslot] != old {
                    return Err(ErrorKind::WrongSecret);
                }
                if self.slots[keyslot].is_none() {
                    if !self.force {
                        return Err(ErrorKind::Refused);
                    }
                    self.wiped[keyslot] = true;
                }
                vec![keyslot]
            }
        };
        if erased.is_empty() {
            return Err(ErrorKind::WrongSecret);
        }
        if erased == active && !self.force {
            return Err(ErrorKind::Refused);
        }
        for keyslot in erased {
            self.slots[keyslot] = None;
        }
        Ok(())
    }

    fn replace(
        &mut self,
        keyslot: Option<i64>,
        old: Option<Secret>,
        new: Secret,
        iterations: u32,
    ) -> Result<(), ErrorKind> {
        let old = old.map(had).transpose()?;
        let keyslots = match (keyslot, old) {
            (None, None) => return Err(ErrorKind::InvalidInput),
            (None, Some(old)) => self.holding(|secret| secret == old),
            (Some(number), old) => {
                let keyslot = in_range(number)?;
                let holds = self.slots[keyslot].ok_or(ErrorKind::InvalidInput)?;
                if old.is_some_and(|old| old != holds) {
                    return Err(ErrorKind::WrongSecret);
                }
                vec![keyslot]
            }
        };
        if keyslots.is_empty() {
            return Err(ErrorKind::WrongSecret);
        }
        let new = had(new)?;
        for keyslot in keyslots {
            self.write(keyslot, new, iterations);
        }
        Ok(())
    }

    fn write(&mut self, keyslot: usize, secret: usize, iterations: u32) {
        self.slots[keyslot] = Some(secret);
        self.written[keyslot] = Some(iterations);
    }

    fn holding(&self, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
        (0..8).filter(|&keyslot| self.slots[keyslot].is_some_and(&wanted)).collect()
    }
}

fn in_range(number: i64) -> Result<usize, ErrorKind> {
    usize::try_from(number).ok().filter(|&i| i < 8).ok_or(ErrorKind::InvalidInput)
}

fn had(secret: Secret) -> Result<usize, ErrorKind> {
    secret.map_err(|Missing| ErrorKind::InvalidInput)
}
