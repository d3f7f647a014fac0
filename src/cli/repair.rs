//! `keyslot repair`: a header's copies brought into order, and what an interruption left.

use clap::Args;
use keyslot::header::Leftover;
use serde_json::{Value, json};

use super::changes::leftover;
use super::location::ImageArgs;
use super::progress::Spinner;
use super::{ChangeArgs, Outcome, Output, output, qemu_format};

/// Repair what check reports: a damaged or older copy of a LUKS2 header, a damaged entry of an unused
/// LUKS1 keyslot, and key material that an interrupted amendment did not overwrite
#[derive(Args)]
pub struct RepairArgs {
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Runs the command.
pub fn run(args: &RepairArgs) -> Outcome {
    let RepairArgs { change, image } = args;
    let path = image.path();
    let options = image.apply(change.open_options().erased(change.force));
    let mut image = options.open(path)?;
    let mut found: Vec<String> = image.header().warning().map(str::to_owned).into_iter().collect();
    let damaged = image.header().damaged();
    let damaged: Vec<_> = damaged.into_iter().map(|(it, why)| (it, why.to_owned())).collect();
    let leftovers = image.header().leftovers();
    // What an unknown requirement means is not known, so its areas are left alone.
    let has_unknown =
        image.header().luks2().is_some_and(|it| !it.metadata().config().requirements.is_empty());
    let (left, leftovers) =
        if has_unknown { (leftovers, Vec::new()) } else { (Vec::new(), leftovers) };
    let after = if change.dry_run {
        let lowered = image.header().lower_repair(change.force);
        lowered.map_err(|error| error.with_path(path))?.map(|(_, after)| after)
    } else {
        let _spinner = Spinner::start("writing the header", change.quiet);
        image.repair(change.force)?.then(|| image.header().clone())
    };
    let repaired = after.is_some();
    let still: Vec<_> = after.iter().flat_map(|after| after.damaged()).map(|it| it.0).collect();
    let mended = damaged.iter().filter(|(index, _)| repaired && !still.contains(index));
    found.extend(mended.map(|(index, why)| format!("keyslot {index} is inactive again: {why}")));
    let text = if change.output == Output::Json {
        let listed =
            |list: &[Leftover]| -> Vec<Value> { list.iter().copied().map(leftover).collect() };
        let result = json!({
            "filename": path.to_string_lossy(),
            "dry-run": change.dry_run,
            "repaired": repaired,
            "warnings": found,
            "leftovers": listed(&leftovers),
            "left": listed(&left),
        });
        qemu_format::json_line(&result)
    } else if change.quiet {
        return Ok(());
    } else {
        let would = if change.dry_run { "would be " } else { "" };
        let shown = output::shown(path);
        let mut text = String::new();
        for warning in &found {
            text.extend([format!("{shown}: {would}repaired: {}\n", output::foreign(warning))]);
        }
        for &leftover in &leftovers {
            text.extend([format!("{shown}: {would}{}\n", repaired_leftover(leftover))]);
        }
        for _ in &left {
            text.extend([format!(
                "{shown}: not overwritten, because the image has an unknown requirement: an area that an interrupted amendment left\n"
            )]);
        }
        if text.is_empty() { format!("{shown}: nothing to repair\n") } else { text }
    };
    let print = if change.dry_run || !repaired { output::print } else { output::print_done };
    Ok(print(&text)?)
}

/// The past participle and its object.
fn repaired_leftover(leftover: Leftover) -> String {
    match leftover {
        Leftover::Wipe { keyslot } => format!("overwritten: the area of erased keyslot {keyslot}"),
        Leftover::Replace { keyslot, staging } => {
            format!("finished: the replacement of keyslot {keyslot} by way of keyslot {staging}")
        }
        Leftover::Twins { keyslot, staging } => {
            format!("erased: keyslot {staging}, a copy of keyslot {keyslot}")
        }
        Leftover::Staging { keyslot, staging } => format!(
            "erased: keyslot {staging}, the new secret of an interrupted replacement of keyslot {keyslot}"
        ),
        Leftover::Area(area) => {
            format!(
                "overwritten: {} bytes of erased key material at byte {}",
                area.len, area.offset
            )
        }
        _ => "repaired".to_owned(),
    }
}
