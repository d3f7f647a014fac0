//! Allocation of areas for key material. As in cryptsetup, a new area goes into the first gap that is
//! large enough, at a multiple of 4096 bytes.

use std::ops::Range;

use super::{Luks2Header, Slot};
use crate::error::{Error, ErrorKind, Result};

/// Areas in use, and the bounds of the region that they are in.
#[derive(Clone, Debug)]
pub(super) struct Areas {
    bounds: Range<u64>,
    used: Vec<Range<u64>>,
}

/// Areas for an amendment, with their rounds. An area that one round frees is available in the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrangement {
    /// Areas of added keyslots, all in round 0
    pub added: Vec<Range<u64>>,
    /// Areas of replaced keyslots, with their rounds. `None` if there is no room
    pub replaced: Vec<Option<(usize, Range<u64>)>>,
}

impl Areas {
    pub fn of(header: &Luks2Header) -> Self {
        let used = header.metadata.keyslots().iter().map(Slot::range).collect();
        Self { bounds: header.areas(), used }
    }

    /// Whether the whole range is free.
    pub fn is_free(&self, range: &Range<u64>) -> bool {
        self.used.iter().all(|area| are_apart(area, range))
    }

    /// Marks a range as in use.
    pub fn reserve(&mut self, range: Range<u64>) {
        self.used.push(range);
    }

    /// Allocates areas for `added` keys of these lengths and for `replaced` keyslots. The areas of
    /// `erased` keyslots become free after round 0. Fails with [`ErrorKind::NoFreeKeyslot`] if there is
    /// no room for the added keys.
    pub fn arrange(
        mut self,
        added: &[u32],
        erased: &[&Slot],
        replaced: &[&Slot],
    ) -> Result<Arrangement> {
        let hint = if self.used.len() > 1 {
            "erase a keyslot first, in a separate amendment"
        } else {
            "the areas of keyslots are too small for another one"
        };
        let added = added.iter().map(|&key_size| {
            self.take(key_size).ok_or_else(|| {
                let len = area_len(key_size);
                let text =
                    format!("no room for a new keyslot: no gap between areas has {len} bytes");
                Error::new(ErrorKind::NoFreeKeyslot, text).with_hint(hint)
            })
        });
        let added = added.collect::<Result<_>>()?;
        let mut places = vec![None; replaced.len()];
        let mut freed: Vec<_> = erased.iter().map(|slot| slot.range()).collect();
        for round in 0.. {
            for (place, slot) in places.iter_mut().zip(replaced) {
                if place.is_none()
                    && let Some(area) = self.take(slot.key_size)
                {
                    *place = Some((round, area));
                    freed.push(slot.range());
                }
            }
            if freed.is_empty() || places.iter().all(Option::is_some) {
                break;
            }
            self.used.retain(|area| !freed.contains(area));
            freed.clear();
        }
        Ok(Arrangement { added, replaced: places })
    }

    /// Allocates the first gap that fits the key material of a key of `key_size` bytes.
    fn take(&mut self, key_size: u32) -> Option<Range<u64>> {
        self.take_len(area_len(key_size))
    }

    /// Allocates the first gap of at least `len` bytes.
    pub fn take_len(&mut self, len: u64) -> Option<Range<u64>> {
        self.used.sort_by_key(|area| area.start);
        let mut start = self.bounds.start;
        for area in &self.used {
            if start.checked_add(len)? <= area.start {
                break;
            }
            start = start.max(area.end.checked_next_multiple_of(ALIGNMENT)?);
        }
        let area = start..start.checked_add(len)?;
        (area.end <= self.bounds.end).then(|| {
            self.used.push(area.clone());
            area
        })
    }
}

/// Subtracts `others` from `ranges`.
pub(super) fn without(ranges: &[Range<u64>], others: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut left: Vec<_> = ranges.to_vec();
    for other in others {
        left = left
            .into_iter()
            .flat_map(|it| {
                [
                    it.start..it.end.min(other.start).max(it.start),
                    it.start.max(other.end).min(it.end)..it.end,
                ]
            })
            .filter(|it| !it.is_empty())
            .collect();
    }
    left
}

/// Whether two ranges have no byte in common.
pub(super) fn are_apart(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.end <= other.start || other.end <= one.start
}

/// Length in bytes of an area for a key of `key_size` bytes.
pub(super) fn area_len(key_size: u32) -> u64 {
    crate::header::material_len(key_size).next_multiple_of(ALIGNMENT)
}

/// Alignment of areas in bytes, as in cryptsetup
const ALIGNMENT: u64 = 4096;

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "one area")]
mod tests {
    use super::*;

    fn areas(used: &[Range<u64>]) -> Areas {
        Areas { bounds: 32768..1 << 20, used: used.to_vec() }
    }

    #[test]
    fn the_first_gap_is_taken() {
        let len = 258_048;
        assert_eq!(area_len(64), len);
        assert_eq!(area_len(32), 131_072);
        assert_eq!(areas(&[]).take(64), Some(32768..32768 + len));
        assert_eq!(areas(&[32768..40000]).take(64), Some(40960..40960 + len));
        assert_eq!(areas(&[32768 + len..600_000]).take(64), Some(32768..32768 + len));
        assert_eq!(areas(&[32767 + len..600_000]).take(64), Some(602_112..602_112 + len));
        assert_eq!(areas(&[300_000..400_000, 32768..40000]).take(64), Some(40960..40960 + len));
        assert_eq!(areas(&[32768..900_000]).take(64), None);
        assert_eq!(areas(&[]).take(u32::MAX), None);
    }

    #[test]
    fn ranges_without_others() {
        assert_eq!(without(&[0..10], &[2..4, 6..8]), [0..2, 4..6, 8..10]);
        assert_eq!(without(&[0..10, 20..30], &[5..25]), [0..5, 25..30]);
        assert_eq!(without(&[0..10], &[0..10]), []);
        assert_eq!(without(&[0..10], &[10..20, 30..40]), [0..10]);
        assert_eq!(without(&[5..10], &[0..20]), []);
    }
}
