//! Writes to a volume, and the allocation of places for them.

use std::ops::Range;

use zeroize::Zeroizing;

use super::part::Plain;
use super::{Extent, Place, Volume};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::storage::pieces;

impl Volume {
    /// Writes `data` at byte `offset`.
    pub(super) fn write(&self, data: Plain<'_>, offset: u64) -> Result<()> {
        self.may_write()?;
        self.within(Operation::Write, offset, data.len())?;
        let end = offset + data.len();
        let mut at = offset;
        while at < end {
            // Zeros may have any length, and the list of their extents needs memory.
            let next = end.min((at - at % STEP).saturating_add(STEP));
            self.write_range(at..next, data.slice(offset, &(at..next)))?;
            at = next;
        }
        Ok(())
    }

    /// Writes `data`, which has the length of the range.
    fn write_range(&self, range: Range<u64>, data: Plain<'_>) -> Result<()> {
        let offset = range.start;
        let written = self.allocate(&range, Some(data))?;
        for gap in gaps(range, &written) {
            let mut rest = data.slice(offset, &gap);
            for part in self.parts(gap.start, gap.end - gap.start) {
                let part = part?;
                let (now, later) = rest.split_at(part.len);
                part.write(now)?;
                rest = later;
            }
        }
        Ok(())
    }

    /// Writes whole sectors, and encrypts them in place.
    pub(super) fn write_in_place(&self, first_sector: u64, buf: &mut [u8]) -> Result<()> {
        let len = buf.len() as u64;
        self.may_write()?;
        let offset = self.aligned(Operation::Write, first_sector, len)?;
        let range = offset..offset + len;
        let written = self.allocate(&range, Some(Plain::Bytes(buf)))?;
        for gap in gaps(range, &written) {
            let index = |at: u64| usize::try_from(at - offset).expect("it is in the buffer");
            let mut rest = &mut buf[index(gap.start)..index(gap.end)];
            for part in self.parts(gap.start, gap.end - gap.start) {
                let part = part?;
                let (now, later) = rest.split_at_mut(part.buf_len());
                part.write_in_place(now)?;
                rest = later;
            }
        }
        Ok(())
    }

    /// Makes sure that a later write to the range needs no allocation.
    pub(super) fn reserve(&self, offset: u64, len: u64) -> Result<()> {
        self.may_write()?;
        self.within(Operation::Reserve, offset, len)?;
        self.allocate(&(offset..offset + len), None).map(drop)
    }

    /// Fails if the volume was opened for reading.
    fn may_write(&self) -> Result<()> {
        if self.writable {
            return Ok(());
        }
        let text = "cannot write the volume: the image is not open for writing data";
        Err(Error::new(ErrorKind::InvalidInput, text).with_operation(Operation::Write))
    }

    /// Allocates all of a range within the volume that needs it before `data` is written there, and
    /// writes the data to new extents. Returns the ranges that were written, in ascending order.
    ///
    /// The data goes to a new extent before the extent becomes visible, so it is written once, and a
    /// crash leaves the old bytes or the new ones.
    fn allocate(&self, range: &Range<u64>, data: Option<Plain<'_>>) -> Result<Vec<Range<u64>>> {
        self.map.may_write()?;
        let mut runs: Vec<Range<u64>> = Vec::new();
        let mut at = range.start;
        for part in self.parts(at, range.end - at) {
            let part = part?;
            let end = at + part.len;
            if part.must_allocate(data) {
                match runs.last_mut() {
                    // One allocation costs several syncs, but holes stay holes below zeros.
                    Some(run) if run.end == at || !matches!(data, Some(Plain::Zeros(_))) => {
                        run.end = end;
                    }
                    _ => runs.push(at..end),
                }
            }
            at = end;
        }
        let mut written = Vec::new();
        for run in runs {
            self.map.allocate(run.start, run.end - run.start, &mut |new, before| {
                let here = range.start.max(new.start)..range.end.min(new.start + new.len);
                match data {
                    Some(data) if !here.is_empty() => {
                        let data = data.slice(range.start, &here);
                        self.fill(new, before, &here, data)?;
                        written.push(here);
                        Ok(())
                    }
                    _ => self.keep(new, before, 0..new.len),
                }
            })?;
        }
        written.sort_unstable_by_key(|range| range.start);
        Ok(written)
    }

    /// Writes a whole new extent: `data` in the range `here` of the volume, and around it the bytes
    /// from before.
    fn fill(&self, new: &Extent, before: Place, here: &Range<u64>, data: Plain<'_>) -> Result<()> {
        let (start, end) = (here.start - new.start, here.end - new.start);
        let part = self.part_of(*new, start, end - start)?;
        // The data is merged into sectors that it covers only in part.
        let sector = part.sector_size as u64;
        let (head, tail) = (start.next_multiple_of(sector), end - end % sector);
        if head > tail {
            self.keep(new, before, 0..new.len)?;
        } else {
            self.keep(new, before, 0..head)?;
            self.keep(new, before, tail..new.len)?;
        }
        part.write(data)
    }

    /// Copies bytes `range` of an extent from their place before.
    fn keep(&self, new: &Extent, before: Place, range: Range<u64>) -> Result<()> {
        let len = range.end - range.start;
        if len == 0 {
            return Ok(());
        }
        if let Place::Hole = before {
            return self.part_of(*new, range.start, len)?.write(Plain::Zeros(len));
        }
        let old = Extent { place: before, is_shared: true, ..*new };
        let len = usize::try_from(len).map_or(PIECE, |len| len.min(PIECE));
        let mut buf = Zeroizing::new(vec![0; len]);
        for (at, len) in pieces(range, PIECE) {
            let buf = &mut buf[..len];
            self.part_of(old, at, len as u64)?.read(buf)?;
            self.part_of(*new, at, len as u64)?.write(Plain::Bytes(buf))?;
        }
        Ok(())
    }
}

/// The parts of a range that are not in `covered`, which is in ascending order and within the range.
fn gaps(range: Range<u64>, covered: &[Range<u64>]) -> impl Iterator<Item = Range<u64>> {
    let starts = std::iter::once(range.start).chain(covered.iter().map(|it| it.end));
    let ends = covered.iter().map(|it| it.start).chain(std::iter::once(range.end));
    starts.zip(ends).map(|(start, end)| start..end).filter(|gap| gap.start < gap.end)
}

/// Bytes allocated and written at a time: a multiple of every cluster size
const STEP: u64 = 64 << 20;
/// Bytes copied at a time, a multiple of every sector size
const PIECE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_covered_ranges_are_everything() {
        assert!(gaps(3..9, &[]).eq(std::iter::once(3..9)));
        assert_eq!(gaps(3..9, &[3..5, 5..6, 7..8]).collect::<Vec<_>>(), [6..7, 8..9]);
        assert_eq!(gaps(3..9, std::slice::from_ref(&(3..9))).count(), 0);
    }
}
