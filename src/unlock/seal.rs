//! Seals a volume key under a passphrase (LUKS1 specification, "adding new passwords").

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::crypto::{HashAlg, SectorCipher, af, kdf, random};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{OwnedDigest, Scheme, Sealed};
use crate::kdf::LUKS1_DIGEST_SIZE;
use crate::secret::{Passphrase, SecretBytes, VolumeKey};
use crate::storage::check_room;

/// Makes the key material of a keyslot: the key, split and encrypted under the passphrase.
pub fn seal(scheme: &Scheme, key: &VolumeKey, passphrase: &Passphrase) -> Result<Sealed> {
    let mut salt = [0; 32];
    random::fill(&mut salt)?;
    seal_with_salt(scheme, salt, key, passphrase)
}

/// Makes key material like [`seal`], with a given salt.
pub(crate) fn seal_with_salt(
    scheme: &Scheme,
    salt: [u8; 32],
    key: &VolumeKey,
    passphrase: &Passphrase,
) -> Result<Sealed> {
    let mut derived = SecretBytes::zeroed(scheme.encryption.key_size())?;
    scheme.kdf.derive(passphrase.as_bytes(), &salt, derived.as_mut_slice())?;
    let cipher = scheme.encryption.sector_cipher(derived.as_slice())?;

    let key = key.as_bytes();
    // Room for four copies: the split key, the padded, the encrypted, and the shared bytes.
    let room = key.len().saturating_mul(4 * af::STRIPES as usize);
    check_room(room).map_err(|e| Error::io("make key material", e))?;
    let split = af::split(scheme.af_hash, key, af::STRIPES, &mut random::fill)?;
    let len = split.len().next_multiple_of(SectorCipher::SECTOR_SIZE);
    let mut plain = Zeroizing::new(vec![0; len]);
    plain[..split.len()].copy_from_slice(&split);
    let mut material = plain.clone();
    cipher.encrypt(0, &mut material);

    // Merge the new material before anything depends on it. The commit verifies the bytes on disk.
    cipher.decrypt_to(0, &material, &mut plain);
    let merged = af::merge(scheme.af_hash, &plain[..split.len()], key.len(), af::STRIPES);
    if !bool::from(merged.ct_eq(key)) {
        let text = "new key material does not open: memory or CPU is faulty";
        return Err(Error::new(ErrorKind::Differs, text));
    }
    let material = material.as_slice().into();
    Ok(Sealed { scheme: scheme.clone(), salt, key_size: key.len(), material })
}

/// Makes the digest of a new volume key. Its length is that of the hash's output, as in cryptsetup, but
/// at least the 20 bytes that LUKS1 stores.
pub fn new_digest(hash: HashAlg, volume_key: &VolumeKey, iterations: u32) -> Result<OwnedDigest> {
    let value = vec![0; hash.digest_size().max(LUKS1_DIGEST_SIZE)];
    let mut digest = OwnedDigest { hash, iterations, salt: vec![0; 32], value };
    random::fill(&mut digest.salt)?;
    kdf::pbkdf2(hash, volume_key.as_bytes(), &digest.salt, iterations, &mut digest.value);
    Ok(digest)
}
