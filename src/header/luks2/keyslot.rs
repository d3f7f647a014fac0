//! `keyslots`: each holds a key, and describes how it is opened.

use std::ops::Range;

use super::json::{Member, printable};
use crate::crypto::{Argon2Variant, CipherSpec, HashAlg, KdfAlg, af};
use crate::error::Result;
use crate::header::{Area, Kdf, Priority, material_len};
use crate::json;

/// A keyslot of the metadata.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Slot {
    /// Number of the keyslot
    pub number: u32,
    /// Type: `luks2`, `reencrypt`, or an unknown one
    pub kind: String,
    /// Length in bytes of its key
    pub key_size: u32,
    /// Whether and when it is tried if no keyslot is named
    pub priority: Priority,
    /// Start of its area, in bytes from the start of the header
    pub offset: u64,
    /// Length of its area in bytes
    pub size: u64,
    /// Parameters for opening it, or the reason why it is not supported
    pub(super) opening: std::result::Result<Opening, String>,
}

/// Parameters for opening a keyslot.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    kdf: KdfAlg,
    salt: Vec<u8>,
    pub encryption: CipherSpec,
    pub af_hash: HashAlg,
}

impl Opening {
    pub fn kdf(&self) -> Kdf<'_> {
        Kdf { alg: self.kdf, salt: &self.salt }
    }
}

impl Slot {
    pub(super) fn parse(number: u32, member: &Member<'_>) -> Result<Self> {
        let kind = member.member("type")?.name()?.to_owned();
        let key_size = member.member("key_size")?;
        let area = member.member("area")?;
        area.member("type")?.string()?;
        let priority = match member.optional("priority")? {
            None => Priority::Normal,
            Some(priority) => match priority.integer()? {
                1 => Priority::Normal,
                2 => Priority::Prefer,
                // cryptsetup ignores keyslots with an unknown priority.
                _ => Priority::Ignore,
            },
        };
        let (offset, size) = (area.member("offset")?.decimal()?, area.member("size")?.decimal()?);
        let mut slot = Self {
            number,
            key_size: key_size.unsigned()?,
            priority,
            offset,
            size,
            opening: Err(format!("keyslots of type {} are not supported", quoted(&kind))),
            kind,
        };
        match slot.kind.as_str() {
            KIND => slot.opening = opening(member, &area, key_size.count()?, size)?,
            REENCRYPT => check_reencrypt(member, &area)?,
            _ => {}
        }
        Ok(slot)
    }

    /// Area of the keyslot, in bytes from the start of the header.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset.saturating_add(self.size)
    }

    /// Part of the area that the key material takes.
    pub(super) fn material(&self) -> Area {
        let len = usize::try_from(material_len(self.key_size)).unwrap_or(usize::MAX);
        Area { offset: self.offset, len }
    }
}

/// Parses a keyslot of type `luks2`. Malformed members are an error. An unknown algorithm only makes the
/// keyslot unusable.
fn opening(
    member: &Member<'_>,
    area: &Member<'_>,
    key_size: u32,
    size: u64,
) -> Result<std::result::Result<Opening, String>> {
    let kind = area.member("type")?;
    if kind.string()? != "raw" {
        return Err(kind.wrong("it must be \"raw\" in a keyslot of type luks2"));
    }
    let (encryption, area_key_size) =
        (area.member("encryption")?.name()?, area.member("key_size")?.count()?);
    if size < material_len(key_size) {
        let wanted = material_len(key_size);
        let text = format!("the key material of a key of {key_size} bytes takes {wanted} bytes");
        return Err(area.member("size")?.wrong(text));
    }

    let splitter = member.member("af")?;
    let (kind, stripes) = (splitter.member("type")?, splitter.member("stripes")?);
    if kind.string()? != "luks1" {
        return Err(kind.wrong("the only anti-forensic splitter is \"luks1\""));
    }
    if stripes.integer()? != i64::from(af::STRIPES) {
        return Err(stripes.wrong(format_args!("it must be {}", af::STRIPES)));
    }
    let af_hash = splitter.member("hash")?.string()?;

    let kdf = kdf(&member.member("kdf")?)?;
    let area_key_size = usize::try_from(area_key_size).unwrap_or(usize::MAX);
    let parts = (kdf, cipher(encryption, area_key_size), hash_of(af_hash));
    Ok(match parts {
        (Ok((kdf, salt)), Ok(encryption), Ok(af_hash)) => {
            Ok(Opening { kdf, salt, encryption, af_hash })
        }
        (Err(why), _, _) | (_, Err(why), _) | (_, _, Err(why)) => Err(why),
    })
}

