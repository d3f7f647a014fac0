//! The table: a row for a size and a column for a contender.

use crate::Work;
use crate::contender::{Entry, Kind};
use crate::timing::Times;

pub fn print_header(entries: &[Entry]) {
    print!("\n| GB/s, or time per sector (% of the limit of the same width) |");
    for entry in entries {
        print!(" {} |", entry.name);
    }
    println!(" keyslot/limit | keyslot/AWS-LC |\n|---|{}", "---:|".repeat(entries.len() + 2));
}

/// `times` are in the order of `entries`.
pub fn print_row(work: Work, size: usize, entries: &[Entry], times: &[Times]) {
    let best = |wanted: fn(Kind) -> bool| {
        let chosen = entries.iter().zip(times).filter(|(entry, _)| wanted(entry.kind));
        chosen.map(|(_, times)| times).min_by(|a, b| a.best().total_cmp(&b.best()))
    };
    let limit_of_width = |kind| match kind {
        Kind::Keyslot { width: Some(width) } => {
            let limit = |(entry, _): &(&Entry, _)| entry.kind == Kind::Limit { width };
            entries.iter().zip(times).find(limit).map(|(_, times)| times)
        }
        _ => None,
    };

    print!("| {} |", work.label(size));
    for (entry, times) in entries.iter().zip(times) {
        if size == work.sector_size {
            print!(" {:.1} ns", times.best() * size as f64 * 1e9);
        } else {
            print!(" {:.2}", 1e-9 / times.best());
        }
        if let Some(limit) = limit_of_width(entry.kind) {
            print!(" ({:.1} %)", 100.0 * times.speed_relative_to(limit));
        }
        print!(" |");
    }
    let ours = best(|kind| matches!(kind, Kind::Keyslot { .. }));
    let limit = best(|kind| matches!(kind, Kind::Limit { .. }));
    let aws_lc = best(|kind| kind == Kind::AwsLc);
    for theirs in [limit, aws_lc] {
        match (ours, theirs) {
            (Some(ours), Some(theirs)) => print!(" {:.3} |", ours.speed_relative_to(theirs)),
            _ => print!(" - |"),
        }
    }
    println!();
}
