//! `keyslot convert`: copies the contents of one image into another, with qemu-img's options.

mod existing;
mod named_files;
mod new;
mod source;
mod target;

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::num::NonZero;
use std::slice;

use clap::Args;
use keyslot::qemu::{Options, number, size_argument};
use keyslot::volume::CopyOptions;
use keyslot::{Error, ErrorKind, Result};
use serde::Serialize;

use self::source::Source;
use self::target::Target;
use super::create::{LuksArgs, WrittenImage, are_known};
use super::location::LocationArgs;
use super::output::{self, Report};
use super::progress::Progress;
use super::qemu_format;
use super::qemu_img::{Images, Side};
use super::report::Remedies;
use super::secrets::Secrets;
use super::{KdfArgs, ObjectArgs, Outcome, Output, Persona, SOURCES, Status, check_cache};

/// Convert an image: encrypt it, decrypt it, or encrypt it under a new volume key
///
/// Takes the arguments of qemu-img convert for raw, LUKS1, LUKS2 and qcow2 images. The target gets its
/// name only when it is complete and durable. An existing file is replaced only with --overwrite;
/// -n writes into an existing target.
#[derive(Args)]
#[command(after_help = SOURCES)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct ConvertArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// Format of the source: raw, luks or qcow2 [default: detected]
    #[arg(short, long, visible_alias = "source-format", value_name = "FMT")]
    format: Option<String>,

    /// SRC is a list of QEMU's image options
    #[arg(long, visible_alias = "source-image-opts")]
    image_opts: bool,

    #[command(flatten)]
    location: LocationArgs,

    /// Secret that opens the source
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    /// Format of the target: raw, luks (which is LUKS1), luks2, or qcow2 with LUKS1 [default: raw]
    #[arg(short = 'O', long, value_name = "FMT")]
    output_format: Option<String>,

    /// QEMU's options of the target, as for create; -o help lists them
    #[arg(short, long, value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Secret to put into the target; with -n, the secret that opens it
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    #[command(flatten)]
    kdf: KdfArgs,

    #[command(flatten)]
    luks: LuksArgs,

    /// Write into an existing target; data beyond the end of the source stays
    #[arg(short, long)]
    no_create: bool,

    /// DST is a list of QEMU's image options (with -n)
    #[arg(long)]
    target_image_opts: bool,

    /// Assume that the target reads as zeros (with -n)
    #[arg(long)]
    target_is_zero: bool,

    /// Replace an existing target once the new one is complete
    #[arg(long, visible_alias = "force")]
    overwrite: bool,

    /// Allow an empty new secret, which opens the target to everyone
    #[arg(long)]
    allow_empty_secret: bool,

    /// Ignore the limits on iteration counts and memory of keyslots
    #[arg(long)]
    ignore_limits: bool,

    /// Read source and target again and compare them
    #[arg(long)]
    verify: bool,

    /// Granularity at which zeros become holes in a raw target; 0 writes zeros [default: 4k]
    #[arg(short = 'S', long, value_name = "SIZE", allow_hyphen_values = true)]
    sparse_size: Option<String>,

    /// Number of threads, 1 to 16 [default: number of CPU cores]
    #[arg(short = 'm', long, value_name = "N", allow_hyphen_values = true)]
    parallel: Option<String>,

    /// Read a source that other programs write to: the copy may be inconsistent
    #[arg(short = 'U', long)]
    force_share: bool,

    /// Open the backing files and the data file that a qcow2 source names
    #[arg(long)]
    named_files: bool,

    /// QEMU's cache mode of the target, without effect: the target is durable on success
    #[arg(short = 't', long, value_name = "CACHE")]
    target_cache: Option<String>,

    /// QEMU's cache mode of the source
    #[arg(short = 'T', long, value_name = "CACHE")]
    source_cache: Option<String>,

    /// Accepted for compatibility with qemu-img: writes are out of order anyway
    #[arg(short = 'W', long)]
    oob_writes: bool,

    /// QEMU's compression, which no supported format has
    #[arg(short = 'c', hide = true)]
    compress: bool,

    /// Print a percentage, as qemu-img does
    #[arg(short, long)]
    progress: bool,

    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Source and target
    #[arg(value_names = ["SRC", "DST"])]
    operands: Vec<OsString>,
}

impl ConvertArgs {
    /// Options of the command that lift a refusal, and whether they were given.
    pub(super) fn remedies(&self) -> Remedies {
        let (overwrite, limits) = (Some(self.overwrite), Some(self.ignore_limits));
        Remedies { overwrite, limits, ..Remedies::default() }
    }

    /// Images that the arguments name.
    pub(super) fn named(&self) -> Images<'_> {
        let (image_opts, format) = (self.image_opts, self.format.as_deref());
        let objects = &self.objects.objects;
        let is_known = |text: &String| Options::parse(text).is_ok_and(|it| are_known(&it));
        if !self.options.iter().all(is_known) {
            return Images::new(objects, []);
        }
        let (target, sources) = match self.operands.as_slice() {
            [source, target] => (Some(target), slice::from_ref(source)),
            [source] => (None, slice::from_ref(source)),
            [] => (None, &[][..]),
            // Several sources are not served.
            _ => return Images::new(objects, []),
        };
        let sources = sources.iter().map(|name| Side::Existing { name, image_opts, format });
        let target = match (target, &self.output_format) {
            (Some(name), None) if self.target_image_opts => {
                Side::Existing { name, image_opts: true, format: None }
            }
            (name, format) => Side::New {
                name: name.map(OsString::as_os_str),
                format: format.as_deref().unwrap_or("raw"),
            },
        };
        Images::new(objects, sources.chain([target]))
    }
}

