//! `keyslot config` and `keyslot uuid`: the labels, the UUID and the keyslot priorities of a
//! header.

use std::fmt::{self, Display, Formatter};

use clap::{Args, ValueEnum};
use keyslot::header::luks2::Metadata;
use keyslot::header::{Edit, Priority};
use keyslot::{Error, ErrorKind, Result};
use serde::Serialize;
use uuid::Uuid;

use super::location::ImageArgs;
use super::output::{self, Report};
use super::{ChangeArgs, Outcome};

/// Set the priority of a keyslot, the label or the subsystem of a LUKS2 image
#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["priority", "label", "subsystem"]))]
pub struct ConfigArgs {
    /// Keyslot to set the priority of
    #[arg(short = 'S', long, value_name = "N", visible_alias = "key-slot", requires = "priority")]
    keyslot: Option<usize>,

    /// When a secret is tried on the keyslot: before the others, with them, or only if named
    #[arg(long, value_enum, value_name = "PRIORITY", requires = "keyslot")]
    priority: Option<PriorityName>,

    /// Label, up to 47 bytes; an empty text removes it
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    /// Subsystem, up to 47 bytes; an empty text removes it
    #[arg(long, value_name = "TEXT")]
    subsystem: Option<String>,

    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// A priority as cryptsetup names it
#[derive(Clone, Copy, ValueEnum)]
enum PriorityName {
    Prefer,
    Normal,
    Ignore,
}

/// Print the UUID of an image, or set it
#[derive(Args)]
pub struct UuidArgs {
    /// UUID to set, or 'random' for a new one
    #[arg(long, value_name = "UUID")]
    uuid: Option<String>,

    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Runs `keyslot config`.
pub fn config(args: &ConfigArgs) -> Outcome {
    let mut edits = Vec::new();
    let priority = args.priority.map(|priority| match priority {
        PriorityName::Prefer => Priority::Prefer,
        PriorityName::Normal => Priority::Normal,
        PriorityName::Ignore => Priority::Ignore,
    });
    if let (Some(keyslot), Some(priority)) = (args.keyslot, priority) {
        edits.push(Edit::SetPriority { keyslot, priority });
    }
    edits.extend(args.label.clone().map(Edit::SetLabel));
    edits.extend(args.subsystem.clone().map(Edit::SetSubsystem));
    let configured = Configured {
        keyslot: args.keyslot,
        priority: priority.map(Priority::name),
        label: args.label.clone(),
        subsystem: args.subsystem.clone(),
    };
    edit(&args.image, &args.change, &edits, |_, _| configured)
}

/// Settings made by `config`.
#[derive(Serialize)]
struct Configured {
    #[serde(skip_serializing_if = "Option::is_none")]
    keyslot: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subsystem: Option<String>,
}

impl Display for Configured {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let (Some(keyslot), Some(priority)) = (self.keyslot, self.priority) {
            writeln!(f, "priority of keyslot {keyslot}: {priority}")?;
        }
        if let Some(label) = &self.label {
            writeln!(f, "label: {}", output::foreign(label))?;
        }
        if let Some(subsystem) = &self.subsystem {
            writeln!(f, "subsystem: {}", output::foreign(subsystem))?;
        }
        Ok(())
    }
}

/// Runs `keyslot uuid`.
pub fn uuid(args: &UuidArgs) -> Outcome {
    let Some(text) = &args.uuid else {
        let uuid = args.image.open()?.header().uuid();
        let report = UuidReport { filename: output::filename(args.image.path()), uuid };
        return Ok(output::report(&report, args.change.output, false)?);
    };
    let uuid = if text == "random" { Uuid::new_v4() } else { parse_uuid(text)? };
    let changed = NewUuid { uuid: uuid.to_string() };
    edit(&args.image, &args.change, &[Edit::SetUuid(uuid)], |_, _| changed)
}

/// The UUID of an image.
#[derive(Serialize)]
struct UuidReport {
    filename: String,
    uuid: String,
}

impl Report for UuidReport {}

impl Display for UuidReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.uuid)
    }
}

/// The UUID that `uuid` sets.
#[derive(Serialize)]
struct NewUuid {
    uuid: String,
}

impl Display for NewUuid {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "uuid: {}", self.uuid)
    }
}

/// Parses a UUID in its hyphenated form, the only one that cryptsetup reads and writes. The `uuid`
/// crate accepts others too.
pub fn parse_uuid(text: &str) -> Result<Uuid> {
    let parsed = Uuid::try_parse(text).ok().filter(|_| text.len() == HYPHENATED);
    parsed.ok_or_else(|| {
        let text = format!("'{}' is not a UUID", text.escape_debug());
        Error::new(ErrorKind::InvalidInput, text)
    })
}

/// Makes these edits, unless it is a dry run, and reports them. `describe` builds the report from
/// the metadata before and after.
pub fn edit<T: Serialize + Display>(
    image: &ImageArgs,
    args: &ChangeArgs,
    edits: &[Edit],
    describe: impl FnOnce(Option<&Metadata>, Option<&Metadata>) -> T,
) -> Outcome {
    let path = image.path();
    let mut image = image.apply(args.open_options()).open(path)?;
    let before = image.header().clone();
    if let Some(warning) =
        before.warning().filter(|_| !args.quiet && before.check_amendable().is_ok())
    {
        output::tell(&format!("warning: {}: {warning}", path.display()));
    }
    let after = if args.dry_run {
        let lowered = before.check_amendable().and_then(|()| before.lower_edits(edits));
        lowered.map_err(|error| error.with_path(path))?.1
    } else {
        image.edit(edits)?;
        image.header().clone()
    };
    let metadata =
        |header: &keyslot::header::Header| header.luks2().map(|it| it.metadata().clone());
    let (before, after) = (metadata(&before), metadata(&after));
    let report = EditReport {
        edited: describe(before.as_ref(), after.as_ref()),
        filename: output::filename(path),
        dry_run: args.dry_run,
    };
    Ok(output::report(&report, args.output, args.quiet)?)
}

/// An edit of the metadata, planned or done. The text of `edited` is a line for each change.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct EditReport<T> {
    #[serde(flatten)]
    edited: T,
    filename: String,
    dry_run: bool,
}

impl<T: Serialize + Display> Report for EditReport<T> {
    fn is_change(&self) -> bool {
        !self.dry_run
    }
}

impl<T: Display> Display for EditReport<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would be done: " } else { "" };
        let text = self.edited.to_string();
        text.lines().try_for_each(|line| writeln!(f, "{would}{line}"))
    }
}

/// Length of a hyphenated UUID
const HYPHENATED: usize = 36;
