//! The bytes of the copies of a header, and the order of their writes.
//!
//! The disk promises a sector of 512 bytes whole and nothing else: between two syncs any subset of
//! the sectors written may arrive, and after a sync that failed the page cache may show bytes that the
//! disk does not have. A copy has its checksum, over all of it, in its first sector. Hence *the first
//! sector decides*: a copy whose first sector is on the disk is valid if the rest of it is that of the
//! same write, and is otherwise invalid, whatever else arrives. Three rules follow.
//!
//! 1. **Both copies are in order before any key material is written** ([`Writer::new`]). The copy that
//!    counts is written again byte for byte, synced and read back. Writing a sector as it is changes
//!    nothing, whatever the disk holds, and makes durable what an earlier sync failed to. If the
//!    other copy says something else, its first sector is overwritten with one whose checksum is zeros,
//!    synced and read back. From then on no late sector can complete the header that an interrupted
//!    amendment began, and which may refer to areas that are about to be overwritten. Then all of the
//!    copy is written.
//! 2. **A commit writes the primary copy, syncs and reads it back, and only then writes the secondary.**
//!    Both were valid, so one of them always is; and a copy in work is the old one, the new one, or
//!    invalid.
//! 3. **Areas wait for both copies.** Key material is in its area, durable and read back, before a copy
//!    refers to it. Both copies have forgotten an area, durably, before it is overwritten, and
//!    `config.unwiped_areas` names it until that is done.
//!
//! Together: on the disk there is at every instant a valid copy, all valid copies are of the state
//! before or after the commit in work, and the areas of both states are whole. An interruption leaves
//! such a state, so the argument begins again with the next amendment.

use zerocopy::IntoBytes;

use super::metadata::Metadata;
use super::raw::{BINARY_SIZE, RawHeader, Which};
use super::{Luks2Header, cipher_of_first_segment};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Stage, Step};
use crate::storage::SharedBytes;

/// The writes of a change, in their order.
pub(super) struct Writer {
    /// The header after all stages so far
    pub header: Luks2Header,
    /// Salts of the primary and the secondary copy
    salts: [[u8; 64]; 2],
    stages: Vec<Stage>,
    /// What is done after all stages so far, for the texts of later ones
    pub done: String,
    /// What waits for a later stage, for the texts of stages that change something
    pub rest: String,
    /// Whether tokens stay that lose their last keyslot
    pub keep_tokens: bool,
}

impl Writer {
    /// Begins a change by bringing both copies into order.
    pub fn new(header: &Luks2Header) -> Result<Self> {
        let (header, salts) = (header.clone(), header.salts()?);
        let (done, rest) = (String::new(), String::new());
        let stages = Vec::new();
        let mut writer = Self { header, salts, stages, done, rest, keep_tokens: false };
        let mut steps = vec![Step::Sync];
        steps.extend(writer.settle()?);
        writer.stage(steps, "nothing has changed");
        Ok(writer)
    }

    /// The copy that counts, and then the other.
    fn settle(&mut self) -> Result<Vec<Step>> {
        let which = self.header.which;
        let Some(counting) = self.header.copy_on_disk(which) else {
            // A header that was built, not read: there is nothing on the disk.
            return Ok(Vec::new());
        };
        let mut steps = Step::overwrite(self.header.offset(which), &counting).to_vec();
        let (other, offset) = (which.other(), self.header.offset(which.other()));
        match self.header.copy_on_disk(other) {
            Some(same) if self.header.warning.is_none() => {
                steps.extend(Step::overwrite(offset, &same));
            }
            _ => {
                let new = self.header.copy(other, self.salts[other as usize])?;
                steps.extend(Step::overwrite(offset, &without_checksum(&new)));
                steps.extend(Step::overwrite(offset, &new));
                self.header.copies[other as usize] = Some(new);
            }
        }
        Ok(steps)
    }

    pub fn stage(&mut self, steps: Vec<Step>, on_failure: &str) {
        let on_failure = format!("{}{on_failure}{}", self.done, self.rest);
        self.stages.push(Stage { steps, on_failure });
    }

