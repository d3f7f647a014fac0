//! What an amendment of a LUKS2 image comes to: which secret is in which keyslot, and where its area
//! is. Written without a look at `src/header/luks2/areas.rs`: areas are runs of units on a strip.

use keyslot::ErrorKind;

use super::model::{Change, Fate, Missing, Secret};

/// A keyslot: its secret, whether it holds the volume key, and the first unit of its area.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Slot {
    pub secret: usize,
    pub is_bound: bool,
    pub start: usize,
}

pub type Slots = [Option<Slot>; 32];

impl Slot {
    /// Length of its area: 4000 stripes of 16 bytes for the volume key, of 32 for the other.
    pub fn units(&self) -> usize {
        if self.is_bound { 16 } else { 32 }
    }
}

/// An amendment that is not refused.
#[derive(Debug)]
pub struct Outcome {
    pub slots: Slots,
    pub fates: [Fate; 32],
    /// Those whose secrets a crash in the middle would lose
    pub in_place: [bool; 32],
    /// Whether the volume key, and whether the other key is written
    pub writes: [bool; 2],
    /// Whether a keyslot would be written with an iteration count of zero
    pub worthless: bool,
}

#[derive(Clone, Copy)]
enum Cell {
    Free,
    Old(usize),
    New(usize, u32),
}

struct Picture {
    cells: [Cell; 32],
    /// Those without which the data is lost
    keepers: [bool; 32],
    wiped: [bool; 32],
    force: bool,
}

/// The outcome of all `changes` on areas of so many units, or the first reason to refuse them.
pub fn judge(
    before: &Slots,
    units: usize,
    changes: &[Change],
    force: bool,
) -> Result<Outcome, ErrorKind> {
    let mut picture = Picture {
        cells: before.map(|slot| slot.map_or(Cell::Free, |slot| Cell::Old(slot.secret))),
        keepers: before.map(|slot| slot.is_some_and(|slot| slot.is_bound)),
        wiped: [false; 32],
        force,
    };
    for change in changes {
        match *change {
            Change::Add { keyslot, new, iterations } => picture.add(keyslot, new, iterations)?,
            Change::Erase { keyslot, old } => picture.erase(keyslot, old)?,
            Change::Replace { keyslot, old, new, iterations } => {
                picture.replace(keyslot, old, new, iterations)?;
            }
        }
    }
    let fates: [Fate; 32] = std::array::from_fn(|i| match (before[i], picture.cells[i]) {
        (None, Cell::New(..)) => Fate::Added,
        (Some(_), Cell::New(..)) => Fate::Replaced,
        (Some(_), Cell::Free) => Fate::Erased,
        (None, _) if picture.wiped[i] => Fate::Erased,
        _ => Fate::Untouched,
    });
    let other_key = |i: &usize| before[*i].is_some_and(|slot| !slot.is_bound);
    if (0..32).filter(other_key).any(|i| fates[i] == Fate::Replaced && picture.keepers[i]) {
        return Err(ErrorKind::InvalidInput);
    }
    let has_size = before.iter().flatten().any(|slot| slot.is_bound);
    if fates.contains(&Fate::Added) && !has_size {
        return Err(ErrorKind::Unsupported);
    }
    let (starts, in_place) = places(before, &fates, units)?;
    if in_place.contains(&true) && !force {
        return Err(ErrorKind::NoFreeKeyslot);
    }
    let slots: Slots = std::array::from_fn(|i| match picture.cells[i] {
        Cell::Free => None,
        Cell::Old(_) => before[i],
        Cell::New(secret, _) => Some(Slot { secret, is_bound: !other_key(&i), start: starts[i] }),
    });
    let new = |i: &usize| matches!(picture.cells[*i], Cell::New(..));
    let writes = [false, true].map(|other| (0..32).filter(new).any(|i| other_key(&i) == other));
    let worthless = picture.cells.iter().any(|cell| matches!(cell, Cell::New(_, 0)));
    Ok(Outcome { slots, fates, in_place, writes, worthless })
}

