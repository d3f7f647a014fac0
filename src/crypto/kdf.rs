//! Key derivation: from a passphrase to a keyslot's key, and from a volume key to its digest.

use std::collections::TryReserveError;
use std::num::NonZero;
use std::thread;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
use rayon::slice::ParallelSliceMut;
use zeroize::{Zeroize, Zeroizing};

use super::HashAlg;
use super::pbkdf2::{Job, Lanes};
use super::workers::with_workers;
use crate::{Error, ErrorKind, Result};

/// Variant of Argon2 (RFC 9106). LUKS2 does not use Argon2d.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Argon2Variant {
    /// Memory accesses are independent of secrets.
    Argon2i,
    /// Argon2i for the first half of the first pass, then Argon2d.
    Argon2id,
}

impl Argon2Variant {
    /// Name in LUKS2 metadata.
    pub fn name(self) -> &'static str {
        match self {
            Self::Argon2i => "argon2i",
            Self::Argon2id => "argon2id",
        }
    }
}

/// Kind of key derivation function, with its name in LUKS2 metadata.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KdfKind {
    /// PBKDF2-HMAC (RFC 8018, section 5.2), the only one in LUKS1
    Pbkdf2,
    /// Argon2i (RFC 9106)
    Argon2i,
    /// Argon2id (RFC 9106)
    Argon2id,
}

impl KdfKind {
    /// Name in LUKS2 metadata: `pbkdf2`, `argon2i` or `argon2id`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pbkdf2 => "pbkdf2",
            Self::Argon2i => Argon2Variant::Argon2i.name(),
            Self::Argon2id => Argon2Variant::Argon2id.name(),
        }
    }
}

/// A key derivation function with its cost parameters.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KdfAlg {
    /// PBKDF2-HMAC (RFC 8018, section 5.2)
    Pbkdf2 {
        /// Hash of the HMAC
        hash: HashAlg,
        /// Iteration count
        iterations: u32,
    },
    /// Argon2 (RFC 9106)
    Argon2 {
        /// Variant
        variant: Argon2Variant,
        /// Passes over the memory
        time: u32,
        /// Memory in KiB
        memory: u32,
        /// Number of lanes, which can be computed in parallel
        parallelism: u32,
    },
}

impl KdfAlg {
    /// The kind of the function.
    pub fn kind(self) -> KdfKind {
        match self {
            Self::Pbkdf2 { .. } => KdfKind::Pbkdf2,
            Self::Argon2 { variant: Argon2Variant::Argon2i, .. } => KdfKind::Argon2i,
            Self::Argon2 { variant: Argon2Variant::Argon2id, .. } => KdfKind::Argon2id,
        }
    }

    /// Derives `key` from `password` and `salt`. Enforces no limit on cost.
    pub fn derive(self, password: &[u8], salt: &[u8], key: &mut [u8]) -> Result<()> {
        match self {
            Self::Pbkdf2 { hash, iterations } => {
                pbkdf2(hash, password, salt, iterations, key);
                Ok(())
            }
            Self::Argon2 { variant, time, memory, parallelism } => {
                argon2(variant, password, salt, [time, memory, parallelism], key)
            }
        }
    }
}

/// Fills `out` with PBKDF2-HMAC-`hash` (RFC 8018, section 5.2) of `password` and `salt`.
///
/// The output blocks are computed side by side on one core, so two cost little more than one. An
/// iteration count of 0, which no valid header has, counts as 1.
pub fn pbkdf2(hash: HashAlg, password: &[u8], salt: &[u8], iterations: u32, out: &mut [u8]) {
    let mut lanes = Lanes::new(hash);
    let mut blocks = (1..).zip(out.chunks_mut(hash.digest_size()));
    loop {
        while lanes.has_room()
            && let Some((block, part)) = blocks.next()
        {
            lanes.push(Job { password, salt, iterations, block }, part);
        }
        if lanes.is_empty() {
            return;
        }
        lanes.step(|part, digest| part.copy_from_slice(&digest[..part.len()]));
    }
}

