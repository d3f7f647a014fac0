//! Reports of `create` and `convert`.

use std::fmt::{self, Display, Formatter};

use keyslot::header::Header;
use serde::Serialize;

use super::super::changes::KdfCost;
use super::super::output::{self, Report};
use super::super::qemu_format::size;
use super::Version;

/// An image that was written.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct WrittenImage {
    pub filename: String,
    format: &'static str,
    pub virtual_size: u64,
    #[serde(flatten)]
    opened: Option<Opened>,
}

/// The header of a LUKS image, and the keyslot that its secret opens.
#[derive(Serialize)]
struct Opened {
    uuid: String,
    keyslot: usize,
    #[serde(flatten)]
    kdf: Option<KdfCost>,
}

impl WrittenImage {
    /// Describes a raw image or, with a header, a LUKS image and the keyslot that its secret opens.
    pub fn new(filename: String, virtual_size: u64, opened: Option<(&Header, usize)>) -> Self {
        let format = opened.map_or("raw", |(header, _)| Version::of_header(header).format());
        let opened = opened.map(|(header, keyslot)| Opened {
            uuid: header.uuid(),
            keyslot,
            kdf: header.keyslot(keyslot).map(|it| KdfCost::of(it.kdf.alg)),
        });
        Self { filename, format, virtual_size, opened }
    }
}

/// The result of `create`.
#[derive(Serialize)]
pub struct CreateReport {
    #[serde(flatten)]
    pub image: WrittenImage,
    /// File of a detached header, if it is not the image that was named
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    #[serde(skip)]
    pub version: Version,
    #[serde(skip)]
    pub is_detached: bool,
}

impl Report for CreateReport {
    fn is_change(&self) -> bool {
        true
    }
}

impl Display for CreateReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let what = if self.is_detached { "detached header for an image" } else { "image" };
        writeln!(
            f,
            "{}: {} {what} of {} created, its secret is in keyslot 0",
            output::foreign(&self.image.filename),
            self.version.name(),
            size(self.image.virtual_size),
        )
    }
}
