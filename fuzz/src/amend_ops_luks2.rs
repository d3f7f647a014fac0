//! Amendments of a LUKS2 image in memory, one after the other, against the
//! [model](super::model_luks2): each is refused exactly when the model refuses it, the areas are where
//! the model puts them, and the keyslots open with the model's secrets after it. What nobody knows
//! stays, and what was erased is gone. One whose storage fails half way leaves what the README
//! promises.

use arbitrary::Arbitrary;
use keyslot::amend::{PlannedChange, Request};
use keyslot::header::{Header, Leftover, luks2};
use keyslot::{Error, ErrorKind, Image, Limits, Overrides};
use serde_json::{Map, Value};

use super::amend_ops::{Wish, asked, meant};
use super::memory::{Memory, SECRETS, passphrase};
use super::memory_luks2::{AREAS, FILLER, HDR_SIZE, UNIT, image, unlocked};
use super::model::Fate;
use super::model_luks2::{Outcome, Slot, Slots, judge};

/// An image and what is done to it.
#[derive(Arbitrary, Debug)]
pub struct Run {
    more_units: u8,
    slots: Vec<Start>,
    amendments: Vec<Amendment>,
}

/// A keyslot that is there from the beginning, behind the area of the one before it.
#[derive(Arbitrary, Debug)]
struct Start {
    number: u8,
    secret: u8,
    gap: u8,
}

#[derive(Arbitrary, Debug)]
struct Amendment {
    force: bool,
    fault: Option<u8>,
    changes: Vec<Wish>,
}

pub fn check(run: &Run) {
    let (mut slots, units) = beginning(run);
    let memory = image(&slots, units);
    let mut image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
    let mut left = Left(vec![false; units * UNIT / 512]);
    for amendment in run.amendments.iter().take(MOST_AMENDMENTS) {
        let changes: Vec<_> =
            amendment.changes.iter().take(MOST_CHANGES).map(|it| meant(it, keyslot)).collect();
        let request = Request::new(changes.iter().copied().map(asked).collect())
            .overrides(Overrides::all_if(amendment.force));
        let before = Picture::of(&memory);
        let expected = judge(&slots, units, &changes, amendment.force);
        // A keyslot of no iterations cannot be written.
        let expected = expected
            .and_then(|it| if it.worthless { Err(ErrorKind::InvalidInput) } else { Ok(it) });
        let plan = image.plan(request);
        assert_eq!(plan.as_ref().map_err(Error::kind).err(), expected.as_ref().err().copied());
        let (Ok(plan), Ok(expected)) = (plan, expected) else {
            assert_eq!(memory.bytes(), before.bytes);
            continue;
        };
        assert_eq!(fates(plan.changes()), expected.fates);

        memory.set_fault(amendment.fault.map(|after| after & 63));
        let [volume_key, other_key] = expected.writes;
        let key = plan.needs_volume_key().then(|| unlocked(volume_key));
        let result = image.amend(&plan, key);
        memory.set_fault(None);
        let after = Picture::of(&memory);
        let kept = image.header().luks2().expect("LUKS2");
        let found = after.luks2();
        assert_eq!(kept.as_bytes(), found.as_bytes());
        assert_eq!(kept.metadata().text(), found.metadata().text());
        match result {
            Ok(done) => {
                assert!(!expected.worthless, "a keyslot of no iterations");
                assert!(!(volume_key && other_key), "two keys of one");
                assert_eq!(done.len(), plan.changes().len());
                after.is_as_expected(&before, &expected);
                slots = expected.slots;
                left.after_success(&after, &slots);
            }
            Err(error) if error.kind() == ErrorKind::Io => {
                assert!(amendment.fault.is_some(), "{error:?}");
                let found = after.keeps_the_promise(&before, &slots, &expected);
                left.after_failure(&before, &after, [&slots, &found]);
                slots = found;
                // The model knows of no leftovers.
                image.repair(Overrides::NONE).expect("no fault");
                let repaired = Picture::of(&memory);
                assert!(repaired.header.leftovers().is_empty());
                left.after_success(&repaired, &slots);
            }
            Err(error) => {
                let is_wrong = expected.worthless || volume_key && other_key;
                assert!(is_wrong && error.kind() == ErrorKind::InvalidInput, "{error:?}");
                assert_eq!(after.bytes, before.bytes);
            }
        }
    }
}

const MOST_AMENDMENTS: usize = 6;
const MOST_CHANGES: usize = 4;
const MOST_SLOTS: usize = 6;

