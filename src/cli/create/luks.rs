//! Formats of a new image, and their options that QEMU does not have.

use clap::Args;
use keyslot::crypto::KdfKind;
use keyslot::header::Header;
use keyslot::qemu::size_argument;
use keyslot::{Format, Luks2Options, Result};
use uuid::Uuid;

use super::super::Persona;
use super::super::config::parse_uuid;
use super::invalid;

/// A LUKS version that can be created.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Version {
    Luks1,
    Luks2,
    /// LUKS1 in a qcow2 image
    Qcow2,
}

impl Version {
    /// Version of this name.
    pub fn of(format: &str, persona: Persona) -> Result<Self> {
        match (format, persona) {
            ("luks", _) | ("luks1", Persona::Keyslot) => Ok(Self::Luks1),
            ("luks2", Persona::Keyslot) => Ok(Self::Luks2),
            ("qcow2", _) => Ok(Self::Qcow2),
            _ => Err(invalid(format!("Unknown file format '{format}'"))),
        }
    }

    /// Version of a header.
    pub fn of_header(header: &Header) -> Self {
        if header.luks2().is_some() { Self::Luks2 } else { Self::Luks1 }
    }

    /// Name of the format in JSON and in QEMU: `luks`, `luks2`
    pub fn format(self) -> &'static str {
        match self {
            Self::Luks1 => "luks",
            Self::Luks2 => "luks2",
            Self::Qcow2 => "qcow2",
        }
    }

    /// `LUKS1`, `LUKS2`
    pub fn name(self) -> &'static str {
        match self {
            Self::Luks1 => "LUKS1",
            Self::Luks2 => "LUKS2",
            Self::Qcow2 => "qcow2 with LUKS1",
        }
    }

    /// Default KDF of its keyslots.
    pub fn kdf(self) -> KdfKind {
        match self {
            Self::Luks1 | Self::Qcow2 => KdfKind::Pbkdf2,
            Self::Luks2 => KdfKind::Argon2id,
        }
    }
}

/// Options of a new LUKS image, named as in cryptsetup
#[derive(Args, Default)]
pub struct LuksArgs {
    /// Cipher, mode and IV generator of a LUKS image [default: aes-xts-plain64]
    #[arg(long, value_name = "SPEC")]
    pub cipher: Option<String>,

    /// Volume key size in bits (XTS: both halves) [default: 256, XTS: 512]
    #[arg(long, value_name = "BITS")]
    pub key_size: Option<usize>,

    /// Hash of PBKDF2, of the anti-forensic split and of the digest [default: sha256]
    #[arg(long, value_name = "HASH")]
    pub hash: Option<String>,

    /// UUID of a LUKS image [default: a random one]
    #[arg(long, value_name = "UUID")]
    pub uuid: Option<String>,

    /// Label of a LUKS2 image, up to 47 bytes
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    /// Subsystem of a LUKS2 image, up to 47 bytes
    #[arg(long, value_name = "TEXT")]
    pub subsystem: Option<String>,

    /// Encryption sector size of LUKS2 in bytes: 512, 1024, 2048 or 4096 [default: 4096 if the
    /// payload is a multiple of it, else 512]
    #[arg(long, value_name = "BYTES")]
    pub sector_size: Option<usize>,

    /// Size of each copy of a LUKS2 header: a power of two from 16k to 4M [default: 16k]
    #[arg(long, alias = "luks2-metadata-size", value_name = "SIZE")]
    pub metadata_size: Option<String>,

    /// Size of the LUKS2 keyslots region, up to 128M [default: the rest of 16M]
    #[arg(long, alias = "luks2-keyslots-size", value_name = "SIZE")]
    pub keyslots_size: Option<String>,
}

impl LuksArgs {
    /// Refuses options that this version does not have.
    pub fn check(&self, version: Version) -> Result<()> {
        match self.of_luks2() {
            Some(name) if version != Version::Luks2 => {
                Err(invalid(format!("{name} applies only to LUKS2")))
            }
            _ => Ok(()),
        }
    }

    /// Refuses all of these options, for commands that create no LUKS image.
    pub fn check_none(&self) -> Result<()> {
        let given = [
            ("--cipher", self.cipher.is_some()),
            ("--key-size", self.key_size.is_some()),
            ("--hash", self.hash.is_some()),
            ("--uuid", self.uuid.is_some()),
        ];
        let given = given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name);
        match given.or(self.of_luks2()) {
            Some(name) => Err(invalid(format!("{name} applies only to a new LUKS target"))),
            None => Ok(()),
        }
    }

    /// Converts the options to the library's format.
    pub fn format(&self, version: Version) -> Result<Format> {
        if version != Version::Luks2 {
            return Ok(Format::Luks1);
        }
        let size = |what: &str, text: &Option<String>| {
            text.as_deref().map(|text| size_argument(what, text)).transpose()
        };
        let mut luks2 = Luks2Options::default();
        luks2.label = self.label.clone().unwrap_or_default();
        luks2.subsystem = self.subsystem.clone().unwrap_or_default();
        luks2.sector_size = self.sector_size;
        luks2.metadata_size = size("metadata size", &self.metadata_size)?;
        luks2.keyslots_size = size("keyslots size", &self.keyslots_size)?;
        Ok(Format::Luks2(luks2))
    }

    /// UUID asked for: 36 characters, as cryptsetup takes them.
    pub fn uuid(&self) -> Result<Option<Uuid>> {
        self.uuid.as_deref().map(parse_uuid).transpose()
    }

    /// First given option that LUKS1 does not have.
    fn of_luks2(&self) -> Option<&'static str> {
        let given = [
            ("--label", self.label.is_some()),
            ("--subsystem", self.subsystem.is_some()),
            ("--sector-size", self.sector_size.is_some()),
            ("--metadata-size", self.metadata_size.is_some()),
            ("--keyslots-size", self.keyslots_size.is_some()),
        ];
        given.iter().find(|(_, is_given)| *is_given).map(|(name, _)| *name)
    }
}
