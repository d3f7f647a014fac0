//! Changes to keyslots in reports: planned, done and interrupted.

use std::fmt::{self, Display, Formatter};

use keyslot::Done;
use keyslot::amend::PlannedChange;
use keyslot::crypto::{KdfAlg, KdfKind};
use keyslot::header::{Leftover, Staging};
use keyslot::kdf::{Cost, Pbkdf};
use serde::Serialize;

use super::output::Report;

/// An amendment, planned or done.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct AmendmentReport {
    pub filename: String,
    pub dry_run: bool,
    pub changes: Vec<KeyslotChange>,
    pub warnings: Vec<String>,
}

impl Report for AmendmentReport {
    fn is_change(&self) -> bool {
        !self.dry_run
    }
}

impl Display for AmendmentReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let would = if self.dry_run { "would be " } else { "" };
        for KeyslotChange { action, keyslot, kdf, staging } in &self.changes {
            let action = match action {
                Action::Add => "added",
                Action::Erase => "erased",
                Action::Replace => "replaced",
            };
            write!(f, "keyslot {keyslot} {would}{action}")?;
            if let Some(cost) = kdf.as_ref().and_then(KdfCost::text) {
                match staging {
                    Some(staging) => write!(f, " ({cost}, by way of keyslot {staging})")?,
                    None => write!(f, " ({cost})")?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A change of one keyslot.
#[derive(Serialize)]
pub struct KeyslotChange {
    action: Action,
    keyslot: usize,
    #[serde(flatten)]
    kdf: Option<KdfCost>,
    #[serde(skip_serializing_if = "Option::is_none")]
    staging: Option<usize>,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Add,
    Erase,
    Replace,
}

impl KeyslotChange {
    /// A planned change. `None` for a kind that this command does not know.
    pub fn planned(change: &PlannedChange) -> Option<Self> {
        Some(match change {
            PlannedChange::Add { keyslot, new, .. } => {
                Self::new(Action::Add, *keyslot, Some(KdfCost::planned(&new.pbkdf)))
            }
            PlannedChange::Replace { keyslot, new, staging, .. } => {
                let staging = match staging {
                    Staging::Keyslot(staging) => Some(*staging),
                    _ => None,
                };
                let kdf = Some(KdfCost::planned(&new.pbkdf));
                Self { staging, ..Self::new(Action::Replace, *keyslot, kdf) }
            }
            PlannedChange::Erase { keyslot } => Self::new(Action::Erase, *keyslot, None),
            _ => return None,
        })
    }

    /// A change that was made.
    pub fn done(change: &Done) -> Option<Self> {
        Some(match *change {
            Done::Added { keyslot, kdf } => Self::new(Action::Add, keyslot, Some(KdfCost::of(kdf))),
            Done::Erased { keyslot } => Self::new(Action::Erase, keyslot, None),
            Done::Replaced { keyslot, kdf } => {
                Self::new(Action::Replace, keyslot, Some(KdfCost::of(kdf)))
            }
            _ => return None,
        })
    }

    fn new(action: Action, keyslot: usize, kdf: Option<KdfCost>) -> Self {
        Self { action, keyslot, kdf, staging: None }
    }
}

/// A KDF, and what opening a keyslot with it costs.
#[derive(Serialize)]
pub struct KdfCost {
    kdf: &'static str,
    #[serde(flatten)]
    cost: Option<Work>,
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "kebab-case")]
enum Work {
    /// PBKDF2
    Iterations { iterations: u32 },
    /// Argon2
    Passes { time: u32, memory_kib: u32, cpus: u32 },
    /// Argon2, planned: the memory depends on the machine
    PassesOnly { time: u32 },
    /// Planned: to be calibrated
    Time { iter_time_ms: u64 },
}

impl KdfCost {
    /// Cost of opening a keyslot with this KDF.
    pub fn of(kdf: KdfAlg) -> Self {
        let cost = match kdf {
            KdfAlg::Pbkdf2 { iterations, .. } => Some(Work::Iterations { iterations }),
            KdfAlg::Argon2 { time, memory: memory_kib, parallelism: cpus, .. } => {
                Some(Work::Passes { time, memory_kib, cpus })
            }
            _ => None,
        };
        Self { kdf: kdf.kind().name(), cost }
    }

    fn planned(pbkdf: &Pbkdf) -> Self {
        let kind = pbkdf.kind.unwrap_or(KdfKind::Pbkdf2);
        let cost = match pbkdf.cost {
            Cost::Iterations(iterations) if kind == KdfKind::Pbkdf2 => {
                Some(Work::Iterations { iterations })
            }
            Cost::Iterations(time) => Some(Work::PassesOnly { time }),
            Cost::Time(time) => Some(Work::Time {
                iter_time_ms: u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            }),
            _ => None,
        };
        Self { kdf: kind.name(), cost }
    }

    /// The cost for a person, if it is known.
    pub fn text(&self) -> Option<String> {
        let kdf = self.kdf;
        Some(match self.cost.as_ref()? {
            Work::Iterations { iterations } => format!("{iterations} iterations"),
            Work::Passes { time, memory_kib, cpus } => {
                format!("{kdf}: {time} passes over {memory_kib} KiB, parallelism {cpus}")
            }
            Work::PassesOnly { time } => format!("{kdf}: {time} passes"),
            Work::Time { iter_time_ms: ms } if kdf == KdfKind::Pbkdf2.name() => {
                format!("iteration count for {ms} ms")
            }
            Work::Time { iter_time_ms: ms } => format!("{kdf} for {ms} ms"),
        })
    }
}

/// A leftover of an interrupted change.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LeftoverReport {
    Wipe { keyslot: usize },
    Replace { keyslot: usize, staging: usize },
    Twins { keyslot: usize, staging: usize },
    Staging { keyslot: usize, staging: usize },
    Area { offset: u64, size: usize },
}

impl LeftoverReport {
    /// Converts the leftovers whose kind this command knows.
    pub fn all(leftovers: Vec<Leftover>) -> Vec<Self> {
        leftovers.into_iter().filter_map(Self::new).collect()
    }

    fn new(leftover: Leftover) -> Option<Self> {
        Some(match leftover {
            Leftover::Wipe { keyslot } => Self::Wipe { keyslot },
            Leftover::Replace { keyslot, staging } => Self::Replace { keyslot, staging },
            Leftover::Twins { keyslot, staging } => Self::Twins { keyslot, staging },
            Leftover::Staging { keyslot, staging } => Self::Staging { keyslot, staging },
            Leftover::Area(area) => Self::Area { offset: area.offset, size: area.len },
            _ => return None,
        })
    }
}
