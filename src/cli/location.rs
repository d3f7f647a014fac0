//! Where an image is, as options: a file, a part of one, and perhaps another file with its header.

use std::path::{Path, PathBuf};

use clap::Args;
use keyslot::qemu::{ImageSpec, size};
use keyslot::{Error, ErrorKind, OpenOptions, Result};

use super::image_spec;

/// A part of a file
#[derive(Args, Clone)]
pub struct PartArgs {
    /// The image is partition N of the file (GPT or MBR)
    #[arg(long, value_name = "N", conflicts_with = "offset")]
    partition: Option<u32>,

    /// The image begins at this byte of the file; suffixes as for sizes
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    offset: Option<u64>,

    /// Length of the image from --offset on [default: to the end of the file]
    #[arg(long = "size", value_name = "BYTES", requires = "offset", value_parser = bytes)]
    len: Option<u64>,
}

/// A part of a file, and a detached header
#[derive(Args, Clone)]
pub struct LocationArgs {
    /// Use the header in this file: it is detached, and the image has the payload alone
    #[arg(long, value_name = "FILE")]
    header: Option<PathBuf>,

    #[command(flatten)]
    part: PartArgs,
}

/// An image of which the header is needed and no more
#[derive(Args)]
pub struct ImageArgs {
    #[command(flatten)]
    location: LocationArgs,

    /// Image; with --header it may be left out, and is then not locked
    #[arg(value_name = "IMAGE", required_unless_present = "header")]
    image: Option<PathBuf>,
}

impl PartArgs {
    /// The options, with this part.
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

    /// The options, with this location.
    pub fn apply(&self, options: OpenOptions) -> OpenOptions {
        let options = self.part.apply(options);
        match &self.header {
            Some(header) => options.header(header),
            None => options,
        }
    }

    /// Whether anything of it is given.
    pub fn is_given(&self) -> bool {
        self.header.is_some() || self.part.is_given()
    }

    /// Refuses all of it for what is no image in a part of a file.
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
            let text = format!("--header is for one image, not for {images}");
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        Ok(())
    }

    /// The same with what the image's own options say.
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
    /// The file that the command is about: the image, or the detached header alone.
    pub fn path(&self) -> &Path {
        let header = self.location.header.as_deref();
        self.image.as_deref().or(header).unwrap_or_else(|| Path::new(""))
    }

    /// The options, with where the image is.
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

/// A number of bytes that is whole sectors.
fn bytes(text: &str) -> Result<u64> {
    let bytes = size("value", text)?;
    if bytes.is_multiple_of(512) {
        return Ok(bytes);
    }
    let text = format!("{bytes} bytes are not whole sectors of 512 bytes");
    Err(Error::new(ErrorKind::InvalidInput, text))
}
