//! A new secret with the parameters of its keyslot.

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
    /// KDF of the keyslot and its cost. A target time is calibrated when the plan is carried out
    pub pbkdf: Pbkdf,
    /// Cipher, hash and key size of the keyslot, as found when the plan was made
    pub(crate) template: Template,
    /// KDF with its parameters, unless they are still to be calibrated
    pub(crate) kdf: Option<KdfAlg>,
}

impl NewSecret {
    /// Returns the scheme that seals the key with this KDF.
    pub(crate) fn scheme(&self, kdf: KdfAlg) -> Scheme {
        let af_hash = self.pbkdf.hash.unwrap_or(self.template.af_hash);
        Scheme { kdf, encryption: self.template.encryption.clone(), af_hash }
    }
}
