//! Changing an image: under its lock, and only if the header is still the one that was looked at.

use super::{Image, lock};
use crate::amend::{Plan, PlannedChange, Request, commit};
use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Edit, Header, Scheme, SlotChange, Stage, Template};
use crate::keyslot::{Cost, Pbkdf, Unlocked, Until, seal};
use crate::secret::Passphrase;
use crate::storage::sharing::{Sharing, Upgrade};

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

    /// Judges a request and says what it comes to. Nothing is written.
    ///
    /// Where a secret is looked for in every keyslot, one that asks for more work than the
    /// [limits](super::OpenOptions::limits) allow is an error: nobody knows what it opens with.
    pub fn plan(&self, request: Request) -> Result<Plan> {
        self.check_amendable()?;
        let mut opens = |keyslots: &[usize], secret: &Passphrase| {
            let outcomes = self.try_keyslots(keyslots, secret, Until::All);
            let mut opened = Vec::new();
            for (&keyslot, outcome) in keyslots.iter().zip(outcomes) {
                if outcome.unwrap_or(Ok(false))? {
                    opened.push(keyslot);
                }
            }
            Ok(opened)
        };
        let plan = self.named(Plan::new(&self.header, request, &mut opens))?;
        for change in plan.changes() {
            if let PlannedChange::Add { keyslot, pbkdf, .. }
            | PlannedChange::Replace { keyslot, pbkdf, .. } = change
                && matches!(pbkdf.cost, Cost::Iterations(_))
            {
                self.named(self.settle(*keyslot, pbkdf))?;
            }
        }
        Ok(plan)
    }

    /// The KDF of a new secret, which takes as long as it says if a time is asked for.
    fn settle(&self, keyslot: usize, pbkdf: &Pbkdf) -> Result<KdfAlg> {
        let kdf = pbkdf.settle(&self.header.template(keyslot)?);
        let kdf = kdf.map_err(|e| e.with_hint(format!("Failed to write to keyslot {keyslot}")))?;
        let limits = self.options.limits;
        limits.admit_new(format_args!("the new secret of keyslot {keyslot}"), kdf)?;
        Ok(kdf)
    }

    /// Carries out a plan, durably, in an order that keeps the image openable at every instant.
    ///
    /// The image is locked against everybody else for the time it takes ([`ErrorKind::InUse`] if
    /// they are there first), and its header must still be the one that was planned for
    /// ([`ErrorKind::Changed`]). All but erasing needs the volume key. After an error the text
    /// says in which state the image is.
    pub fn amend(&mut self, plan: &Plan, unlocked: Option<&Unlocked>) -> Result<Vec<Done>> {
        let result = self.try_amend(plan, unlocked);
        self.named(result)
    }

    fn try_amend(&mut self, plan: &Plan, unlocked: Option<&Unlocked>) -> Result<Vec<Done>> {
        let _alone = self.lock_to_write(&plan.header)?;
        let mut done = Vec::new();
        let changes = plan
            .changes()
            .iter()
            .map(|change| self.seal(change, unlocked, &mut done))
            .collect::<Result<Vec<_>>>()?;
        let lowered = self.header.lower(&changes)?;
        self.write(lowered)?;
        Ok(done)
    }

    /// Makes changes that touch no key, all of them or none, durably and crash-safe as
    /// [`amend`](Self::amend) does, with the same lock. The header must still be as it was read.
    pub fn edit(&mut self, edits: &[Edit]) -> Result<()> {
        let result = self.try_edit(edits);
        self.named(result)
    }

    fn try_edit(&mut self, edits: &[Edit]) -> Result<()> {
        let _alone = self.lock_to_write(&self.header.clone())?;
        self.header.check_amendable()?;
        let lowered = self.header.lower_edits(edits)?;
        self.write(lowered)
    }

    /// Writes damaged or older copies of the header again, and overwrites what an interrupted
    /// amendment left. Says whether there was anything to do.
    ///
    /// [`ErrorKind::Refused`] if the image begins with something else and it is not forced.
    pub fn repair(&mut self, force: bool) -> Result<bool> {
        let result = self.try_repair(force);
        self.named(result)
    }

    fn try_repair(&mut self, force: bool) -> Result<bool> {
        let _alone = self.lock_to_write(&self.header.clone())?;
        let Some(lowered) = self.header.lower_repair(force)? else { return Ok(false) };
        self.write(lowered)?;
        Ok(true)
    }

    /// Keeps everybody else out, and makes sure that the header is still the one `expected`.
    fn lock_to_write(&mut self, expected: &Header) -> Result<Option<Upgrade>> {
        if !self.options.write {
            return Err(Error::new(ErrorKind::InvalidInput, "the image is open for reading only"));
        }
        let alone = match &self.file {
            Some(file) => Some(file.upgrade(Sharing::Amend, self.options.wait)?),
            None => None,
        };
        if let Some(file) = &self.file
            && !file.is_at_its_path().map_err(|e| Error::io("find it again", e))?
        {
            let text = "another file has taken the image's place since it was opened";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        let header = Header::read(self.storage())?;
        if !header.same_bytes(&self.header) {
            // What was tried was tried on another one.
            lock(&self.tried).clear();
        }
        self.header = header;
        if !self.header.same_bytes(expected) {
            let text = "the header changed since it was looked at";
            return Err(Error::new(ErrorKind::Changed, text));
        }
        Ok(alone)
    }

    fn write(&mut self, (stages, after): (Vec<Stage>, Header)) -> Result<()> {
        lock(&self.tried).clear();
        if let Err(error) = commit(self.storage(), &stages) {
            // What is on the disk now is what counts for whoever goes on with this image.
            if let Ok(header) = Header::read(self.storage()) {
                self.header = header;
            }
            return Err(error);
        }
        self.header = after;
        Ok(())
    }

    /// A planned change with its key material made.
    fn seal(
        &self,
        change: &PlannedChange,
        unlocked: Option<&Unlocked>,
        done: &mut Vec<Done>,
    ) -> Result<SlotChange> {
        let seal = |keyslot: usize, secret: &Passphrase, pbkdf: Pbkdf| {
            let template = self.header.template(keyslot)?;
            let Some(unlocked) = unlocked else {
                let text = format!("the volume key is needed to write keyslot {keyslot}");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            };
            if !template.digest.as_ref().is_some_and(|digest| unlocked.is_of(digest)) {
                self.must_own(unlocked)?;
                let text = format!("keyslot {keyslot} holds another key than the one unlocked");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            let kdf = self.settle(keyslot, &pbkdf)?;
            let Template { encryption, af_hash, .. } = template;
            seal(&Scheme { kdf, encryption, af_hash }, unlocked.volume_key(), secret)
        };
        match *change {
            PlannedChange::Add { keyslot, ref secret, pbkdf } => {
                let sealed = seal(keyslot, secret, pbkdf)?;
                done.push(Done::Added { keyslot, kdf: sealed.scheme.kdf });
                Ok(SlotChange::Activate { keyslot, sealed })
            }
            PlannedChange::Erase { keyslot } => {
                done.push(Done::Erased { keyslot });
                Ok(SlotChange::Deactivate { keyslot })
            }
            PlannedChange::Replace { keyslot, ref secret, pbkdf, staging } => {
                let sealed = seal(keyslot, secret, pbkdf)?;
                done.push(Done::Replaced { keyslot, kdf: sealed.scheme.kdf });
                Ok(SlotChange::Replace { keyslot, sealed, staging })
            }
        }
    }
}
