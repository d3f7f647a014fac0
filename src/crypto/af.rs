//! The anti-forensic splitter (LUKS1 on-disk format, section 2.4). It expands a key to `stripes`
//! times its size, all of which is needed to recover the key.

use digest::Digest;
use zeroize::{Zeroize, Zeroizing};

use super::HashAlg;
use super::hash::with_digest;
use super::mode::xor;
use crate::{Error, ErrorKind, Result};

/// Number of stripes in every keyslot that QEMU and cryptsetup make and accept.
pub const STRIPES: u32 = 4000;

/// Splits `key` into `stripes` consecutive stripes of its length.
///
/// `random` must fill its buffer with random bytes that an attacker cannot know.
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

/// Merges the `stripes` stripes at the start of `material` into a key of `key_size` bytes.
///
/// # Panics
///
/// If `material` is shorter than `key_size` times `stripes` bytes.
pub fn merge(hash: HashAlg, material: &[u8], key_size: usize, stripes: u32) -> Zeroizing<Vec<u8>> {
    // On overflow the length exceeds any material, so this panics as for material that is too
    // short.
    let material = &material[..key_size.saturating_mul(stripes as usize)];
    let (noise, last) = material.split_at(material.len().saturating_sub(key_size));
    let mut key = diffused(hash, noise, key_size);
    xor(&mut key, last);
    key
}

/// Folds all stripes but the last into one.
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

/// Replaces each digest-sized piece of `block` by the digest of its number and contents. A short
/// last piece gets a truncated digest.
fn diffuse<D: Digest>(block: &mut [u8]) {
    for (index, piece) in (0_u32..).zip(block.chunks_mut(<D as Digest>::output_size())) {
        let mut digest =
            D::new().chain_update(index.to_be_bytes()).chain_update(&*piece).finalize();
        piece.copy_from_slice(&digest[..piece.len()]);
        digest.as_mut_slice().zeroize();
    }
}

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    /// Not random, but different around every byte.
    fn fill(buf: &mut [u8]) {
        for (index, byte) in (0_u32..).zip(buf) {
            *byte = (index.wrapping_mul(0x9e37_79b1) >> 24).to_le_bytes()[0];
        }
    }

    fn split(hash: HashAlg, key: &[u8], stripes: u32) -> Result<Zeroizing<Vec<u8>>> {
        super::split(hash, key, stripes, &mut |noise| {
            fill(noise);
            Ok(())
        })
    }

    #[test]
    fn every_hash_and_key_size_round_trips() {
        for &hash in HashAlg::ALL {
            for size in [16, 24, 32, 48, 64] {
                let key: Vec<u8> = (100..).take(size).collect();
                let material = split(hash, &key, 40).unwrap();
                assert_eq!(material.len(), 40 * size);
                assert_eq!(*merge(hash, &material, size, 40), key);
                let mut damaged = material.clone();
                damaged[20 * size] ^= 1;
                assert_ne!(*merge(hash, &damaged, size, 40), key);
            }
        }
    }

    /// From a Python program over hashlib, written from the specification.
    #[test]
    fn merges_are_those_of_another_implementation() {
        for (hash, size, head, tail) in [
            (HashAlg::Sha1, 24, hex!("6cc0baa5c7d78cd1"), hex!("b688a59ee3782cae")),
            (HashAlg::Sha1, 64, hex!("02dc0701d89103f3"), hex!("f2134487f9e4afed")),
            (HashAlg::Sha256, 24, hex!("41950f7915446b62"), hex!("3abfc350c143cdc0")),
            (HashAlg::Sha256, 64, hex!("b26e6673b3dcc57c"), hex!("9b34621bccbfe4eb")),
            (HashAlg::Sha512, 24, hex!("31cf12e430c0368b"), hex!("bd5540c670789fb2")),
            (HashAlg::Sha512, 64, hex!("7033894b259e16dd"), hex!("44a6d80a0db44188")),
            (HashAlg::Md5, 24, hex!("03646e6d4e9ea8ae"), hex!("8cdcccf10a3501b1")),
            (HashAlg::Md5, 64, hex!("0b2c5f2443849d8b"), hex!("88d365df7e547bac")),
            (HashAlg::Sha384, 24, hex!("63746d5323d51f36"), hex!("8f5fa78b51d419a9")),
            (HashAlg::Sha384, 64, hex!("15f28171794994bb"), hex!("19c42d2f9c355aae")),
        ] {
            let mut material = vec![0; 4000 * size];
            fill(&mut material);
            let key = merge(hash, &material, size, STRIPES);
            assert!(key.starts_with(&head) && key.ends_with(&tail), "{} {size}", hash.name());
        }
    }

    #[test]
    fn what_follows_the_last_stripe_is_ignored() {
        let mut material = split(HashAlg::Sha1, &[1; 24], 5).unwrap().to_vec();
        material.extend([9; 100]);
        assert_eq!(*merge(HashAlg::Sha1, &material, 24, 5), [1; 24]);
    }

    #[test]
    fn degenerate_sizes() {
        assert_eq!(*split(HashAlg::Sha256, &[3; 16], 1).unwrap(), [3; 16]);
        assert_eq!(*merge(HashAlg::Sha256, &[3; 16], 16, 1), [3; 16]);
        assert!(merge(HashAlg::Sha256, &[], 0, STRIPES).is_empty());
        let error = split(HashAlg::Sha256, &[3; 16], 0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }

    #[test]
    #[should_panic(expected = "out of range")]
    fn a_length_that_overflows_is_not_a_short_one() {
        let (key_size, stripes) = (usize::MAX / 4 + 2, 4);
        merge(HashAlg::Sha256, &[3; 16], key_size, stripes);
    }

    #[test]
    fn without_randomness_there_is_no_material() {
        let mut none = |_: &mut [u8]| Err(Error::new(ErrorKind::Io, "no randomness"));
        let error = super::split(HashAlg::Sha256, &[3; 16], 10, &mut none).unwrap_err();
        assert_eq!(error.message(), "no randomness");
    }
}
