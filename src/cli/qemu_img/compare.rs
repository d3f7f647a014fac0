//! `qemu-img compare`: whether two images have the same contents.

use std::ffi::OsString;

use clap::Args;
use keyslot::volume::{CopyOptions, Side};
use keyslot::{ErrorKind, Sharing};

use super::super::output::print;
use super::super::progress::Progress;
use super::super::report::Failure;
use super::super::secrets::Secrets;
use super::super::{ObjectArgs, Output, check_cache};
use super::image::{Opened, OpeningArgs};
use super::{Exit, Images, Result};

/// Compare two images
#[derive(Args)]
pub struct CompareArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    #[command(flatten)]
    opening: OpeningArgs,

    /// Format of the first image
    #[arg(short = 'f', long = "a-format")]
    format: Option<String>,

    /// Format of the second image
    #[arg(short = 'F', long = "b-format")]
    other_format: Option<String>,

    /// Cache mode, without effect
    #[arg(short = 'T', long)]
    source_cache: Option<String>,

    /// Also compare sizes, and where there is data
    #[arg(short, long)]
    strict: bool,

    /// Print a percentage
    #[arg(short, long)]
    progress: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Images, or their options
    images: Vec<OsString>,
}

impl CompareArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        let formats = [self.format.as_deref(), self.other_format.as_deref()];
        let existing = |(name, format)| self.opening.named(name, format);
        let names = self.images.iter().map(OsString::as_os_str);
        let is_pair = self.images.len() == 2;
        let sides = names.zip(formats).filter(|_| is_pair).map(existing);
        Images::new(&self.objects.objects, sides)
    }

    fn tell(&self, line: &str) -> Result<()> {
        if self.quiet { Ok(()) } else { print(&format!("{line}\n")) }
    }
}

/// Runs the command.
pub fn run(args: &CompareArgs) -> Exit {
    let [one, other] = args.images.as_slice() else {
        return Err(Failure::usage("Expecting two image file names", "compare"));
    };
    let secrets = Secrets::new(&args.objects.objects, [])?;
    check_cache(args.source_cache.as_ref(), "source cache")?;
    let open = |name, format: &Option<String>| {
        args.opening.open(name, format.as_deref(), &secrets, Sharing::ReadData)
    };
    let progress = Progress::begin(args.progress && !args.quiet, Output::Human, true);
    let (one, other) = (open(one, &args.format)?, open(other, &args.other_format)?);
    let is_same_kind = matches!(one, Opened::Luks(_)) == matches!(other, Opened::Luks(_));
    let mut sides = [one.side()?, other.side()?];
    sides.sort_by_key(Side::len);
    let [shorter, longer] = sides;
    let is_same_len = shorter.len() == longer.len();
    if args.strict && !is_same_len {
        args.tell("Strict mode: Image size mismatch!")?;
        return Ok(DIFFERENT);
    }
    // To QEMU, data of a file has a place in it, and data of a LUKS image has none.
    if args.strict && !is_same_kind && !shorter.is_empty() {
        args.tell("Strict mode: Offset 0 block status mismatch!")?;
        return Ok(DIFFERENT);
    }
    let copy = CopyOptions::new();
    let compared =
        progress.of("comparing", longer.len(), |advance| copy.compare(shorter, longer, advance));
    let ends = [one.partial_end(), other.partial_end()];
    if let Some(at) = mismatch(compared, ends)? {
        args.tell(&format!("Content mismatch at offset {at}!"))?;
        return Ok(DIFFERENT);
    }
    if !is_same_len {
        args.tell("Warning: Image size mismatch!")?;
        let compared = copy.check_zero(longer, shorter.len(), &|_| {});
        if let Some(at) = mismatch(compared, ends)? {
            args.tell(&format!("Content mismatch at offset {at}!"))?;
            return Ok(DIFFERENT);
        }
    }
    args.tell("Images are identical.")?;
    Ok(0)
}

/// Where QEMU tells the first difference: at the start of its sector or, behind the end of a file that
/// is within that sector, there.
fn mismatch(compared: Result<()>, ends: [Option<u64>; 2]) -> Result<Option<u64>> {
    match compared {
        Ok(()) => Ok(None),
        Err(error) => match error.offset() {
            Some(at) if error.kind() == ErrorKind::Differs => {
                let ends = ends.into_iter().flatten().filter(|end| *end <= at);
                Ok(ends.chain([at - at % 512]).max())
            }
            _ => Err(error),
        },
    }
}

const DIFFERENT: u8 = 1;

/// Exit status if the images cannot be compared
pub const FAILED: u8 = 2;
