//! `keyslot info`: shows the header, as `qemu-img info` does.

mod disk;
mod luks1;
mod luks2;
mod nodes;
mod qcow2;
mod raw;
mod report;

use std::ffi::OsString;
use std::path::Path;

use clap::Args;
use keyslot::header::Header;
use keyslot::qemu::{ImageSpec, RawLayer};
use keyslot::secret::Passphrase;
use keyslot::{Error, ErrorKind, Image, OpenOptions, Result, Sharing};

use self::report::InfoReport;
use super::location::LocationArgs;
use super::progress::Spinner;
use super::qemu_img::{Images, Side};
use super::report::{ErrorReport, Failure, FailureReport, Remedies, tell};
use super::secrets::{Question, Secrets};
use super::{
    ObjectArgs, Outcome, Output, Persona, SOURCES, Status, check, image_spec, output, qemu_format,
};

/// Show the header and its keyslots
///
/// Prints the fields of qemu-img info, and for LUKS2 the whole header. Takes no lock and needs no
/// secret; with a secret, also prints which keyslots it opens. For a disk image with LUKS in a
/// partition, lists the partitions.
#[derive(Args)]
#[command(after_help = SOURCES)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct InfoArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// Secret to try on the keyslots
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    /// IMAGE is a list of QEMU's image options
    #[arg(long)]
    image_opts: bool,

    /// Format of the image
    #[arg(short, long, value_name = "FMT")]
    format: Option<String>,

    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Print only the metadata of a LUKS2 header, as JSON
    #[arg(long, conflicts_with_all = ["output", "secret"])]
    metadata: bool,

    /// Estimate how long each keyslot takes to open on this machine
    #[arg(long, conflicts_with = "metadata")]
    estimate: bool,

    #[command(flatten)]
    location: LocationArgs,

    /// Accepted for compatibility with qemu-img: no lock is taken anyway
    #[arg(short = 'U', long)]
    force_share: bool,

    /// Accepted for compatibility with qemu-img: a LUKS image has no backing file
    #[arg(long)]
    backing_chain: bool,

    /// Images, or their options
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,
}

impl InfoArgs {
    /// Images that the arguments name.
    pub(super) fn named(&self) -> Images<'_> {
        let (image_opts, format) = (self.image_opts, self.format.as_deref());
        let sides = self.images.iter().map(|name| Side::Existing { name, image_opts, format });
        Images::new(&self.objects.objects, sides)
    }
}

/// Runs the command.
pub fn run(args: &InfoArgs, persona: Persona) -> Outcome {
    let secrets = Secrets::new(&args.objects.objects, &args.secret)?;
    // qemu-img takes only one image.
    if args.images.is_empty() || (persona == Persona::QemuImg && args.images.len() > 1) {
        return Err(Failure::usage("Expecting one image file name", "info"));
    }
    args.location.check_count(args.images.len())?;
    let mut asked = None;
    let secret = match (&args.secret, args.images.as_slice()) {
        (None, _) => None,
        // No prompt if no image can be opened.
        (source, images)
            if Secrets::asks(source.as_ref())
                && images.iter().all(|name| open(name, args, persona).is_err()) =>
        {
            None
        }
        (source, [name]) if Secrets::asks(source.as_ref()) => {
            let path = Path::new(name);
            let question = Question { image: Some(path), ..check::QUESTION };
            let try_it = |secret: &Passphrase| match show(name, "", Some(secret), args, persona) {
                Ok((_, Some(error))) if error.kind() == ErrorKind::WrongSecret => Err(error),
                shown => Ok(shown),
            };
            let (secret, shown) = secrets.try_opening(source.as_ref(), &question, try_it)?;
            asked = Some(shown);
            Some(secret)
        }
        (source, _) => Some(secrets.existing(source.as_ref(), &check::QUESTION)?),
    };
    let mut status = Status::Done;
    for (i, name) in args.images.iter().enumerate() {
        let gap = if i > 0 { "\n" } else { "" };
        let shown = match asked.take() {
            Some(shown) => shown,
            None => show(name, gap, secret.as_ref(), args, persona),
        };
        let is_shown = shown.is_ok();
        let error = match shown {
            Err(failure) if persona == Persona::QemuImg => return Err(failure),
            Err(failure) => failure.into_error(),
            Ok((text, error)) => {
                output::print(&text)?;
                match error {
                    None => continue,
                    Some(error) if persona == Persona::QemuImg => return Err(error.into()),
                    Some(error) => error,
                }
            }
        };
        tell(&error, Remedies::default());
        let error = ErrorReport::new(&error, Remedies::default());
        status = status.or(error.exit_status());
        if !is_shown {
            let filename = Some(output::filename(Path::new(name)));
            output::report(&FailureReport { filename, error }, args.output, false)?;
        }
    }
    Ok(status)
}

