//! `qemu-img resize`: sets the size of an image, or changes it by an amount.

use std::ffi::OsString;
use std::slice;

use clap::Args;
use keyslot::qemu::size;
use keyslot::{Error, ErrorKind, Preallocation, Sharing};

use super::super::output;
use super::super::report::Failure;
use super::image::ImageArgs;
use super::{Exit, Images, Result};

/// Resize an image
#[derive(Args)]
pub struct ResizeArgs {
    #[command(flatten)]
    image: ImageArgs,

    /// How space is allocated for what is added
    #[arg(long)]
    preallocation: Option<String>,

    /// Allow the image to become smaller
    #[arg(long)]
    shrink: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

impl ResizeArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        self.image.named().first()
    }

    /// Whether `argument` is the image's name, and the only operand.
    pub fn ends_with(&self, argument: &OsString) -> bool {
        self.image.images.as_slice() == slice::from_ref(argument)
    }
}

/// Runs the command. `size` is its size, if that looks like an option.
pub fn run(args: &ResizeArgs, size: Option<&OsString>) -> Exit {
    let space = match args.preallocation.as_deref() {
        // LUKS has no metadata to allocate. That is an error only if the image grows.
        None | Some("off" | "metadata") => Preallocation::Off,
        Some("falloc") => Preallocation::Falloc,
        Some("full") => Preallocation::Full,
        Some(other) => {
            let text = format!("Invalid preallocation mode '{other}'");
            return Err(invalid(&text).into());
        }
    };
    let (name, size) = match (args.image.images.as_slice(), size) {
        ([name], Some(size)) | ([name, size], None) => (name, size),
        ([_, _, ..], _) => {
            return Err(Failure::usage("Extra argument(s) in command line", "resize"));
        }
        _ => return Err(Failure::usage("Expecting image file name and size", "resize")),
    };
    let change = Change::parse(&size.to_string_lossy())?;
    let opened = args.image.open_named(name, Sharing::Amend)?;
    let (mut image, volume) = opened.luks()?;
    let before = volume.len();
    let len = change.of(before).ok_or_else(|| invalid("New image size must be positive"))?;
    if len <= before && args.preallocation.as_deref().is_some_and(|mode| mode != "off") {
        return Err(invalid("Preallocation can only be used for growing images").into());
    }
    if len < before && !args.shrink {
        return Err(Failure::followed(invalid(USE_SHRINK), LOSS));
    }
    if args.preallocation.as_deref() == Some("metadata") {
        return Err(invalid("Unsupported preallocation mode: metadata").into());
    }
    if let Some((_, Some(_))) = image.part() {
        return Err(invalid("Cannot resize fixed-size raw disks").into());
    }
    image.resize(len, space)?;
    if !args.quiet {
        output::print_done("Image resized.\n")?;
    }
    Ok(0)
}

/// The size asked for.
enum Change {
    To(u64),
    By { bytes: u64, grows: bool },
}

impl Change {
    fn parse(text: &str) -> Result<Self> {
        let by = |text, grows| Ok(Self::By { bytes: size("size", text)?, grows });
        match (text.strip_prefix('+'), text.strip_prefix('-')) {
            (Some(text), _) => by(text, true),
            (_, Some(text)) => by(text, false),
            _ => size("size", text).map(Self::To),
        }
    }

    /// The new size. `None` if it is not positive, or beyond QEMU's limit.
    fn of(&self, before: u64) -> Option<u64> {
        let len = match *self {
            Self::To(len) => Some(len),
            Self::By { bytes, grows: true } => before.checked_add(bytes),
            Self::By { bytes, grows: false } => before.checked_sub(bytes),
        };
        len.filter(|&len| len > 0 && i64::try_from(len).is_ok())
    }
}

const USE_SHRINK: &str = "Use the --shrink option to perform a shrink operation.";

/// QEMU's second line
const LOSS: &str = "warning: Shrinking an image will delete all data beyond the shrunken image's \
                    end. Before performing such an operation, make sure there is no important data \
                    there.";

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
