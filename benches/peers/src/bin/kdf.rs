//! PBKDF2 on one thread: keyslot's lanes beside the `pbkdf2` crate and OpenSSL's `PKCS5_PBKDF2_HMAC`,
//! on the same work in the same run.
//!
//! `cargo run --release --bin kdf -- [FILTER]...`; a row is measured if its label, such as
//! `SHA-256, 8 keys of 64 bytes`, has every FILTER in it. All have turns of a few milliseconds, so
//! that the noise of a machine that others use falls out.

use std::ffi::c_int;
use std::hint::black_box;
use std::time::Instant;

use keyslot::crypto::HashAlg;
use keyslot::crypto::pbkdf2::{Job, Lanes};

fn main() {
    let filters: Vec<_> = std::env::args().skip(1).collect();
    println!(
        "Million iterations of an output block per second, one thread; the best of {ROUNDS} rounds, \
         and the medians of the ratios in each.\n"
    );
    println!("| | keyslot | pbkdf2 crate | OpenSSL | keyslot/pbkdf2 | keyslot/OpenSSL |");
    println!("|---|---:|---:|---:|---:|---:|");
    for row in rows() {
        let label = row.label();
        if filters.iter().all(|part| label.contains(part)) {
            row.measure(&label);
        }
    }
}

/// Some keys with one hash.
struct Row {
    hash: Hash,
    keys: usize,
    key_size: usize,
}

/// A hash by the names that everybody has for it.
#[derive(Clone, Copy)]
struct Hash {
    name: &'static str,
    ours: HashAlg,
    by_the_crate: fn(&[u8], &[u8], u32, &mut [u8]),
    openssl: unsafe extern "C" fn() -> *const openssl_sys::EVP_MD,
}

const HASHES: [Hash; 4] = [
    Hash {
        name: "SHA-1",
        ours: HashAlg::Sha1,
        by_the_crate: pbkdf2::pbkdf2_hmac::<sha1::Sha1>,
        openssl: openssl_sys::EVP_sha1,
    },
    Hash {
        name: "SHA-256",
        ours: HashAlg::Sha256,
        by_the_crate: pbkdf2::pbkdf2_hmac::<sha2::Sha256>,
        openssl: openssl_sys::EVP_sha256,
    },
    Hash {
        name: "SHA-384",
        ours: HashAlg::Sha384,
        by_the_crate: pbkdf2::pbkdf2_hmac::<sha2::Sha384>,
        openssl: openssl_sys::EVP_sha384,
    },
    Hash {
        name: "SHA-512",
        ours: HashAlg::Sha512,
        by_the_crate: pbkdf2::pbkdf2_hmac::<sha2::Sha512>,
        openssl: openssl_sys::EVP_sha512,
    },
];

/// One block; the key of one keyslot, of four and of eight.
fn rows() -> impl Iterator<Item = Row> {
    HASHES.into_iter().flat_map(|hash| {
        let block = Row { hash, keys: 1, key_size: hash.ours.digest_size() };
        let keys = [1, 2, 4, 8].map(|keys| Row { hash, keys, key_size: 64 });
        // A key of SHA-512 is one block.
        let keys = keys.into_iter().filter(move |row| (row.keys, hash.name) != (1, "SHA-512"));
        [block].into_iter().chain(keys)
    })
}

impl Row {
    fn label(&self) -> String {
        let plural = if self.keys == 1 { "key" } else { "keys" };
        format!("{}, {} {plural} of {} bytes", self.hash.name, self.keys, self.key_size)
    }

    fn measure(&self, label: &str) {
        let mut keys = [(); 3].map(|()| vec![0; self.keys * self.key_size]);
        let contenders = [Self::ours, Self::by_the_crate, Self::openssl];
        let mut times = [(); 3].map(|()| Vec::new());
        for _ in 0..ROUNDS {
            for ((derive, keys), times) in contenders.iter().zip(&mut keys).zip(&mut times) {
                times.push(best_of_a_turn(|| derive(self, black_box(keys))));
            }
        }
        assert!(keys[0] == keys[1] && keys[0] == keys[2], "{label}: keys differ");

        let blocks = self.keys * self.key_size.div_ceil(self.hash.ours.digest_size());
        let work = f64::from(ITERATIONS) * blocks as f64 / 1e6;
        print!("| {label} |");
        for times in &times {
            print!(" {:.1} |", work / times.iter().copied().fold(f64::INFINITY, f64::min));
        }
        for other in &times[1..] {
            let mut ratios: Vec<_> = other.iter().zip(&times[0]).map(|(it, own)| it / own).collect();
            ratios.sort_unstable_by(f64::total_cmp);
            print!(" {:.2} |", ratios[ROUNDS / 2]);
        }
        println!();
    }

    fn ours(&self, keys: &mut [u8]) {
        let digest_size = self.hash.ours.digest_size();
        let mut lanes = Lanes::new(self.hash.ours);
        let mut blocks = self.salted(keys).flat_map(|(salt, key)| {
            (1..).zip(key.chunks_mut(digest_size)).map(move |(block, part)| (salt, block, part))
        });
        loop {
            while lanes.has_room()
                && let Some((salt, block, part)) = blocks.next()
            {
                let job = Job { password: PASSWORD, salt: &salt, iterations: ITERATIONS, block };
                lanes.push(job, part);
            }
            if lanes.is_empty() {
                return;
            }
            lanes.step(|part, output| part.copy_from_slice(&output[..part.len()]));
        }
    }

    fn by_the_crate(&self, keys: &mut [u8]) {
        for (salt, key) in self.salted(keys) {
            (self.hash.by_the_crate)(PASSWORD, &salt, ITERATIONS, key);
        }
    }

    fn openssl(&self, keys: &mut [u8]) {
        let int = |number: usize| c_int::try_from(number).expect("a short length");
        for (salt, key) in self.salted(keys) {
            // SAFETY: password, salt and key are as long as is said, and the digest is one that the
            // library has; a function that returns it takes nothing.
            let done = unsafe {
                openssl_sys::PKCS5_PBKDF2_HMAC(
                    PASSWORD.as_ptr().cast(),
                    int(PASSWORD.len()),
                    salt.as_ptr(),
                    int(salt.len()),
                    ITERATIONS.cast_signed(),
                    (self.hash.openssl)(),
                    int(key.len()),
                    key.as_mut_ptr(),
                )
            };
            assert_eq!(done, 1, "a key is derived");
        }
    }

    /// The keys of all keyslots, and the salt of each.
    fn salted<'a>(&self, keys: &'a mut [u8]) -> impl Iterator<Item = ([u8; 32], &'a mut [u8])> {
        (0_u8..).map(|slot| [slot; 32]).zip(keys.chunks_mut(self.key_size))
    }
}

fn best_of_a_turn(mut derive: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..CALLS {
        let start = Instant::now();
        derive();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

const PASSWORD: &[u8] = b"correct horse battery staple";

/// Few beside those of most keyslots, so that some calls are not interrupted.
const ITERATIONS: u32 = 4000;

const ROUNDS: usize = 25;

/// In each turn of a round.
const CALLS: usize = 5;
