//! An image in memory, and a storage that remembers what was written and when it was synced.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use keyslot::crypto::{CipherSpec, HashAlg, KdfAlg};
use keyslot::header::{Header, Scheme, SlotChange, Step, luks1};
use keyslot::keyslot::{new_digest, seal};
use keyslot::storage::Storage;
use keyslot::{Passphrase, VolumeKey};

/// One thing that happened to a storage.
#[derive(Clone, Debug)]
pub enum Op {
    Write { offset: usize, bytes: Vec<u8> },
    Sync,
}

/// Bytes in memory, with a log; operation number `fails` (from 0) and all later ones fail.
#[derive(Debug)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes: Vec<u8>,
    log: Vec<Op>,
    fails: Option<usize>,
}

impl Memory {
    pub fn new(bytes: Vec<u8>, fails: Option<usize>) -> Arc<Self> {
        Arc::new(Self { inner: Mutex::new(Inner { bytes, log: Vec::new(), fails }) })
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.inner.lock().unwrap().bytes.clone()
    }

    pub fn log(&self) -> Vec<Op> {
        self.inner.lock().unwrap().log.clone()
    }
}

impl Inner {
    fn is_broken(&self) -> bool {
        self.fails.is_some_and(|fails| self.log.len() >= fails)
    }
}

impl Storage for Memory {
    fn len(&self) -> io::Result<u64> {
        Ok(self.inner.lock().unwrap().bytes.len() as u64)
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.inner.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let bytes = inner.bytes.get(start..start + buf.len());
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// A write that fails has written about half of its sectors: a disk ran full. It is logged as
    /// a whole, as any of them may be on the disk.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        let start = usize::try_from(offset).unwrap();
        let broken = inner.is_broken();
        let end = start + buf.len();
        let end = if broken { (usize::midpoint(start, end) / 512 * 512).max(start) } else { end };
        inner.bytes[start..end].copy_from_slice(&buf[..end - start]);
        // A page cache writes whole sectors, with what else is in them.
        let whole = start / 512 * 512..(start + buf.len()).next_multiple_of(512);
        let whole = whole.start..whole.end.min(inner.bytes.len());
        let mut bytes = inner.bytes[whole.clone()].to_vec();
        bytes[start - whole.start..][..buf.len()].copy_from_slice(buf);
        inner.log.push(Op::Write { offset: whole.start, bytes });
        if broken { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut inner = self.inner.lock().unwrap();
        if inner.is_broken() {
            return Err(io::Error::other("the medium is gone"));
        }
        inner.log.push(Op::Sync);
        Ok(())
    }
}

/// A storage that forgets what is written to a range, and says nothing.
#[derive(Debug)]
pub struct Forgetful {
    pub memory: Arc<Memory>,
    pub forgets: Range<u64>,
}

impl Storage for Forgetful {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.memory.read_exact_at(buf, offset)
    }
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if self.forgets.contains(&offset) { Ok(()) } else { self.memory.write_all_at(buf, offset) }
    }
    fn sync_data(&self) -> io::Result<()> {
        self.memory.sync_data()
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
    let header = luks1::Header::build(cipher.clone(), HashAlg::Sha256, &digest, uuid).unwrap();
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
