//! Reports of `header backup` and `header restore`.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use keyslot::Restoration;
use keyslot::header::luks2::Luks2Header;
use keyslot::header::{Fate, Header};
use serde::Serialize;

use super::super::create::Version;
use super::super::output::{self, Report};

/// Identity of a header. Displays as `LUKS2 header, uuid 1234, seqid 7, label system, keyslots 0,
/// 2`.
#[derive(Serialize)]
pub struct HeaderReport {
    format: &'static str,
    uuid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    seqid: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subsystem: Option<String>,
    /// Active keyslots
    keyslots: Vec<usize>,
    /// `LUKS1`, `LUKS2`
    #[serde(skip)]
    version: &'static str,
}

impl HeaderReport {
    pub fn new(header: &Header) -> Self {
        let luks2 = header.luks2();
        let occupants = header.occupants().into_iter().enumerate();
        Self {
            format: Version::of_header(header).format(),
            uuid: header.uuid(),
            seqid: luks2.map(Luks2Header::seqid),
            label: luks2.map(Luks2Header::label),
            subsystem: luks2.map(Luks2Header::subsystem),
            keyslots: occupants.filter_map(|(keyslot, it)| it.map(|_| keyslot)).collect(),
            version: header.format(),
        }
    }
}

impl Display for HeaderReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} header, uuid {}", self.version, self.uuid)?;
        if let Some(seqid) = self.seqid {
            write!(f, ", seqid {seqid}")?;
        }
        for (what, value) in [("label", &self.label), ("subsystem", &self.subsystem)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                write!(f, ", {what} {value}")?;
            }
        }
        match self.keyslots.as_slice() {
            [] => write!(f, ", no keyslots"),
            active => write!(f, ", {}", output::keyslots(active)),
        }
    }
}

/// A header that was saved.
#[derive(Serialize)]
pub struct BackupReport {
    #[serde(flatten)]
    pub header: HeaderReport,
    pub filename: String,
    pub backup: String,
    pub size: usize,
    pub warnings: Vec<String>,
}

impl Report for BackupReport {
    fn is_change(&self) -> bool {
        true
    }
}

impl Display for BackupReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let line = format!("{}: {} bytes, {}", self.backup, self.size, self.header);
        writeln!(f, "{}", output::foreign(&line))
    }
}

/// A header that is put back.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct RestoreReport {
    filename: String,
    backup: String,
    dry_run: bool,
    /// The header that the image has, if it is valid
    present: Option<HeaderReport>,
    restored: HeaderReport,
    changes: Vec<RestoredKeyslot>,
    warnings: Vec<String>,
    /// Why the image has no valid header
    #[serde(skip_serializing_if = "Option::is_none")]
    damage: Option<String>,
    #[serde(skip)]
    pub stage: Stage,
}

/// Stage of a restoration.
#[derive(Clone, Copy, Eq, PartialEq)]
pub enum Stage {
    Planned,
    Done,
    /// Done, after the plan was shown
    DoneAsPlanned,
}

#[derive(Serialize)]
struct RestoredKeyslot {
    action: Action,
    keyslot: usize,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Action {
    Keep,
    Add,
    Replace,
    Erase,
}

impl RestoreReport {
    /// A restoration that is planned.
    pub fn new(image: &Path, file: &Path, dry_run: bool, restoration: &Restoration) -> Self {
        let change = |&(keyslot, fate): &(usize, Fate)| {
            let action = match fate {
                Fate::Kept => Action::Keep,
                Fate::Added => Action::Add,
                Fate::Replaced => Action::Replace,
                Fate::Erased => Action::Erase,
            };
            RestoredKeyslot { action, keyslot }
        };
        Self {
            filename: output::filename(image),
            backup: output::filename(file),
            dry_run,
            present: restoration.present().ok().map(HeaderReport::new),
            restored: HeaderReport::new(restoration.backup().header()),
            changes: restoration.fates().iter().map(change).collect(),
            warnings: restoration.warnings().to_vec(),
            damage: restoration.present().err().map(|error| error.message().to_owned()),
            stage: Stage::Planned,
        }
    }
}

impl Report for RestoreReport {
    fn is_change(&self) -> bool {
        self.stage != Stage::Planned
    }
}

impl Display for RestoreReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let image = output::foreign(&self.filename);
        let would = match self.stage {
            Stage::Planned => "would be ",
            Stage::Done => "",
            Stage::DoneAsPlanned => return writeln!(f, "{image}: the header is restored"),
        };
        let present = match &self.present {
            Some(header) => header.to_string(),
            None => {
                format!("no valid header: {}", self.damage.as_deref().unwrap_or_default())
            }
        };
        writeln!(f, "{image}: {}", output::foreign(&present))?;
        let (file, restored) = (&self.backup, &self.restored);
        writeln!(f, "{}", output::foreign(&format!("{file}: {restored}")))?;
        for RestoredKeyslot { action, keyslot } in &self.changes {
            let fate = match action {
                Action::Keep => "kept",
                Action::Add => "restored",
                Action::Replace => "replaced",
                Action::Erase => "erased",
            };
            writeln!(f, "keyslot {keyslot} {would}{fate}")?;
        }
        Ok(())
    }
}
