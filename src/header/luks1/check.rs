//! Checks that changes fit a LUKS1 header, before they are lowered.

use super::Luks1Header;
use super::raw::KEYSLOTS;
use crate::crypto::KdfAlg;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Scheme, SlotChange, Staging};

impl Luks1Header {
    /// Refuses changes that would overwrite a keyslot they do not name.
    pub(super) fn check_changes(&self, changes: &[SlotChange]) -> Result<()> {
        let mut touched = [false; KEYSLOTS];
        for change in changes {
            let (keyslot, active, staging) = match *change {
                SlotChange::Activate { keyslot, .. } => (keyslot, Some(false), None),
                SlotChange::Deactivate { keyslot } => (keyslot, None, None),
                SlotChange::Replace { keyslot, staging, .. } => {
                    (keyslot, Some(true), Some(staging))
                }
            };
            let unfit = |staging| match staging {
                Staging::Keyslot(staging) => {
                    staging == keyslot || staging >= KEYSLOTS || self.is_damaged(staging)
                }
                Staging::InPlace => false,
                Staging::Area => true,
            };
            let is_whole = || match change {
                SlotChange::Activate { sealed, .. } | SlotChange::Replace { sealed, .. } => {
                    sealed.material.len() == self.area(keyslot).len
                }
                SlotChange::Deactivate { .. } => true,
            };
            let twice = touched.get_mut(keyslot).is_none_or(|it| std::mem::replace(it, true));
            if twice
                || !is_whole()
                || self.is_damaged(keyslot)
                || active.is_some_and(|active| active != self.is_active(keyslot))
                || staging.is_some_and(unfit)
            {
                let text = format!("the change of keyslot {keyslot} does not fit the header");
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }

    /// Refuses key material that could not be opened. A LUKS1 header has one cipher, one hash and
    /// PBKDF2, and a header with an iteration count of 0 is invalid as a whole.
    pub(super) fn check_scheme(&self, scheme: &Scheme) -> Result<()> {
        let Scheme { kdf, encryption, af_hash } = scheme;
        let (cipher, own) = self.scheme()?;
        let fits =
            matches!(*kdf, KdfAlg::Pbkdf2 { hash, iterations } if hash == own && iterations > 0);
        if fits && encryption == cipher && *af_hash == own {
            return Ok(());
        }
        let text = format!("a keyslot of this LUKS1 header cannot use this {}", kdf.kind().name());
        Err(Error::new(ErrorKind::InvalidInput, text))
    }
}