/// The first keyslots, and how many units there are for areas.
fn beginning(run: &Run) -> (Slots, usize) {
    let mut slots: Slots = [None; 32];
    let mut end = 0;
    for start in run.slots.iter().take(MOST_SLOTS) {
        let (number, is_bound) = (usize::from(start.number & 31), start.number < 192);
        if slots[number].is_some() {
            continue;
        }
        let secret = usize::from(start.secret) % SECRETS.len();
        let slot = Slot { secret, is_bound, start: end + usize::from(start.gap & 31) };
        end = slot.start + slot.units();
        slots[number] = Some(slot);
    }
    (slots, (end + usize::from(run.more_units & 63)).max(1))
}

fn keyslot(byte: u8) -> i64 {
    match byte {
        248 => -1,
        249 => 32,
        250 => 255,
        251 => 1 << 32,
        252 => (1 << 32) + 1,
        253 => i64::MIN,
        254 => i64::MAX,
        255 => i64::from(u32::MAX),
        byte => i64::from(byte & 31),
    }
}

fn fates(changes: &[PlannedChange]) -> [Fate; 32] {
    let mut fates = [Fate::Untouched; 32];
    for change in changes {
        let (keyslot, fate) = match *change {
            PlannedChange::Add { keyslot, .. } => (keyslot, Fate::Added),
            PlannedChange::Erase { keyslot } => (keyslot, Fate::Erased),
            PlannedChange::Replace { keyslot, .. } => (keyslot, Fate::Replaced),
            _ => continue,
        };
        assert_eq!(fates[keyslot], Fate::Untouched, "twice");
        fates[keyslot] = fate;
    }
    fates
}

/// An image at rest.
struct Picture {
    bytes: Vec<u8>,
    header: Header,
    image: Image,
}

impl Picture {
    fn of(memory: &Memory) -> Self {
        let header = Header::read(memory).expect("a valid header");
        let image = super::memory::open_on(memory.clone(), Limits::NONE).expect("a valid image");
        Self { bytes: memory.bytes(), header, image }
    }

    fn is_as_expected(&self, before: &Self, expected: &Outcome) {
        self.has_the_rest_of(before, &expected.fates);
        assert!(self.header.leftovers().is_empty() && self.header.warning().is_none());
        let [primary, secondary] = [0, HDR_SIZE].map(|at| &self.bytes[at..at + HDR_SIZE]);
        assert!(primary[4096..] == secondary[4096..] && primary[16..104] == secondary[16..104]);
        assert!(self.luks2().seqid() >= before.luks2().seqid());
        for (keyslot, slot) in expected.slots.iter().enumerate() {
            let Some(slot) = slot else {
                assert!(self.header.keyslot(keyslot).is_none(), "keyslot {keyslot}");
                continue;
            };
            assert_eq!(self.place(keyslot), Some((slot.is_bound, slot.start)));
            // No other can: it would have to merge to the same key.
            assert!(self.opens(keyslot, slot.secret), "keyslot {keyslot}");
            assert!(!self.opens(keyslot, (slot.secret + 1) % SECRETS.len()));
        }
    }

    /// What is in the keyslots after a failure, if nothing is lost that must not be.
    fn keeps_the_promise(&self, before: &Self, slots: &Slots, expected: &Outcome) -> Slots {
        self.has_the_rest_of(before, &expected.fates);
        std::array::from_fn(|keyslot| {
            let (old, new) = (slots[keyslot], expected.slots[keyslot]);
            let Some((is_bound, start)) = self.place(keyslot) else {
                let may_be = old.is_none() || new.is_none() || expected.in_place[keyslot];
                assert!(may_be, "keyslot {keyslot} is lost");
                return None;
            };
            let secret = (0..SECRETS.len()).find(|&secret| self.opens(keyslot, secret));
            let found = secret.map(|secret| Slot { secret, is_bound, start });
            assert!(found.is_some() && [old, new].contains(&found), "keyslot {keyslot}: {found:?}");
            found
        })
    }

    /// No member that nobody asked to change has changed, nor has the payload.
    fn has_the_rest_of(&self, before: &Self, fates: &[Fate; 32]) {
        assert_eq!(self.bytes.len(), before.bytes.len());
        let payload = self.bytes.len() - 512;
        assert!(self.bytes[payload..] == before.bytes[payload..]);
        let [ours, theirs] = [self, before].map(|it| it.without(fates));
        assert_eq!(ours, theirs);
        for token in self.luks2().metadata().tokens() {
            let all = before.luks2().metadata().tokens();
            let was = all.iter().find(|it| it.number == token.number).expect("no new token");
            // One that was erased and added again is a new one.
            let may_go = |number: usize| {
                self.header.keyslot(number).is_none() || fates[number] == Fate::Replaced
            };
            let stays = |it: &&u32| token.keyslots.contains(it) || may_go(**it as usize);
            assert!(was.keyslots.iter().all(|it| stays(&it)), "a keyslot is not in its token");
        }
    }

