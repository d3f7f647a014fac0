//! Options that locate an image: a file or a part of one, and a detached header.

use std::path::{Path, PathBuf};

use clap::Args;
use keyslot::qemu::{ImageSpec, size};
use keyslot::{Error, ErrorKind, OpenOptions, Result};

use super::image_spec;

/// A part of a file
#[derive(Args, Clone)]
pub struct PartArgs {
    /// Use partition N of the file (GPT or MBR)
    #[arg(long, value_name = "N", conflicts_with = "offset")]
    partition: Option<u32>,

    /// Start of the image in the file, in bytes (or with K, M, G, T)
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    offset: Option<u64>,

    /// Length of the image from --offset, in bytes (or with K, M, G, T) [default: to the end of the
    /// file]
    #[arg(long = "size", value_name = "BYTES", requires = "offset", value_parser = bytes)]
    len: Option<u64>,
}

/// A part of a file, and a detached header
#[derive(Args, Clone)]
pub struct LocationArgs {
    /// File with the detached header; the image holds only the payload
    #[arg(long, value_name = "FILE")]
    header: Option<PathBuf>,

    #[command(flatten)]
    part: PartArgs,
}

/// An image of which only the header is needed
#[derive(Args)]
pub struct ImageArgs {
    #[command(flatten)]
    location: LocationArgs,

    /// Image; may be omitted with --header, and is then not locked
    #[arg(value_name = "IMAGE", required_unless_present = "header")]
    image: Option<PathBuf>,
}

impl PartArgs {
    /// Adds this part to `options`.
    pub fn apply(&self, options: OpenOptions) -> OpenOptions {
        match (self.partition, self.offset) {
            (Some(number), _) => options.partition(number),
            (None, Some(offset)) => options.range(offset, self.len),
            (None, None) => options,
        }
    }

    fn is_given(&self) -> bool {
        self.partition.is_some() || self.offset.is_some()
    }
}

impl LocationArgs {
    /// The file with the detached header.
    pub fn header(&self) -> Option<&Path> {
        self.header.as_deref()
    }

    /// Whether the image is a part of its file.
    pub fn is_part(&self) -> bool {
        self.part.is_given()
    }

    /// Adds this location to `options`.
    pub fn apply(&self, options: OpenOptions) -> OpenOptions {
        let options = self.part.apply(options);
        match &self.header {
            Some(header) => options.header(header),
            None => options,
        }
    }

    /// Whether any of these options is given.
    pub fn is_given(&self) -> bool {
        self.header.is_some() || self.part.is_given()
    }

    /// Refuses these options for `what`, to which no location applies.
    pub fn check_none(&self, what: &str) -> Result<()> {
        if self.is_given() {
            let text = format!("--header, --partition and --offset do not apply to {what}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Refuses a detached header for more than one image.
    pub fn check_count(&self, images: usize) -> Result<()> {
        if self.header.is_some() && images > 1 {
            let text = format!("--header applies to one image, not to {images}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// Adds this location and the one in the image's own options to `options`.
    pub fn apply_with(&self, spec: &ImageSpec, options: OpenOptions) -> Result<OpenOptions> {
        let twice = |option: &str| {
            let text = format!("{option} is given twice: by option and in the image's options");
            Err(Error::new(ErrorKind::InvalidInput, text))
        };
        if spec.header.is_some() && self.header.is_some() {
            return twice("the header");
        }
        if spec.is_part() && self.part.is_given() {
            return twice("the part of the file");
        }
        Ok(image_spec::located(spec, self.apply(options)))
    }
}

impl ImageArgs {
    /// Path of the image or, without one, of the detached header.
    pub fn path(&self) -> &Path {
        let header = self.location.header.as_deref();
        self.image.as_deref().or(header).unwrap_or_else(|| Path::new(""))
    }

    /// Adds the location of the image to `options`.
    pub fn apply(&self, options: OpenOptions) -> OpenOptions {
        match &self.image {
            Some(_) => self.location.apply(options),
            None => self.location.part.apply(options),
        }
    }

    /// Opens the image to read its header.
    pub fn open(&self) -> Result<keyslot::Image> {
        self.apply(OpenOptions::new()).open(self.path())
    }
}

/// Parses a number of bytes, which must be whole sectors.
fn bytes(text: &str) -> Result<u64> {
    let bytes = size("value", text)?;
    if bytes.is_multiple_of(512) {
        return Ok(bytes);
    }
    let text = format!("{bytes} bytes: must be a multiple of 512");
    Err(Error::new(ErrorKind::InvalidInput, text))
}
