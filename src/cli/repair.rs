//! `keyslot repair`: repairs the copies of a header and cleans up after an interruption.

use std::fmt::{self, Display, Formatter};

use clap::Args;
use keyslot::Override;
use serde::Serialize;

use super::changes::LeftoverReport;
use super::location::ImageArgs;
use super::output::{self, Report};
use super::progress::Spinner;
use super::{ChangeArgs, Outcome};

/// Repair the faults that check reports: a damaged or outdated copy of a LUKS2 header, a damaged
/// entry of an unused LUKS1 keyslot, and key material that an interrupted amendment left
#[derive(Args)]
pub struct RepairArgs {
    /// Rewrite the header even if the image begins with other data or the magic is erased
    #[arg(long)]
    foreign_data: bool,

    /// Replace an unreadable copy of the header that may be newer than the other
    #[arg(long)]
    newer_copy: bool,

    /// Deactivate a damaged keyslot that may have been active
    #[arg(long)]
    lose_key: bool,

    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Runs the command.
pub fn run(args: &RepairArgs) -> Outcome {
    let RepairArgs { change, image, .. } = args;
    let overrides = change.overrides(&[
        (Override::ForeignData, args.foreign_data),
        (Override::NewerCopy, args.newer_copy),
        (Override::LoseKey, args.lose_key),
    ]);
    let path = image.path();
    let options = image.apply(change.open_options().erased(overrides.has(Override::ForeignData)));
    let mut image = options.open(path)?;
    let mut found: Vec<String> = image.header().warning().map(str::to_owned).into_iter().collect();
    let damaged = image.header().damaged();
    let damaged: Vec<_> = damaged.into_iter().map(|(it, why)| (it, why.to_owned())).collect();
    let leftovers = image.header().leftovers();
    // An unknown requirement may give the areas another use, so they are left alone.
    let has_unknown =
        image.header().luks2().is_some_and(|it| !it.metadata().config().requirements.is_empty());
    let (left, leftovers) =
        if has_unknown { (leftovers, Vec::new()) } else { (Vec::new(), leftovers) };
    let after = if change.dry_run {
        let lowered = image.header().lower_repair(overrides);
        lowered.map_err(|error| error.with_path(path))?.map(|(_, after)| after)
    } else {
        let _spinner = Spinner::start("writing the header", change.quiet);
        image.repair(overrides)?.then(|| image.header().clone())
    };
    let repaired = after.is_some();
    let still: Vec<_> = after.iter().flat_map(|after| after.damaged()).map(|it| it.0).collect();
    let mended = damaged.iter().filter(|(index, _)| repaired && !still.contains(index));
    found.extend(mended.map(|(index, why)| format!("keyslot {index} is inactive again: {why}")));
    let report = RepairReport {
        filename: output::filename(path),
        dry_run: change.dry_run,
        repaired,
        warnings: found,
        leftovers: LeftoverReport::all(leftovers),
        left: LeftoverReport::all(left),
    };
    Ok(output::report(&report, change.output, change.quiet)?)
}

/// A repair, planned or done.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct RepairReport {
    filename: String,
    dry_run: bool,
    repaired: bool,
    warnings: Vec<String>,
    leftovers: Vec<LeftoverReport>,
    /// Leftovers that stay
    left: Vec<LeftoverReport>,
}

impl Report for RepairReport {
    fn is_change(&self) -> bool {
        self.repaired && !self.dry_run
    }
}

impl Display for RepairReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would be " } else { "" };
        let shown = output::foreign(&self.filename);
        for warning in &self.warnings {
            writeln!(f, "{shown}: {would}repaired: {}", output::foreign(warning))?;
        }
        for leftover in &self.leftovers {
            writeln!(f, "{shown}: {would}{}", repaired_leftover(leftover))?;
        }
        for _ in &self.left {
            writeln!(
                f,
                "{shown}: an area left by an interrupted amendment is not overwritten: the image has an unknown requirement"
            )?;
        }
        if self.warnings.is_empty() && self.leftovers.is_empty() && self.left.is_empty() {
            writeln!(f, "{shown}: nothing to repair")?;
        }
        Ok(())
    }
}

/// Past participle and object: the repair of a leftover.
fn repaired_leftover(leftover: &LeftoverReport) -> String {
    match leftover {
        LeftoverReport::Wipe { keyslot } => {
            format!("overwritten: the area of erased keyslot {keyslot}")
        }
        LeftoverReport::Replace { keyslot, staging } => {
            format!("finished: the replacement of keyslot {keyslot} by way of keyslot {staging}")
        }
        LeftoverReport::Twins { keyslot, staging } => {
            format!("erased: keyslot {staging}, a copy of keyslot {keyslot}")
        }
        LeftoverReport::Staging { keyslot, staging } => format!(
            "erased: keyslot {staging}, the new secret of an interrupted replacement of keyslot {keyslot}"
        ),
        LeftoverReport::Area { offset, size } => {
            format!("overwritten: {size} bytes of erased key material at byte {offset}")
        }
    }
}