/// Where new areas go, the first place that is free: those that are added, then those that are
/// replaced, again and again while anything is freed.
fn places(
    before: &Slots,
    fates: &[Fate; 32],
    units: usize,
) -> Result<([usize; 32], [bool; 32]), ErrorKind> {
    let mut strip = vec![false; units];
    for slot in before.iter().flatten() {
        strip[slot.start..slot.start + slot.units()].fill(true);
    }
    let mut starts = [0; 32];
    for i in (0..32).filter(|&i| fates[i] == Fate::Added) {
        starts[i] = take(&mut strip, 16).ok_or(ErrorKind::NoFreeKeyslot)?;
    }
    let mut waiting: Vec<_> = (0..32).filter(|&i| fates[i] == Fate::Replaced).collect();
    let mut freed: Vec<_> =
        (0..32).filter(|&i| fates[i] == Fate::Erased).filter_map(|i| before[i]).collect();
    loop {
        waiting.retain(|&i| {
            let Some(slot) = before[i] else { return false };
            let place = take(&mut strip, slot.units());
            if let Some(start) = place {
                starts[i] = start;
                freed.push(slot);
            }
            place.is_none()
        });
        if freed.is_empty() || waiting.is_empty() {
            break;
        }
        for slot in freed.drain(..) {
            strip[slot.start..slot.start + slot.units()].fill(false);
        }
    }
    let mut in_place = [false; 32];
    for i in waiting {
        in_place[i] = true;
        starts[i] = before[i].map_or(0, |slot| slot.start);
    }
    Ok((starts, in_place))
}

fn take(strip: &mut [bool], units: usize) -> Option<usize> {
    let start = strip.windows(units).position(|run| !run.contains(&true))?;
    strip[start..start + units].fill(true);
    Some(start)
}

impl Picture {
    fn add(&mut self, keyslot: Option<i64>, new: Secret, iterations: u32) -> Result<(), ErrorKind> {
        let keyslot = match keyslot {
            None => (0..32).find(|&i| !self.is_active(i)).ok_or(ErrorKind::NoFreeKeyslot)?,
            Some(number) => {
                let keyslot = in_range(number)?;
                if self.is_active(keyslot) && !self.force {
                    return Err(ErrorKind::Refused);
                }
                keyslot
            }
        };
        self.cells[keyslot] = Cell::New(had(new)?, iterations);
        self.keepers[keyslot] = true;
        Ok(())
    }

    fn erase(&mut self, keyslot: Option<i64>, old: Option<Secret>) -> Result<(), ErrorKind> {
        let old = old.map(had).transpose()?;
        let erased = match (keyslot, old) {
            (None, None) => return Err(ErrorKind::InvalidInput),
            (None, Some(old)) => self.holding(old),
            (Some(number), old) => {
                let keyslot = in_range(number)?;
                if old.is_some_and(|old| !self.holding(old).contains(&keyslot)) {
                    return Err(ErrorKind::WrongSecret);
                }
                if !self.is_active(keyslot) {
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
        let keeps = |i: &usize| self.keepers[*i];
        let is_lost =
            (0..32).any(|i| keeps(&i)) && (0..32).filter(keeps).all(|i| erased.contains(&i));
        if is_lost && !self.force {
            return Err(ErrorKind::Refused);
        }
        for keyslot in erased {
            self.cells[keyslot] = Cell::Free;
            self.keepers[keyslot] = false;
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
            (None, Some(old)) => {
                let all = self.holding(old);
                let bound: Vec<_> = all.iter().copied().filter(|&i| self.keepers[i]).collect();
                if bound.is_empty() && !all.is_empty() {
                    return Err(ErrorKind::InvalidInput);
                }
                bound
            }
            (Some(number), old) => {
                let keyslot = in_range(number)?;
                if !self.is_active(keyslot) {
                    return Err(ErrorKind::InvalidInput);
                }
                if old.is_some_and(|old| !self.holding(old).contains(&keyslot)) {
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
            self.cells[keyslot] = Cell::New(new, iterations);
        }
        Ok(())
    }

    fn is_active(&self, keyslot: usize) -> bool {
        !matches!(self.cells[keyslot], Cell::Free)
    }

    fn holding(&self, secret: usize) -> Vec<usize> {
        let holds = |i: &usize| match self.cells[*i] {
            Cell::Free => false,
            Cell::Old(other) | Cell::New(other, _) => other == secret,
        };
        (0..32).filter(holds).collect()
    }
}

fn in_range(number: i64) -> Result<usize, ErrorKind> {
    usize::try_from(number).ok().filter(|&i| i < 32).ok_or(ErrorKind::InvalidInput)
}

fn had(secret: Secret) -> Result<usize, ErrorKind> {
    secret.map_err(|Missing| ErrorKind::InvalidInput)
}
