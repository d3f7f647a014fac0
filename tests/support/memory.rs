//! An image in memory, and a storage that remembers what was written and when it was synced.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use keyslot::crypto::{CipherSpec, HashAlg, KdfAlg};
use keyslot::header::{Header, Scheme, SlotChange, Step, luks1};
use keyslot::storage::{MemoryStorage, Storage};
use keyslot::unlock::{new_digest, seal};
use keyslot::{Passphrase, VolumeKey};

use super::watched::{Watch, Watched};

/// One thing that happened to a storage.
#[derive(Clone, Debug)]
pub enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    Sync,
}

/// Bytes in memory, with a log; operation number `fails` (from 0) and all later ones fail.
pub type Memory = Watched<Log>;

#[derive(Debug)]
pub struct Log {
    bytes: MemoryStorage,
    done: Mutex<Vec<Op>>,
    fails: Option<usize>,
}

impl Watched<Log> {
    pub fn new(bytes: Vec<u8>, fails: Option<usize>) -> Arc<Self> {
        let (bytes, done) = (MemoryStorage::new(bytes), Mutex::default());
        Arc::new(Self(Log { bytes, done, fails }))
    }
}

impl Log {
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }

    pub fn log(&self) -> Vec<Op> {
        self.done.lock().unwrap().clone()
    }

    fn is_broken(&self, log: &[Op]) -> bool {
        self.fails.is_some_and(|fails| log.len() >= fails)
    }
}

impl Watch for Log {
    fn below(&self) -> &dyn Storage {
        &self.bytes
    }

    /// A write that fails has written about half of its sectors: a disk ran full. It is logged as
    /// a whole, as any of them may be on the disk.
    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut log = self.done.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let broken = self.is_broken(&log);
        let end = start + buf.len();
        let end = if broken { (usize::midpoint(start, end) / 512 * 512).max(start) } else { end };
        self.bytes.write_all_at(&buf[..end - start], offset).unwrap();
        // A page cache writes whole sectors, with what else is in them.
        let len = usize::try_from(self.bytes.len()?).unwrap();
        let whole = start / 512 * 512..(start + buf.len()).next_multiple_of(512).min(len);
        let mut bytes = vec![0; whole.len()];
        self.bytes.read_exact_at(&mut bytes, whole.start as u64).unwrap();
        bytes[start - whole.start..][..buf.len()].copy_from_slice(buf);
        log.push(Op::Write { offset: whole.start, bytes });
        if broken { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut log = self.done.lock().unwrap();
        if self.is_broken(&log) {
            return Err(io::Error::other("the medium is gone"));
        }
        log.push(Op::Sync);
        Ok(())
    }
}

/// A storage that forgets what is written to a range, and says nothing.
pub type Forgetful = Watched<Forgets>;

#[derive(Debug)]
pub struct Forgets {
    pub memory: Arc<Memory>,
    pub forgets: Range<u64>,
}

impl Watch for Forgets {
    fn below(&self) -> &dyn Storage {
        &self.memory
    }

    fn write(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.forgets.contains(&offset) { Ok(()) } else { self.memory.write_all_at(buf, offset) }
    }
}

/// PBKDF2 of this hash, which is that of the splitter too.
pub fn scheme(encryption: &CipherSpec, hash: HashAlg, iterations: u32) -> Scheme {
    let kdf = KdfAlg::Pbkdf2 { hash, iterations };
    Scheme { kdf, encryption: encryption.clone(), af_hash: hash }
}

/// A LUKS1 image with these secrets in these keyslots, as cheap to open as the format allows.
pub fn image(cipher: &CipherSpec, secrets: &[(usize, &Passphrase)]) -> Vec<u8> {
    let key = VolumeKey::random(cipher.key_size()).unwrap();
    let digest = new_digest(HashAlg::Sha256, &key, 1).unwrap();
    let uuid = "00000000-0000-4000-8000-000000000000";
    let header = luks1::Luks1Header::build(cipher.clone(), HashAlg::Sha256, &digest, uuid).unwrap();
    let mut bytes = vec![0; usize::try_from(header.payload_offset()).unwrap() + 512];
    bytes[..592].copy_from_slice(header.as_bytes());
    let header = Header::Luks1(header);
    let changes: Vec<_> = secrets
        .iter()
        .map(|&(keyslot, secret)| {
            let sealed = seal(&scheme(cipher, HashAlg::Sha256, 1), &key, secret).unwrap();
            SlotChange::Activate { keyslot, sealed }
        })
        .collect();
    let (stages, _) = header.lower(&changes).unwrap();
    for step in stages.iter().flat_map(|stage| &stage.steps) {
        if let Step::Write { offset, bytes: written } = step {
            let offset = usize::try_from(*offset).unwrap();
            bytes[offset..offset + written.len()].copy_from_slice(written);
        }
    }
    bytes
}
