//! Results of earlier unlock attempts, so that no KDF runs twice.
//!
//! No passphrase is kept, right or wrong. An attempt is identified by a keyed digest of its passphrase.
//! The key is in secret memory and is dropped when the header changes. Without it, a digest in a core
//! dump or in swap reveals nothing about the passphrase.

use std::collections::VecDeque;
use std::fmt;

use crate::crypto::{HashAlg, kdf, random};
use crate::error::Result;
use crate::secret::{Passphrase, SecretBytes};

/// Attempts on the keyslots of one header. The oldest are dropped when there are too many.
#[derive(Default)]
pub(super) struct Tried {
    /// Key of the digests. `None` before the first attempt.
    key: Option<SecretBytes>,
    attempts: VecDeque<Attempt>,
}

/// Keyed digest that identifies a passphrase within one set of attempts.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(super) struct Tag([u8; 32]);

struct Attempt {
    keyslot: usize,
    secret: Tag,
    opens: bool,
}

impl Tried {
    /// Computes the tag of a passphrase. `None` if memory or randomness for a key is not available; the
    /// attempt is then not remembered.
    pub(super) fn tag(&mut self, secret: &Passphrase) -> Option<Tag> {
        if self.key.is_none() {
            self.key = new_key().ok();
        }
        let key = self.key.as_ref()?;
        let mut tag = Tag([0; 32]);
        kdf::pbkdf2(HashAlg::Sha256, secret.as_bytes(), key.as_slice(), ITERATIONS, &mut tag.0);
        Some(tag)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.attempts.is_empty()
    }

    /// Whether the passphrase opens the keyslot, if it was tried.
    pub(super) fn known(&self, keyslot: usize, secret: Tag) -> Option<bool> {
        let is_it = |it: &&Attempt| it.keyslot == keyslot && it.secret == secret;
        self.attempts.iter().find(is_it).map(|it| it.opens)
    }

    /// Remembers the result of an attempt.
    pub(super) fn remember(&mut self, keyslot: usize, secret: Tag, opens: bool) {
        self.attempts.retain(|it| it.keyslot != keyslot || it.secret != secret);
        if self.attempts.len() == MOST_ATTEMPTS {
            self.attempts.pop_front();
        }
        self.attempts.push_back(Attempt { keyslot, secret, opens });
    }

    /// Forgets all attempts, and the key of their digests.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

impl fmt::Debug for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tried({} attempts)", self.attempts.len())
    }
}

fn new_key() -> Result<SecretBytes> {
    let mut key = SecretBytes::zeroed(32)?;
    random::fill(key.as_mut_slice())?;
    Ok(key)
}

/// Maximum of remembered attempts: four passphrases on each of the 32 keyslots of LUKS2.
const MOST_ATTEMPTS: usize = 128;
/// PBKDF2 iterations of a digest. They take a tenth of a millisecond and slow a search for the
/// passphrase if the key ever leaks.
const ITERATIONS: u32 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn passphrase(number: usize) -> Passphrase {
        Passphrase::new(number.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn attempts_are_known_until_the_header_changes() {
        let mut tried = Tried::default();
        let [one, other] = [1, 2].map(|number| tried.tag(&passphrase(number)).unwrap());
        tried.remember(0, one, true);
        tried.remember(1, one, false);
        tried.remember(1, other, true);
        assert!(tried.tag(&passphrase(1)) == Some(one));
        let known = [(0, one), (1, one), (0, other), (1, other)].map(|(k, s)| tried.known(k, s));
        assert_eq!(known, [Some(true), Some(false), None, Some(true)]);
        tried.remember(1, one, true);
        assert_eq!(tried.known(1, one), Some(true));
        tried.clear();
        assert_eq!(tried.known(0, one), None);
        assert!(tried.tag(&passphrase(1)) != Some(one), "the key is another one");
    }

    #[test]
    fn the_oldest_attempts_go() {
        let mut tried = Tried::default();
        for number in 0..=MOST_ATTEMPTS {
            let tag = tried.tag(&passphrase(number)).unwrap();
            tried.remember(7, tag, false);
        }
        assert_eq!(tried.attempts.len(), MOST_ATTEMPTS);
        let [first, last] = [0, MOST_ATTEMPTS].map(|number| tried.tag(&passphrase(number)));
        assert_eq!(tried.known(7, first.unwrap()), None);
        assert_eq!(tried.known(7, last.unwrap()), Some(false));
        assert_eq!(format!("{tried:?}"), format!("Tried({MOST_ATTEMPTS} attempts)"));
    }
}
