//! `keyslot header backup` and `header restore`: saves a header in a file, and restores it.

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

/// Back up a header to a file, or restore it
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

/// Save the header and key material of an image to a new file
///
/// Copies from IMAGE to FILE. Only its owner can read FILE (mode 0600); an existing file is never
/// replaced. cryptsetup luksHeaderRestore accepts FILE. With FILE, the secrets of today open the
/// image, even after they are erased: keep it as safe as the secrets.
#[derive(Args)]
struct BackupArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    #[command(flatten)]
    part: PartArgs,

    /// Image, or the file with its detached header
    image: PathBuf,

    /// File to create
    file: PathBuf,
}

/// Restore a saved header to its image, whose own header may be damaged or missing
///
/// Copies from FILE to IMAGE. FILE is a backup by keyslot header backup or cryptsetup
/// luksHeaderBackup. Shows what would be replaced and asks for confirmation; without a terminal,
/// --yes is required. A backup of another image requires --foreign-header. If both headers are of
/// the same volume, an interruption at any instant leaves an image that opens with the secrets of
/// either. Afterwards the image opens with the secrets of the backup, including those erased since.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct RestoreArgs {
    #[command(flatten)]
    change: ChangeArgs,

    /// Restore a backup of another image; over a valid header this needs --in-place too
    #[arg(long)]
    foreign_header: bool,

    /// Replace an unreadable copy of the header that may be newer than the other
    #[arg(long)]
    newer_copy: bool,

    /// Write the header in place if there is no other way; an interruption then loses secrets
    #[arg(long)]
    in_place: bool,

    /// Do not ask for confirmation; refusals still need their own option
    #[arg(short, long)]
    yes: bool,

    /// File with the backup
    file: PathBuf,

    #[command(flatten)]
    part: PartArgs,

    /// Image to restore, or the file with its detached header
    image: PathBuf,
}

impl HeaderArgs {
    /// Options of a change. `None` for a backup.
    pub fn change(&self) -> Option<&ChangeArgs> {
        match &self.action {
            Action::Backup(_) => None,
            Action::Restore(args) => Some(&args.change),
        }
    }

    /// Output format asked for.
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
        (Override::NewerCopy, args.newer_copy),
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

/// Refuses if there is no terminal to ask on.
fn check_terminal(image: &Path) -> Result<()> {
    if std::io::stderr().is_terminal() || std::io::stdin().is_terminal() {
        return Ok(());
    }
    let text = "not confirmed: no terminal";
    let hint = "use --yes to replace the header without asking, or --dry-run to see the changes";
    Err(Error::new(ErrorKind::Refused, text).with_path(image).with_hint(hint))
}

/// Asks for confirmation. A refusal is an error.
fn confirm(file: &Path, image: &Path) -> Result<()> {
    let (file, name) = (file.display(), image.display());
    if prompt::confirm(&format!("Replace the header of {name} with the one in {file}?"))? {
        return Ok(());
    }
    let text = "not confirmed: nothing has changed";
    Err(Error::new(ErrorKind::Cancelled, text).with_path(image).with_hint("type 'yes' in full"))
}

fn tell_warnings(image: &Path, warnings: &[impl AsRef<str>]) {
    for warning in warnings {
        output::tell(&format!("warning: {}: {}", image.display(), warning.as_ref()));
    }
}
