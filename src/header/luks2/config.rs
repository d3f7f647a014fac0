//! `config`: sizes of the header, flags, and requirements on programs that access the image.

use std::ops::Range;

use super::edit::UNWIPED;
use super::json::Member;
use super::raw::{BINARY_SIZE, HDR_SIZES};
use crate::error::{Error, Result};
use crate::json::Object;

/// Configuration in the metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Length in bytes of the region for the areas of keyslots
    pub keyslots_size: u64,
    /// Flags for activating the volume
    pub flags: Vec<String>,
    /// Features that a program must support to write the metadata or to activate the volume
    pub requirements: Vec<String>,
    /// Areas of erased keyslots that an interrupted amendment did not overwrite
    pub unwiped: Vec<Range<u64>>,
}

impl Config {
    /// Parses the configuration of a header whose copies have `hdr_size` bytes.
    pub(super) fn parse(metadata: &Object, hdr_size: u64) -> Result<Self> {
        let member = Member::top(metadata, "config")?;
        let json_size = member.member("json_size")?;
        let json = json_size.decimal()?;
        let copy = json.checked_add(BINARY_SIZE as u64);
        if copy.is_none_or(|copy| !HDR_SIZES.contains(&copy) || copy != hdr_size) {
            let wanted = hdr_size - BINARY_SIZE as u64;
            return Err(json_size.wrong(format_args!("the binary header implies {wanted}")));
        }
        let size = member.member("keyslots_size")?;
        let keyslots_size = size.decimal()?;
        if !keyslots_size.is_multiple_of(ALIGNMENT) || keyslots_size > MAX_KEYSLOTS_SIZE {
            let text = format!("it must be a multiple of {ALIGNMENT}, up to {MAX_KEYSLOTS_SIZE}");
            return Err(size.wrong(text));
        }
        let strings = |member: Option<Member<'_>>| match member {
            Some(member) => member.strings(),
            None => Ok(Vec::new()),
        };
        let flags = strings(member.optional("flags")?)?;
        let requirements = match member.optional("requirements")? {
            Some(requirements) => strings(requirements.optional("mandatory")?)?,
            None => Vec::new(),
        };
        let areas = 2 * hdr_size..2 * hdr_size + keyslots_size;
        let unwiped = member.optional(UNWIPED)?.map_or(Vec::new(), |it| unwiped(&it, &areas));
        Ok(Self { keyslots_size, flags, requirements, unwiped })
    }

    /// Whether a reencryption that keeps its state in the metadata is in progress.
    pub(super) fn is_reencrypting(&self) -> bool {
        self.reencryptions() > 0
    }

    pub(super) fn reencryptions(&self) -> usize {
        self.requirements.iter().filter(|it| REENCRYPTIONS.contains(&it.as_str())).count()
    }
}

/// Parses this crate's mark for unwiped areas. The mark is only a hint, so faults in it are ignored.
fn unwiped(member: &Member<'_>, bounds: &Range<u64>) -> Vec<Range<u64>> {
    let area = |item: &Member<'_>| {
        let start = item.member("offset")?.decimal()?;
        let size = item.member("size")?.decimal()?;
        Ok::<_, Error>(start.max(bounds.start)..start.saturating_add(size).min(bounds.end))
    };
    let items = member.items().unwrap_or_default();
    let areas = items.iter().take(MAX_UNWIPED).filter_map(|item| area(item).ok());
    let mut areas: Vec<_> = areas.filter(|area| !area.is_empty()).collect();
    areas.sort_by_key(|area| area.start);
    // Merge overlapping areas. Otherwise a small mark could ask for an unlimited amount of work.
    areas.dedup_by(|next, area| {
        let touches = next.start <= area.end;
        if touches {
            area.end = area.end.max(next.end);
        }
        touches
    });
    areas
}

/// Requirements of a reencryption that keeps its state in the metadata
const REENCRYPTIONS: [&str; 3] = ["online-reencrypt", "online-reencrypt-v2", "online-reencrypt-v3"];
/// Maximum number of areas that keyslots and their replacements can leave
const MAX_UNWIPED: usize = 64;
/// Granularity of `keyslots_size` in bytes
pub(super) const ALIGNMENT: u64 = 4096;
pub(super) const MAX_KEYSLOTS_SIZE: u64 = 128 << 20;