    /// Writes both copies with `metadata`. `unsure` describes a failure while the primary is
    /// written, `sure` one after it.
    pub fn commit(&mut self, metadata: Metadata, unsure: &str, sure: &str) -> Result<()> {
        let seqid = self.header.seqid().checked_add(1).ok_or_else(|| {
            let text = format!("seqid cannot grow beyond {}", u64::MAX);
            Error::new(ErrorKind::Unsupported, text)
        })?;
        self.header.raw.seqid = seqid.into();
        self.header.metadata = metadata;
        self.header.cipher = cipher_of_first_segment(&self.header.metadata);
        self.write(Which::Primary, unsure)?;
        let behind = format!("{sure}, and the secondary copy of the header is to be repaired");
        self.write(Which::Secondary, &behind)
    }

    fn write(&mut self, which: Which, on_failure: &str) -> Result<()> {
        let bytes = self.header.copy(which, self.salts[which as usize])?;
        self.stage(Step::overwrite(self.header.offset(which), &bytes).to_vec(), on_failure);
        self.header.copies[which as usize] = Some(bytes);
        Ok(())
    }

    /// The stages, and the header after them.
    pub fn finish(mut self) -> Result<(Vec<Stage>, Luks2Header)> {
        self.header.which = Which::Primary;
        self.header.warning = None;
        self.header.is_foreign = false;
        self.header.is_erased = false;
        self.header.unread = None;
        let (salt, json_area) = (self.salts[Which::Primary as usize], self.header.json_area());
        self.header.raw = self.header.raw.sealed(Which::Primary, salt, &json_area)?;
        Ok((self.stages, self.header))
    }
}

impl Luks2Header {
    /// A copy as it is to be written.
    fn copy(&self, which: Which, salt: [u8; 64]) -> Result<SharedBytes> {
        let json_area = self.json_area();
        let raw = self.raw.sealed(which, salt, &json_area)?;
        Ok([raw.as_bytes(), &json_area].concat().into())
    }

    /// The writes that put both copies of this header in place of what is no header, the primary last.
    pub(super) fn write_copies(&self) -> Result<Vec<Step>> {
        let salts = self.salts()?;
        let mut steps = Vec::new();
        for which in [Which::Secondary, Which::Primary] {
            let bytes = self.copy(which, salts[which as usize])?;
            steps.extend(Step::overwrite(self.offset(which), &bytes));
        }
        Ok(steps)
    }

    /// The bytes of a copy that was read with a right checksum, or was written.
    fn copy_on_disk(&self, which: Which) -> Option<SharedBytes> {
        self.copies[which as usize].clone()
    }

    /// The salts of both copies; a random one for a copy that is damaged.
    fn salts(&self) -> Result<[[u8; 64]; 2]> {
        let mut salts = [[0; 64]; 2];
        for (salt, copy) in salts.iter_mut().zip(&self.copies) {
            match copy.as_deref().and_then(RawHeader::salt_of) {
                Some(known) => *salt = known,
                None => random::fill(salt)?,
            }
        }
        Ok(salts)
    }

    /// Start of a copy in bytes.
    fn offset(&self, which: Which) -> u64 {
        match which {
            Which::Primary => 0,
            Which::Secondary => self.hdr_size(),
        }
    }

    /// The text, and NULs to the end.
    fn json_area(&self) -> Vec<u8> {
        let mut area = self.metadata.text().as_bytes().to_vec();
        area.resize(usize::try_from(self.hdr_size()).unwrap_or(usize::MAX) - BINARY_SIZE, 0);
        area
    }
}

/// The first sector of a copy, with zeros for a checksum: the copy is invalid, whatever follows it.
fn without_checksum(copy: &[u8]) -> SharedBytes {
    let mut sector = copy[..SECTOR].to_vec();
    sector[RawHeader::CHECKSUM].fill(0);
    sector.into()
}

const SECTOR: usize = 512;
