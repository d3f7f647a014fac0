//! Members that `info` shows of a qcow2 image.

use std::path::Path;

use keyslot::container::{Qcow2Compression, Qcow2Header};
use serde::Serialize;

use super::super::{image_spec, output};
use super::luks1::Luks1Info;

/// A qcow2 image, under QEMU's names.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Qcow2Info {
    compat: &'static str,
    compression_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    lazy_refcounts: Option<bool>,
    refcount_bits: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_file: Option<String>,
    encrypt: Luks1Info,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_file_raw: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrupt: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    extended_l2: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    internal_snapshots: Option<u32>,
}

/// A backing file, as the image names it.
pub struct Backing {
    /// Name in the image
    pub name: String,
    /// Its path relative to the working directory, not to the image
    pub full_name: String,
    /// Format of the backing file, if the image names it
    pub format: Option<String>,
}

impl Qcow2Info {
    pub fn new(header: &Qcow2Header, mut encrypt: Luks1Info) -> Self {
        encrypt.format = Some("luks");
        let is_v3 = header.version() >= 3;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self {
            compat: if is_v3 { "1.1" } else { "0.10" },
            compression_type: match header.compression() {
                Qcow2Compression::Zstd => "zstd",
                _ => "zlib",
            },
            lazy_refcounts: is_v3.then(|| header.has_lazy_refcounts()),
            refcount_bits: header.refcount_bits(),
            data_file: header.data_file().map(text),
            encrypt,
            data_file_raw: header.has_data_file().then(|| header.is_data_file_raw()),
            corrupt: is_v3.then(|| header.is_corrupt()),
            extended_l2: is_v3.then(|| header.has_extended_l2()),
            internal_snapshots: Some(header.snapshots()).filter(|&count| count > 0),
        }
    }
}

impl Backing {
    /// The backing file of the image at `path`.
    pub fn new(header: &Qcow2Header, path: &Path) -> Option<Self> {
        let name = header.backing_file()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let file = image_spec::named_file(path, name);
        let full_name = file.map_or_else(|| text(name), |file| output::filename(&file));
        let format = header.backing_format().map(text);
        Some(Self { name: text(name), full_name, format })
    }
}
