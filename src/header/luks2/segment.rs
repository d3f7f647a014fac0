//! `segments`: the ranges of the data, and their encryption.

use super::corrupt;
use super::json::Member;
use crate::error::Result;

/// A segment of the metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DataSegment {
    /// Number of the segment
    pub number: u32,
    /// Type: `crypt`, `linear`, or an unknown one
    pub kind: String,
    /// Start in bytes from the start of the device. 0 if the header is detached
    pub offset: u64,
    /// Length in bytes. `None` extends to the end of the device
    pub size: Option<u64>,
    /// Flags, such as `backup-previous` or `in-reencryption`
    pub flags: Vec<String>,
    /// Encryption of a segment of type `crypt`
    pub crypt: Option<Crypt>,
}

/// Encryption of a segment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Crypt {
    /// Cipher, such as `aes-xts-plain64`
    pub encryption: String,
    /// Sector size of the encryption in bytes
    pub sector_size: u32,
    /// Sector number for the initialisation vector of the first sector
    pub iv_tweak: u64,
    /// Type of integrity protection, if any
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
                return Err(size.wrong(format_args!("from byte {start} it extends beyond 2^64")));
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
            return Err(size.wrong(format_args!(
                "it must be a multiple of the sector size {}",
                crypt.sector_size
            )));
        }
        Ok(Self { number, kind, offset: start, size: len, flags, crypt })
    }

    /// Whether it is a backup segment, which describes the state before or after a reencryption.
    pub fn is_backup(&self) -> bool {
        self.flags.iter().any(|flag| flag.starts_with("backup-"))
    }

    /// End of the segment in a storage of this length. `None` if the storage is too short.
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

/// Checks a segment that the drive itself encrypts with Opal.
fn check_opal(member: &Member<'_>) -> Result<()> {
    member.member("opal_segment_number")?.unsigned()?;
    member.member("opal_key_size")?.unsigned()?;
    member.member("opal_segment_size")?.decimal()?;
    Ok(())
}

/// Checks that segment numbers have no gap, that backup segments come last, and that no two segments
/// overlap.
///
/// Segments are in the order of the volume, not of the disk. While cryptsetup encrypts an image in place,
/// the first data of the volume is at the end of the disk.
pub(super) fn check_order(segments: &[DataSegment]) -> Result<()> {
    let mut is_open = false;
    let mut was_backup = false;
    for (i, segment) in (0..).zip(segments) {
        let DataSegment { number, offset, .. } = *segment;
        if number != i {
            return Err(corrupt(format!("segments.\"{i}\" is missing, but \"{number}\" exists")));
        }
        if segment.is_backup() {
            was_backup = true;
            continue;
        }
        if was_backup {
            return Err(corrupt(format!(
                "segments.\"{number}\" follows a backup segment but is not one"
            )));
        }
        if is_open {
            let before = number - 1;
            return Err(corrupt(format!(
                "segments.\"{before}\".size is \"dynamic\", but it is not the last segment"
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