/// Parses the KDF. Members of other KDFs are ignored, because old versions of cryptsetup did not remove
/// them.
fn kdf(member: &Member<'_>) -> Result<std::result::Result<(KdfAlg, Vec<u8>), String>> {
    let kind = member.member("type")?.name()?;
    let salt = member.member("salt")?;
    salt.name()?;
    let variant = match kind {
        "pbkdf2" => {
            let iterations = member.member("iterations")?.count()?;
            let hash = member.member("hash")?.string()?;
            let salt = salt.base64(SALT..=SALT)?;
            return Ok(hash_of(hash).map(|hash| (KdfAlg::Pbkdf2 { hash, iterations }, salt)));
        }
        "argon2i" => Argon2Variant::Argon2i,
        "argon2id" => Argon2Variant::Argon2id,
        other => return Ok(Err(format!("the KDF {} is not supported", quoted(other)))),
    };
    let (memory, cpus) = (member.member("memory")?, member.member("cpus")?);
    let time = member.member("time")?.count()?;
    let parallelism = cpus.count()?;
    if parallelism > MAX_LANES {
        return Err(cpus.wrong(format_args!("Argon2 has at most {MAX_LANES} lanes")));
    }
    let memory_kib = memory.count()?;
    if u64::from(memory_kib) < 8 * u64::from(parallelism) {
        return Err(memory.wrong("Argon2 needs at least 8 KiB per lane"));
    }
    let salt = salt.base64(SALT..=SALT)?;
    let alg = KdfAlg::Argon2 { variant, time, memory: memory_kib, parallelism };
    Ok(Ok((alg, salt)))
}

/// Checks a keyslot of type `reencrypt`, which holds the state of a reencryption instead of a key.
fn check_reencrypt(member: &Member<'_>, area: &Member<'_>) -> Result<()> {
    let one_of = |member: &Member<'_>, known: &[&str]| -> Result<()> {
        if known.contains(&member.string()?) {
            return Ok(());
        }
        Err(member.wrong(format_args!("it must be one of {}", known.join(", "))))
    };
    let key_size = member.member("key_size")?;
    if key_size.integer()? != 1 {
        return Err(key_size.wrong("it must be 1 in a keyslot of type reencrypt"));
    }
    one_of(&member.member("mode")?, &["reencrypt", "encrypt", "decrypt"])?;
    one_of(&member.member("direction")?, &["forward", "backward"])?;
    let resilience = area.member("type")?.string()?;
    if matches!(resilience, "checksum" | "datashift-checksum") {
        area.member("hash")?.string()?;
        let size = area.member("sector_size")?;
        let is_sector = |size: u32| size >= SECTOR && size.is_power_of_two();
        if !is_sector(size.unsigned()?) {
            return Err(size.wrong("it must be a power of 2, at least 512"));
        }
    }
    if resilience.starts_with("datashift") {
        let shift = area.member("shift_size")?;
        let size = shift.decimal()?;
        if size == 0 || !size.is_multiple_of(SECTOR.into()) {
            return Err(shift.wrong("it must be a multiple of 512"));
        }
    }
    Ok(())
}

/// Parses a cipher such as `aes-xts-plain64`, for keys of this size.
pub(super) fn cipher(text: &str, key_size: usize) -> std::result::Result<CipherSpec, String> {
    let parsed = text.split_once('-').map(|(name, mode)| CipherSpec::parse(name, mode, key_size));
    parsed.and_then(Result::ok).ok_or_else(|| {
        let cipher = quoted(text);
        format!("the cipher {cipher} with a key of {key_size} bytes is not supported")
    })
}

/// Parses the name of a hash. Its case is ignored, because cryptsetup stores names as the user typed them.
pub(super) fn hash_of(name: &str) -> std::result::Result<HashAlg, String> {
    HashAlg::parse(&name.to_ascii_lowercase()).map_err(|error| error.message().to_owned())
}

/// Quotes a string as in the metadata.
pub(super) fn quoted(text: &str) -> String {
    printable(&json::quoted(text))
}

pub(super) const KIND: &str = "luks2";
pub(super) const REENCRYPT: &str = "reencrypt";
/// Length of every salt
pub(super) const SALT: usize = 32;
/// Maximum of Argon2 lanes (RFC 9106, section 3.1)
const MAX_LANES: u32 = (1 << 24) - 1;
const SECTOR: u32 = 512;
