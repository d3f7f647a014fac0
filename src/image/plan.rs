//! Plans an amendment and derives its key material. These steps are slow, so they run without a lock.

use super::{Done, Image};
use crate::amend::{NewSecret, Plan, PlannedChange, Request};
use crate::container::Qcow2Header;
use crate::crypto::{Argon2Variant, KdfAlg, KdfKind};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::{Sealed, SlotChange, Template, material_len};
use crate::kdf::{Cost, Pbkdf};
use crate::secret::Passphrase;
use crate::storage::check_room;
use crate::unlock::{Unlocked, Until, seal_with_salt};

impl Image {
    /// Checks a request and computes the changes that it makes. Nothing is written.
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
        let plan = Plan::new(&self.header, request, &mut opens);
        let plan = self.named(plan.and_then(|plan| self.settled(plan)))?;
        Ok(self.with_copies(plan))
    }

    /// Warns if older headers survive in internal snapshots. Those of an encrypted qcow2 image do not
    /// contain its LUKS header, but those of a guest's disk contain the guest's.
    fn with_copies(&self, mut plan: Plan) -> Plan {
        let removes = |it: &PlannedChange| !matches!(it, PlannedChange::Add { .. });
        let snapshots = self.guest_disk().map_or(0, Qcow2Header::snapshots);
        if snapshots > 0 && plan.changes.iter().any(removes) {
            let (plural, they) = if snapshots == 1 { ("", "it holds") } else { ("s", "they hold") };
            plan.warnings.push(format!(
                "{snapshots} internal snapshot{plural} of the qcow2 image may hold an older header: \
                 a secret that is removed now still opens what {they}"
            ));
        }
        plan
    }

    /// Settles the KDFs that need no calibration, and refuses a plan that cannot be written. For that, the
    /// plan is lowered with placeholder key material of the same size; the metadata's length differs from
    /// the final one by a few digits at most.
    fn settled(&self, mut plan: Plan) -> Result<Plan> {
        for change in &mut plan.changes {
            if let PlannedChange::Add { keyslot, new } | PlannedChange::Replace { keyslot, new, .. } =
                change
                && matches!(new.pbkdf.cost, Cost::Iterations(_))
            {
                new.kdf = Some(self.kdf(*keyslot, new)?);
            }
        }
        let changes = slot_changes(&plan, |_, new| {
            let NewSecret { pbkdf, template, .. } = new;
            let len = u32::try_from(template.key_size).map_or(u64::MAX, material_len);
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            check_room(len.saturating_mul(2)).map_err(|e| Error::io("make key material", e))?;
            Ok(Sealed {
                scheme: new.scheme(new.kdf.unwrap_or_else(|| usual(pbkdf, template))),
                salt: [0; 32],
                key_size: template.key_size,
                material: vec![0; len].into(),
            })
        })?;
        plan.header.lower_with(&changes, plan.keep_tokens)?;
        Ok(plan)
    }

    /// Derives the key material of a plan's changes. Also returns the report of the changes.
    pub(super) fn seal(
        &self,
        plan: &Plan,
        unlocked: Option<&Unlocked>,
    ) -> Result<(Vec<SlotChange>, Vec<Done>)> {
        let changes = slot_changes(plan, |keyslot, new| {
            let Some(unlocked) = unlocked else {
                let text = format!("the volume key is needed to write keyslot {keyslot}");
                return Err(Error::new(ErrorKind::InvalidInput, text).with_keyslot(keyslot));
            };
            let digest = new.template.digest.as_ref();
            if !digest.is_some_and(|digest| unlocked.is_of(&digest.view())) {
                self.must_own(unlocked)?;
                let text = format!("keyslot {keyslot} holds another key than the one unlocked");
                return Err(Error::new(ErrorKind::InvalidInput, text).with_keyslot(keyslot));
            }
            let kdf = new.kdf.map_or_else(|| self.kdf(keyslot, new), Ok)?;
            let salt = plan.header.salt(keyslot)?;
            seal_with_salt(&new.scheme(kdf), salt, unlocked.volume_key(), &new.secret)
        })?;
        let done = changes.iter().map(|change| match change {
            SlotChange::Activate { keyslot, sealed } => {
                Done::Added { keyslot: *keyslot, kdf: sealed.scheme.kdf }
            }
            SlotChange::Deactivate { keyslot } => Done::Erased { keyslot: *keyslot },
            SlotChange::Replace { keyslot, sealed, .. } => {
                Done::Replaced { keyslot: *keyslot, kdf: sealed.scheme.kdf }
            }
        });
        let done = done.collect();
        Ok((changes, done))
    }

    /// Settles the KDF of a new secret, calibrating it for a target time.
    fn kdf(&self, keyslot: usize, new: &NewSecret) -> Result<KdfAlg> {
        let kdf = new.pbkdf.settle(&new.template);
        let kdf = kdf.map_err(|e| e.with_operation(Operation::Derive).with_keyslot(keyslot))?;
        let limits = self.options.limits;
        let what = format_args!("the new secret of keyslot {keyslot}");
        let admitted = limits.admit_new(what, kdf, new.template.encryption.key_size());
        admitted.map_err(|error| error.with_keyslot(keyslot))?;
        Ok(kdf)
    }
}

/// Converts a plan's changes, with the key material that `sealed` makes for each new secret.
fn slot_changes(
    plan: &Plan,
    mut sealed: impl FnMut(usize, &NewSecret) -> Result<Sealed>,
) -> Result<Vec<SlotChange>> {
    let changes = plan.changes().iter().map(|change| match *change {
        PlannedChange::Add { keyslot, ref new } => {
            Ok(SlotChange::Activate { keyslot, sealed: sealed(keyslot, new)? })
        }
        PlannedChange::Erase { keyslot } => Ok(SlotChange::Deactivate { keyslot }),
        PlannedChange::Replace { keyslot, ref new, staging, is_new } => {
            Ok(SlotChange::Replace { keyslot, sealed: sealed(keyslot, new)?, staging, is_new })
        }
    });
    changes.collect()
}

/// A typical result of calibration, whose numbers have a realistic length.
fn usual(pbkdf: &Pbkdf, template: &Template) -> KdfAlg {
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
