//! `segments`: where the data is, and how it is encrypted.

use super::corrupt;
use super::json::Member;
use crate::error::Result;

/// A segment of the metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DataSegment {
    /// Its number
    pub number: u32,
    /// `crypt`, `linear`, or what nobody knows
    pub kind: String,
    /// Bytes from the start of the device; 0 if the header is detached
    pub offset: u64,
    /// Length in bytes; without it, to the end of the device
    pub size: Option<u64>,
    /// `backup-previous`, `in-reencryption` and so on
    pub flags: Vec<String>,
    /// Of type `crypt`: how it is encrypted
    pub crypt: Option<Crypt>,
}

/// How a segment is encrypted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crypt {
    /// `aes-xts-plain64`
    pub encryption: String,
    /// Length in bytes of what is encrypted as a unit
    pub sector_size: u32,
    /// Sector number of its first sector
    pub iv_tweak: u64,
    /// Type of its integrity protection
    pub integrity: Option<String>,
}

impl DataSegment {
    pub(super) fn parse(number: u32, member: &Member<'_>) -> Result<Self> {
        let kind = member.member("type")?.name()?.to_owned();
        let (offset, size) = (member.member("offset")?, member.member("size")?);
        let flags = member.optional("flags")?;
        let flags = flags.map_or(Ok(Vec::new()), |flags| flags.strings())?;
        let aligned = |member: &Member<'_>| match member.decimal()? {
            bytes if bytes.is_multiple_of(SECTOR) => Ok(bytes),
            _ => Err(member.wrong("it must be a multiple of 512")),
        };
        let start = aligned(&offset)?;
        let len = if size.string()? == "dynamic" { None } else { Some(aligned(&size)?) };
        match len {
            Some(0) => return Err(size.wrong("a segment must not be empty")),
            Some(len) if start.checked_add(len).is_none() => {
                return Err(size.wrong(format_args!("from byte {start} on it is beyond 2^64")));
            }
            _ => {}
        }
        let crypt = match kind.as_str() {
            "crypt" => Some(crypt(member)?),
            "hw-opal" | "hw-opal-crypt" => {
                check_opal(member)?;
                if kind == "hw-opal" { None } else { Some(crypt(member)?) }
            }
            _ => None,
        };
        if let (Some(crypt), Some(len)) = (&crypt, len)
            && !len.is_multiple_of(crypt.sector_size.into())
        {
            return Err(size.wrong(format_args!("these are no sectors of {}", crypt.sector_size)));
        }
        Ok(Self { number, kind, offset: start, size: len, flags, crypt })
    }

    /// Whether it only keeps what a reencryption began with, or will end with.
    pub fn is_backup(&self) -> bool {
        self.flags.iter().any(|flag| flag.starts_with("backup-"))
    }

    /// The byte that it ends before in a storage of this length, if that has it.
    pub(super) fn end(&self, storage_len: u64) -> Option<u64> {
        let end = match self.size {
            Some(size) => self.offset + size,
            None => storage_len / SECTOR * SECTOR,
        };
        (end <= storage_len).then_some(end)
    }

    pub(super) fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }
}

fn crypt(member: &Member<'_>) -> Result<Crypt> {
    let size = member.member("sector_size")?;
    let sector_size = size.unsigned()?;
    if sector_size == 0 || !u64::from(sector_size).is_multiple_of(SECTOR) {
        return Err(size.wrong("it must be a multiple of 512"));
    }
    let integrity = match member.optional("integrity")? {
        None => None,
        Some(integrity) => {
            integrity.member("journal_encryption")?.string()?;
            integrity.member("journal_integrity")?.string()?;
            Some(integrity.member("type")?.string()?.to_owned())
        }
    };
    Ok(Crypt {
        encryption: member.member("encryption")?.name()?.to_owned(),
        sector_size,
        iv_tweak: member.member("iv_tweak")?.decimal()?,
        integrity,
    })
}

/// An Opal range of the drive itself.
fn check_opal(member: &Member<'_>) -> Result<()> {
    member.member("opal_segment_number")?.unsigned()?;
    member.member("opal_key_size")?.unsigned()?;
    member.member("opal_segment_size")?.decimal()?;
    Ok(())
}

/// Checks that numbers have no gap, that backups come last, and that no segment overlaps another.
///
/// The order of segments is the volume's. On the disk they may be in any other: while cryptsetup
/// encrypts an image in place, its first data is behind the rest.
pub(super) fn check_order(segments: &[DataSegment]) -> Result<()> {
    let mut is_open = false;
    let mut was_backup = false;
    for (i, segment) in (0..).zip(segments) {
        let DataSegment { number, offset, .. } = *segment;
        if number != i {
            return Err(corrupt(format!("segments.\"{i}\" is missing, and there is \"{number}\"")));
        }
        if segment.is_backup() {
            was_backup = true;
            continue;
        }
        if was_backup {
            return Err(corrupt(format!("segments.\"{number}\" is behind a backup and is none")));
        }
        if is_open {
            let before = number - 1;
            return Err(corrupt(format!(
                "segments.\"{before}\".size is \"dynamic\", and it is not the last"
            )));
        }
        let end = segment.size.map_or(u64::MAX, |size| offset + size);
        for other in &segments[..i as usize] {
            let other_end = other.size.map_or(u64::MAX, |size| other.offset + size);
            if offset < other_end && other.offset < end {
                let (other, start) = (other.number, other.offset);
                let text = format!(
                    "segments.\"{number}\".offset is \"{offset}\": segment {other} is from byte {start} to byte {other_end}"
                );
                return Err(corrupt(text));
            }
        }
        is_open = segment.size.is_none();
    }
    if segments.first().is_none_or(DataSegment::is_backup) {
        return Err(corrupt("segments.\"0\" is missing"));
    }
    Ok(())
}

const SECTOR: u64 = 512;
