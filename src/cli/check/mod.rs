//! `keyslot check`: reports damage of a header, leftovers of a crash, and the keyslots that a
//! secret opens.

mod report;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use clap::Args;
use keyslot::secret::Passphrase;
use keyslot::unlock::{Until, cannot_open, wrong_secret};
use keyslot::{Error, ErrorKind, Image, OpenOptions, Result, Sharing};

use self::report::CheckReport;
use super::location::LocationArgs;
use super::opening::{OPENER, OpeningArgs};
use super::output::{self, Report};
use super::progress::Spinner;
use super::report::{ErrorReport, FailureReport, Remedies, tell};
use super::secrets::{Question, Secrets};
use super::{ObjectArgs, Outcome, Output, SOURCES, Status, limits};

/// Check the header, and show which keyslots a secret opens
///
/// Reports for every keyslot whether it is active and whether its area is blank, and finds
/// leftovers of an interrupted amendment. Nothing is written.
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct CheckArgs {
    // The secret is tried on every keyslot.
    #[command(flatten)]
    opening: OpeningArgs,

    /// Stop at the first keyslot that the secret opens
    #[arg(long, requires = OPENER)]
    first: bool,

    /// Try the secret only on this keyslot, even if its priority is ignore
    #[arg(
        short = 'S',
        long,
        visible_alias = "key-slot",
        value_name = "N",
        requires = OPENER
    )]
    keyslot: Option<usize>,

    /// Ignore the limits on iteration counts and memory of keyslots
    #[arg(long, alias = "force")]
    ignore_limits: bool,

    #[command(flatten)]
    objects: ObjectArgs,

    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    location: LocationArgs,

    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

impl CheckArgs {
    /// Error for a secret that opens no keyslot.
    fn wrong(&self, secret: &Passphrase) -> Error {
        match self.keyslot {
            Some(keyslot) => {
                wrong_secret(format!("keyslot {keyslot} does not open with the secret"), secret)
            }
            None => opens_nothing(secret),
        }
    }

    fn remedies(&self) -> Remedies {
        Remedies { limits: Some(self.ignore_limits), ..Remedies::default() }
    }
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Outcome {
    let secrets = Secrets::with_opening(&args.objects.objects, &args.opening, [])?;
    args.location.check_count(args.images.len())?;
    let reading = args.location.apply(OpenOptions::new());
    let mut opened = None;
    let secret = match args.opening.source() {
        None => None,
        Some(source) if Secrets::asks(Some(&source)) => match args.images.as_slice() {
            // No prompt if no image can be opened.
            images if images.iter().all(|path| reading.open(path).is_err()) => None,
            [path] => {
                let question = Question { image: Some(path), ..QUESTION };
                let (secret, images) = secrets.try_opening(Some(&source), &question, |secret| {
                    must_open(open(&args.images, Some(secret), args), secret, args)
                })?;
                opened = Some(images);
                Some(secret)
            }
            _ => Some(secrets.existing(Some(&source), &QUESTION)?),
        },
        Some(source) => Some(secrets.existing(Some(&source), &QUESTION)?),
    };
    let mut status = Status::Done;
    // Without keyslots to try on several images at once, images are opened one by one.
    let at_once = if secret.is_some() && !args.first { AT_ONCE } else { 1 };
    let images = args.images.chunks(at_once).flat_map(|paths| match opened.take() {
        Some(images) => images,
        None => open(paths, secret.as_ref(), args),
    });
    for (path, image) in images {
        let checked = image.and_then(|(image, tried)| {
            let mut report = CheckReport::new(path, &image)?;
            report.secret_opens =
                tried.map(|tried| opened_of(&image, tried, args.first)).transpose()?;
            Ok((image.header().check_openable().err(), report))
        });
        let told = |error: Error| {
            let error = error.with_path(path);
            tell(&error, args.remedies());
            ErrorReport::new(&error, args.remedies())
        };
        let next = match checked {
            Ok((unopenable, mut report)) => {
                if args.output == Output::Human && !args.quiet {
                    output::print(&report.to_string())?;
                }
                let opens_none = report.secret_opens.as_ref().is_some_and(Vec::is_empty);
                let secret = secret.as_ref().filter(|_| opens_none);
                let wrong = secret.map(|secret| args.wrong(secret));
                report.error = unopenable.or(wrong).map(told);
                if args.output == Output::Json {
                    output::report(&report, Output::Json, args.quiet)?;
                }
                report.exit_status()
            }
            Err(error) => {
                let filename = Some(output::filename(path));
                let report = FailureReport { filename, error: told(error) };
                output::report(&report, args.output, args.quiet)?
            }
        };
        status = status.or(next);
    }
    Ok(status)
}

type Tried = Vec<(usize, Result<bool>)>;
type Opened = (Image, Option<Tried>);

/// Opens some images, and tries the secret on all of their keyslots at once.
fn open<'a>(
    paths: &'a [PathBuf],
    secret: Option<&Passphrase>,
    args: &CheckArgs,
) -> Vec<(&'a Path, Result<Opened>)> {
    let sharing = if secret.is_some() { Sharing::ReadData } else { Sharing::None };
    let options = OpenOptions::new().sharing(sharing).limits(limits(args.ignore_limits));
    let options = args.location.apply(options);
    let images: Vec<_> = paths.iter().map(|path| (path.as_path(), options.open(path))).collect();
    let mut tried = VecDeque::new();
    if let Some(secret) = secret {
        let _spinner = Spinner::start("trying the keyslots", args.quiet);
        let opened: Vec<_> = images.iter().filter_map(|(_, image)| image.as_ref().ok()).collect();
        tried.extend(match (opened.as_slice(), args.keyslot) {
            (images, Some(keyslot)) => {
                images.iter().map(|image| one(image, keyslot, secret)).collect()
            }
            ([image], None) if args.first => vec![first(image, secret)],
            (images, None) => Image::try_images(images, secret),
        });
    }
    let mut with_tried = |image| (image, tried.pop_front());
    images.into_iter().map(|(path, image)| (path, image.map(&mut with_tried))).collect()
}

