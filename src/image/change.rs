//! Changing an image: under its lock, and only if the header is still the one that was looked at.

use super::session::Session;
use super::{Image, lock};
use crate::amend::Plan;
use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Edit, Header, Stage};
use crate::overrides::Overrides;
use crate::storage::Sharing;
use crate::unlock::Unlocked;

/// What an amendment did to one keyslot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Done {
    /// The keyslot is active now.
    Added {
        /// Index of the keyslot
        keyslot: usize,
        /// Its KDF
        kdf: KdfAlg,
    },
    /// The keyslot is inactive and overwritten now.
    Erased {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The keyslot has another secret now.
    Replaced {
        /// Index of the keyslot
        keyslot: usize,
        /// Its KDF
        kdf: KdfAlg,
    },
}

impl Image {
    /// Whether the keyslots of this format can be changed: [`ErrorKind::Unsupported`], if not.
    pub fn check_amendable(&self) -> Result<()> {
        self.named(self.header.check_amendable())
    }

    /// Carries out a plan, durably, in an order that keeps the image openable at every instant.
    ///
    /// New keys are derived, and their cost is calibrated, before the image is locked against all
    /// other users ([`ErrorKind::InUse`] if there are any). Then its header must still be the one
    /// that was planned for, and its path must still lead to it ([`ErrorKind::Changed`]): both are
    /// looked at again immediately before the first write. All but erasing needs the volume key. After
    /// an error the text says in which state the image is.
    pub fn amend(&mut self, plan: &Plan, unlocked: Option<&Unlocked>) -> Result<Vec<Done>> {
        let result = self.try_amend(plan, unlocked);
        self.named(result)
    }

    fn try_amend(&mut self, plan: &Plan, unlocked: Option<&Unlocked>) -> Result<Vec<Done>> {
        self.must_be_writable()?;
        if plan.changes().is_empty() {
            return Ok(Vec::new());
        }
        let (changes, done) = self.seal(plan, unlocked)?;
        let lowered = plan.header.lower_with(&changes, plan.keep_tokens)?;
        self.commit(&plan.header, lowered)?;
        Ok(done)
    }

    /// Makes changes that touch no key, all of them or none, durably and crash-safe as
    /// [`amend`](Self::amend) does, with the same lock. The header must still be as it was read.
    pub fn edit(&mut self, edits: &[Edit]) -> Result<()> {
        let result = self.try_edit(edits);
        self.named(result)
    }

    fn try_edit(&mut self, edits: &[Edit]) -> Result<()> {
        self.must_be_writable()?;
        if edits.is_empty() {
            return Ok(());
        }
        let header = self.header.clone();
        header.check_amendable()?;
        self.commit(&header, header.lower_edits(edits)?)
    }

    /// Writes damaged or older copies of the header again, and overwrites what an interrupted
    /// amendment left. Says whether there was anything to do.
    ///
    /// [`ErrorKind::Refused`] if that would lose something, unless
    /// [`ForeignData`](crate::Override::ForeignData), [`NewerCopy`](crate::Override::NewerCopy) or
    /// [`LoseKey`](crate::Override::LoseKey) admits it.
    pub fn repair(&mut self, overrides: Overrides) -> Result<bool> {
        let result = self.try_repair(overrides);
        self.named(result)
    }

    fn try_repair(&mut self, overrides: Overrides) -> Result<bool> {
        self.must_be_writable()?;
        let header = self.header.clone();
        let Some(lowered) = header.lower_repair(overrides)? else { return Ok(false) };
        self.commit(&header, lowered)?;
        Ok(true)
    }

    /// Makes sure that an amendment of this image would find it free, without keeping it so.
    ///
    /// [`ErrorKind::InUse`] names who has it open.
    pub fn check_free(&self) -> Result<()> {
        self.must_be_writable()?;
        self.container.lease(Sharing::Amend, self.options.wait).map(drop)
    }

    fn must_be_writable(&self) -> Result<()> {
        if self.options.write {
            return Ok(());
        }
        self.named(Err(Error::new(ErrorKind::InvalidInput, "the image is open for reading only")))
    }

    /// Locks the image, makes sure that its header is still the one `expected`, and writes.
    fn commit(&mut self, expected: &Header, (stages, after): (Vec<Stage>, Header)) -> Result<()> {
        let container = self.container.clone();
        let session = Session::open(&container, self.options.wait)?;
        let header = self.options.read_header(&self.container)?;
        if !header.is_same(&self.header) {
            // The keyslots were tried on the old header.
            lock(&self.tried).clear();
        }
        self.header = header;
        if !self.header.is_same(expected) {
            let text = "the header changed since it was looked at";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        lock(&self.tried).clear();
        if let Err(error) = session.commit(stages.into_iter().map(Ok)) {
            // Later calls go by what the disk has now.
            if let Ok(header) = self.options.read_header(&self.container) {
                self.header = header;
            }
            let at = |offset| after.keyslot_at(offset).or_else(|| expected.keyslot_at(offset));
            return Err(match error.offset().and_then(at) {
                Some(keyslot) => error.with_keyslot(keyslot),
                None => error,
            });
        }
        self.header = after;
        session.finish()
    }
}