/// Fills `out` with Argon2 1.3 (RFC 9106) of `password` and `salt`: `time` passes over `memory` KiB
/// in `parallelism` lanes, each on its own thread if there are enough CPUs.
///
/// The threads end before this returns. If none can be started, the calling thread does all the
/// work. The memory is wiped at the end.
///
/// [`ErrorKind::OutOfMemory`] if the memory cannot be allocated.
pub fn argon2(
    variant: Argon2Variant,
    password: &[u8],
    salt: &[u8],
    [time, memory, parallelism]: [u32; 3],
    out: &mut [u8],
) -> Result<()> {
    let failed = |error: argon2::Error| {
        let text = format!("invalid Argon2 parameters: {error}");
        Error::new(ErrorKind::Unsupported, text)
    };
    let algorithm = match variant {
        Argon2Variant::Argon2i => Algorithm::Argon2i,
        Argon2Variant::Argon2id => Algorithm::Argon2id,
    };
    let params = Params::new(memory, time, parallelism, Some(out.len())).map_err(failed)?;
    let blocks = Blocks::new(params.block_count()).map_err(|error| {
        let text = format!("cannot allocate the {memory} KiB that Argon2 needs");
        Error::new(ErrorKind::OutOfMemory, text).with_source(error)
    })?;
    let threads = threads(parallelism, params.block_count());
    // Other threads may use these for longer than a borrow lasts.
    let (password, salt) = (Zeroizing::new(password.to_vec()), salt.to_vec());
    let mut key = Zeroizing::new(vec![0; out.len()]);
    let (result, key) = with_workers(threads, move || {
        let mut blocks = blocks.filled();
        let argon2 = Argon2::new(algorithm, Version::V0x13, params);
        let blocks = blocks.0.as_mut_slice();
        (argon2.hash_password_into_with_memory(&password, &salt, &mut key, blocks), key)
    });
    result.map_err(failed)?;
    out.copy_from_slice(&key);
    Ok(())
}

/// Number of threads for `lanes`, and for allocating and wiping `blocks`, which would take a fifth
/// of the total time on one thread.
fn threads(lanes: u32, blocks: usize) -> usize {
    let lanes = usize::try_from(lanes).unwrap_or(usize::MAX);
    let useful = lanes.max(MEMORY_THREADS.min(blocks / BLOCKS_IN_TURN));
    thread::available_parallelism().map_or(1, NonZero::get).min(useful)
}

/// The memory of Argon2, wiped on drop.
struct Blocks(Vec<Block>);

impl Blocks {
    /// Allocates `count` blocks.
    fn new(count: usize) -> std::result::Result<Self, TryReserveError> {
        let mut blocks = Vec::new();
        blocks.try_reserve_exact(count)?;
        Ok(Self(blocks))
    }

    /// Fills the allocation with zeros, on all threads of the pool.
    fn filled(mut self) -> Self {
        let zeros = (0..self.0.capacity()).into_par_iter().with_min_len(BLOCKS_IN_TURN);
        zeros.map(|_| Block::new()).collect_into_vec(&mut self.0);
        self
    }
}

impl Drop for Blocks {
    fn drop(&mut self) {
        // Blocks that were never filled are empty, and may be dropped outside the pool.
        if !self.0.is_empty() {
            let turns = self.0.par_chunks_mut(BLOCKS_IN_TURN);
            turns.for_each(|blocks| blocks.iter_mut().for_each(Zeroize::zeroize));
        }
    }
}

/// Blocks that a thread takes at a time: 1 MiB
const BLOCKS_IN_TURN: usize = 1024;
/// Limit on the threads that fill or wipe memory. More would be limited by the memory bus.
const MEMORY_THREADS: usize = 4;

#[cfg(test)]
mod tests {
    use hex_literal::hex;

    use super::*;

    fn check(hash: HashAlg, password: &[u8], salt: &[u8], iterations: u32, expected: &[u8]) {
        let mut out = vec![0; expected.len()];
        pbkdf2(hash, password, salt, iterations, &mut out);
        assert_eq!(out, expected, "{} {password:?} {iterations}", hash.name());
    }

