//! How hard a new keyslot is to open, as options.

use std::time::Duration;

use clap::{Args, ValueEnum};
use keyslot::crypto::KdfKind;
use keyslot::kdf::{Cost, MIN_ITERATIONS, MIN_PASSES, Pbkdf};
use keyslot::{Error, ErrorKind, Result};

/// How hard a new keyslot is to open
#[derive(Args)]
pub struct KdfArgs {
    /// Time to open the keyslot on this machine, in milliseconds [default: 2000]
    #[arg(short = 'i', long, value_name = "MS", conflicts_with = "iterations")]
    pub iter_time: Option<u64>,

    /// How many times slower than this machine the one is that shall open it in that time
    #[arg(long, value_name = "FACTOR", value_parser = parse_factor, conflicts_with = "iterations")]
    pub iter_time_target: Option<f64>,

    /// PBKDF2 iterations of the keyslot, 1000 at least, or passes of Argon2, 4 at least
    #[arg(long, visible_alias = "pbkdf-force-iterations", value_name = "N")]
    pub iterations: Option<u32>,

    /// Key derivation function [default: as the keyslot has it; new: argon2id, of LUKS1 pbkdf2]
    #[arg(long, value_enum, value_name = "KDF")]
    pub pbkdf: Option<KdfName>,

    /// Memory of Argon2: the most, or with --iterations exactly [default: 1 GiB, or half of it all]
    #[arg(long, value_name = "KIB")]
    pub pbkdf_memory: Option<u32>,

    /// Lanes of Argon2, up to 4 [default: as many as there are CPUs]
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

/// Two answers to one question
pub const KDF_TWICE: &str =
    "--iter-time, --iter-time-target and --iterations must not be given beside iter-time in -o";

impl KdfArgs {
    pub fn is_given(&self) -> bool {
        self.iter_time.is_some() || self.iterations.is_some() || self.iter_time_target.is_some()
    }

    /// What is asked for. Whether a count is high enough, the keyslot says.
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
        Pbkdf { kind, cost, memory, parallelism, hash: None }
    }
}

/// A machine that is so many times slower, or faster.
fn parse_factor(text: &str) -> std::result::Result<f64, String> {
    let factor = text.parse().ok().filter(|factor| (MIN_FACTOR..=MAX_FACTOR).contains(factor));
    factor.ok_or_else(|| format!("it must be from {MIN_FACTOR} to {MAX_FACTOR}"))
}

const MIN_FACTOR: f64 = 0.01;
const MAX_FACTOR: f64 = 1000.0;

/// Refuses a count below those that QEMU and cryptsetup use at least.
pub fn check_count(pbkdf: &Pbkdf, default: KdfKind) -> Result<()> {
    let (least, unit) = match pbkdf.kind_or(default) {
        KdfKind::Pbkdf2 => (MIN_ITERATIONS, "iterations"),
        KdfKind::Argon2i | KdfKind::Argon2id => (MIN_PASSES, "passes"),
    };
    match pbkdf.cost {
        Cost::Iterations(count) if count < least => {
            let text = format!("{count} {unit} are below the {least} that are the least");
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
        _ => Ok(()),
    }
}