/// Runs the command.
pub fn run(args: &ConvertArgs, persona: Persona) -> Outcome {
    let copy = copy_options(args)?;
    let sources = args.secret.iter().chain(&args.new_secret);
    let secrets = Secrets::new(&args.objects.objects, sources)?;
    let mut options = Options::new();
    for text in &args.options {
        options.append(Options::parse(text)?);
    }
    check_combination(args)?;
    let format = args.output_format.as_deref().unwrap_or("raw");
    if options.asks_help() {
        let version = new::version(format, persona)?;
        output::print(&new::help(version, args.operands.len() > 1))?;
        return Ok(Status::Done);
    }
    let (source, target) = match args.operands.as_slice() {
        [source, target] => (source, target),
        [_, more @ ..] if more.len() > 1 => {
            return Err(invalid("several sources at once are not supported").into());
        }
        _ => return Err(invalid("Must specify image file name").into()),
    };
    check_cache(args.source_cache.as_ref(), "source cache")?;
    check_cache(args.target_cache.as_ref(), "cache")?;

    let is_silent = args.quiet || persona == Persona::QemuImg;
    let progress = Progress::begin(args.progress && !args.quiet, args.output, is_silent);
    let conversion = Conversion { args, secrets: &secrets, persona };
    if persona == Persona::Keyslot && Secrets::asks(args.secret.as_ref()) {
        Target::admit(target, &options, &conversion)?;
    }
    let source = Source::open(source, &conversion)?;
    let from = source.side()?;
    let target = Target::open(target, &source, from.len(), &options, &conversion)?;
    let copy = copy.target_is_zero(target.is_zero(args));
    progress
        .of("converting", from.len(), |advance| copy.copy(from, target.side()?, advance))
        .map_err(|error| target.spoiled(error))?;
    target.sync()?;
    if args.verify {
        target.evict();
        target.check()?;
        progress
            .of("verifying", from.len(), |advance| copy.compare(from, target.side()?, advance))?;
    }
    source.is_unchanged()?;
    let report = ConvertReport { image: target.written(from.len()), is_verified: args.verify };
    target.finish()?;
    progress.end();
    Ok(output::report(&report, args.output, is_silent)?)
}

/// The result of `convert`.
#[derive(Serialize)]
struct ConvertReport {
    #[serde(flatten)]
    image: WrittenImage,
    #[serde(skip)]
    is_verified: bool,
}

impl Report for ConvertReport {
    fn is_change(&self) -> bool {
        true
    }
}

impl Display for ConvertReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let filename = output::foreign(&self.image.filename);
        let size = qemu_format::size(self.image.virtual_size);
        let verified = if self.is_verified { " and verified" } else { "" };
        writeln!(f, "{filename}: {size} converted{verified}")
    }
}

/// Arguments and secrets that open source and target.
#[derive(Clone, Copy)]
struct Conversion<'a> {
    args: &'a ConvertArgs,
    secrets: &'a Secrets,
    persona: Persona,
}

/// Refuses combinations of options that QEMU refuses, with its messages and in its order.
fn check_combination(args: &ConvertArgs) -> Result<()> {
    let text = if args.no_create && !args.options.is_empty() {
        "-o has no effect when skipping image creation"
    } else if args.target_image_opts && !args.no_create {
        "--target-image-opts requires use of -n flag"
    } else if args.target_is_zero && !args.no_create {
        "--target-is-zero requires use of -n flag"
    } else if (args.target_image_opts && args.output_format.is_some())
        || (args.image_opts && args.format.is_some())
    {
        "--image-opts and --format are mutually exclusive"
    } else if args.compress {
        "Compression not supported for this file format"
    } else {
        return Ok(());
    };
    Err(invalid(text))
}

fn copy_options(args: &ConvertArgs) -> Result<CopyOptions> {
    let mut copy = CopyOptions::new();
    if let Some(text) = &args.sparse_size {
        let size = size_argument("buffer size for sparse output", text)?;
        if !size.is_multiple_of(512) || size > MAX_SPARSE {
            let text = format!(
                "Invalid buffer size for sparse output specified. Valid sizes are multiples of 512 \
                 up to {MAX_SPARSE}. Select 0 to disable sparse detection (fully allocates output)."
            );
            return Err(invalid(text));
        }
        copy = copy.sparse(usize::try_from(size).unwrap_or(usize::MAX));
    }
    if let Some(text) = &args.parallel {
        let wrong = format!("Invalid number of coroutines specified: '{text}'.");
        let number = number("", text).map_err(|_| invalid(wrong))?;
        let threads = usize::try_from(number).ok().filter(|threads| *threads <= MAX_THREADS);
        let threads = threads.and_then(NonZero::new).ok_or_else(|| {
            let range = format!("Must be between 1 and {MAX_THREADS}.");
            invalid(format!("Invalid number of coroutines specified. {range}"))
        })?;
        copy = copy.threads(threads);
    }
    Ok(copy)
}

/// QEMU's limits
const MAX_SPARSE: u64 = 16 << 20;
const MAX_THREADS: usize = 16;

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
