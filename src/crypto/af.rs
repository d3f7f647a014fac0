//! The anti-forensic splitter (LUKS1 on-disk format, section 2.4): a key becomes `stripes` times
//! as many bytes, of which every one is needed to get it back.

use digest::Digest;
use zeroize::{Zeroize, Zeroizing};

use super::HashAlg;
use super::hash::with_digest;
use super::mode::xor;
use crate::{Error, ErrorKind, Result};

/// Stripes of every keyslot that QEMU and cryptsetup make and open.
pub const STRIPES: u32 = 4000;

/// Splits `key` into `stripes` stripes of its length, one after the other.
///
/// `random` fills the buffer it is given with random bytes that an attacker cannot know.
pub fn split(
    hash: HashAlg,
    key: &[u8],
    stripes: u32,
    random: &mut dyn FnMut(&mut [u8]) -> Result<()>,
) -> Result<Zeroizing<Vec<u8>>> {
    let Some(material_size) =
        (stripes as usize).checked_mul(key.len()).filter(|size| *size >= key.len())
    else {
        let message = format!("cannot split a key of {} bytes into {stripes} stripes", key.len());
        return Err(Error::new(ErrorKind::InvalidInput, message));
    };
    let mut material = Zeroizing::new(vec![0; material_size]);
    let (noise, last) = material.split_at_mut(material_size - key.len());
    random(noise)?;
    last.copy_from_slice(&diffused(hash, noise, key.len()));
    xor(last, key);
    Ok(material)
}

/// Merges the `stripes` stripes at the start of `material` into the key of `key_size` bytes.
///
/// # Panics
///
/// If `material` is shorter than `key_size` times `stripes` bytes.
pub fn merge(hash: HashAlg, material: &[u8], key_size: usize, stripes: u32) -> Zeroizing<Vec<u8>> {
    let material = &material[..key_size * stripes as usize];
    let (noise, last) = material.split_at(material.len().saturating_sub(key_size));
    let mut key = diffused(hash, noise, key_size);
    xor(&mut key, last);
    key
}

/// All stripes but the last, folded into one.
fn diffused(hash: HashAlg, noise: &[u8], key_size: usize) -> Zeroizing<Vec<u8>> {
    let mut folded = Zeroizing::new(vec![0; key_size]);
    if key_size > 0 {
        with_digest!(hash, D => {
            for stripe in noise.chunks_exact(key_size) {
                xor(&mut folded, stripe);
                diffuse::<D>(&mut folded);
            }
        });
    }
    folded
}

/// Replaces each digest-sized piece of `block` by the digest of its number and itself. The last
/// piece may be short, and takes as much of the digest as it has room for.
fn diffuse<D: Digest>(block: &mut [u8]) {
    for (index, piece) in (0_u32..).zip(block.chunks_mut(<D as Digest>::output_size())) {
        let mut digest =
            D::new().chain_update(index.to_be_bytes()).chain_update(&*piece).finalize();
        piece.copy_from_slice(&digest[..piece.len()]);
        digest.as_mut_slice().zeroize();
    }
}
