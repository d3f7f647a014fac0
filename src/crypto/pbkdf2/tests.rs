//! Tests of every kernel, and of lanes of kernels, against the `pbkdf2` crate.

use hex_literal::hex;

use super::chain::Prf;
use super::sha::{Sha1, Sha256, Sha384, Sha512};
use super::{Job, Lanes};
use crate::crypto::hash::with_digest;
use crate::crypto::{HashAlg, kdf};

/// RFC 6070, section 2, and RFC 7914, section 11, with every kernel and in each of its lanes.
#[test]
fn vectors_of_the_rfcs() {
    for (iterations, expected) in [
        (1, hex!("0c60c80f961f0e71f3a9b524af6012062fe037a6")),
        (2, hex!("ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957")),
        (4096, hex!("4b007901b765489abead49d926f721d065a429c1")),
    ] {
        in_all_lanes::<Sha1>(b"password", iterations, 1, &expected);
    }
    for (block, expected) in [
        (1, hex!("55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc")),
        (2, hex!("49ca9cccf179b645991664b39d77ef317c71b845b1e30bd509112041d3a19783")),
    ] {
        in_all_lanes::<Sha256>(b"passwd", 1, block, &expected);
    }
}

fn in_all_lanes<P: Prf>(password: &[u8], iterations: u32, block: u32, expected: &[u8]) {
    let job = Job { password, salt: b"salt", iterations, block };
    for kernel in P::kernels() {
        let kinds = kernel.chains();
        for count in kinds.clone() {
            let mut chains: Vec<_> = (0..count).map(|_| P::begin(&job)).collect();
            kernel.run(&mut chains, iterations - 1);
            for chain in &chains {
                let mut output = vec![0; expected.len()];
                P::output(chain, &mut output);
                assert_eq!(output, expected, "{count} of {kinds:?}");
            }
        }
    }
}

#[test]
fn kernels_do_what_the_pbkdf2_crate_does() {
    let mut random = Random(0x6b65_7973_6c6f_7421);
    kernels_of::<Sha1>(HashAlg::Sha1, &mut random);
    kernels_of::<Sha256>(HashAlg::Sha256, &mut random);
    kernels_of::<Sha384>(HashAlg::Sha384, &mut random);
    kernels_of::<Sha512>(HashAlg::Sha512, &mut random);
}

/// Runs random batches with each kernel, and with the portable one for chains that the kernel
/// cannot take.
fn kernels_of<P: Prf>(hash: HashAlg, random: &mut Random) {
    let kernels = P::kernels();
    let [.., portable] = kernels.as_slice() else { panic!("there is a portable kernel") };
    for kernel in &kernels {
        for _ in 0..3 {
            let both = vec![kernel.clone(), portable.clone()];
            check(Lanes::with_kernels::<P>(hash, both), hash, random);
        }
    }
}

#[test]
fn lanes_of_every_hash() {
    let mut random = Random(0x6c61_6e65_7321_2121);
    for &hash in HashAlg::ALL {
        check(Lanes::new(hash), hash, &mut random);
    }
}

/// Runs up to 40 jobs, each of which gets a lane as soon as one is free.
fn check(mut lanes: Lanes<usize>, hash: HashAlg, random: &mut Random) {
    let jobs: Vec<_> = (0..=random.below(40)).map(|_| OwnJob::random(random)).collect();
    let mut outputs = vec![None; jobs.len()];
    let mut waiting = jobs.iter().enumerate();
    loop {
        while lanes.has_room()
            && let Some((index, job)) = waiting.next()
        {
            lanes.push(job.borrow(), index);
        }
        if lanes.is_empty() {
            break;
        }
        lanes.step(|index, output| {
            assert!(outputs[index].is_none(), "{index} twice");
            outputs[index] = Some(output.to_vec());
        });
    }
    for (job, output) in jobs.iter().zip(outputs) {
        let expected = job.by_the_crate(hash);
        assert_eq!(output.unwrap(), expected, "{} {job:?}", hash.name());
    }
}

#[test]
fn keys_of_any_length() {
    let mut random = Random(0x6c65_6e67_7468_2121);
    for &hash in HashAlg::ALL {
        let size = hash.digest_size();
        for len in [0, 1, size - 1, size, size + 1, 3 * size, 9 * size + 5, 40 * size] {
            let OwnJob { password, salt, .. } = OwnJob::random(&mut random);
            let iterations = u32::try_from(random.below(30)).unwrap();
            let mut key = vec![0; len];
            kdf::pbkdf2(hash, &password, &salt, iterations, &mut key);
            let expected = by_the_crate(hash, &password, &salt, iterations, len);
            assert_eq!(key, expected, "{} {len}", hash.name());
        }
    }
}

