//! Results of the measurements.

use std::fmt::{self, Display, Formatter};

use keyslot::Result;
use keyslot::crypto::AesKernel;
use serde::Serialize;

use super::super::output::Report;
use super::Work;
use super::kdf::{Kdf, KdfSpeed};

/// All measurements. A person gets each row as soon as it is measured, so the report as a whole has
/// no text.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BenchmarkReport {
    aes_kernel: &'static str,
    aes_kernels: Vec<&'static str>,
    kdfs: Vec<KdfSpeed>,
    ciphers: Vec<CipherSpeed>,
}

impl BenchmarkReport {
    pub fn measure(kdfs: &[Kdf], works: &[Work]) -> Result<Self> {
        Ok(Self {
            aes_kernel: AesKernel::best().name(),
            aes_kernels: AesKernel::available().map(AesKernel::name).collect(),
            kdfs: kdfs.iter().map(|kdf| kdf.measure()).collect::<Result<_>>()?,
            ciphers: works.iter().map(Work::measure).collect::<Result<_>>()?,
        })
    }
}

impl Report for BenchmarkReport {}

impl Display for BenchmarkReport {
    fn fmt(&self, _: &mut Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Speed of a cipher.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct CipherSpeed {
    cipher: String,
    key_bits: usize,
    sector_size: usize,
    #[serde(rename = "encrypt-bytes-per-second", serialize_with = "whole")]
    encryption: f64,
    #[serde(rename = "decrypt-bytes-per-second", serialize_with = "whole")]
    decryption: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    aes_kernel: Option<&'static str>,
    #[serde(flatten)]
    limit: Option<Limit>,
}

/// Speed of the CPU's AES unit alone, and the share of it that a cipher reaches.
#[derive(Serialize)]
struct Limit {
    #[serde(rename = "limit-bytes-per-second", serialize_with = "whole")]
    rate: f64,
    #[serde(rename = "encrypt-percent-of-limit", serialize_with = "tenths")]
    encryption: f64,
    #[serde(rename = "decrypt-percent-of-limit", serialize_with = "tenths")]
    decryption: f64,
}

impl CipherSpeed {
    /// Rates in bytes per second.
    pub fn new(work: &Work, encryption: f64, decryption: f64, limit: Option<f64>) -> Self {
        let limit = limit.map(|rate| Limit {
            rate,
            encryption: 100.0 * encryption / rate,
            decryption: 100.0 * decryption / rate,
        });
        Self {
            cipher: work.name(),
            key_bits: work.key_bits(),
            sector_size: work.sector_size,
            encryption,
            decryption,
            aes_kernel: work.kernel.map(AesKernel::name),
            limit,
        }
    }

    /// A row of the table, whose first column is `width` wide.
    pub fn row(&self, width: usize) -> String {
        let figure = |bytes: f64, percent: Option<f64>| {
            let share = percent.map_or(" ".repeat(6), |percent| format!("{percent:4.0} %"));
            format!("{:10.1} MiB/s{share}", bytes / MIB)
        };
        let row = format!(
            "{:<width$} {:5}b {:>8}  {}  {}   {}",
            self.cipher,
            self.key_bits,
            self.sector_size,
            figure(self.encryption, self.limit.as_ref().map(|it| it.encryption)),
            figure(self.decryption, self.limit.as_ref().map(|it| it.decryption)),
            self.aes_kernel.unwrap_or_default(),
        );
        row.trim_end().to_owned()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn whole<S: serde::Serializer>(rate: &f64, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_u64(*rate as u64)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn tenths<S: serde::Serializer>(
    percent: &f64,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_f64((percent * 10.0).round() / 10.0)
}

const MIB: f64 = 1_048_576.0;
