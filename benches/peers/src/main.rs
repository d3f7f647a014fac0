//! AES-XTS: every kernel of keyslot beside AWS-LC, OpenSSL and the limit of the AES unit, on the
//! same work in the same run, on one thread.
//!
//! `cargo run --release -- [--quick] [FILTER]...` in this directory. A row is measured if its label,
//! such as `AES-256-XTS encrypt 512 32 KiB`, has every FILTER in it. `cargo run --release --bin
//! convert` and `--bin unlock` compare whole commands, `--bin kdf` PBKDF2.
//!
//! To build it takes a C compiler, for AWS-LC comes as source, pkg-config and OpenSSL's headers:
//! `apt-get install gcc pkg-config libssl-dev`. Other systems than Linux may need cmake too.

mod contender;
mod evp;
mod kernels;
mod limit;
mod table;
mod timing;

use timing::{Buffer, Rounds};

fn main() {
    let mut rounds = Rounds::FULL;
    let mut filters = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => rounds = Rounds::QUICK,
            option if option.starts_with('-') => panic!("no such option: {option}"),
            _ => filters.push(argument),
        }
    }
    let (aws_lc, openssl) = (evp::aws_lc::version(), evp::openssl::version());
    assert_ne!(aws_lc, openssl, "one library under two names");
    println!(
        "{}; {aws_lc}; {openssl}. One thread; the best of {} rounds, and the medians of the ratios \
         in each.",
        cpu(),
        rounds.count
    );

    let mut buffer = Buffer::new(SIZES[SIZES.len() - 1]);
    measure(64, &SIZES, &filters, rounds, &mut buffer);
    measure(32, &[SIZES[0], SIZES[2]], &filters, rounds, &mut buffer);
}

/// What is measured in one row.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// In bytes; both halves.
    key_size: usize,
    encrypt: bool,
    sector_size: usize,
}

impl Work {
    /// The number of the first sector; large enough that a tweak cut to 32 bits is noticed.
    const FIRST_SECTOR: u64 = 0x0001_2345_6789_abc0;

    /// Two different halves: some refuse anything else.
    fn key(self) -> Vec<u8> {
        (0..=255).map(|byte: u8| byte.wrapping_mul(31)).take(self.key_size).collect()
    }

    /// Rounds of AES that a block takes.
    fn rounds(self) -> usize {
        self.key_size / 8 + 6
    }

    fn label(self, size: usize) -> String {
        let bits = self.key_size * 4;
        let direction = if self.encrypt { "encrypt" } else { "decrypt" };
        format!("AES-{bits}-XTS {direction} {} {}", self.sector_size, binary(size))
    }
}

fn measure(
    key_size: usize,
    sizes: &[usize],
    filters: &[String],
    rounds: Rounds,
    buffer: &mut Buffer,
) {
    let mut header = false;
    for encrypt in [true, false] {
        for sector_size in [512, 4096] {
            let work = Work { key_size, encrypt, sector_size };
            let wanted =
                |size: &&usize| filters.iter().all(|part| work.label(**size).contains(part));
            let sizes: Vec<_> =
                sizes.iter().filter(|&&s| s >= sector_size).filter(wanted).collect();
            if sizes.is_empty() {
                continue;
            }
            let mut entries = contender::all(work);
            contender::assert_same_bytes(work, &mut entries);
            if !header {
                table::print_header(&entries);
                header = true;
            }
            for &size in sizes {
                let times = timing::in_turn(&mut entries, buffer.slice(size), rounds);
                table::print_row(work, size, &entries, &times);
            }
        }
    }
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let family = field("cpu family").map(|number| format!(" (family {number})"));
    field("model name").unwrap_or_else(|| "a CPU".to_owned()) + &family.unwrap_or_default()
}

fn binary(size: usize) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..0x10_0000 => format!("{} KiB", size >> 10),
        _ => format!("{} MiB", size >> 20),
    }
}

/// From a single sector to more than any cache holds.
const SIZES: [usize; 5] = [512, 4 << 10, 32 << 10, 1 << 20, 64 << 20];
