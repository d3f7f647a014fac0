//! `keyslot header backup` and `header restore`: a header in a file of its own, and back.

mod report;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyslot::header::Backup;
use keyslot::{Error, ErrorKind, OpenOptions, Override, Restoration, Result};

use self::report::{BackupReport, HeaderReport, RestoreReport, Stage};
use super::location::PartArgs;
use super::progress::Spinner;
use super::{ChangeArgs, Outcome, Output, output, prompt};

/// Save a header in a file of its own, or put a saved one back
#[derive(Args)]
pub struct HeaderArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    Backup(BackupArgs),
    Restore(RestoreArgs),
}

/// Save the header and the key material of an image in a new file
///
/// From IMAGE to FILE, as cp has it. The file is only for its owner (mode 0600), no file is ever
/// replaced, and cryptsetup luksHeaderRestore takes it. It opens the image with the secrets of
/// today, whatever becomes of them: keep it as you keep those.
#[derive(Args)]
struct BackupArgs {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    part: PartArgs,

    /// Image, or the file with its detached header
    image: PathBuf,

    /// File to be made
    file: PathBuf,
}

/// Put a saved header back into its image, whose own may be damaged or gone
///
/// From FILE to IMAGE, as cp has it. FILE is one of keyslot header backup or of cryptsetup
/// luksHeaderBackup. Says what would be replaced and asks; without a terminal it takes --yes. A
/// backup of another image takes --foreign-header. Between two headers of the same volume an
/// interruption at any instant leaves an image that opens with the secrets of either. Afterwards
/// the image opens with the secrets of the backup, with those that were erased since, too.
#[derive(Args)]
struct RestoreArgs {
    #[command(flatten)]
    change: ChangeArgs,

    /// Restore a backup of another image, or over a copy of the header that may be newer
    #[arg(long)]
    foreign_header: bool,

    /// Write the header in place if there is no other way: an interruption then loses secrets
    #[arg(long)]
    in_place: bool,

    /// Do not ask, but refuse what the overrides admit
    #[arg(short, long)]
    yes: bool,

    /// File with the backup
    file: PathBuf,

    #[command(flatten)]
    part: PartArgs,

    /// Image that gets its header, or the file with the detached one
    image: PathBuf,
}

impl HeaderArgs {
    /// The options of a change, if it is one.
    pub fn change(&self) -> Option<&ChangeArgs> {
        match &self.action {
            Action::Backup(_) => None,
            Action::Restore(args) => Some(&args.change),
        }
    }

    /// The form of output that was asked for.
    pub fn output(&self) -> Output {
        match &self.action {
            Action::Backup(args) => args.output,
            Action::Restore(args) => args.change.output,
        }
    }
}

/// Runs the command.
pub fn run(args: &HeaderArgs) -> Outcome {
    match &args.action {
        Action::Backup(args) => backup(args),
        Action::Restore(args) => restore(args),
    }
}

fn backup(args: &BackupArgs) -> Outcome {
    let image = args.part.apply(OpenOptions::new()).open(&args.image)?;
    let backup = {
        let _spinner = Spinner::start("saving the header", args.quiet);
        image.backup_header(&args.file)?
    };
    let warnings: Vec<_> = backup.header().warning().map(str::to_owned).into_iter().collect();
    if !args.quiet {
        tell_warnings(&args.image, &warnings);
    }
    let report = BackupReport {
        header: HeaderReport::new(backup.header()),
        filename: output::filename(&args.image),
        backup: output::filename(&args.file),
        size: backup.as_bytes().len(),
        warnings,
    };
    Ok(output::report(&report, args.output, args.quiet)?)
}

fn restore(args: &RestoreArgs) -> Outcome {
    let RestoreArgs { change, yes, part, file, image, .. } = args;
    let overrides = change.overrides(&[
        (Override::ForeignHeader, args.foreign_header),
        (Override::InPlace, args.in_place),
    ]);
    let asks = !change.force && !yes;
    let backup = Backup::open(file)?;
    let options = part.apply(change.open_options());
    let restoration = Restoration::open(image, backup, overrides, &options)?;
    if asks && !change.dry_run {
        check_terminal(image)?;
    }
    if !change.quiet {
        tell_warnings(image, restoration.warnings());
    }
    let mut report = RestoreReport::new(image, file, change.dry_run, &restoration);
    if change.dry_run {
        return Ok(output::report(&report, change.output, change.quiet)?);
    }
    if asks {
        if change.output == Output::Human && !change.quiet {
            output::print(&report.to_string())?;
        }
        confirm(file, image)?;
    }
    {
        let _spinner = Spinner::start("writing the header", change.quiet);
        restoration.run()?;
    }
    report.stage = if asks { Stage::DoneAsPlanned } else { Stage::Done };
    Ok(output::report(&report, change.output, change.quiet)?)
}

/// Refuses if nobody can be asked.
fn check_terminal(image: &Path) -> Result<()> {
    if std::io::stderr().is_terminal() || std::io::stdin().is_terminal() {
        return Ok(());
    }
    let text = "its header would be replaced, and there is no terminal to ask on";
    let hint = "--yes replaces it without a question, --dry-run says what it would come to";
    Err(Error::new(ErrorKind::Refused, text).with_path(image).with_hint(hint))
}

/// Asks whether it is to be done, and is an error if not.
fn confirm(file: &Path, image: &Path) -> Result<()> {
    let (file, name) = (file.display(), image.display());
    if prompt::confirm(&format!("Replace the header of {name} by the one in {file}?"))? {
        return Ok(());
    }
    let text = "nothing has changed: the answer was not 'yes'";
    Err(Error::new(ErrorKind::Cancelled, text).with_path(image).with_hint("type 'yes' in full"))
}

fn tell_warnings(image: &Path, warnings: &[impl AsRef<str>]) {
    for warning in warnings {
        output::tell(&format!("warning: {}: {}", image.display(), warning.as_ref()));
    }
}
