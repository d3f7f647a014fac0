//! Planning an amendment, and deriving the key material that it writes: all that is slow, and needs no
//! lock.

use super::{Done, Image};
use crate::amend::{Plan, PlannedChange, Request};
use crate::crypto::{Argon2Variant, KdfAlg, KdfKind};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, Scheme, Sealed, SlotChange, Template, material_len};
use crate::kdf::{Cost, Pbkdf};
use crate::secret::Passphrase;
use crate::storage::check_room;
use crate::unlock::{Unlocked, Until, seal_with_salt};

impl Image {
    /// Judges a request and says what it comes to. Nothing is written.
    ///
    /// If a secret must be tried on every keyslot, a keyslot over the
    /// [limits](super::OpenOptions::limits) is an error, because it cannot be ruled out.
    pub fn plan(&self, request: Request) -> Result<Plan> {
        self.check_amendable()?;
        let mut opens = |keyslots: &[usize], secret: &Passphrase| {
            self.header.check_supported()?;
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
        self.named(self.must_fit(&plan))?;
        Ok(plan)
    }

    /// Refuses a plan that cannot be written: key material of the same size, and metadata of the same
    /// length to a few digits, are lowered as they will be.
    fn must_fit(&self, plan: &Plan) -> Result<()> {
        let mut changes = Vec::new();
        for change in plan.changes() {
            let (keyslot, pbkdf) = match *change {
                PlannedChange::Erase { keyslot } => {
                    changes.push(SlotChange::Deactivate { keyslot });
                    continue;
                }
                PlannedChange::Add { keyslot, pbkdf, .. }
                | PlannedChange::Replace { keyslot, pbkdf, .. } => (keyslot, pbkdf),
            };
            let template = template(&plan.header, change)?;
            let kdf = match pbkdf.cost {
                Cost::Iterations(_) => self.settle(keyslot, &pbkdf, &template)?,
                Cost::Time(_) => usual(&pbkdf, &template),
            };
            let len = u32::try_from(template.key_size).map_or(u64::MAX, material_len);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            check_room(len.saturating_mul(2)).map_err(|e| Error::io("make key material", e))?;
            let material = vec![0; len].into();
            let (key_size, salt) = (template.key_size, [0; 32]);
            let scheme = scheme(template, &pbkdf, kdf);
            let sealed = Sealed { scheme, salt, key_size, material };
            changes.push(slot_change(change, sealed));
        }
        plan.header.lower_with(&changes, plan.keep_tokens).map(drop)
    }

    /// The changes of a plan with their key material, and what is to be said of them.
    pub(super) fn seal(
        &self,
        plan: &Plan,
        unlocked: Option<&Unlocked>,
    ) -> Result<(Vec<SlotChange>, Vec<Done>)> {
        let (mut changes, mut all_done) = (Vec::new(), Vec::new());
        for change in plan.changes() {
            let (keyslot, secret, pbkdf) = match change {
                PlannedChange::Erase { keyslot } => {
                    changes.push(SlotChange::Deactivate { keyslot: *keyslot });
                    all_done.push(Done::Erased { keyslot: *keyslot });
                    continue;
                }
                PlannedChange::Add { keyslot, secret, pbkdf }
                | PlannedChange::Replace { keyslot, secret, pbkdf, .. } => {
                    (*keyslot, secret, pbkdf)
                }
            };
            let template = template(&plan.header, change)?;
            let Some(unlocked) = unlocked else {
                let text = format!("the volume key is needed to write keyslot {keyslot}");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            };
            if !template.digest.as_ref().is_some_and(|digest| unlocked.is_of(digest)) {
                self.must_own(unlocked)?;
                let text = format!("keyslot {keyslot} holds another key than the one unlocked");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            let kdf = self.settle(keyslot, pbkdf, &template)?;
            let salt = plan.header.salt(keyslot)?;
            let scheme = scheme(template, pbkdf, kdf);
            let sealed = seal_with_salt(&scheme, salt, unlocked.volume_key(), secret)?;
            all_done.push(match change {
                PlannedChange::Replace { .. } => Done::Replaced { keyslot, kdf },
                _ => Done::Added { keyslot, kdf },
            });
            changes.push(slot_change(change, sealed));
        }
        Ok((changes, all_done))
    }

    /// The KDF of a new secret, calibrated if a time is asked for.
    fn settle(&self, keyslot: usize, pbkdf: &Pbkdf, template: &Template<'_>) -> Result<KdfAlg> {
        let kdf = pbkdf.settle(template);
        let kdf = kdf.map_err(|e| e.with_hint(format!("Failed to write to keyslot {keyslot}")))?;
        let limits = self.options.limits;
        let what = format_args!("the new secret of keyslot {keyslot}");
        limits.admit_new(what, kdf, template.encryption.key_size())?;
        Ok(kdf)
    }
}

/// How the key of a change is put into its keyslot: as in the one it replaces, or as in a new one.
fn template<'a>(header: &'a Header, change: &PlannedChange) -> Result<Template<'a>> {
    match *change {
        PlannedChange::Replace { keyslot, is_new: false, .. } => header.template(keyslot),
        _ => header.new_template(),
    }
}

fn scheme(template: Template<'_>, pbkdf: &Pbkdf, kdf: KdfAlg) -> Scheme {
    let af_hash = pbkdf.hash.unwrap_or(template.af_hash);
    Scheme { kdf, encryption: template.encryption, af_hash }
}

/// About what calibration comes to, for the length of its numbers.
fn usual(pbkdf: &Pbkdf, template: &Template<'_>) -> KdfAlg {
    let argon2 = |variant| KdfAlg::Argon2 {
        variant,
        time: 4,
        memory: pbkdf.memory.unwrap_or(1 << 20),
        parallelism: pbkdf.parallelism.unwrap_or(4),
    };
    match pbkdf.kind_or(template.kdf) {
        KdfKind::Pbkdf2 => {
            let hash = pbkdf.hash.unwrap_or(template.hash);
            KdfAlg::Pbkdf2 { hash, iterations: 10_000_000 }
        }
        KdfKind::Argon2i => argon2(Argon2Variant::Argon2i),
        KdfKind::Argon2id => argon2(Argon2Variant::Argon2id),
    }
}

fn slot_change(change: &PlannedChange, sealed: Sealed) -> SlotChange {
    match *change {
        PlannedChange::Replace { keyslot, staging, is_new, .. } => {
            SlotChange::Replace { keyslot, sealed, staging, is_new }
        }
        PlannedChange::Add { keyslot, .. } => SlotChange::Activate { keyslot, sealed },
        PlannedChange::Erase { keyslot } => SlotChange::Deactivate { keyslot },
    }
}
