//! Our side: the library's operations on an image file, with 1000 iterations each, and the
//! command's.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use keyslot::amend::{Change, Request};
use keyslot::crypto::{CipherSpec, HashAlg};
use keyslot::kdf::Cost;
use keyslot::{CreateOptions, Done, ErrorKind, Image, OpenOptions, Passphrase, Sharing, Unlocked};
use tempfile::TempDir;

/// What the first 4096 bytes of a payload are filled with.
pub const PATTERN: u8 = 0xa5;
const COST: Cost = Cost::Iterations(1000);

pub fn passphrase(secret: impl AsRef<[u8]>) -> Passphrase {
    Passphrase::new(secret.as_ref()).unwrap()
}

/// A directory for images, in memory where there is such a place: it is the peers that are tried
/// here and not the disk, and a thousand images are made durable.
pub fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).unwrap()
}

/// Makes an image that opens with `secret`, with the pattern in it.
pub fn create(image: &Path, cipher: &CipherSpec, hash: HashAlg, secret: impl AsRef<[u8]>) {
    let secret = passphrase(secret);
    let options = CreateOptions::new().unwrap().cipher(cipher.clone()).hash(hash).cost(COST);
    options.create(image, 16 << 10, &secret).unwrap();

    let opened = Image::open(image).unwrap();
    let unlocked = opened.unlock(&secret).unwrap();
    let mut payload = [PATTERN; 4096];
    let key = unlocked.volume_key().as_bytes();
    cipher.sector_cipher(key).unwrap().encrypt(0, &mut payload);
    let file = std::fs::OpenOptions::new().write(true).open(image).unwrap();
    file.write_all_at(&payload, opened.header().payload_offset()).unwrap();
}

/// Adds a secret, into this keyslot or the first inactive one, and says which.
pub fn add(
    image: &Path,
    secret: impl AsRef<[u8]>,
    new: impl AsRef<[u8]>,
    keyslot: Option<i64>,
) -> usize {
    let change = Change::Add { keyslot, new_secret: Ok(passphrase(new)), pbkdf: COST.into() };
    match amend(image, Some(passphrase(secret)), change)[..] {
        [Done::Added { keyslot, .. }] => keyslot,
        ref other => panic!("{other:?}"),
    }
}

/// Replaces a secret and says where.
pub fn replace(image: &Path, old: impl AsRef<[u8]>, new: impl AsRef<[u8]>) -> usize {
    let old = passphrase(old);
    let change = Change::Replace {
        keyslot: None,
        old_secret: Some(Ok(old.clone())),
        new_secret: Ok(passphrase(new)),
        pbkdf: COST.into(),
    };
    match amend(image, Some(old), change)[..] {
        [Done::Replaced { keyslot, .. }] => keyslot,
        ref other => panic!("{other:?}"),
    }
}

/// Erases a keyslot.
pub fn erase(image: &Path, keyslot: usize) {
    let number = Some(i64::try_from(keyslot).unwrap());
    let done = amend(image, None, Change::Erase { keyslot: number, old_secret: None });
    assert_eq!(done, [Done::Erased { keyslot }]);
}

/// Carries out a change, with the volume key that this secret opens, and says what was done.
pub fn amend(image: &Path, secret: Option<Passphrase>, change: Change) -> Vec<Done> {
    let mut opened = OpenOptions::new().sharing(Sharing::Amend).open(image).unwrap();
    let unlocked = secret.map(|secret| opened.unlock(&secret).unwrap());
    let plan = opened.plan(Request::one(change)).unwrap();
    opened.amend(&plan, unlocked.as_ref()).unwrap()
}

/// Which keyslot opens with this secret, if any.
pub fn opener(image: &Path, secret: impl AsRef<[u8]>) -> Option<usize> {
    unlock(image, secret).map(|(_, unlocked)| unlocked.keyslot().unwrap())
}

/// The active keyslots.
pub fn active(image: &Path) -> Vec<usize> {
    let opened = Image::open(image).unwrap();
    opened.keyslots().filter(|keyslot| keyslot.active).map(|keyslot| keyslot.index).collect()
}

/// The first 4096 bytes of the payload, decrypted.
pub fn read_payload(image: &Path, secret: impl AsRef<[u8]>) -> Vec<u8> {
    let (opened, unlocked) = unlock(image, secret).unwrap();
    let mut payload = vec![0; 4096];
    opened.storage().read_exact_at(&mut payload, opened.header().payload_offset()).unwrap();
    let key = unlocked.volume_key().as_bytes();
    opened.header().cipher().unwrap().sector_cipher(key).unwrap().decrypt(0, &mut payload);
    payload
}

/// Whether the payload begins with the pattern.
pub fn has_pattern(image: &Path, secret: impl AsRef<[u8]>) -> bool {
    read_payload(image, secret).iter().all(|&byte| byte == PATTERN)
}

/// The command, with this as its arguments (in which there are no spaces) and the image behind.
pub fn command(arguments: &str, image: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyslot"));
    command.args(arguments.split_whitespace()).arg(image);
    command
}

fn unlock(image: &Path, secret: impl AsRef<[u8]>) -> Option<(Image, Unlocked)> {
    let opened = Image::open(image).unwrap();
    match opened.unlock(&passphrase(secret)) {
        Ok(unlocked) => Some((opened, unlocked)),
        Err(error) => {
            // The last one is said of an image without a keyslot.
            let kinds = [ErrorKind::WrongSecret, ErrorKind::Unsupported];
            assert!(kinds.contains(&error.kind()), "{error}");
            None
        }
    }
}
