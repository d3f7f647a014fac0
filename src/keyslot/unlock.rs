//! Passphrase and keyslot in, volume key out (LUKS1 specification, "master key recovery").

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Limits;
use crate::crypto::{af, kdf};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, Kdf, Keyslot};
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
        self.digest == header.digest().value
    }
}

/// Tries the active keyslots in their order; the first that opens ends it.
///
/// [`ErrorKind::WrongSecret`] if none does, [`ErrorKind::Limit`] if none does and one was not
/// tried because it asks for more than `limits`, [`ErrorKind::Io`] if it could not be read.
pub fn unlock(
    storage: &dyn Storage,
    header: &Header,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Unlocked> {
    let mut untried = None;
    for keyslot in header.keyslots().filter(|keyslot| keyslot.active) {
        match opens(storage, header, &keyslot, passphrase, limits) {
            Ok(Some(volume_key)) => {
                let digest = header.digest().value.to_vec();
                return Ok(Unlocked { keyslot: keyslot.index, volume_key, digest });
            }
            Ok(None) => {}
            // Another keyslot may open all the same.
            Err(error) if matches!(error.kind(), ErrorKind::Io | ErrorKind::Limit) => {
                untried.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(untried
        .unwrap_or_else(|| wrong_secret("Invalid password, cannot unlock any keyslot", passphrase)))
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

/// The volume key, if the keyslot opens with the passphrase.
pub fn opens(
    storage: &dyn Storage,
    header: &Header,
    keyslot: &Keyslot<'_>,
    passphrase: &Passphrase,
    limits: Limits,
) -> Result<Option<VolumeKey>> {
    let index = keyslot.index;
    let Kdf::Pbkdf2 { hash, iterations, salt } = keyslot.kdf;
    let digest = header.digest();
    limits.admit(format_args!("keyslot {index}"), iterations)?;
    limits.admit("the volume key digest", digest.iterations)?;

    let key_size = keyslot.encryption.key_size();
    let mut key = SecretBytes::zeroed(key_size)?;
    kdf::pbkdf2(hash, passphrase.as_bytes(), salt, iterations, key.as_mut_slice());

    let mut material = Zeroizing::new(vec![0; keyslot.area.len]);
    storage.read_exact_at(&mut material, keyslot.area.offset).map_err(|e| {
        let offset = keyslot.area.offset;
        Error::io(format_args!("read the key material of keyslot {index} at byte {offset}"), e)
    })?;
    keyslot.encryption.sector_cipher(key.as_slice())?.decrypt(0, &mut material);
    let split = key_size * keyslot.stripes as usize;
    let merged = af::merge(keyslot.af_hash, &material[..split], key_size, keyslot.stripes);
    let candidate = VolumeKey::from(SecretBytes::from_slice(&merged)?);

    let mut value = Zeroizing::new(vec![0; digest.value.len()]);
    let password = candidate.as_bytes();
    kdf::pbkdf2(digest.hash, password, digest.salt, digest.iterations, &mut value);
    Ok(bool::from(value.ct_eq(digest.value)).then_some(candidate))
}
