//! The bytes of the copies of a header, and the order of their writes: at every instant one of them
//! is whole.
//!
//! - What is in the secondary copy is written again and synced before anything changes, from the
//!   copy that counts. Whatever was wrong with either, the image is good for another write then.
//! - The primary copy is written, synced and read back before the secondary is.
//! - Key material is in its area, durable, before a copy refers to it, and both copies have forgotten
//!   an area before it is overwritten. `config.unwiped_areas` has it until that is done.

use std::sync::Arc;

use zerocopy::IntoBytes;

use super::metadata::Metadata;
use super::raw::{BINARY_SIZE, Which};
use super::{Header, cipher_of_first_segment};
use crate::crypto::random;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Stage, Step};

/// The writes of a change, as they come together.
pub(super) struct Writer {
    /// The header as it is when all stages so far are done
    pub header: Header,
    stages: Vec<Stage>,
    /// What is done by then, for the texts of later stages
    pub done: String,
}

impl Writer {
    /// Begins with what is there.
    pub fn new(header: &Header) -> Result<Self> {
        let header = header.with_salts()?;
        let mut writer = Self { header, stages: Vec::new(), done: String::new() };
        let mut steps = vec![Step::Sync];
        steps.extend(writer.header.overwrite(Which::Secondary)?);
        writer.stage(steps, "nothing has changed");
        Ok(writer)
    }

    pub fn stage(&mut self, steps: Vec<Step>, on_failure: &str) {
        let on_failure = format!("{}{on_failure}", self.done);
        self.stages.push(Stage { steps, on_failure });
    }

    /// Both copies with this metadata. Until the first is written, nobody knows; from then on, it
    /// is `sure`.
    pub fn commit(&mut self, metadata: Metadata, unsure: &str, sure: &str) -> Result<()> {
        let seqid = self.header.seqid().checked_add(1).ok_or_else(|| {
            let text = format!("the header has seqid {}, the last there is", u64::MAX);
            Error::new(ErrorKind::Unsupported, text)
        })?;
        self.header.raw.seqid = seqid.into();
        self.header.metadata = metadata;
        self.header.cipher = cipher_of_first_segment(&self.header.metadata);
        self.both(unsure, sure)
    }

    /// Both copies as the header is.
    pub fn both(&mut self, unsure: &str, sure: &str) -> Result<()> {
        let primary = self.header.overwrite(Which::Primary)?;
        self.stage(primary.to_vec(), unsure);
        let secondary = self.header.overwrite(Which::Secondary)?;
        let behind = format!("{sure}, and the secondary copy of the header is to be repaired");
        self.stage(secondary.to_vec(), &behind);
        Ok(())
    }

    /// The stages, and the header after them.
    pub fn finish(mut self) -> Result<(Vec<Stage>, Header)> {
        self.header.which = Which::Primary;
        self.header.warning = None;
        self.header.is_foreign = false;
        self.header.unread = None;
        self.header.raw = self.header.raw.sealed(
            Which::Primary,
            self.header.salt(Which::Primary),
            &self.header.json_area(),
        )?;
        Ok((self.stages, self.header))
    }
}

impl Header {
    /// The same with a salt for each copy.
    pub(super) fn with_salts(&self) -> Result<Self> {
        let mut header = self.clone();
        for salt in &mut header.salts {
            if salt.is_none() {
                random::fill(salt.insert([0; 64]))?;
            }
        }
        Ok(header)
    }

    /// A copy written, durable, and read back.
    pub(super) fn overwrite(&self, which: Which) -> Result<[Step; 3]> {
        let json_area = self.json_area();
        let raw = self.raw.sealed(which, self.salt(which), &json_area)?;
        let offset = raw.hdr_offset.get();
        let bytes: Arc<[u8]> = [raw.as_bytes(), &json_area].concat().into();
        Ok(Step::overwrite(offset, &bytes))
    }

    fn salt(&self, which: Which) -> [u8; 64] {
        self.salts[which as usize].unwrap_or([0; 64])
    }

    /// The text, and NULs to the end.
    fn json_area(&self) -> Vec<u8> {
        let mut area = self.metadata.text().as_bytes().to_vec();
        area.resize(usize::try_from(self.hdr_size()).unwrap_or(usize::MAX) - BINARY_SIZE, 0);
        area
    }
}
