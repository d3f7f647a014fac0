//! Marks that identify the leftovers of an interrupted amendment. They are stored in salts: QEMU and
//! cryptsetup ignore the salt of an inactive entry, and accept any salt in an active one.
//!
//! - **An inactive entry whose salt is [`UNWIPED`]**: the keyslot's area is not overwritten yet. The mark
//!   is recognised by its first 8 bytes, because only these bytes of keyslot 6's salt share a sector with
//!   its state.
//! - **An inactive entry with the first 8 bytes of an active keyslot's salt**: the keyslot waits for the
//!   secret of that active keyslot, which is its staging keyslot.
//! - **Two active entries with the same salt**: one is a staging copy, since random salts never repeat.
//! - **An active entry whose salt names another keyslot**: a staging keyslot. Half of the salt of a
//!   [replacement](Luks1Header::salt) is random. The other half consists of two digests, one of the index
//!   and one of the old salt of the keyslot that is replaced. If that keyslot still has the old salt, the
//!   replacement was interrupted before the old secret was erased. If not, the keyslot was reused since.

use super::Luks1Header;
use super::raw::{ACTIVE, INACTIVE, KEYSLOTS, RawHeader, RawKeyslot};
use crate::crypto::{HashAlg, random};
use crate::error::Result;
use crate::header::Leftover;

impl Luks1Header {
    /// Leftovers of interrupted amendments.
    pub fn leftovers(&self) -> Vec<Leftover> {
        let slots = &self.raw.keyslots;
        let is_active = |&i: &usize| slots[i].state.get() == ACTIVE;
        let active: Vec<_> = (0..KEYSLOTS).filter(is_active).collect();
        let mut found = Vec::new();
        for (keyslot, slot) in slots.iter().enumerate() {
            if is_active(&keyslot) {
                let is_twin = |&&other: &&usize| other > keyslot && slots[other].salt == slot.salt;
                if let Some(&other) = active.iter().find(is_twin) {
                    let is_staged = self.names(slot, other);
                    let (keyslot, staging) =
                        if is_staged { (other, keyslot) } else { (keyslot, other) };
                    found.push(Leftover::Twins { keyslot, staging });
                }
                let is_staged = |&&of: &&usize| {
                    of != keyslot && self.names(slot, of) && replaces(slot, &slots[of])
                };
                if let Some(&of) = active.iter().find(is_staged) {
                    found.push(Leftover::Staging { keyslot: of, staging: keyslot });
                }
            } else if self.is_damaged(keyslot) {
                // Its area may be anywhere.
            } else if slot.salt[..8] == UNWIPED[..8] {
                found.push(Leftover::Wipe { keyslot });
            } else if slot.salt[..8] != [0; 8] {
                let is_staging = |&&other: &&usize| slots[other].salt[..8] == slot.salt[..8];
                if let Some(&staging) = active.iter().find(is_staging) {
                    found.push(Leftover::Replace { keyslot, staging });
                }
            }
        }
        found
    }

    /// Generates a salt for new key material of a keyslot. If the keyslot is active, the salt marks its
    /// staging keyslot.
    pub(in crate::header) fn salt(&self, keyslot: usize) -> Result<[u8; 32]> {
        let mut salt = [0; 32];
        random::fill(&mut salt)?;
        if let Some(old) = self.raw.keyslots.get(keyslot).filter(|it| it.state.get() == ACTIVE) {
            let names =
                digest(b"index", &[keyslot.to_le_bytes()[0]], &self.raw.mk_digest_salt, &salt);
            let replaces = digest(b"old salt", &[], &old.salt, &salt);
            salt[16..24].copy_from_slice(&names);
            salt[24..].copy_from_slice(&replaces);
        }
        Ok(salt)
    }

    /// Whether the salt of an entry was generated to replace this keyslot.
    fn names(&self, slot: &RawKeyslot, keyslot: usize) -> bool {
        let index = [keyslot.to_le_bytes()[0]];
        slot.salt[16..24] == digest(b"index", &index, &self.raw.mk_digest_salt, &slot.salt)
    }
}

/// Whether the salt of an entry was generated to replace the present contents of `old`.
fn replaces(slot: &RawKeyslot, old: &RawKeyslot) -> bool {
    slot.salt[24..] == digest(b"old salt", &[], &old.salt, &slot.salt)
}

fn digest(what: &[u8], index: &[u8], salt: &[u8; 32], new: &[u8; 32]) -> [u8; 8] {
    let digest = HashAlg::Sha256.digest(&[b"keyslot replacement ", what, index, salt, &new[..16]]);
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

/// Makes a keyslot inactive and marks its area as not yet overwritten.
pub(super) fn mark(raw: &mut RawHeader, keyslot: usize) {
    let slot = &mut raw.keyslots[keyslot];
    slot.state = INACTIVE.into();
    slot.iterations = 0.into();
    slot.salt = UNWIPED;
}

/// Salt of an inactive entry whose area is not yet overwritten.
const UNWIPED: [u8; 32] = *b"keyslot: area to be overwritten\0";
