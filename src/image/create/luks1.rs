//! New LUKS1 images, with QEMU's layout.

use uuid::Uuid;

use super::{CreateOptions, Parts, invalid};
use crate::crypto::{KdfAlg, KdfKind};
use crate::error::Result;
use crate::header::{Header, Scheme, luks1};
use crate::secret::{Passphrase, VolumeKey};
use crate::unlock::{new_digest, seal};

/// Refuses options that LUKS1 does not support.
pub fn check(options: &CreateOptions) -> Result<()> {
    if options.pbkdf.kind_or(KdfKind::Pbkdf2) != KdfKind::Pbkdf2 {
        return Err(invalid("LUKS1 supports only pbkdf2"));
    }
    options.pbkdf.check(KdfKind::Pbkdf2)
}

/// Length in bytes of the header and the areas of its eight keyslots.
pub fn header_len(options: &CreateOptions) -> u64 {
    luks1::header_len(&options.cipher)
}

/// Makes a volume key, a header without keyslots, and the key material of the first keyslot.
pub fn make(options: &CreateOptions, passphrase: &Passphrase) -> Result<Parts> {
    let CreateOptions { cipher, hash, pbkdf, limits, .. } = options;
    let (keyslot_iterations, digest_iterations) = pbkdf.cost.split(cipher, *hash)?;
    let kdf = KdfAlg::Pbkdf2 { hash: *hash, iterations: keyslot_iterations };
    limits.admit_new("the new secret", kdf, cipher.key_size())?;
    let volume_key = VolumeKey::random(cipher.key_size())?;
    let digest = new_digest(*hash, &volume_key, digest_iterations)?;
    let uuid = options.uuid.unwrap_or_else(Uuid::new_v4).hyphenated().to_string();
    let header = luks1::Luks1Header::build(cipher.clone(), *hash, &digest, &uuid)?;
    let scheme = Scheme { kdf, encryption: cipher.clone(), af_hash: *hash };
    let sealed = seal(&scheme, &volume_key, passphrase)?;
    let header = Header::Luks1(if options.detached { header.detached() } else { header });
    Ok(Parts { header, volume_key, sealed })
}
