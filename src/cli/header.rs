//! `keyslot header backup` and `header restore`: a header in a file of its own, and back.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyslot::header::{Backup, Fate, Header};
use keyslot::{Error, ErrorKind, OpenOptions, Restoration, Result};
use serde_json::{Value, json};

use super::create::Version;
use super::location::PartArgs;
use super::progress::Spinner;
use super::{ChangeArgs, Outcome, Output, output, prompt, qemu_format};

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
/// backup of another image takes --force. Between two headers of the same volume an
/// interruption at any instant leaves an image that opens with the secrets of either. Afterwards
/// the image opens with the secrets of the backup, with those that were erased since, too.
#[derive(Args)]
struct RestoreArgs {
    #[command(flatten)]
    change: ChangeArgs,

    /// Do not ask, and refuse all the same what --force would insist on
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
    let warnings: Vec<_> = backup.header().warning().into_iter().collect();
    if !args.quiet {
        tell_warnings(&args.image, &warnings);
    }
    let size = backup.as_bytes().len();
    let text = if args.output == Output::Json {
        let mut document = document(backup.header());
        document["filename"] = json!(args.image.to_string_lossy());
        document["backup"] = json!(args.file.to_string_lossy());
        document["size"] = json!(size);
        document["warnings"] = json!(warnings);
        qemu_format::json_line(&document)
    } else if args.quiet {
        return Ok(());
    } else {
        let line = format!("{}: {size} bytes, {}", args.file.display(), summary(backup.header()));
        output::foreign(&line) + "\n"
    };
    Ok(output::print_done(&text)?)
}

fn restore(args: &RestoreArgs) -> Outcome {
    let RestoreArgs { change, yes, part, file, image } = args;
    let asks = !change.force && !yes;
    let backup = Backup::open(file)?;
    let options = part.apply(change.open_options());
    let restoration = Restoration::open(image, backup, change.force, &options)?;
    if asks && !change.dry_run {
        check_terminal(image)?;
    }
    let is_human = change.output == Output::Human && !change.quiet;
    if !change.quiet {
        tell_warnings(image, restoration.warnings());
    }
    let document = change_document(args, &restoration);
    let text = describe(args, &restoration, change.dry_run || asks);
    if change.dry_run {
        return match change.output {
            Output::Json => Ok(output::print(&qemu_format::json_line(&document))?),
            Output::Human if change.quiet => Ok(()),
            Output::Human => Ok(output::print(&text)?),
        };
    }
    if asks {
        if is_human {
            output::print(&text)?;
        }
        confirm(file, image)?;
    }
    {
        let _spinner = Spinner::start("writing the header", change.quiet);
        restoration.run()?;
    }
    let text = match change.output {
        Output::Json => qemu_format::json_line(&document),
        Output::Human if change.quiet => return Ok(()),
        Output::Human if !asks => text,
        Output::Human => format!("{}: the header is restored\n", output::shown(image)),
    };
    Ok(output::print_done(&text)?)
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

/// Both headers, and a line for each keyslot.
fn describe(args: &RestoreArgs, restoration: &Restoration, would_be: bool) -> String {
    let (image, file) = (args.image.display(), args.file.display());
    let present = match restoration.present() {
        Ok(header) => summary(header),
        Err(error) => format!("no valid header: {}", error.message()),
    };
    let backup = summary(restoration.backup().header());
    let mut lines = vec![format!("{image}: {present}"), format!("{file}: {backup}")];
    for (keyslot, fate) in restoration.fates() {
        let would = if would_be { "would be " } else { "" };
        let fate = match fate {
            Fate::Kept => "kept",
            Fate::Added => "restored",
            Fate::Replaced => "replaced",
            Fate::Erased => "erased",
        };
        lines.push(format!("keyslot {keyslot} {would}{fate}"));
    }
    lines.iter().map(|line| output::foreign(line) + "\n").collect()
}

/// `LUKS2 header, uuid 1234, seqid 7, label system, keyslots 0, 2`
fn summary(header: &Header) -> String {
    let mut parts = vec![format!("{} header", header.format()), format!("uuid {}", header.uuid())];
    if let Some(header) = header.luks2() {
        parts.push(format!("seqid {}", header.seqid()));
        for (what, value) in [("label", header.label()), ("subsystem", header.subsystem())] {
            if !value.is_empty() {
                parts.push(format!("{what} {value}"));
            }
        }
    }
    let active: Vec<_> = active(header).map(|keyslot| keyslot.to_string()).collect();
    parts.push(match active.as_slice() {
        [] => "no keyslots".to_owned(),
        [one] => format!("keyslot {one}"),
        several => format!("keyslots {}", several.join(", ")),
    });
    parts.join(", ")
}

/// The same for JSON.
fn document(header: &Header) -> Value {
    let format = Version::of_header(header).format();
    let mut document = json!({ "format": format, "uuid": header.uuid() });
    if let Some(header) = header.luks2() {
        document["seqid"] = json!(header.seqid());
        document["label"] = json!(header.label());
        document["subsystem"] = json!(header.subsystem());
    }
    document["keyslots"] = active(header).collect();
    document
}

fn active(header: &Header) -> impl Iterator<Item = usize> {
    let occupants = header.occupants().into_iter().enumerate();
    occupants.filter_map(|(keyslot, occupant)| occupant.map(|_| keyslot))
}

/// What becomes of what, for JSON.
fn change_document(args: &RestoreArgs, restoration: &Restoration) -> Value {
    let change = |(keyslot, fate): &(usize, Fate)| {
        let action = match fate {
            Fate::Kept => "keep",
            Fate::Added => "add",
            Fate::Replaced => "replace",
            Fate::Erased => "erase",
        };
        json!({ "action": action, "keyslot": keyslot })
    };
    let mut value = json!({
        "filename": args.image.to_string_lossy(),
        "backup": args.file.to_string_lossy(),
        "dry-run": args.change.dry_run,
        "present": restoration.present().ok().map(document),
        "restored": document(restoration.backup().header()),
        "changes": restoration.fates().iter().map(change).collect::<Vec<_>>(),
        "warnings": restoration.warnings(),
    });
    if let Err(error) = restoration.present() {
        value["damage"] = json!(error.message());
    }
    value
}
