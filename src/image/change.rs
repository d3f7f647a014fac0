//! Changes to an image, made under its lock and only if the header is unchanged since it was read.

use super::session::{Session, with_keyslot_of};
use super::{Image, lock};
use crate::amend::Plan;
use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Edit, Header, Stage};
use crate::overrides::Overrides;
use crate::storage::Sharing;
use crate::unlock::Unlocked;

/// Completed change of one keyslot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Done {
    /// An inactive keyslot became active.
    Added {
        /// Index of the keyslot
        keyslot: usize,
        /// Its KDF
        kdf: KdfAlg,
    },
    /// The keyslot became inactive and its key material was overwritten.
    Erased {
        /// Index of the keyslot
        keyslot: usize,
    },
    /// The keyslot got another secret.
    Replaced {
        /// Index of the keyslot
        keyslot: usize,
        /// Its KDF
        kdf: KdfAlg,
    },
}

impl Image {
    /// Checks that the keyslots can be changed. Fails with [`ErrorKind::Unsupported`] if not.
    pub fn check_amendable(&self) -> Result<()> {
        self.named(self.container.check_amendable().and_then(|()| self.header.check_amendable()))
    }

    /// Carries out a plan durably, in an order that keeps the image openable at every instant.
    ///
    /// Keys are derived and costs calibrated first. Then the image is locked against all other users,
    /// with [`ErrorKind::InUse`] if there are any. Immediately before the first write, the header must
    /// still be the one that the plan was made for, and the path must still lead to the image; otherwise
    /// the error is [`ErrorKind::Changed`]. Every change except an erase needs the volume key. The text
    /// of an error describes the state of the image.
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

    /// Makes changes that touch no key. They are atomic and durable, and made under the same lock as by
    /// [`amend`](Self::amend). The header must be unchanged since it was read.
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
        self.check_amendable()?;
        self.commit(&header, header.lower_edits(edits)?)
    }

    /// Rewrites damaged or older copies of the header, and overwrites key material that an interrupted
    /// amendment left. Returns whether anything needed repair.
    ///
    /// Fails with [`ErrorKind::Refused`] if the repair would lose data, unless
    /// [`ForeignData`](crate::Override::ForeignData), [`NewerCopy`](crate::Override::NewerCopy) or
    /// [`LoseKey`](crate::Override::LoseKey) permits it.
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

    /// Checks that an amendment could lock this image now. The lock is released again.
    ///
    /// Fails with [`ErrorKind::InUse`], naming the program that has the image open.
    pub fn check_free(&self) -> Result<()> {
        self.must_be_writable()?;
        self.container.lease(Sharing::Amend, self.options.wait).map(drop)
    }

    pub(super) fn must_be_writable(&self) -> Result<()> {
        if self.options.write {
            return Ok(());
        }
        self.named(Err(Error::new(ErrorKind::InvalidInput, "the image is open for reading only")))
    }

    /// Locks the image, checks that its header is still `expected`, and runs the stages.
    fn commit(&mut self, expected: &Header, (stages, after): (Vec<Stage>, Header)) -> Result<()> {
        let container = self.container.clone();
        let session = Session::open(&container, self.options.wait)?;
        self.read_again(expected)?;
        lock(&self.tried).clear();
        if let Err(error) = session.commit(stages.into_iter().map(Ok)) {
            // Later calls must see the header that is on disk now.
            if let Ok(header) = self.options.read_header(&self.container) {
                self.header = header;
            }
            return Err(with_keyslot_of(error, [&after, expected]));
        }
        self.header = after;
        session.finish()
    }
    /// Reads the header again, under the lock. It must still be `expected`.
    pub(super) fn read_again(&mut self, expected: &Header) -> Result<()> {
        let header = self.options.read_header(&self.container)?;
        if !header.is_same(&self.header) {
            // The results belong to the old header.
            lock(&self.tried).clear();
        }
        self.header = header;
        if !self.header.is_same(expected) {
            let text = "the header changed since it was read";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        Ok(())
    }
}