    /// The text of the metadata without what these change.
    fn without(&self, fates: &[Fate; 32]) -> String {
        let text = self.luks2().metadata().text();
        let mut metadata: Value = serde_json::from_str(text).expect("valid metadata");
        let is_changed = |number: &str| {
            number.parse::<usize>().is_ok_and(|number| fates[number] != Fate::Untouched)
        };
        let object = |value: &mut Value| -> Map<String, Value> {
            value.as_object_mut().map(std::mem::take).unwrap_or_default()
        };
        let mut keyslots = object(&mut metadata["keyslots"]);
        keyslots.retain(|number, _| !is_changed(number));
        metadata["keyslots"] = keyslots.into();
        for name in ["tokens", "digests"] {
            let mut members = object(&mut metadata[name]);
            // The last keyslot takes its tokens along, and that of another key its digest.
            let is_empty = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
            let empty = members.iter().filter(|(_, it)| is_empty(&it["keyslots"]));
            let empty: Vec<_> = empty.map(|(number, _)| number.clone()).collect();
            for member in members.values_mut() {
                if let Some(list) = member["keyslots"].as_array_mut() {
                    list.retain(|number| !number.as_str().is_some_and(is_changed));
                }
            }
            members.retain(|number, it| {
                let stays = if name == "tokens" { empty.contains(number) } else { false };
                stays || !is_empty(&it["keyslots"]) || !is_empty(&it["segments"])
            });
            metadata[name] = members.into();
        }
        let mut config = object(&mut metadata["config"]);
        config.shift_remove("unwiped_areas");
        metadata["config"] = config.into();
        metadata.to_string()
    }

    /// Whether a keyslot holds the volume key, and where its area begins.
    fn place(&self, keyslot: usize) -> Option<(bool, usize)> {
        let keyslot = self.header.keyslot(keyslot)?;
        let offset = usize::try_from(keyslot.area.offset).expect("small");
        assert!(offset.is_multiple_of(UNIT));
        Some((keyslot.is_bound, (offset - AREAS) / UNIT))
    }

    fn opens(&self, keyslot: usize, secret: usize) -> bool {
        self.image.opens(keyslot, &passphrase(secret)).expect("no fault")
    }

    fn luks2(&self) -> &luks2::Luks2Header {
        self.header.luks2().expect("LUKS2")
    }

    /// The sectors of areas that are not as they were before anything was written, nor wiped.
    fn dirty(&self) -> impl Iterator<Item = bool> {
        let areas = &self.bytes[AREAS..self.bytes.len() - 512];
        areas
            .chunks(512)
            .map(|sector| sector.iter().any(|&it| it != 0) && sector.iter().any(|&it| it != FILLER))
    }
}

/// The sectors in which there is material that never was a keyslot's: its salt was not written.
struct Left(Vec<bool>);

impl Left {
    /// Nothing is left of what was a keyslot's.
    fn after_success(&mut self, after: &Picture, slots: &Slots) {
        for (sector, (is_dirty, used)) in after.dirty().zip(used(slots, self.0.len())).enumerate() {
            assert!(used || !is_dirty || self.0[sector], "sector {sector} is not wiped");
            self.0[sector] &= !used;
        }
    }

    /// What is left of it is known.
    fn after_failure(&mut self, before: &Picture, after: &Picture, slots: [&Slots; 2]) {
        let mut marked = vec![false; self.0.len()];
        for leftover in after.header.leftovers() {
            let Leftover::Area(area) = leftover else { continue };
            let start = (usize::try_from(area.offset).expect("small") - AREAS) / 512;
            marked[start..start + area.len / 512].fill(true);
        }
        let [was_used, is_used] = slots.map(|slots| used(slots, self.0.len()));
        for (sector, is_dirty) in after.dirty().enumerate() {
            let is_left = is_dirty && !is_used[sector] && !marked[sector];
            let bytes = AREAS + sector * 512..AREAS + (sector + 1) * 512;
            // What was wiped may have been written again, by what was to come next.
            let is_old = was_used[sector] && after.bytes[bytes.clone()] == before.bytes[bytes];
            assert!(!(is_left && is_old), "sector {sector} is left and not known");
            self.0[sector] = is_left;
        }
    }
}

fn used(slots: &Slots, sectors: usize) -> Vec<bool> {
    let mut used = vec![false; sectors];
    for slot in slots.iter().flatten() {
        let start = slot.start * UNIT / 512;
        used[start..start + slot.units() * UNIT / 512].fill(true);
    }
    used
}
