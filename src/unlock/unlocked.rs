//! Recovers a volume key from a keyslot (LUKS1 specification, "master key recovery").

use subtle::ConstantTimeEq;

use super::Limits;
use super::search::{Candidate, Until, search, search_admitted};
use crate::crypto::KdfAlg;
use crate::crypto::kdf::pbkdf2;
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Digest, Header, Keyslot, Priority};
use crate::secret::{Passphrase, VolumeKey};
use crate::storage::Storage;

/// A volume key confirmed by its image's digest, and the keyslot that held it.
#[derive(Debug)]
pub struct Unlocked {
    /// `None` if the caller supplied the key
    keyslot: Option<usize>,
    volume_key: VolumeKey,
    digest: Vec<u8>,
}

impl Unlocked {
    /// Wraps the key of a new image, which is in this keyslot.
    pub(crate) fn new(keyslot: usize, volume_key: VolumeKey, digest: &Digest<'_>) -> Self {
        Self { keyslot: Some(keyslot), volume_key, digest: digest.value.to_vec() }
    }

    /// Index of the keyslot that held the key. `None` if the caller supplied the key.
    pub fn keyslot(&self) -> Option<usize> {
        self.keyslot
    }

    /// The volume key
    pub fn volume_key(&self) -> &VolumeKey {
        &self.volume_key
    }

    /// Whether this is the volume key of the image with this header.
    pub(crate) fn belongs_to(&self, header: &Header) -> bool {
        header.digest().is_some_and(|digest| self.is_of(&digest))
    }

    /// Whether a digest confirms this key.
    pub(crate) fn is_of(&self, digest: &Digest<'_>) -> bool {
        self.digest == digest.value
    }
}

/// Checks a volume key against the digest of the header, without reading a keyslot.
///
/// Fails with [`ErrorKind::WrongSecret`] if the digest does not match, and with [`ErrorKind::Limit`]
/// if the digest asks for more work than `limits` allow.
pub(crate) fn confirm(header: &Header, key: VolumeKey, limits: Limits) -> Result<Unlocked> {
    header.check_supported()?;
    let digest = header.digest().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "the header has no digest of a volume key")
    })?;
    let another = || Error::new(ErrorKind::WrongSecret, "the volume key belongs to another image");
    // The digest does not tell a key from the same with zeros behind it: HMAC pads with zeros.
    if header.key_size().is_some_and(|size| size != key.as_bytes().len()) {
        return Err(another());
    }
    let Digest { hash, iterations, salt, value, .. } = digest;
    let cost = KdfAlg::Pbkdf2 { hash, iterations };
    limits.admit_kdf("the volume key digest", cost, value.len())?;
    let mut found = vec![0; value.len()];
    pbkdf2(hash, key.as_bytes(), salt, iterations, &mut found);
    if !bool::from(found.ct_eq(value)) {
        return Err(another());
    }
    Ok(Unlocked { keyslot: None, volume_key: key, digest: value.to_vec() })
}

