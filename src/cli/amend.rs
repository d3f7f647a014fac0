//! `keyslot amend`: keyslots changed by QEMU's options, as `qemu-img amend` does.

use std::ffi::OsString;

use clap::Args;
use keyslot::amend::{HELP, Request};
use keyslot::options::Options;
use keyslot::{Error, ErrorKind};

use super::edit::{Job, carry_out};
use super::image_spec::ImageSpec;
use super::report::Failure;
use super::secrets::Secrets;
use super::{ChangeArgs, KdfArgs, ObjectArgs, Outcome, Persona, progress};

/// Change keyslots by QEMU's options
///
/// Takes the arguments of qemu-img amend. Secrets of -o are named by --object; the secret that
/// opens the image is the key-secret of --image-opts, or --secret. Several changes that all happen
/// or none are -o keys.0.state=...,keys.1.state=...
#[derive(Args)]
pub struct AmendArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// The changes: state=active|inactive,new-secret=ID,old-secret=ID,keyslot=N,iter-time=MS
    #[arg(short, long, value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Secret that opens the image
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    #[command(flatten)]
    kdf: KdfArgs,

    /// IMAGE is a list of QEMU's image options
    #[arg(long)]
    image_opts: bool,

    /// Format of the image
    #[arg(short, long, value_name = "FMT")]
    format: Option<String>,

    /// QEMU's cache mode; whatever it is, changes are durable when they are reported
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<String>,

    /// Print a percentage, as qemu-img does
    #[arg(short, long)]
    progress: bool,

    #[command(flatten)]
    change: ChangeArgs,

    /// Image, or its options
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &AmendArgs, persona: Persona) -> Outcome {
    let mut secrets = Secrets::new(&args.objects.objects)?;
    if args.options.is_empty() {
        return Err(invalid("Must specify options (-o)").into());
    }
    let mut options = Options::new();
    for text in &args.options {
        options.append(Options::parse(text)?);
    }
    if options.asks_help() {
        print!("{HELP}");
        return Ok(());
    }
    let [image] = args.images.as_slice() else {
        return Err(invalid("Expecting one image file name").into());
    };
    if let Some(cache) = args.cache.as_ref().filter(|cache| !CACHES.contains(&cache.as_str())) {
        return Err(invalid(format!("Invalid cache option: {cache}")).into());
    }
    let cost = args.kdf.cost()?;

    let spec = ImageSpec::parse(image, args.image_opts, args.format.as_deref())
        .map_err(Failure::opening(&image.to_string_lossy()))?;
    let opening = Failure::opening(&spec.shown);
    if spec.read_only {
        return Err(opening(invalid("Block node is read-only")));
    }
    let secret = match (&spec.key_secret, &args.secret) {
        (Some(_), Some(_)) => {
            return Err(invalid("--secret must not be given beside a key-secret").into());
        }
        (Some(id), None) => secrets.objects.passphrase_utf8(id),
        (None, None) if persona == Persona::QemuImg => {
            Err(invalid("Parameter 'key-secret' is required for cipher"))
        }
        (None, source) => secrets.existing(source.as_ref(), "--secret", "Passphrase"),
    }
    .map_err(&opening)?;

    if args.progress && !args.change.quiet {
        progress::percent(0.0);
    }
    let job = Job::open(&spec.path, &args.change).map_err(&opening)?;
    let unlocked = job.unlock(&secret).map_err(&opening)?;
    let force = args.change.force;
    let request = Request::from_options(&options, &secrets.objects, cost, force)?;
    // qemu-img says nothing of what it did.
    carry_out(job, request, Some(&unlocked), &args.change, persona == Persona::Keyslot)?;
    if args.progress && !args.change.quiet {
        progress::percent(100.0);
    }
    Ok(())
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

const CACHES: [&str; 6] = ["none", "writeback", "unsafe", "directsync", "writethrough", "off"];
