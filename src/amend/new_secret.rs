//! A new secret, and all that decides how its keyslot is made.

use crate::crypto::KdfAlg;
use crate::header::{Scheme, Template};
use crate::kdf::Pbkdf;
use crate::secret::Passphrase;

/// A secret that a plan puts into a keyslot.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewSecret {
    /// The secret
    pub secret: Passphrase,
    /// KDF of the keyslot, and its cost: a time is calibrated when the plan is carried out
    pub pbkdf: Pbkdf,
    /// Cipher, hash and key of the keyslot, as they were found when the plan was made
    pub(crate) template: Template,
    /// The KDF with its numbers, unless they are to be calibrated
    pub(crate) kdf: Option<KdfAlg>,
}

impl NewSecret {
    /// How the key is put into the keyslot, by this KDF.
    pub(crate) fn scheme(&self, kdf: KdfAlg) -> Scheme {
        let af_hash = self.pbkdf.hash.unwrap_or(self.template.af_hash);
        Scheme { kdf, encryption: self.template.encryption.clone(), af_hash }
    }
}
