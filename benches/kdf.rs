//! PBKDF2 by [`Lanes`] beside the `pbkdf2` crate, on one thread: a single output block, the key of
//! one keyslot and those of eight.
//!
//! `cargo bench --bench kdf` takes about a minute; `cargo bench --bench kdf -- 'pbkdf2/sha512/.*'`
//! picks rows of `pbkdf2/HASH/JOBS/WHO`. An element is an iteration of one block.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main};
use keyslot::crypto::HashAlg;
use keyslot::crypto::pbkdf2::{Job, Lanes};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pbkdf2");
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    rows(&mut group, HashAlg::Sha1, pbkdf2::pbkdf2_hmac::<sha1::Sha1>);
    rows(&mut group, HashAlg::Sha256, pbkdf2::pbkdf2_hmac::<sha2::Sha256>);
    rows(&mut group, HashAlg::Sha384, pbkdf2::pbkdf2_hmac::<sha2::Sha384>);
    rows(&mut group, HashAlg::Sha512, pbkdf2::pbkdf2_hmac::<sha2::Sha512>);
    rows(&mut group, HashAlg::Ripemd160, pbkdf2::pbkdf2_hmac::<ripemd::Ripemd160>);
    group.finish();
}

fn rows(
    group: &mut BenchmarkGroup<'_, WallTime>,
    hash: HashAlg,
    peer: fn(&[u8], &[u8], u32, &mut [u8]),
) {
    let of_a_key = KEY_SIZE.div_ceil(hash.digest_size());
    let mut counts = vec![("block", 1, 1), ("key", 1, of_a_key), ("8-keys", SLOTS, of_a_key)];
    // A key of SHA-512 is a block.
    counts.dedup_by_key(|&mut (_, slots, blocks)| (slots, blocks));
    for (name, slots, blocks) in counts {
        let digest_size = hash.digest_size();
        let key_size = blocks * digest_size;
        let mut ours = vec![0; slots * key_size];
        let mut theirs = ours.clone();
        derive(hash, slots, &mut ours);
        derive_by(peer, slots, &mut theirs);
        assert_eq!(ours, theirs, "{} {name}", hash.name());

        group.throughput(Throughput::Elements(u64::from(ITERATIONS) * (slots * blocks) as u64));
        group.bench_function(format!("{}/{name}/lanes", hash.name()), |bencher| {
            bencher.iter(|| derive(hash, slots, &mut ours));
        });
        group.bench_function(format!("{}/{name}/pbkdf2", hash.name()), |bencher| {
            bencher.iter(|| derive_by(peer, slots, &mut theirs));
        });
    }
}

/// The keys of `slots` keyslots, one after the other in `keys`.
fn derive(hash: HashAlg, slots: usize, keys: &mut [u8]) {
    let key_size = keys.len() / slots;
    let mut lanes = Lanes::new(hash);
    let mut blocks = keys.chunks_mut(key_size).enumerate().flat_map(|(slot, key)| {
        (1..).zip(key.chunks_mut(hash.digest_size())).map(move |(block, part)| (slot, block, part))
    });
    loop {
        while lanes.has_room()
            && let Some((slot, block, part)) = blocks.next()
        {
            let job = Job { password: PASSWORD, salt: &salt(slot), iterations: ITERATIONS, block };
            lanes.push(job, part);
        }
        if lanes.is_empty() {
            return;
        }
        lanes.step(|part, output| part.copy_from_slice(output));
    }
}

fn derive_by(peer: fn(&[u8], &[u8], u32, &mut [u8]), slots: usize, keys: &mut [u8]) {
    let key_size = keys.len() / slots;
    for (slot, key) in keys.chunks_mut(key_size).enumerate() {
        peer(PASSWORD, &salt(slot), ITERATIONS, key);
    }
}

fn salt(slot: usize) -> [u8; 32] {
    [u8::try_from(slot).expect("a few keyslots"); 32]
}

const PASSWORD: &[u8] = b"correct horse battery staple";

/// Of AES-256-XTS.
const KEY_SIZE: usize = 64;

const SLOTS: usize = 8;

/// As few as a keyslot can have.
const ITERATIONS: u32 = 1000;

criterion_group!(kdf, benches);
criterion_main!(kdf);