/// Opens an image, without a lock.
fn open(name: &OsString, args: &InfoArgs, persona: Persona) -> std::result::Result<Image, Failure> {
    let spec = image_spec::parse(name, args.image_opts, args.format.as_deref(), persona)?;
    Ok(args.location.apply_with(&spec, OpenOptions::new())?.open(&spec.file.path)?)
}

/// Returns the text about an image, after `gap`, and the error for a secret that opens no keyslot.
fn show(
    name: &OsString,
    gap: &str,
    secret: Option<&Passphrase>,
    args: &InfoArgs,
    persona: Persona,
) -> std::result::Result<(String, Option<Error>), Failure> {
    let spec = image_spec::parse(name, args.image_opts, args.format.as_deref(), persona)?;
    let opening = Failure::opening(&spec.shown);
    image_spec::check_persona(&spec, persona).map_err(&opening)?;
    if persona == Persona::QemuImg
        && secret.is_none()
        && let Some(report) = raw::describe(&spec, persona).map_err(&opening)?
    {
        return Ok((shown(&report, gap, args)?, None));
    }
    if spec.driver.as_deref() == Some("raw") {
        let text = "a raw image has no keyslots to show";
        return Err(opening(Error::new(ErrorKind::Unsupported, text)));
    }
    let sharing = if secret.is_some() { Sharing::ReadData } else { Sharing::None };
    let options = args.location.apply_with(&spec, OpenOptions::new().sharing(sharing));
    let image = match options.and_then(|options| options.open(&spec.file.path)) {
        Err(error)
            if error.kind() == ErrorKind::NotLuks
                && is_plain(args, &spec)
                && persona == Persona::Keyslot =>
        {
            // A disk with LUKS in one of its partitions is not LUKS, but there is much to show.
            return match disk::describe(&spec).map_err(&opening)? {
                Some(report) => Ok((shown(&report, gap, args)?, None)),
                None => Err(opening(error)),
            };
        }
        image => image.map_err(&opening)?,
    };
    persona.admit(&image).map_err(&opening)?;
    if args.metadata {
        let text = metadata(image.header()).map_err(|e| opening(e.with_path(&spec.file.path)))?;
        return Ok((text, None));
    }
    // Up to here, a partition is known only by its number.
    let mut located = spec.clone();
    if let (Some((offset, len)), true) = (image.part(), located.file.layers.is_empty()) {
        located.file.layers.push(RawLayer::new(offset, len));
    }
    let mut report = InfoReport::new(&image, &located).map_err(opening)?;
    if persona == Persona::QemuImg {
        // qemu-img does not tell a backup from an image without a payload.
        report.backup = None;
    }
    let mut wrong = None;
    if let Some(secret) = secret {
        let _spinner = Spinner::start("trying the keyslots", args.output == Output::Json);
        let opened = check::opened_by(&image, secret).map_err(|error| match error.kind() {
            ErrorKind::Limit => {
                error.with_hint("use 'keyslot check --ignore-limits' to try it anyway")
            }
            _ => error,
        })?;
        if opened.is_empty() {
            let openable = image.header().check_openable();
            let error = openable.err().unwrap_or_else(|| check::opens_nothing(secret));
            let error = error.with_path(&spec.file.path);
            report.error = Some(ErrorReport::new(&error, Remedies::default()));
            wrong = Some(error);
        }
        report.secret_opens = Some(opened);
    }
    if args.estimate {
        let estimates =
            report::estimates(&image).map_err(|error| error.with_path(&spec.file.path))?;
        report.estimates = Some(estimates);
    }
    Ok((shown(&report, gap, args)?, wrong))
}

/// Whether no argument says that the image is LUKS.
fn is_plain(args: &InfoArgs, spec: &ImageSpec) -> bool {
    let asks_luks = args.metadata || args.estimate || args.secret.is_some();
    !asks_luks && spec.driver.is_none() && spec.key_secret.is_none() && !args.location.is_given()
}

/// Formats the report as asked for.
fn shown(report: &InfoReport, gap: &str, args: &InfoArgs) -> Result<String> {
    match args.output {
        Output::Human => Ok(format!("{gap}{report}")),
        // A chain is a list, even of one image.
        Output::Json if args.backing_chain => Ok(qemu_format::json(&[report])? + "\n"),
        Output::Json => Ok(qemu_format::json(report)? + "\n"),
    }
}

/// Metadata of a LUKS2 header, as JSON.
fn metadata(header: &Header) -> Result<String> {
    let header = header
        .luks2()
        .ok_or_else(|| Error::new(ErrorKind::Unsupported, "a LUKS1 header has no metadata"))?;
    Ok(output::json_text(&luks2::pretty(header.metadata())))
}
