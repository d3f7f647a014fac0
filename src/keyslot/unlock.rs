//! Passphrase and keyslot in, volume key out (LUKS1 specification, "master key recovery").

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Limits;
use crate::crypto::{af, kdf};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Digest, Header, Keyslot, Priority};
use crate::secret::{Passphrase, SecretBytes, VolumeKey};
use crate::storage::Storage;

/// A volume key that its image's digest confirms, and the keyslot it came out of.
#[derive(Debug)]
pub struct Unlocked {
    keyslot: usize,
    volume_key: VolumeKey,
    digest: Vec<u8>,
}

impl Unlocked {
    /// Index of the keyslot
    pub fn keyslot(&self) -> usize {
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

    /// Whether this is the key that a digest confirms.
    pub(crate) fn is_of(&self, digest: &Digest<'_>) -> bool {
        self.digest == digest.value
    }
}

/// Tries one keyslot, whatever its priority, and whatever its key is for.
///
/// [`ErrorKind::WrongSecret`] if it does not open, [`ErrorKind::InvalidInput`] if it is inactive
/// or there is none such.
pub fn unlock_keyslot(
    storage: &dyn Storage,
    header: &Header,
    index: usize,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Unlocked> {
    let Some(keyslot) = header.keyslot(index).filter(|keyslot| keyslot.active) else {
        return Err(match header.unusable().into_iter().find(|(other, _)| *other == index) {
            Some((_, why)) => cannot_open(index, why),
            None => Error::new(ErrorKind::InvalidInput, format!("keyslot {index} is inactive")),
        });
    };
    let digest = keyslot.digest.value.to_vec();
    let key = opens(storage, &keyslot, passphrase, limits)?;
    let volume_key = key.ok_or_else(|| {
        let text = format!("keyslot {index} does not open with the secret");
        wrong_secret(text, passphrase)
    })?;
    Ok(Unlocked { keyslot: index, volume_key, digest })
}

/// Tries the active keyslots, those that are preferred before the others; the first that opens ends
/// it. Those that are to be ignored are not tried, nor those that hold no volume key.
///
/// [`ErrorKind::WrongSecret`] if none does, [`ErrorKind::Limit`] if none does and one was not
/// tried because it asks for more than `limits`, [`ErrorKind::Io`] if it could not be read.
pub fn unlock(
    storage: &dyn Storage,
    header: &Header,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Unlocked> {
    let is_tried = |keyslot: &Keyslot<'_>| {
        keyslot.active && keyslot.is_bound && keyslot.priority != Priority::Ignore
    };
    let mut keyslots: Vec<_> = header.keyslots().filter(is_tried).collect();
    keyslots.sort_by_key(|keyslot| keyslot.priority);
    let mut untried = None;
    for keyslot in keyslots {
        match opens(storage, &keyslot, passphrase, limits) {
            Ok(Some(volume_key)) => {
                let digest = keyslot.digest.value.to_vec();
                return Ok(Unlocked { keyslot: keyslot.index, volume_key, digest });
            }
            Ok(None) => {}
            // Another keyslot may open all the same.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::Io | ErrorKind::Limit | ErrorKind::OutOfMemory
                ) =>
            {
                untried.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(untried.unwrap_or_else(|| nothing_opens(header, passphrase)))
}

fn nothing_opens(header: &Header, passphrase: &Passphrase) -> Error {
    if let (None, Some((index, why))) = (header.keyslots().next(), header.unusable().first()) {
        return cannot_open(*index, why);
    }
    let error = wrong_secret("Invalid password, cannot unlock any keyslot", passphrase);
    match header.unusable().first() {
        Some((index, why)) if error.hint().is_none() => {
            error.with_hint(format!("keyslot {index} was not tried: {why}"))
        }
        _ => error,
    }
}

/// The error of a keyslot that this crate cannot open.
pub fn cannot_open(index: usize, why: &str) -> Error {
    Error::new(ErrorKind::Unsupported, format!("keyslot {index} cannot be opened: {why}"))
}

/// The error of a passphrase that does not open what it should: `text`, and a hint if there is
/// something about the passphrase that may be the reason.
pub fn wrong_secret(text: impl Into<String>, passphrase: &Passphrase) -> Error {
    let error = Error::new(ErrorKind::WrongSecret, text);
    if passphrase.ends_with_newline() {
        error.with_hint("the secret ends in a newline, which counts as part of it")
    } else {
        error
    }
}

/// The key in the keyslot, if it opens with the passphrase: the volume key, if it is bound.
pub fn opens(
    storage: &dyn Storage,
    keyslot: &Keyslot<'_>,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Option<VolumeKey>> {
    let Keyslot { index, digest, key_size, .. } = keyslot;
    limits.admit_kdf(format_args!("keyslot {index}"), keyslot.kdf.alg)?;
    limits.admit("the volume key digest", digest.iterations)?;

    let mut key = SecretBytes::zeroed(keyslot.encryption.key_size())?;
    keyslot.kdf.alg.derive(passphrase.as_bytes(), keyslot.kdf.salt, key.as_mut_slice())?;

    let mut material = Zeroizing::new(vec![0; keyslot.area.len]);
    storage.read_exact_at(&mut material, keyslot.area.offset).map_err(|e| {
        let offset = keyslot.area.offset;
        Error::io(format_args!("read the key material of keyslot {index} at byte {offset}"), e)
    })?;
    keyslot.encryption.sector_cipher(key.as_slice())?.decrypt(0, &mut material);
    let split = key_size * keyslot.stripes as usize;
    let merged = af::merge(keyslot.af_hash, &material[..split], *key_size, keyslot.stripes);
    let candidate = VolumeKey::from(SecretBytes::from_slice(&merged)?);

    let mut value = Zeroizing::new(vec![0; digest.value.len()]);
    let password = candidate.as_bytes();
    kdf::pbkdf2(digest.hash, password, digest.salt, digest.iterations, &mut value);
    Ok(bool::from(value.ct_eq(digest.value)).then_some(candidate))
}
