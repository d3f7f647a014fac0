//! Header backups in the reports of `info` and `check`.

use std::fmt::{self, Display, Formatter};

use keyslot::{Image, Result};
use serde::Serialize;

use super::output;

/// A header backup: a file with a header and the areas of its keyslots, but no payload.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BackupInfo {
    header_backup: bool,
    /// Keyslots whose secrets open the image again once the backup is restored
    keeps_keyslots: Vec<usize>,
}

impl BackupInfo {
    /// Describes a backup that was opened as an image. `None` if the file is an image.
    pub fn new(image: &Image) -> Result<Option<Self>> {
        if image.qcow2().is_some()
            || image.header_file().is_some()
            || !image.header().is_backup(image.payload_storage_len()?)
        {
            return Ok(None);
        }
        let keeps = image.keyslots().filter(|it| it.active && it.is_bound);
        let keeps_keyslots = keeps.map(|it| it.index).collect();
        Ok(Some(Self { header_backup: true, keeps_keyslots }))
    }
}

/// Formats one line, without a newline.
impl Display for BackupInfo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("note: the file ends before the payload and is a header backup: ")?;
        let plural = if self.keeps_keyslots.len() == 1 { "" } else { "s" };
        match self.keeps_keyslots.as_slice() {
            [] => f.write_str("it keeps no secret alive"),
            kept => write!(f, "it keeps the secret{plural} of {} alive", output::keyslots(kept)),
        }
    }
}
