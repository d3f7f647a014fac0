//! A secret tried on the keyslots of a LUKS1 image in memory: on one, and on eight of which the first,
//! the last or none is right. That the first is not slower for there being eight is what to look for.
//!
//! `cargo bench --bench unlock` takes half a minute; `cargo bench --bench unlock -- '8/.*'` picks rows of
//! `search/KEYSLOTS/RIGHT`. A keyslot has the key of AES-256-XTS, and 20000 iterations of SHA-256.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode, criterion_group, criterion_main};
use keyslot::crypto::{CipherSpec, HashAlg, KdfAlg};
use keyslot::header::{Header, Scheme, SlotChange, Step, luks1};
use keyslot::storage::MemoryStorage;
use keyslot::unlock::{Candidate, Until, new_digest, seal, search};
use keyslot::{Limits, Passphrase, VolumeKey};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("search");
    // A call takes milliseconds: as many in each sample.
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(3));
    row(&mut group, 1, "first", Some(0));
    row(&mut group, 8, "first", Some(0));
    row(&mut group, 8, "last", Some(7));
    row(&mut group, 1, "none", None);
    row(&mut group, 8, "none", None);
    group.finish();
}

fn row(group: &mut BenchmarkGroup<'_, WallTime>, count: usize, name: &str, right: Option<usize>) {
    let storage = image(count);
    let header = Header::read(&storage).expect("a header");
    let active = header.keyslots().filter(|keyslot| keyslot.active);
    let candidates: Vec<_> =
        active.map(|keyslot| Candidate { storage: &storage, keyslot }).collect();
    assert_eq!(candidates.len(), count);
    let secret = right.map_or_else(|| secret(count), secret);
    let opened = || {
        let outcomes = search(&candidates, &secret, Limits::NONE, Until::First);
        outcomes.into_iter().position(|outcome| {
            outcome.is_some_and(|outcome| outcome.expect("bytes in memory").is_some())
        })
    };
    assert_eq!(opened(), right);
    group.bench_function(format!("{count}/{name}"), |bencher| bencher.iter(opened));
}

/// With so many keyslots, each with a secret of its own.
fn image(count: usize) -> MemoryStorage {
    let cipher = CipherSpec::parse("aes", "xts-plain64", 64).expect("a cipher");
    let key = VolumeKey::random(cipher.key_size()).expect("a key");
    let digest = new_digest(HashAlg::Sha256, &key, 1000).expect("a digest");
    let uuid = "00000000-0000-4000-8000-000000000000";
    let header = luks1::Luks1Header::build(cipher.clone(), HashAlg::Sha256, &digest, uuid);
    let header = header.expect("a header");
    let size = usize::try_from(header.payload_offset()).expect("a few MiB") + 512;
    let mut bytes = vec![0; size];
    bytes[..header.as_bytes().len()].copy_from_slice(header.as_bytes());

    let kdf = KdfAlg::Pbkdf2 { hash: HashAlg::Sha256, iterations: ITERATIONS };
    let scheme = Scheme { kdf, encryption: cipher, af_hash: HashAlg::Sha256 };
    let activate = |keyslot| {
        let sealed = seal(&scheme, &key, &secret(keyslot)).expect("key material");
        SlotChange::Activate { keyslot, sealed }
    };
    let changes: Vec<_> = (0..count).map(activate).collect();
    let (stages, _) = Header::Luks1(header).lower(&changes).expect("inactive keyslots");
    for step in stages.iter().flat_map(|stage| &stage.steps) {
        if let Step::Write { offset, bytes: written } = step {
            let offset = usize::try_from(*offset).expect("a few MiB");
            bytes[offset..][..written.len()].copy_from_slice(written);
        }
    }
    MemoryStorage::new(bytes)
}

/// Of a keyslot.
fn secret(keyslot: usize) -> Passphrase {
    Passphrase::new(format!("hunter{keyslot}").as_bytes()).expect("memory")
}

const ITERATIONS: u32 = 20_000;

criterion_group!(unlock, benches);
criterion_main!(unlock);
