//! Options for the KDF of a new keyslot.

use std::time::Duration;

use clap::{Args, ValueEnum};
use keyslot::crypto::KdfKind;
use keyslot::kdf::{Cost, MIN_ITERATIONS, MIN_PASSES, Pbkdf};
use keyslot::{Error, ErrorKind, Result};

/// KDF of a new keyslot
#[derive(Args, Default)]
pub struct KdfArgs {
    /// Time to open the keyslot on this machine, in milliseconds [default: 2000]
    #[arg(short = 'i', long, value_name = "MS", conflicts_with = "iterations")]
    pub iter_time: Option<u64>,

    /// How many times slower the machine is that will open the image, 0.01 to 1000 [default: 1]
    #[arg(long, value_name = "FACTOR", value_parser = parse_factor, conflicts_with = "iterations")]
    pub iter_time_target: Option<f64>,

    /// PBKDF2 iterations, at least 1000, or Argon2 passes, at least 4
    #[arg(long, visible_alias = "pbkdf-force-iterations", value_name = "N")]
    pub iterations: Option<u32>,

    /// Key derivation function [default: unchanged; for a new keyslot argon2id, on LUKS1 pbkdf2]
    #[arg(long, value_enum, value_name = "KDF")]
    pub pbkdf: Option<KdfName>,

    /// Argon2 memory in KiB: upper limit, or exact with --iterations [default: 1 GiB, at most half
    /// of the memory]
    #[arg(long, value_name = "KIB")]
    pub pbkdf_memory: Option<u32>,

    /// Argon2 lanes, up to 4 [default: number of CPUs]
    #[arg(long, value_name = "N")]
    pub pbkdf_parallel: Option<u32>,
}

/// A key derivation function, by its name in LUKS2 metadata
#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
pub enum KdfName {
    Pbkdf2,
    Argon2i,
    Argon2id,
}

/// Error for a cost that is given both in `-o` and by an option
pub const KDF_TWICE: &str =
    "--iter-time, --iter-time-target and --iterations cannot be used with iter-time in -o";

impl KdfArgs {
    pub fn is_given(&self) -> bool {
        self.iter_time.is_some() || self.iterations.is_some() || self.iter_time_target.is_some()
    }

    /// KDF parameters asked for. The minimum count depends on the keyslot's KDF and is
    /// [checked](check_count) later.
    pub fn pbkdf(&self) -> Pbkdf {
        let kind = self.pbkdf.map(|name| match name {
            KdfName::Pbkdf2 => KdfKind::Pbkdf2,
            KdfName::Argon2i => KdfKind::Argon2i,
            KdfName::Argon2id => KdfKind::Argon2id,
        });
        let cost = match (self.iterations, self.iter_time) {
            (Some(iterations), _) => Cost::Iterations(iterations),
            (None, Some(ms)) => Cost::Time(Duration::from_millis(ms)),
            (None, None) => Cost::default(),
        };
        let cost = match (cost, self.iter_time_target) {
            (Cost::Time(time), Some(factor)) => Cost::Time(time.div_f64(factor)),
            (cost, _) => cost,
        };
        let (memory, parallelism) = (self.pbkdf_memory, self.pbkdf_parallel);
        Pbkdf::from(cost).kind(kind).memory(memory).parallelism(parallelism)
    }
}

/// Parses how many times slower another machine is; below 1 it is faster.
fn parse_factor(text: &str) -> std::result::Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (MIN_FACTOR..=MAX_FACTOR).contains(factor));
    factor.ok_or_else(|| format!("must be from {MIN_FACTOR} to {MAX_FACTOR}"))
}

const MIN_FACTOR: f64 = 0.01;
const MAX_FACTOR: f64 = 1000.0;

/// Refuses a count below the minimum of QEMU and cryptsetup.
pub fn check_count(pbkdf: &Pbkdf, default: KdfKind) -> Result<()> {
    let (least, unit) = match pbkdf.kind_or(default) {
        KdfKind::Pbkdf2 => (MIN_ITERATIONS, "iterations"),
        KdfKind::Argon2i | KdfKind::Argon2id => (MIN_PASSES, "passes"),
    };
    match pbkdf.cost {
        Cost::Iterations(count) if count < least => {
            let text = format!("{count} {unit}: the minimum is {least}");
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
        _ => Ok(()),
    }
}
