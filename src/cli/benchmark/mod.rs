//! `keyslot benchmark`: measures keyslot's key derivation and ciphers, as `cryptsetup benchmark`
//! measures the kernel's.

mod kdf;
mod report;

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::Args;
use keyslot::crypto::{AesKernel, Cipher, CipherMode, CipherSpec, HashAlg, SectorCipher};
use keyslot::{Error, ErrorKind, Result};

use self::kdf::Kdf;
use self::report::{BenchmarkReport, CipherSpeed};
use super::progress::Spinner;
use super::{KdfName, Outcome, Output, Status, output};

/// Measure the speed of key derivation and ciphers
///
/// Prints PBKDF2 iterations per second for a 256-bit key, with each hash; Argon2 passes over a KiB
/// per second, and the time that cryptsetup's defaults take; and MiB per second encrypted and
/// decrypted by each cipher. Options that name something to measure leave out the rest.
#[derive(Args)]
#[command(after_help = NOTES)]
pub struct BenchmarkArgs {
    /// Measure this cipher, such as aes-xts-plain64. The mode defaults to cbc, the IV generator to
    /// plain64
    #[arg(short, long, value_name = "SPEC")]
    cipher: Option<String>,

    /// Key size in bits (XTS: both halves) [default: 256]
    #[arg(short = 's', long, value_name = "BITS", requires = "cipher")]
    key_size: Option<usize>,

    /// Measure PBKDF2 with this hash
    #[arg(long)]
    hash: Option<String>,

    /// Measure this key derivation function
    #[arg(long, value_enum, value_name = "KDF", conflicts_with = "hash")]
    pbkdf: Option<KdfName>,

    /// Measure AES-XTS with every kernel that this CPU supports, not only the fastest
    #[arg(long)]
    all_kernels: bool,

    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Print only the figures, without headings and progress
    #[arg(short, long)]
    quiet: bool,
}

const NOTES: &str = "\
All measurements run in memory, without files. Argon2 uses one thread for each lane, as many as \
there are CPUs, up to 4; everything else uses one thread. A cipher's figure is the best of many \
runs of about half a millisecond, PBKDF2's the best of 3 runs of 20 ms, Argon2's the best of 3 \
runs with 4 passes over 128 MiB. Ciphers work on 256 KiB, which fits the L2 cache; slow ciphers \
work on less. The percentage beside the speed of AES-XTS is its share of the kernel's limit: the \
speed of the CPU's AES unit with the rounds alone, in registers.";

/// Runs the command.
pub fn run(args: &BenchmarkArgs) -> Outcome {
    let is_all = args.hash.is_none() && args.pbkdf.is_none() && args.cipher.is_none();
    let kdfs = match &args.hash {
        Some(name) => vec![Kdf::Pbkdf2(HashAlg::parse(name).map_err(|e| invalid(e.message()))?)],
        None if is_all || args.pbkdf.is_some() => Kdf::all(args.pbkdf),
        None => Vec::new(),
    };
    let specs = match &args.cipher {
        Some(text) => vec![parse_cipher(text, args.key_size.unwrap_or(DEFAULT_KEY_BITS))?],
        None if is_all => default_ciphers()?,
        None => Vec::new(),
    };
    let works: Vec<_> = specs.iter().flat_map(|spec| Work::all(spec, args.all_kernels)).collect();
    match args.output {
        Output::Human => print_table(&kdfs, &works, !args.quiet)?,
        Output::Json => {
            let report = {
                let _spinner = Spinner::start("measuring", args.quiet);
                BenchmarkReport::measure(&kdfs, &works)?
            };
            output::report(&report, Output::Json, args.quiet)?;
        }
    }
    Ok(Status::Done)
}

/// Parses a cipher specification as cryptsetup's `--cipher` and `--key-size` do.
fn parse_cipher(text: &str, key_bits: usize) -> Result<CipherSpec> {
    if !key_bits.is_multiple_of(8) {
        return Err(invalid(format!("key size {key_bits}: must be a multiple of 8 bits")));
    }
    let (cipher, mode) = text.split_once('-').unwrap_or((text, CipherMode::Cbc.name()));
    let mode = if mode.contains('-') || mode == CipherMode::Ecb.name() {
        mode.to_owned()
    } else {
        format!("{mode}-plain64")
    };
    CipherSpec::parse(cipher, &mode, key_bits / 8).map_err(|error| match error.kind() {
        ErrorKind::Corrupt => {
            let text = text.escape_debug();
            let why = error.message();
            invalid(format!("cipher '{text}' with a key of {key_bits} bits: {why}"))
        }
        _ => invalid(error.message()),
    })
}

/// An error in the arguments: there is no image that could be damaged or unsupported.
fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn default_ciphers() -> Result<Vec<CipherSpec>> {
    let mut specs = Vec::new();
    for cipher in ["aes", "camellia", "serpent", "twofish"] {
        for (mode, key_sizes) in [("cbc-plain64", [16, 32]), ("xts-plain64", [32, 64])] {
            for key_size in key_sizes {
                specs.push(CipherSpec::parse(cipher, mode, key_size)?);
            }
        }
    }
    Ok(specs)
}

