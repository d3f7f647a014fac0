//! New LUKS2 images, with the layout of `cryptsetup luksFormat`.

use uuid::Uuid;

use super::{CreateOptions, Parts, image_len, invalid};
use crate::crypto::{KdfKind, SectorCipher};
use crate::error::Result;
use crate::header::luks2::{Layout, NewHeader, check_cipher, check_digest_size, name};
use crate::header::{Header, Scheme, Template, luks2};
use crate::kdf::digest_iterations;
use crate::secret::{Passphrase, VolumeKey};
use crate::unlock::{new_digest, seal};

/// Options that apply only to LUKS2. The defaults are those of `cryptsetup luksFormat`.
///
/// ```
/// use keyslot::crypto::KdfKind;
/// use keyslot::kdf::{Cost, Pbkdf};
/// use keyslot::{CreateOptions, Format, Luks2Options, Passphrase};
///
/// # fn main() -> keyslot::Result<()> {
/// # let directory = tempfile::tempdir().expect("a directory");
/// # let path = directory.path().join("image.luks");
/// let mut luks2 = Luks2Options::default();
/// luks2.label = "backup".to_owned();
/// // The default is Argon2id with an opening time of two seconds.
/// let pbkdf = Pbkdf::from(Cost::Iterations(1000)).kind(KdfKind::Pbkdf2);
/// let options = CreateOptions::new()?.format(Format::Luks2(luks2)).pbkdf(pbkdf);
/// options.create(&path, 1 << 20, &Passphrase::new(b"hunter0")?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Luks2Options {
    /// Label, up to 47 bytes without control characters. Empty for none
    pub label: String,
    /// Subsystem, up to 47 bytes without control characters. Empty for none
    pub subsystem: String,
    /// Sector size of the encryption in bytes: 512, 1024, 2048 or 4096. It must divide the size of the
    /// payload. The default is 4096 if that divides it, otherwise 512.
    pub sector_size: Option<usize>,
    /// Length in bytes of each copy of the header: a power of 2 from 16 KiB to 4 MiB. The default is
    /// 16 KiB
    pub metadata_size: Option<u64>,
    /// Length in bytes of the region for the areas of keyslots: a multiple of 4096 up to 128 MiB, with
    /// room for at least one keyslot. The default is the rest of 16 MiB.
    pub keyslots_size: Option<u64>,
}

/// Refuses options out of range and combinations that LUKS2 does not support.
pub fn check(options: &CreateOptions, luks2: &Luks2Options, size: u64) -> Result<()> {
    options.pbkdf.check(KdfKind::Argon2id)?;
    check_cipher(&options.cipher)?;
    check_digest_size(options.hash.digest_size())
        .map_err(|error| invalid(format!("hash {}: {}", options.hash.name(), error.message())))?;
    sector_size(luks2.sector_size, size)?;
    image_len(size, layout(options, luks2)?.header_len())?;
    name(&luks2.label, "label")?;
    name(&luks2.subsystem, "subsystem").map(drop)
}

/// Length in bytes of both copies of the header and the areas of its keyslots.
pub fn header_len(options: &CreateOptions, luks2: &Luks2Options) -> Result<u64> {
    layout(options, luks2).map(Layout::header_len)
}

/// Makes a volume key, a header without keyslots, and the key material of the first keyslot.
pub fn make(
    options: &CreateOptions,
    luks2: &Luks2Options,
    size: u64,
    passphrase: &Passphrase,
) -> Result<Parts> {
    let CreateOptions { cipher, hash, pbkdf, limits, .. } = options;
    let volume_key = VolumeKey::random(cipher.key_size())?;
    let iterations = digest_iterations(pbkdf.cost, *hash, hash.digest_size())?;
    let digest = new_digest(*hash, &volume_key, iterations)?;
    let header = luks2::Luks2Header::build(&NewHeader {
        layout: layout(options, luks2)?,
        cipher,
        sector_size: sector_size(luks2.sector_size, size)?,
        digest: &digest,
        uuid: options.uuid.unwrap_or_else(Uuid::new_v4),
        label: &luks2.label,
        subsystem: &luks2.subsystem,
    })?;
    let kdf = pbkdf.settle(&Template {
        encryption: cipher.clone(),
        af_hash: *hash,
        key_size: cipher.key_size(),
        kdf: KdfKind::Argon2id,
        hash: *hash,
        digest: Some(digest),
    })?;
    limits.admit_new("the new secret", kdf, cipher.key_size())?;
    let scheme = Scheme { kdf, encryption: cipher.clone(), af_hash: *hash };
    let sealed = seal(&scheme, &volume_key, passphrase)?;
    Ok(Parts { header: Header::Luks2(header), volume_key, sealed })
}

fn layout(options: &CreateOptions, luks2: &Luks2Options) -> Result<Layout> {
    let key_size = options.cipher.key_size();
    let layout = Layout::new(luks2.metadata_size, luks2.keyslots_size, key_size)?;
    Ok(layout.detached(options.detached))
}

/// Chooses the sector size for `size` bytes of payload, rounded up to 512.
fn sector_size(asked: Option<usize>, size: u64) -> Result<u32> {
    let fits = |sector: u32| {
        let size = size.checked_next_multiple_of(SectorCipher::SECTOR_SIZE as u64);
        size.is_none_or(|size| size.is_multiple_of(sector.into()))
    };
    let [least, .., most] = SECTOR_SIZES;
    let Some(asked) = asked else {
        return Ok(if fits(most) { most } else { least });
    };
    let sector = u32::try_from(asked).ok().filter(|sector| SECTOR_SIZES.contains(sector));
    let sector = sector
        .ok_or_else(|| invalid(format!("sector size {asked}: must be 512, 1024, 2048 or 4096")))?;
    if !fits(sector) {
        let text = format!("the image size {size} is not a multiple of it");
        return Err(invalid(format!("sector size {sector}: {text}")));
    }
    Ok(sector)
}

const SECTOR_SIZES: [u32; 4] = [512, 1024, 2048, 4096];
