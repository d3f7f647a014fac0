//! Images in memory, small and quick to open: key material of 64000 bytes a keyslot, one
//! iteration.

use std::fmt;
use std::io;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError};

use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen, KdfAlg};
use keyslot::header::luks1;
use keyslot::header::{Header, Scheme, Sealed, SlotChange, Step};
use keyslot::keyslot::{new_digest, seal, unlock};
use keyslot::storage::Storage;
use keyslot::{Limits, Passphrase, Unlocked, VolumeKey};

/// What the keyslots open with; one of them is empty, and one QEMU could not use.
pub const SECRETS: [&[u8]; 4] = [b"first", b"second\n", b"", b"\xff\0"];

pub fn passphrase(secret: usize) -> Passphrase {
    static ALL: LazyLock<[Passphrase; 4]> =
        LazyLock::new(|| SECRETS.map(|bytes| Passphrase::new(bytes).expect("memory")));
    ALL[secret].clone()
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
    let memory = Memory::new(bytes);
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
    let header = luks1::Header::build(cipher.expect("a cipher"), HashAlg::Sha256, &digest, uuid);
    (volume_key, Header::Luks1(header.expect("a valid header")))
}

/// A storage whose clones are the same bytes, and that can be made to fail once.
#[derive(Clone)]
pub struct Memory(Arc<Mutex<State>>);

struct State {
    bytes: Vec<u8>,
    /// So many reads, writes and syncs until one fails
    fault: Option<u8>,
}

impl Memory {
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Mutex::new(State { bytes, fault: None })))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub fn set_fault(&self, after: Option<u8>) {
        self.state().fault = after;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn fails(&mut self) -> io::Result<()> {
        match self.fault.as_mut() {
            Some(0) => {
                self.fault = None;
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

impl Storage for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        state.fails()?;
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(buf.len());
        let bytes = state.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(bytes);
        Ok(())
    }

    /// One that fails writes the first half of its sectors.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state();
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let failed = state.fails();
        let len = if failed.is_err() { buf.len() / 1024 * 512 } else { buf.len() };
        // Never beyond the end: nothing of an amendment makes an image longer.
        state.bytes[start..start + len].copy_from_slice(&buf[..len]);
        failed
    }

    fn sync_data(&self) -> io::Result<()> {
        self.state().fails()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory(..)")
    }
}