/// A short job next to an endless one makes room for another, which may use its output.
#[test]
fn finished_lanes_take_jobs_that_come_later() {
    for &hash in HashAlg::ALL {
        let mut lanes = Lanes::new(hash);
        let endless = Job { password: b"", salt: b"", iterations: u32::MAX, block: 1 };
        for _ in 1..lanes.capacity() {
            lanes.push(endless, "endless");
        }
        let mut password = b"the first".to_vec();
        for name in ["first", "second", "third"] {
            let iterations = 5000;
            lanes.push(Job { password: &password, iterations, ..endless }, name);
            assert!(!lanes.has_room());
            let expected = by_the_crate(hash, &password, b"", iterations, hash.digest_size());
            let mut finished = None;
            while finished.is_none() {
                lanes.step(|id, output| finished = Some((id, output.to_vec())));
            }
            let (id, output) = finished.unwrap();
            assert_eq!((id, &output), (name, &expected), "{}", hash.name());
            assert_eq!(lanes.len(), lanes.capacity() - 1);
            password = output;
        }
    }
}

/// A step is short enough for callers that check a flag between steps.
#[test]
fn steps_are_short() {
    for &hash in HashAlg::ALL {
        for count in 1..=Lanes::<()>::new(hash).capacity() {
            let mut lanes = Lanes::new(hash);
            for _ in 0..count {
                lanes.push(Job { password: b"", salt: b"", iterations: 40_000, block: 1 }, ());
            }
            lanes.step(|(), _| panic!("{}: 40000 iterations in a step", hash.name()));
            assert_eq!(lanes.len(), count);
        }
    }
}

#[test]
fn steps_without_jobs_do_nothing() {
    let mut lanes = Lanes::new(HashAlg::Sha256);
    lanes.step(|(), _| panic!("there is no job"));
    assert!(lanes.is_empty() && lanes.has_room());
}

#[test]
#[should_panic(expected = "no room for more")]
fn there_is_no_more_room_than_that() {
    let mut lanes = Lanes::new(HashAlg::Md5);
    for _ in 0..=lanes.capacity() {
        lanes.push(Job { password: b"", salt: b"", iterations: 1, block: 1 }, ());
    }
}

/// `Debug` shows no secrets.
#[test]
fn passwords_are_not_printed() {
    let mut lanes = Lanes::new(HashAlg::Sha1);
    let job = Job { password: b"hunter2", salt: b"", iterations: 7, block: 1 };
    assert_eq!(format!("{job:?}"), "Job { salt: [], iterations: 7, block: 1, .. }");
    lanes.push(job, 3);
    assert_eq!(format!("{lanes:?}"), "Lanes { hash: Sha1, jobs: 1 }");
}

#[derive(Debug)]
struct OwnJob {
    password: Vec<u8>,
    salt: Vec<u8>,
    iterations: u32,
    block: u32,
}

impl OwnJob {
    /// Passwords and salts with lengths around those of blocks, empty ones, few iterations and
    /// many.
    fn random(random: &mut Random) -> Self {
        let mut bytes = || {
            let len = [0, 1, 32, 55, 56, 63, 64, 65, 111, 112, 127, 128, 129, 300];
            let len = len[random.index(len.len())] + random.index(8);
            random.bytes(len)
        };
        Self {
            password: bytes(),
            salt: bytes(),
            iterations: match random.below(4) {
                0 => u32::try_from(random.below(4)).unwrap(),
                1 => 1 + u32::try_from(random.below(5000)).unwrap(),
                _ => 1 + u32::try_from(random.below(100)).unwrap(),
            },
            block: 1 + u32::try_from(random.below(5)).unwrap(),
        }
    }

    fn borrow(&self) -> Job<'_> {
        let Self { password, salt, iterations, block } = self;
        Job { password, salt, iterations: *iterations, block: *block }
    }

    fn by_the_crate(&self, hash: HashAlg) -> Vec<u8> {
        let size = hash.digest_size();
        let end = size * self.block as usize;
        let key = by_the_crate(hash, &self.password, &self.salt, self.iterations, end);
        key[end - size..].to_vec()
    }
}

fn by_the_crate(
    hash: HashAlg,
    password: &[u8],
    salt: &[u8],
    iterations: u32,
    len: usize,
) -> Vec<u8> {
    let mut key = vec![0; len];
    with_digest!(hash, D => pbkdf2::pbkdf2_hmac::<D>(password, salt, iterations, &mut key),
    else D => {
        let done = pbkdf2::pbkdf2::<hmac::SimpleHmac<D>>(password, salt, iterations, &mut key);
        done.unwrap();
    });
    key
}

/// Deterministic pseudorandom numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn index(&mut self, end: usize) -> usize {
        usize::try_from(self.below(end as u64)).unwrap()
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.next().to_le_bytes()).take(len).collect()
    }
}