    /// RFC 6070, section 2, without the vector of 16777216 iterations.
    #[test]
    fn rfc_6070_sha1() {
        let check = |password: &[u8], salt: &[u8], iterations, expected: &[u8]| {
            check(HashAlg::Sha1, password, salt, iterations, expected);
        };
        check(b"password", b"salt", 1, &hex!("0c60c80f961f0e71f3a9b524af6012062fe037a6"));
        check(b"password", b"salt", 2, &hex!("ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957"));
        check(b"password", b"salt", 4096, &hex!("4b007901b765489abead49d926f721d065a429c1"));
        check(
            b"passwordPASSWORDpassword",
            b"saltSALTsaltSALTsaltSALTsaltSALTsalt",
            4096,
            &hex!("3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038"),
        );
        check(b"pass\0word", b"sa\0lt", 4096, &hex!("56fa6aa75548099dcc37d7f03425e0c3"));
    }

    /// RFC 7914, section 11.
    #[test]
    fn rfc_7914_sha256() {
        check(
            HashAlg::Sha256,
            b"passwd",
            b"salt",
            1,
            &hex!(
                "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
                "49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783"
            ),
        );
        check(
            HashAlg::Sha256,
            b"Password",
            b"NaCl",
            80_000,
            &hex!(
                "4ddcd8f60b98be21830cee5ef22701f9641a4418d04c0414aeff08876b34ab56"
                "a1d425a1225833549adb841b51c9b3176a272bdebba1d078478f62b397f33c8d"
            ),
        );
    }

    /// From the tests of the reference implementation, phc-winner-argon2.
    #[test]
    fn argon2_of_its_authors() {
        use Argon2Variant::{Argon2i, Argon2id};
        for (variant, cost, expected) in [
            (
                Argon2i,
                [2, 256, 1],
                hex!("89e9029f4637b295beb027056a7336c414fadd43f6b208645281cb214a56452f"),
            ),
            (
                Argon2i,
                [2, 256, 2],
                hex!("4ff5ce2769a1d7f4c8a491df09d41a9fbe90e5eb02155a13e4c01e20cd4eab61"),
            ),
            (
                Argon2id,
                [2, 256, 1],
                hex!("9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"),
            ),
            (
                Argon2id,
                [2, 256, 2],
                hex!("6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"),
            ),
        ] {
            let mut out = [0; 32];
            argon2(variant, b"password", b"somesalt", cost, &mut out).unwrap();
            assert_eq!(out, expected, "{variant:?} {cost:?}");
        }
    }

    #[test]
    fn argon2_refuses_what_it_cannot() {
        for cost in [[0, 64, 1], [1, 7, 1], [1, 64, 0], [1, 64, 9]] {
            let error = argon2(Argon2Variant::Argon2id, b"", &[0; 32], cost, &mut [0; 64]);
            assert_eq!(error.unwrap_err().kind(), ErrorKind::Unsupported, "{cost:?}");
        }
    }

    /// From Python's hashlib over OpenSSL 3.0 (`pbkdf2_hmac(name, ..., 1000, 72)`): the start of
    /// the first block and the end of the last, which is truncated.
    #[test]
    fn other_hashes_are_those_of_openssl() {
        for (hash, head, tail) in [
            (HashAlg::Md5, hex!("7ebd704dafe8fcc1"), hex!("4d63d88060fcf1af")),
            (HashAlg::Ripemd160, hex!("4816fb5767df7424"), hex!("d93bc88c0a98564f")),
            (HashAlg::Sha224, hex!("1c6b442e45c61976"), hex!("8dd39374619366bb")),
            (HashAlg::Sha384, hex!("7e19634d6cd6a212"), hex!("016798c818c85ac0")),
            (HashAlg::Sha512, hex!("11d8c7418824669c"), hex!("7535d679bbce8789")),
            (HashAlg::Sm3, hex!("e3ebcd8e0d28dfee"), hex!("d75f35ccd03aa915")),
        ] {
            let mut out = [0; 72];
            pbkdf2(hash, b"pass phrase", b"0123456789abcdef0123456789abcdef", 1000, &mut out);
            assert!(out.starts_with(&head) && out.ends_with(&tail), "{}", hash.name());
        }
    }
}
