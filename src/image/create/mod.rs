//! Creates images.
//!
//! All checks and slow steps come before a file exists, and the file has no name until it is complete
//! and durable.

mod created;
#[cfg(feature = "file")]
mod file;
mod luks1;
mod luks2;
mod place;

use uuid::Uuid;

pub use self::created::Created;
#[cfg(feature = "file")]
pub use self::file::NewImage;
pub use self::luks2::Luks2Options;
use crate::amend::commit;
use crate::container::Qcow2Options;
use crate::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::header::{Header, Sealed, SlotChange};
use crate::kdf::{Cost, Pbkdf};
use crate::secret::{Passphrase, VolumeKey};
#[cfg(feature = "file")]
use crate::storage::Preallocation;
use crate::storage::Storage;
use crate::unlock::{Limits, Unlocked};

/// Options for creating an image. The defaults are QEMU's: LUKS1 with aes-256, xts, plain64, sha256,
/// and a keyslot that takes two seconds to open. For [LUKS2](Self::format) they are cryptsetup's.
///
/// Only the area of the first keyslot is written; the areas of the others stay holes. (cryptsetup fills
/// them with random bytes, which hide nothing, because the header says which keyslots are in use.)
#[derive(Clone, Debug)]
pub struct CreateOptions {
    format: Format,
    cipher: CipherSpec,
    hash: HashAlg,
    pbkdf: Pbkdf,
    uuid: Option<Uuid>,
    #[cfg(feature = "file")]
    preallocation: Preallocation,
    limits: Limits,
    overwrite: bool,
    #[cfg(feature = "file")]
    keep_file: bool,
    detached: bool,
}

/// Format of a new image, with the options that apply only to it.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum Format {
    /// LUKS1
    #[default]
    Luks1,
    /// LUKS2
    Luks2(Luks2Options),
    /// qcow2 with LUKS1 encryption
    Qcow2(Qcow2Options),
}

impl CreateOptions {
    /// Creates options with QEMU's defaults.
    pub fn new() -> Result<Self> {
        Ok(Self {
            format: Format::Luks1,
            cipher: CipherSpec::new(Cipher::Aes, CipherMode::Xts, IvGen::Plain64, None, 64)?,
            hash: HashAlg::Sha256,
            pbkdf: Pbkdf::default(),
            uuid: None,
            #[cfg(feature = "file")]
            preallocation: Preallocation::Off,
            limits: Limits::default(),
            overwrite: false,
            #[cfg(feature = "file")]
            keep_file: false,
            detached: false,
        })
    }

    /// Sets the format of the image.
    #[must_use]
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// Sets the cipher of key material and payload.
    #[must_use]
    pub fn cipher(mut self, cipher: CipherSpec) -> Self {
        self.cipher = cipher;
        self
    }

    /// Sets the hash of PBKDF2, of the anti-forensic split, and of the volume key's digest.
    #[must_use]
    pub fn hash(mut self, hash: HashAlg) -> Self {
        self.hash = hash;
        self
    }

    /// Sets the cost of opening the keyslot.
    #[must_use]
    pub fn cost(mut self, cost: Cost) -> Self {
        self.pbkdf.cost = cost;
        self
    }

    /// Sets the KDF of the keyslot, including its cost. LUKS1 supports only PBKDF2. The default for
    /// LUKS2 is Argon2id.
    #[must_use]
    pub fn pbkdf(mut self, pbkdf: Pbkdf) -> Self {
        self.pbkdf = pbkdf;
        self
    }

    /// Sets the UUID. The default is random.
    #[must_use]
    pub fn uuid(mut self, uuid: Uuid) -> Self {
        self.uuid = Some(uuid);
        self
    }

    /// Sets limits on the work of opening the image.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Permits replacing an existing file, which happens once the new one is complete.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Treats an existing file as [`Place::keep_file`](crate::storage::Place::keep_file) does.
    #[cfg(feature = "file")]
    #[must_use]
    pub fn keep_file(mut self, keep_file: bool) -> Self {
        self.keep_file = keep_file;
        self
    }

    /// Makes the header detached. [`create`](Self::create) then makes a file with the header alone.
    /// The payload of `size` bytes goes into another file, where it begins at byte 0.
    #[must_use]
    pub fn detached(mut self, detached: bool) -> Self {
        self.detached = detached;
        self
    }

    /// Checks quickly whether an image with these options and `size` bytes of payload can be created.
    /// Fails with [`ErrorKind::InvalidInput`] or [`ErrorKind::Unsupported`] if not.
    pub fn check(&self, size: u64) -> Result<()> {
        match &self.format {
            Format::Luks1 => luks1::check(self),
            Format::Qcow2(_) if self.detached => {
                Err(invalid("the LUKS header of a qcow2 image cannot be detached"))
            }
            Format::Qcow2(options) => {
                luks1::check(self)?;
                options.build(round_up(size)?, luks1::header_len(self)).map(drop)
            }
            Format::Luks2(options) => luks2::check(self, options, size),
        }
    }

    /// Length in bytes of the header with the areas of its keyslots. The payload begins after it.
    pub fn header_len(&self) -> Result<u64> {
        match &self.format {
            Format::Luks1 | Format::Qcow2(_) => Ok(luks1::header_len(self)),
            Format::Luks2(options) => luks2::header_len(self, options),
        }
    }

    /// Derives the key material of the first keyslot and does all other slow work.
    fn make(&self, size: u64, passphrase: &Passphrase) -> Result<Parts> {
        match &self.format {
            Format::Luks1 | Format::Qcow2(_) => luks1::make(self, passphrase),
            Format::Luks2(options) => luks2::make(self, options, size, passphrase),
        }
    }
}

/// Parts of a new image.
struct Parts {
    /// Header without keyslots
    header: Header,
    volume_key: VolumeKey,
    /// Key material of keyslot 0
    sealed: Sealed,
}

impl Parts {
    /// Writes the header with its keyslot durably. `on_failure` describes the state after an error.
    fn write(self, storage: &dyn Storage, on_failure: &str) -> Result<(Header, Unlocked)> {
        let Self { header: empty, volume_key, sealed, .. } = self;
        let (mut stages, header) = empty.lower(&[SlotChange::Activate { keyslot: 0, sealed }])?;
        // A LUKS1 header is amended in place, so the header without keyslots is written first.
        if let Some(empty) = empty.luks1() {
            let failed = |error| {
                let object = format_args!("the header; {on_failure}");
                Error::failed(Operation::Write, object, error).with_offset(0)
            };
            storage.write_all_at(empty.as_bytes(), 0).map_err(failed)?;
        }
        for stage in &mut stages {
            // The steps' own texts describe an image that has keyslots, which does not exist yet.
            on_failure.clone_into(&mut stage.on_failure);
        }
        commit(storage, stages.into_iter().map(Ok))?;
        let digest = header.digest().ok_or_else(|| invalid("the new header has no digest"))?;
        let unlocked = Unlocked::new(0, volume_key, &digest);
        Ok((header, unlocked))
    }
}

/// Length in bytes of a file with `size` bytes of payload, which are rounded up to a sector.
fn image_len(size: u64, payload_offset: u64) -> Result<u64> {
    let len = round_up(size)?.checked_add(payload_offset);
    len.filter(|&len| i64::try_from(len).is_ok()).ok_or_else(|| too_large(size))
}

/// Rounds a size in bytes up to a sector.
fn round_up(size: u64) -> Result<u64> {
    size.checked_next_multiple_of(512).ok_or_else(|| too_large(size))
}

fn too_large(size: u64) -> Error {
    invalid(format!("image size {size} is too large"))
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
