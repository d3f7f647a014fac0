//! Images in memory, small and quick to open: key material of 64000 bytes a keyslot, one
//! iteration.

use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen, KdfAlg};
use keyslot::header::luks1;
use keyslot::header::{Header, Scheme, Sealed, SlotChange, Step};
use keyslot::storage::{MemoryStorage, Storage};
use keyslot::unlock::{new_digest, seal, unlock};
use keyslot::{Image, Limits, OpenOptions, Passphrase, Result, Sharing, Unlocked, VolumeKey};

use super::watched::{Watch, Watched};

/// What the keyslots open with; one of them is empty, and one QEMU could not use.
pub const SECRETS: [&[u8]; 4] = [b"first", b"second\n", b"", b"\xff\0"];

pub fn passphrase(secret: usize) -> Passphrase {
    static ALL: LazyLock<[Passphrase; 4]> =
        LazyLock::new(|| SECRETS.map(|bytes| Passphrase::new(bytes).expect("memory")));
    ALL[secret].clone()
}

/// An image on this storage, to be read and changed.
pub fn open_on(storage: impl Storage + 'static, limits: Limits) -> Result<Image> {
    OpenOptions::new().sharing(Sharing::Amend).limits(limits).open_storage(Arc::new(storage))
}

/// The volume key of every [`image`].
pub fn unlocked() -> &'static Unlocked {
    static UNLOCKED: LazyLock<Unlocked> = LazyLock::new(|| {
        let image = image([Some(0), None, None, None, None, None, None, None]);
        let header = Header::read(&image).expect("a header");
        unlock(&image, &header, &passphrase(0), Limits::NONE).expect("its secret")
    });
    &UNLOCKED
}

/// An image with one sector of payload, and these secrets in its keyslots.
pub fn image(secrets: [Option<usize>; 8]) -> Memory {
    static VIRGIN: LazyLock<(VolumeKey, Header)> = LazyLock::new(virgin);
    static SEALED: [[OnceLock<Sealed>; SECRETS.len()]; 8] =
        [const { [const { OnceLock::new() }; SECRETS.len()] }; 8];
    let (volume_key, header) = &*VIRGIN;
    let sealed = |keyslot: usize, secret: usize| {
        let seal = || {
            let (cipher, secret) = (header.cipher().expect("AES"), passphrase(secret));
            let kdf = KdfAlg::Pbkdf2 { hash: HashAlg::Sha256, iterations: 1 };
            let af_hash = HashAlg::Sha256;
            let scheme = Scheme { kdf, encryption: cipher.clone(), af_hash };
            seal(&scheme, volume_key, &secret).expect("memory")
        };
        SlotChange::Activate { keyslot, sealed: SEALED[keyslot][secret].get_or_init(seal).clone() }
    };
    let secrets = secrets.into_iter().enumerate();
    let changes: Vec<_> = secrets.filter_map(|(i, secret)| Some(sealed(i, secret?))).collect();
    let (stages, _) = header.lower(&changes).expect("all were inactive");

    let Header::Luks1(raw) = header else { unreachable!("it was built as LUKS1") };
    let len = usize::try_from(header.payload_offset()).expect("small") + 512;
    let mut bytes = vec![0x5a; len];
    bytes[..raw.as_bytes().len()].copy_from_slice(raw.as_bytes());
    for area in header.keyslots().map(|keyslot| keyslot.area) {
        let start = usize::try_from(area.offset).expect("small");
        bytes[start..start + area.len].fill(0);
    }
    let memory = memory(bytes);
    for step in stages.iter().flat_map(|stage| &stage.steps) {
        if let Step::Write { offset, bytes } = step {
            memory.write_all_at(bytes, *offset).expect("no fault");
        }
    }
    memory
}

fn virgin() -> (VolumeKey, Header) {
    let volume_key = VolumeKey::random(16).expect("random bytes");
    let cipher = CipherSpec::new(Cipher::Aes, CipherMode::Cbc, IvGen::Plain64, None, 16);
    let digest = new_digest(HashAlg::Sha256, &volume_key, 1).expect("random bytes");
    let uuid = "00000000-0000-4000-8000-000000000000";
    let header =
        luks1::Luks1Header::build(cipher.expect("a cipher"), HashAlg::Sha256, &digest, uuid);
    (volume_key, Header::Luks1(header.expect("a valid header")))
}

/// A storage whose clones are the same bytes, and that can be made to fail once.
pub type Memory = Arc<Watched<Faulty>>;

#[derive(Debug)]
pub struct Faulty {
    bytes: MemoryStorage,
    /// So many reads, writes and syncs until one fails
    fault: Mutex<Option<u8>>,
}

pub fn memory(bytes: Vec<u8>) -> Memory {
    Arc::new(Watched(Faulty { bytes: MemoryStorage::new(bytes), fault: Mutex::default() }))
}

impl Faulty {
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    pub fn set_fault(&self, after: Option<u8>) {
        *self.fault() = after;
    }

    fn fault(&self) -> MutexGuard<'_, Option<u8>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fails(&self) -> io::Result<()> {
        let mut fault = self.fault();
        match fault.as_mut() {
            Some(0) => {
                *fault = None;
                Err(io::Error::other("as was asked for"))
            }
            Some(count) => {
                *count -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Watch for Faulty {
    fn below(&self) -> &dyn Storage {
        &self.bytes
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.fails()?;
        self.bytes.read_exact_at(buf, offset)
    }

    /// One that fails writes the first half of its sectors.
    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let failed = self.fails();
        let len = if failed.is_err() { buf.len() / 1024 * 512 } else { buf.len() };
        // Never beyond the end: nothing of an amendment makes an image longer.
        self.bytes.write_all_at(&buf[..len], offset).expect("it is within the image");
        failed
    }

    fn sync(&self) -> io::Result<()> {
        self.fails()
    }
}
