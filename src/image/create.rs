//! Making an image.
//!
//! Everything that takes time or can be refused comes before there is a file; the file has a
//! temporary name until its header is durable. So an interrupted or failed creation leaves nothing
//! under the image's name, and an existing file stays what it was until its successor is complete.
//! A process that is killed meanwhile leaves its file under the temporary name, `.keyslot-` and
//! six letters, in the same directory. A replaced file's owner and mode are kept; other hard
//! links, access lists and extended attributes are not.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::{FallocateFlags, fallocate};
use tempfile::{Builder, NamedTempFile};
use uuid::Uuid;

use crate::amend::commit;
use crate::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen, af};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Header, SlotChange, luks1};
use crate::keyslot::{Cost, Limits, new_digest, seal};
use crate::secret::{Passphrase, VolumeKey};
use crate::storage::sharing::Sharing;
use crate::storage::{Access, FileStorage};

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

/// What is done for the space of an image's payload (QEMU's `preallocation`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Preallocation {
    /// Nothing: the file is sparse.
    #[default]
    Off,
    /// The file system reserves it.
    Falloc,
    /// It is written with zeros.
    Full,
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
        let path = path.as_ref();
        self.try_create(path, size, passphrase).map_err(|error| error.with_path(path))
    }

    fn try_create(&self, path: &Path, size: u64, passphrase: &Passphrase) -> Result<()> {
        let target = Target::check(path, self.overwrite)?;
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
        let sealed = seal(
            &self.cipher,
            self.hash,
            af::STRIPES,
            &volume_key,
            passphrase,
            keyslot_iterations,
        )?;
        let header = Header::Luks1(header);
        let (stages, _) = header.lower(&[SlotChange::Activate { keyslot: 0, sealed }])?;

        let file = target.temporary()?;
        self.fill(file.as_file(), len, payload)?;
        // The header without its keyslot comes first, as before every amendment.
        commit(&FileStorage::open(file.path(), Access::ReadWrite)?, &stages)?;
        target.publish(file)
    }

    fn fill(&self, file: &File, len: u64, payload: u64) -> Result<()> {
        let failed = |e| Error::io(format_args!("allocate {len} bytes"), e);
        file.set_len(len).map_err(failed)?;
        match self.preallocation {
            Preallocation::Off => Ok(()),
            Preallocation::Falloc => {
                let len = i64::try_from(len).map_err(|_| invalid("image size is too large"))?;
                fallocate(file, FallocateFlags::empty(), 0, len).map_err(|e| failed(e.into()))
            }
            Preallocation::Full => {
                let zeros = vec![0; 1 << 20];
                let mut at = payload;
                while at < len {
                    let now = usize::try_from(len - at).unwrap_or(usize::MAX).min(zeros.len());
                    file.write_all_at(&zeros[..now], at).map_err(failed)?;
                    at += now as u64;
                }
                Ok(())
            }
        }
    }
}

/// Where the image will be.
struct Target {
    path: PathBuf,
    /// Opened before there is anything to lose, and synced when there is
    directory: File,
    replaced: Option<Replaced>,
}

/// The file that is replaced.
struct Replaced {
    /// Locked against everybody else, until its successor has its name
    _file: FileStorage,
    metadata: Metadata,
}

impl Target {
    fn check(path: &Path, overwrite: bool) -> Result<Self> {
        let exists = || Error::new(ErrorKind::Exists, "the file exists");
        let Ok(path) = path.canonicalize() else {
            return match path.is_symlink() {
                true if overwrite => Err(invalid("a symbolic link to a file that is not there")),
                true => Err(exists()),
                false => {
                    let directory = open_parent(path)?;
                    Ok(Self { path: path.into(), directory, replaced: None })
                }
            };
        };
        if !overwrite {
            return Err(exists());
        }
        let metadata = path.metadata().map_err(|e| Error::io("look at the file", e))?;
        if !metadata.is_file() {
            return Err(invalid("not a regular file, it cannot be replaced"));
        }
        let file = FileStorage::open_shared(&path, Access::ReadWrite, Sharing::Amend, None)?;
        let replaced = Some(Replaced { _file: file, metadata });
        Ok(Self { directory: open_parent(&path)?, path, replaced })
    }

    /// A file beside it, gone again if it is dropped.
    fn temporary(&self) -> Result<NamedTempFile> {
        let directory = parent(&self.path);
        let failed = |e| Error::io(format_args!("create a file in {}", directory.display()), e);
        // Opened here, so that the error is the system's: tempfile's would name a name that means
        // nothing to anybody.
        let open = |path: &Path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).open(path)
        };
        let file = Builder::new().prefix(".keyslot-").make_in(directory, open).map_err(failed)?;
        if let Some(Replaced { metadata, .. }) = &self.replaced {
            // As its predecessor, whoever runs this and under whatever umask.
            let owner = (metadata.uid(), metadata.gid());
            let ours = file.as_file().metadata().map_err(failed)?;
            if owner != (ours.uid(), ours.gid()) {
                fchown(file.as_file(), Some(owner.0), Some(owner.1))
                    .map_err(|e| Error::io("give the new file its predecessor's owner", e))?;
            }
            let mode = Permissions::from_mode(metadata.permissions().mode() & 0o777);
            file.as_file().set_permissions(mode).map_err(failed)?;
        }
        Ok(file)
    }

    /// Gives the file its name, durably.
    fn publish(self, file: NamedTempFile) -> Result<()> {
        let persisted = match self.replaced {
            Some(_) => file.persist(&self.path),
            None => file.persist_noclobber(&self.path),
        };
        persisted.map_err(|e| Error::io("give the new file its name", e.error))?;
        self.directory.sync_all().map_err(|e| {
            Error::io("sync the directory", e).and("the image is complete, its name may be lost")
        })
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn open_parent(path: &Path) -> Result<File> {
    let directory = parent(path);
    let what = || format!("create a file in {}", directory.display());
    let file = File::open(directory).map_err(|e| Error::io(what(), e))?;
    match file.metadata() {
        Ok(metadata) if !metadata.is_dir() => {
            Err(Error::io(what(), io::ErrorKind::NotADirectory.into()))
        }
        _ => Ok(file),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
