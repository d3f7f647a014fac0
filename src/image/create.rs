//! Making an image.
//!
//! Everything that takes time or can be refused comes before there is a file, and the file has no
//! name until it is complete and durable (see [`storage::new_file`](crate::storage::NewFile)).

use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::amend::commit;
use crate::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen, KdfAlg};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, Scheme, SlotChange, luks1};
use crate::keyslot::{Cost, Limits, new_digest, seal, unlock};
use crate::secret::{Passphrase, VolumeKey};
use crate::storage::{FileStorage, NewFile, Place, Preallocation, Storage};
use crate::volume::Volume;

/// How a LUKS1 image is made. The defaults are QEMU's: aes-256, xts, plain64, sha256, and a
/// keyslot that takes two seconds to open.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    cipher: CipherSpec,
    hash: HashAlg,
    cost: Cost,
    preallocation: Preallocation,
    limits: Limits,
    overwrite: bool,
}

impl CreateOptions {
    /// QEMU's defaults.
    pub fn new() -> Result<Self> {
        Ok(Self {
            cipher: CipherSpec::new(Cipher::Aes, CipherMode::Xts, IvGen::Plain64, None, 64)?,
            hash: HashAlg::Sha256,
            cost: Cost::default(),
            preallocation: Preallocation::Off,
            limits: Limits::default(),
            overwrite: false,
        })
    }

    /// Cipher of key material and payload.
    #[must_use]
    pub fn cipher(mut self, cipher: CipherSpec) -> Self {
        self.cipher = cipher;
        self
    }

    /// Hash of PBKDF2 and of the anti-forensic split.
    #[must_use]
    pub fn hash(mut self, hash: HashAlg) -> Self {
        self.hash = hash;
        self
    }

    /// How long an opening shall take.
    #[must_use]
    pub fn cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// What is done for the space of the payload.
    #[must_use]
    pub fn preallocation(mut self, preallocation: Preallocation) -> Self {
        self.preallocation = preallocation;
        self
    }

    /// How much work the image may ask of whoever opens it.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether an existing file may be replaced, once the new one is complete.
    #[must_use]
    pub fn overwrite(mut self, overwrite: bool) -> Self {
        self.overwrite = overwrite;
        self
    }

    /// Makes an image with `size` bytes of payload (rounded up to a sector) that opens with
    /// `passphrase`, in keyslot 0.
    ///
    /// [`ErrorKind::Exists`] if there is a file of this name and it may not be replaced,
    /// [`ErrorKind::InUse`] if it may, but somebody has it open.
    pub fn create(&self, path: impl AsRef<Path>, size: u64, passphrase: &Passphrase) -> Result<()> {
        self.begin(path, size, passphrase)?.finish()
    }

    /// The same, but for the end of it: the image has no name until it is
    /// [finished](NewImage::finish), so that it can be filled before.
    pub fn begin(
        &self,
        path: impl AsRef<Path>,
        size: u64,
        passphrase: &Passphrase,
    ) -> Result<NewImage> {
        let path = path.as_ref();
        self.try_begin(path, size, passphrase).map_err(|error| error.with_path(path))
    }

    fn try_begin(&self, path: &Path, size: u64, passphrase: &Passphrase) -> Result<NewImage> {
        let place = Place::new(path, self.overwrite)?;
        let (keyslot_iterations, digest_iterations) = self.cost.split(&self.cipher, self.hash)?;
        self.limits.admit("the new secret", keyslot_iterations)?;
        let volume_key = VolumeKey::random(self.cipher.key_size())?;
        let digest = new_digest(self.hash, &volume_key, digest_iterations)?;
        let uuid = Uuid::new_v4().hyphenated().to_string();
        let header = luks1::Header::build(self.cipher.clone(), self.hash, &digest, &uuid)?;
        let payload = header.payload_offset();
        let len = size
            .checked_next_multiple_of(512)
            .and_then(|size| size.checked_add(payload))
            .filter(|&len| i64::try_from(len).is_ok())
            .ok_or_else(|| {
                let text = format!("image size {size} is too large");
                invalid(text)
            })?;
        let scheme = Scheme {
            kdf: KdfAlg::Pbkdf2 { hash: self.hash, iterations: keyslot_iterations },
            encryption: self.cipher.clone(),
            af_hash: self.hash,
        };
        let sealed = seal(&scheme, &volume_key, passphrase)?;
        let header = Header::Luks1(header);
        let (stages, header) = header.lower(&[SlotChange::Activate { keyslot: 0, sealed }])?;

        let file = place.create(len, self.preallocation)?;
        // The header without its keyslot comes first, as before every amendment.
        commit(file.storage().as_ref(), &stages)?;
        let storage: Arc<dyn Storage> = Arc::<FileStorage>::clone(file.storage());
        let volume = Volume::new(storage, header.segments(len)?, &volume_key)?.with_path(path);
        Ok(NewImage { file, volume })
    }
}

/// An image that is complete but for its name. If it is dropped, there was none.
#[derive(Debug)]
pub struct NewImage {
    file: NewFile,
    volume: Volume,
}

impl NewImage {
    /// What is in it: nothing yet, which decrypts to noise.
    pub fn volume(&self) -> &Volume {
        &self.volume
    }

    /// The image's file
    pub fn file(&self) -> &FileStorage {
        self.file.storage()
    }

    /// Reads the header and opens it with the passphrase, as whoever opens the image will.
    pub fn check(&self, passphrase: &Passphrase) -> Result<()> {
        let file = self.file();
        Header::read(file)
            .and_then(|header| unlock(file, &header, passphrase, Limits::NONE))
            .map(drop)
            .map_err(|error| error.with_path(file.path()))
    }

    /// Makes all of it durable, and gives it its name.
    pub fn finish(self) -> Result<()> {
        self.file.publish()
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