/// Prints each row as soon as it is measured. Stops once the reader is gone.
fn print_table(kdfs: &[Kdf], works: &[Work], has_headings: bool) -> Result<()> {
    let width = works.iter().map(|work| work.name().len()).max().unwrap_or_default().max(8);
    let heading = |is_wanted: bool, text: String| (has_headings && is_wanted).then_some(Ok(text));
    let of_kdfs = "# Key derivation".to_owned();
    let of_ciphers = format!(
        "# {:<cipher$} |  Key | Sector |{:>22} |{:>22} | Kernel",
        "Cipher",
        "Encryption",
        "Decryption",
        cipher = width - 2,
    );
    let lines = heading(
        true,
        "# One thread (Argon2: one for each lane), in memory, without any file".to_owned(),
    )
    .into_iter()
    .chain(heading(!kdfs.is_empty(), of_kdfs))
    .chain(kdfs.iter().map(|kdf| kdf.measure().map(|it| it.to_string())))
    .chain(heading(works.iter().any(|work| work.kernel.is_some()), kernels_heading()))
    .chain(heading(!works.is_empty(), of_ciphers))
    .chain(works.iter().map(|work| work.measure().map(|it| it.row(width))));
    for line in lines {
        if !output::print_row(&line?)? {
            break;
        }
    }
    Ok(())
}

fn kernels_heading() -> String {
    let kernels: Vec<_> = AesKernel::available().map(AesKernel::name).collect();
    let kernels = kernels.join(", ");
    format!("# AES-XTS kernels: {kernels}; % of what their AES rounds alone do")
}

/// A cipher to measure: a row of the table.
struct Work {
    spec: CipherSpec,
    sector_size: usize,
    /// Only for AES-XTS
    kernel: Option<AesKernel>,
}

impl Work {
    /// Rows of a cipher. AES-XTS has two sector sizes: it is fast enough for the cost per sector to
    /// show.
    fn all(spec: &CipherSpec, all_kernels: bool) -> Vec<Self> {
        let work = |sector_size, kernel| Self { spec: spec.clone(), sector_size, kernel };
        if (spec.cipher(), spec.mode()) != (Cipher::Aes, CipherMode::Xts) {
            return vec![work(512, None)];
        }
        let mut kernels: Vec<_> = AesKernel::available().collect();
        kernels.retain(|&kernel| all_kernels || kernel == AesKernel::best());
        let works = [512, 4096].map(|size| kernels.iter().map(move |&it| work(size, Some(it))));
        works.into_iter().flatten().collect()
    }

    fn name(&self) -> String {
        format!("{}-{}", self.spec.cipher_name(), self.spec.cipher_mode())
    }

    fn key_bits(&self) -> usize {
        8 * self.spec.key_size()
    }

    fn measure(&self) -> Result<CipherSpeed> {
        let key: Vec<u8> = (0..=u8::MAX).cycle().take(self.spec.key_size()).collect();
        let kernel = self.kernel.unwrap_or(AesKernel::best());
        let cipher = SectorCipher::with_kernel(self.spec.clone(), &key, kernel)?;
        let cipher = cipher.with_sector_size(self.sector_size)?;
        let mut buffer = vec![0xa5; BUFFER];
        let len = length_for_a_run(&mut buffer, |data| cipher.encrypt(0, data));
        let data = &mut buffer[..len];

        let (mut encryption, mut decryption, mut limit): (f64, f64, Option<f64>) =
            Default::default();
        let start = Instant::now();
        // Take turns, so that a change of the CPU's clock affects all measurements.
        while start.elapsed() < ROW {
            if let Some(now) = self.kernel.and_then(|it| it.limit(self.spec.key_size() / 2)) {
                limit = Some(limit.unwrap_or_default().max(now));
            }
            encryption = encryption.max(best(data, |data| cipher.encrypt(0, data)));
            decryption = decryption.max(best(data, |data| cipher.decrypt(0, data)));
        }
        Ok(CipherSpeed::new(self, encryption, decryption, limit))
    }
}

/// Length of the part of the buffer that takes about one run to process.
fn length_for_a_run(buffer: &mut [u8], pass: impl Fn(&mut [u8])) -> usize {
    let mut len = SHORTEST;
    loop {
        let start = Instant::now();
        pass(&mut buffer[..len]);
        if 2 * start.elapsed() > RUN || 2 * len > buffer.len() {
            return len;
        }
        len *= 2;
    }
}

/// Bytes per second of the fastest of a few runs, because other processes may slow some of them
/// down.
#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn best(data: &mut [u8], pass: impl Fn(&mut [u8])) -> f64 {
    let rates = (0..RUNS).map(|_| {
        let mut bytes = 0;
        let start = Instant::now();
        loop {
            pass(black_box(&mut *data));
            bytes += data.len();
            let elapsed = start.elapsed();
            if elapsed >= RUN {
                return bytes as f64 / elapsed.as_secs_f64();
            }
        }
    });
    rates.fold(0.0, f64::max)
}

/// Default key size, as in cryptsetup
const DEFAULT_KEY_BITS: usize = 256;

/// Length of the buffer that ciphers work on: it fits every L2 cache
const BUFFER: usize = 256 << 10;
/// Shortest part of the buffer to work on: the largest sector
const SHORTEST: usize = 4096;
/// Length of a run
const RUN: Duration = Duration::from_micros(500);
/// Number of runs in a turn
const RUNS: u32 = 8;
/// Time to measure a row
const ROW: Duration = Duration::from_millis(300);
