//! `keyslot config` and `keyslot uuid`: what a header says of itself and of its keyslots' order.

use clap::{Args, ValueEnum};
use keyslot::header::luks2::Metadata;
use keyslot::header::{Edit, Priority};
use keyslot::{Error, ErrorKind, Result};
use serde_json::{Value, json};
use uuid::Uuid;

use super::location::ImageArgs;
use super::{ChangeArgs, Outcome, Output, output, qemu_format};

/// Set the priority of a keyslot, the label or the subsystem of a LUKS2 image
#[derive(Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["priority", "label", "subsystem"]))]
pub struct ConfigArgs {
    /// Keyslot that --priority is about
    #[arg(short = 'S', long, value_name = "N", visible_alias = "key-slot", requires = "priority")]
    keyslot: Option<usize>,

    /// Whether it is tried before the others, with them, or only where it is named
    #[arg(long, value_enum, value_name = "PRIORITY", requires = "keyslot")]
    priority: Option<PriorityName>,

    /// Label, up to 47 bytes; an empty one is none
    #[arg(long, value_name = "TEXT")]
    label: Option<String>,

    /// Subsystem, up to 47 bytes; an empty one is none
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
    /// The UUID that it shall have, or 'random' for a new one
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
    let (mut result, mut text) = (json!({}), Vec::new());
    if let (Some(keyslot), Some(priority)) = (args.keyslot, args.priority) {
        let priority = match priority {
            PriorityName::Prefer => Priority::Prefer,
            PriorityName::Normal => Priority::Normal,
            PriorityName::Ignore => Priority::Ignore,
        };
        edits.push(Edit::SetPriority { keyslot, priority });
        result["keyslot"] = json!(keyslot);
        result["priority"] = json!(priority.name());
        text.push(format!("priority of keyslot {keyslot}: {}", priority.name()));
    }
    if let Some(label) = &args.label {
        edits.push(Edit::SetLabel(label.clone()));
        result["label"] = json!(label);
        text.push(format!("label: {}", output::foreign(label)));
    }
    if let Some(subsystem) = &args.subsystem {
        edits.push(Edit::SetSubsystem(subsystem.clone()));
        result["subsystem"] = json!(subsystem);
        text.push(format!("subsystem: {}", output::foreign(subsystem)));
    }
    edit(&args.image, &args.change, &edits, |_, _| (result, text.join("\n")))
}

/// Runs `keyslot uuid`.
pub fn uuid(args: &UuidArgs) -> Outcome {
    let Some(text) = &args.uuid else {
        let uuid = args.image.open()?.header().uuid();
        let text = if args.change.output == Output::Json {
            let result = json!({ "filename": args.image.path().to_string_lossy(), "uuid": uuid });
            qemu_format::json_line(&result)
        } else {
            format!("{uuid}\n")
        };
        return Ok(output::print(&text)?);
    };
    let uuid = if text == "random" { Uuid::new_v4() } else { parse_uuid(text)? };
    edit(&args.image, &args.change, &[Edit::SetUuid(uuid)], |_, _| {
        (json!({ "uuid": uuid.to_string() }), format!("uuid: {uuid}"))
    })
}

/// A UUID in the one form that cryptsetup takes and writes: the crate knows others too.
pub fn parse_uuid(text: &str) -> Result<Uuid> {
    let parsed = Uuid::try_parse(text).ok().filter(|_| text.len() == HYPHENATED);
    parsed.ok_or_else(|| {
        let text = format!("'{}' is not a UUID", text.escape_debug());
        Error::new(ErrorKind::InvalidInput, text)
    })
}

/// Makes these edits, unless it is a dry run, and says what `describe` makes of the metadata before
/// and after: members for JSON, and lines.
pub fn edit(
    image: &ImageArgs,
    args: &ChangeArgs,
    edits: &[Edit],
    describe: impl FnOnce(Option<&Metadata>, Option<&Metadata>) -> (Value, String),
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
    let (mut result, text) = describe(before.as_ref(), after.as_ref());
    let text = if args.output == Output::Json {
        result["filename"] = json!(path.to_string_lossy());
        result["dry-run"] = json!(args.dry_run);
        qemu_format::json_line(&result)
    } else if args.quiet {
        return Ok(());
    } else {
        let would = if args.dry_run { "would be done: " } else { "" };
        let lines = text.lines().flat_map(|line| [would, line, "\n"]);
        lines.collect()
    };
    let print = if args.dry_run { output::print } else { output::print_done };
    Ok(print(&text)?)
}

/// Length of a hyphenated UUID
const HYPHENATED: usize = 36;
