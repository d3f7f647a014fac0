//! AES-256-XTS by each kernel that this CPU has, beside `xts-mode` over the `aes` crate.
//!
//! `cargo bench --bench xts` takes about two minutes. A filter picks rows of
//! `xts/encrypt|decrypt/SECTOR/KERNEL/SIZE`: `cargo bench --bench xts -- 'encrypt/512/.*/32KiB'`.
//!
//! xts-mode encrypts one block a call, and on a CPU with VAES each call of `aes` 0.9.4 copies the
//! round keys into wider registers first: that is most of its time, and not what AES costs.

use std::time::Duration;

use aes::Aes256;
use aes::cipher::consts::U16;
use aes::cipher::{Array, KeyInit};
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use keyslot::crypto::{AesKernel, CipherSpec, SectorCipher};
use xts_mode::{Xts128, get_tweak_default};

fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("xts");
    group.sample_size(20);
    group.warm_up_time(Duration::from_millis(200)).measurement_time(Duration::from_secs(1));
    for (name, size) in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        if size == LARGEST {
            // A call takes milliseconds: as many in each sample.
            group.sampling_mode(SamplingMode::Flat).sample_size(10);
        }
        for sector_size in [512, 4096].into_iter().filter(|&sector_size| sector_size <= size) {
            rows(&mut group, sector_size, name, size);
        }
    }
    group.finish();
}

fn rows(group: &mut BenchmarkGroup<'_, WallTime>, sector_size: usize, name: &str, size: usize) {
    let mut data = vec![0xa5; size];
    let peer = (size < LARGEST).then(|| XtsMode::new(sector_size));
    let ciphertext = peer.as_ref().map(|peer| {
        let mut ciphertext = data.clone();
        peer.encrypt(&mut ciphertext);
        ciphertext
    });
    for kernel in AesKernel::available() {
        let ours = ours(kernel, sector_size);
        if let Some(ciphertext) = &ciphertext {
            let mut same = data.clone();
            ours.encrypt(FIRST_SECTOR, &mut same);
            assert!(same == *ciphertext, "{kernel} encrypts something else");
            ours.decrypt(FIRST_SECTOR, &mut same);
            assert!(same == data, "{kernel} decrypts something else");
        }
        group.bench_function(format!("encrypt/{sector_size}/{kernel}/{name}"), |bencher| {
            bencher.iter(|| ours.encrypt(FIRST_SECTOR, &mut data));
        });
        group.bench_function(format!("decrypt/{sector_size}/{kernel}/{name}"), |bencher| {
            bencher.iter(|| ours.decrypt(FIRST_SECTOR, &mut data));
        });
        data.fill(0xa5);
    }
    let Some(peer) = peer else { return };
    group.bench_function(format!("encrypt/{sector_size}/xts-mode/{name}"), |bencher| {
        bencher.iter(|| peer.encrypt(&mut data));
    });
    group.bench_function(format!("decrypt/{sector_size}/xts-mode/{name}"), |bencher| {
        bencher.iter(|| peer.decrypt(&mut data));
    });
}

fn ours(kernel: AesKernel, sector_size: usize) -> SectorCipher {
    let spec = CipherSpec::parse("aes", "xts-plain64", KEY.len()).expect("a cipher");
    let cipher = SectorCipher::with_kernel(spec, &KEY, kernel).expect("a kernel that is available");
    cipher.with_sector_size(sector_size).expect("a sector size of LUKS2")
}

/// The same work by `xts-mode`.
struct XtsMode {
    xts: Xts128<Aes256>,
    sector_size: usize,
}

impl XtsMode {
    fn new(sector_size: usize) -> Self {
        let half = |key| Aes256::new_from_slice(key).expect("a key of AES-256");
        let (data_key, tweak_key) = KEY.split_at(KEY.len() / 2);
        Self { xts: Xts128::new(half(data_key), half(tweak_key)), sector_size }
    }

    fn encrypt(&self, data: &mut [u8]) {
        self.xts.encrypt_area(data, self.sector_size, 0, self.tweak());
    }

    fn decrypt(&self, data: &mut [u8]) {
        self.xts.decrypt_area(data, self.sector_size, 0, self.tweak());
    }

    /// Initialisation vectors count units of 512 bytes.
    fn tweak(&self) -> impl Fn(u128) -> Array<u8, U16> {
        let step = (self.sector_size / SectorCipher::SECTOR_SIZE) as u128;
        move |index| get_tweak_default(u128::from(FIRST_SECTOR) + index * step)
    }
}

const FIRST_SECTOR: u64 = 0x1234_5678;

const KEY: [u8; 64] = *b"the first half is for the data, and the second is for the tweaks";

const LARGEST: usize = 64 << 20;
const SIZES: [(&str, usize); 5] =
    [("512B", 512), ("4KiB", 4 << 10), ("32KiB", 32 << 10), ("1MiB", 1 << 20), ("64MiB", LARGEST)];

criterion_group!(xts, benches);
criterion_main!(xts);
