//! The bytes of the copies of a header, and the order of their writes.
//!
//! The only guarantee of the disk is that a sector of 512 bytes is written whole. Between two syncs, any
//! subset of the written sectors may arrive, and after a failed sync the page cache may show bytes that
//! the disk does not have. The checksum of a whole copy is in its first sector. Hence *the first sector
//! decides*: a copy whose first sector is on the disk is valid if and only if the rest of it comes from the
//! same write. Three rules follow.
//!
//! 1. **Both copies are valid and equal before any key material is written** ([`Writer::new`]). The chosen
//!    copy is rewritten byte for byte, synced and verified. Rewriting a sector with the same bytes is
//!    harmless in any state of the disk, and makes durable what an earlier sync failed to. If the other copy
//!    differs, its first sector is overwritten with one whose checksum is zeros, synced and verified. From
//!    then on, no late sector can complete a header that an interrupted amendment began, which may refer
//!    to areas that are about to be overwritten. Then the whole copy is written.
//! 2. **A commit writes the primary copy, syncs and verifies it, and only then writes the secondary.**
//!    Both were valid, so one of them always is. A copy that is being written is the old one, the new one,
//!    or invalid.
//! 3. **Areas wait for both copies.** Key material is durable and verified before a copy refers to its
//!    area. An area is overwritten only after both copies durably dropped their reference to it, and
//!    `config.unwiped_areas` lists it until that is done.
//!
//! Together: at every instant, the disk has a valid copy, all valid copies are of the state before or after
//! the current commit, and the areas of both states are intact. An interruption leaves such a state, so the
//! same argument holds for the next amendment.

use zerocopy::IntoBytes;

use super::metadata::Metadata;
use super::raw::{BINARY_SIZE, RawHeader, Which};
use super::{Luks2Header, cipher_of_first_segment};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Stage, Step};
use crate::storage::SharedBytes;

/// Collects the writes of a change, in order.
pub(super) struct Writer {
    /// Header after all stages so far
    pub header: Luks2Header,
    /// Salts of the primary and the secondary copy
    salts: [[u8; 64]; 2],
    stages: Vec<Stage>,
    /// Changes done by all stages so far, for the texts of later stages
    pub done: String,
    /// Changes that wait for a later stage, for the texts of stages that change something
    pub rest: String,
    /// Whether to keep tokens that lose their last keyslot
    pub keep_tokens: bool,
}

impl Writer {
    /// Begins a change by rewriting both copies.
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

    /// Steps that rewrite the chosen copy, then the other.
    fn settle(&mut self) -> Result<Vec<Step>> {
        let which = self.header.which;
        let Some(counting) = self.header.copy_on_disk(which) else {
            // The header was built, not read, so the disk has no copy.
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
        let behind = format!("{sure}, and the secondary copy of the header needs repair");
        self.write(Which::Secondary, &behind)
    }

    fn write(&mut self, which: Which, on_failure: &str) -> Result<()> {
        let bytes = self.header.copy(which, self.salts[which as usize])?;
        self.stage(Step::overwrite(self.header.offset(which), &bytes).to_vec(), on_failure);
        self.header.copies[which as usize] = Some(bytes);
        Ok(())
    }

    /// Returns the stages, and the header after them.
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
    /// Bytes of a copy to write.
    fn copy(&self, which: Which, salt: [u8; 64]) -> Result<SharedBytes> {
        let json_area = self.json_area();
        let raw = self.raw.sealed(which, salt, &json_area)?;
        Ok([raw.as_bytes(), &json_area].concat().into())
    }

    /// Steps that write both copies over an image without a valid header. The primary comes last.
    pub(super) fn write_copies(&self) -> Result<Vec<Step>> {
        let salts = self.salts()?;
        let mut steps = Vec::new();
        for which in [Which::Secondary, Which::Primary] {
            let bytes = self.copy(which, salts[which as usize])?;
            steps.extend(Step::overwrite(self.offset(which), &bytes));
        }
        Ok(steps)
    }

    /// Bytes of a copy that was read with a right checksum, or was written.
    fn copy_on_disk(&self, which: Which) -> Option<SharedBytes> {
        self.copies[which as usize].clone()
    }

    /// Salts of both copies. A damaged copy gets a random one.
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

    /// JSON area: the text, padded with NULs.
    fn json_area(&self) -> Vec<u8> {
        let mut area = self.metadata.text().as_bytes().to_vec();
        area.resize(usize::try_from(self.hdr_size()).unwrap_or(usize::MAX) - BINARY_SIZE, 0);
        area
    }
}

/// First sector of a copy, with a checksum of zeros that makes the copy invalid.
fn without_checksum(copy: &[u8]) -> SharedBytes {
    let mut sector = copy[..SECTOR].to_vec();
    sector[RawHeader::CHECKSUM].fill(0);
    sector.into()
}

const SECTOR: usize = 512;