/// Returns `images`, or an error if there is one image and the secret opens none of its keyslots.
fn must_open<'a>(
    images: Vec<(&'a Path, Result<Opened>)>,
    secret: &Passphrase,
    args: &CheckArgs,
) -> Result<Vec<(&'a Path, Result<Opened>)>> {
    if let [(path, Ok((image, Some(tried))))] = images.as_slice()
        && image.header().check_openable().is_ok()
        && tried.iter().all(|(_, outcome)| matches!(outcome, Ok(false)))
    {
        return Err(args.wrong(secret).with_path(*path));
    }
    Ok(images)
}

/// Tries the secret on one keyslot.
fn one(image: &Image, keyslot: usize, secret: &Passphrase) -> Tried {
    let opens = match image.unlock_keyslot(keyslot, secret) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::WrongSecret => Ok(false),
        Err(error) => Err(error),
    };
    vec![(keyslot, opens)]
}

/// Tries the secret until a keyslot opens. Untried keyslots are left out.
fn first(image: &Image, secret: &Passphrase) -> Tried {
    let keyslots: Vec<_> = image.keyslots().map(|keyslot| keyslot.index).collect();
    let outcomes = image.try_keyslots(&keyslots, secret, Until::First);
    keyslots.into_iter().zip(outcomes).filter_map(|(it, outcome)| Some((it, outcome?))).collect()
}

/// Keyslots that a secret opens, after trying all of them.
pub fn opened_by(image: &Image, secret: &Passphrase) -> Result<Vec<usize>> {
    let mut tried = Image::try_images(&[image], secret);
    opened_of(image, tried.pop().unwrap_or_default(), false)
}

/// Keyslots that the secret opened. A keyslot over the limit is an error only if no other opened;
/// with `first`, so is a keyslot that failed.
fn opened_of(image: &Image, tried: Tried, first: bool) -> Result<Vec<usize>> {
    let mut opened = Vec::new();
    let mut over_limit = None;
    for (keyslot, outcome) in tried {
        match outcome {
            Ok(true) => opened.push(keyslot),
            Ok(false) => {}
            Err(error)
                if first || matches!(error.kind(), ErrorKind::Limit | ErrorKind::OutOfMemory) =>
            {
                over_limit.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if first {
        opened.truncate(1);
    }
    let named = |error: Error| match image.file() {
        Some(file) => error.with_path(file.path()),
        None => error,
    };
    image.header().check_supported().map_err(named)?;
    let unusable = image.header().unusable();
    if let (None, Some((index, why))) = (image.keyslots().next(), unusable.first()) {
        return Err(named(cannot_open(*index, why)));
    }
    match over_limit {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}

/// Error for a secret that opens no keyslot.
pub fn opens_nothing(secret: &Passphrase) -> Error {
    wrong_secret("no keyslot opens with the secret", secret)
}

/// Prompt for a secret that is tried on several images.
pub const QUESTION: Question<'static> =
    Question { option: "--secret", what: "Passphrase", image: None };

/// Number of images that are open, and locked, at a time
const AT_ONCE: usize = 8;