/// Tries one keyslot, regardless of its priority and of the key it holds.
///
/// Fails with [`ErrorKind::WrongSecret`] if the keyslot does not open, and with
/// [`ErrorKind::InvalidInput`] if it is inactive or does not exist.
pub fn unlock_keyslot(
    storage: &dyn Storage,
    header: &Header,
    index: usize,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Unlocked> {
    header.check_supported()?;
    let Some(keyslot) = header.keyslot(index).filter(|keyslot| keyslot.active) else {
        return Err(match header.unusable().into_iter().find(|(other, _)| *other == index) {
            Some((_, why)) => cannot_open(index, why),
            None => Error::new(ErrorKind::InvalidInput, format!("keyslot {index} is inactive"))
                .with_keyslot(index),
        });
    };
    let digest = keyslot.digest.value.to_vec();
    let key = opens(storage, &keyslot, passphrase, limits)?;
    let volume_key = key.ok_or_else(|| {
        let text = format!("keyslot {index} does not open with the secret");
        wrong_secret(text, passphrase).with_keyslot(index)
    })?;
    Ok(Unlocked { keyslot: Some(index), volume_key, digest })
}

/// Tries the active keyslots in parallel, preferred ones first, until one opens. Keyslots with
/// priority [`Ignore`](Priority::Ignore) and keyslots without the volume key are not tried.
///
/// If no keyslot opens, the error is [`ErrorKind::Limit`] if one was left out because it exceeds
/// `limits`, [`ErrorKind::Io`] if one could not be read, and otherwise [`ErrorKind::WrongSecret`].
/// [`ErrorKind::Unsupported`] means that no keyslot holds the volume key.
pub fn unlock(
    storage: &dyn Storage,
    header: &Header,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Unlocked> {
    header.check_supported()?;
    header.check_openable()?;
    let is_tried = |keyslot: &Keyslot<'_>| {
        keyslot.active && keyslot.is_bound && keyslot.priority != Priority::Ignore
    };
    let mut keyslots: Vec<_> = header.keyslots().filter(is_tried).collect();
    keyslots.sort_by_key(|keyslot| keyslot.priority);
    let mut untried = None;
    let mut admitted = limits.admit(&keyslots).into_iter();
    for keyslots in keyslots.chunk_by(|one, other| one.priority == other.priority) {
        let candidates = keyslots.iter().cloned().map(|keyslot| Candidate { storage, keyslot });
        let candidates: Vec<_> = candidates.collect();
        let admitted = admitted.by_ref().take(candidates.len()).collect();
        let outcomes = search_admitted(&candidates, passphrase, admitted, Until::First);
        for (keyslot, outcome) in keyslots.iter().zip(outcomes) {
            match outcome {
                Some(Ok(Some(volume_key))) => {
                    let digest = keyslot.digest.value.to_vec();
                    return Ok(Unlocked { keyslot: Some(keyslot.index), volume_key, digest });
                }
                Some(Ok(None)) | None => {}
                // Another keyslot may still open.
                Some(Err(error)) => {
                    untried.get_or_insert(error);
                }
            }
        }
    }
    Err(untried.unwrap_or_else(|| nothing_opens(storage, header, passphrase, limits)))
}

fn nothing_opens(
    storage: &dyn Storage,
    header: &Header,
    passphrase: &Passphrase,
    limits: Limits,
) -> Error {
    if let Some(keyslot) = opened_if_named(storage, header, passphrase, limits) {
        let index = keyslot.index;
        let text = format!("the secret opens keyslot {index}, whose priority is 'ignore'");
        let hint = format!(
            "use 'keyslot config --keyslot {index} --priority normal', or 'keyslot add' with --keyslot {index} --new-keyslot N"
        );
        return Error::new(ErrorKind::WrongSecret, text).with_keyslot(index).with_hint(hint);
    }
    if let (None, Some((index, why))) = (header.keyslots().next(), header.unusable().first()) {
        return cannot_open(*index, why);
    }
    let error = wrong_secret("Invalid password, cannot unlock any keyslot", passphrase);
    if !header.leftovers().is_empty() {
        return error.with_hint(INTERRUPTED);
    }
    let untried = header.unusable().into_iter().chain(header.damaged()).next();
    match untried {
        Some((index, why)) if error.hint().is_none() => {
            error.with_hint(format!("keyslot {index} was not tried: {why}"))
        }
        _ => error,
    }
}

/// Finds a keyslot with priority [`Ignore`](Priority::Ignore) that the passphrase opens.
fn opened_if_named<'a>(
    storage: &dyn Storage,
    header: &'a Header,
    passphrase: &Passphrase,
    limits: Limits,
) -> Option<Keyslot<'a>> {
    let is_ignored = |keyslot: &Keyslot<'_>| {
        keyslot.active && keyslot.is_bound && keyslot.priority == Priority::Ignore
    };
    let keyslots: Vec<_> = header.keyslots().filter(is_ignored).collect();
    let candidates = keyslots.iter().cloned().map(|keyslot| Candidate { storage, keyslot });
    let outcomes = search(&candidates.collect::<Vec<_>>(), passphrase, limits, Until::First);
    let opened = outcomes.iter().position(|outcome| matches!(outcome, Some(Ok(Some(_)))))?;
    keyslots.into_iter().nth(opened)
}

/// Error for a keyslot that this crate cannot open.
pub fn cannot_open(index: usize, why: &str) -> Error {
    let text = format!("keyslot {index} cannot be opened: {why}");
    Error::new(ErrorKind::Unsupported, text).with_keyslot(index)
}

/// Error for a passphrase that does not open a keyslot. Adds a hint if the passphrase itself suggests
/// a reason, such as a trailing newline.
pub fn wrong_secret(text: impl Into<String>, passphrase: &Passphrase) -> Error {
    let error = Error::new(ErrorKind::WrongSecret, text);
    let bytes = passphrase.as_bytes();
    if bytes.ends_with(b"\n") {
        error.with_hint("the secret ends in a newline, which counts as part of it")
    } else if bytes.ends_with(b"\r") {
        error.with_hint("the secret ends in a carriage return, which counts as part of it")
    } else if passphrase.lost_newline() {
        error.with_hint(
            "the newline at the end of stdin was dropped; use fd:0 if the secret has one, as a file made by echo does",
        )
    } else {
        error
    }
}

/// Hint for a failure that an interrupted amendment may explain, because it may have erased the secret.
pub(crate) const INTERRUPTED: &str =
    "an amendment was interrupted: use 'keyslot repair' to finish it, or try the new secret";

/// Returns the key in the keyslot if the passphrase opens it. For a bound keyslot that is the volume key.
pub fn opens(
    storage: &dyn Storage,
    keyslot: &Keyslot<'_>,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Option<VolumeKey>> {
    let candidate = Candidate { storage, keyslot: keyslot.clone() };
    let mut outcomes = search(&[candidate], passphrase, limits, Until::All);
    outcomes.pop().flatten().unwrap_or(Ok(None))
}
