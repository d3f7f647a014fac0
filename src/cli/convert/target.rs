//! Target of a conversion: a new image, or an existing one (`-n`).

use std::ffi::OsString;

use keyslot::container::RawImage;
use keyslot::qemu::Options;
use keyslot::storage::{FileStorage, NewFile, Place, Storage};
use keyslot::volume::{Side, Volume};
use keyslot::{Error, ErrorKind, Image, NewImage, Operation, Passphrase, Result};

use super::super::create::WrittenImage;
use super::super::image_spec;
use super::super::report::Failure;
use super::existing::existing;
use super::new::{check_new, new_luks, new_raw, version};
use super::source::Source;
use super::{Conversion, ConvertArgs, invalid};

/// The target.
pub struct Target {
    /// Name of the target as given, for messages
    shown: String,
    data: Data,
    /// Prefix of qemu-img's errors about a new target
    prefix: String,
    /// Secret of a new target
    secret: Option<Passphrase>,
}

pub enum Data {
    NewRaw(Box<NewFile>),
    NewLuks(Box<NewImage>),
    Raw(RawImage),
    Luks(Box<Opened>),
}

/// An existing image, unlocked.
pub struct Opened {
    pub image: Image,
    /// The keyslot that the secret opened
    pub keyslot: usize,
    pub volume: Volume,
}

impl Target {
    /// Makes the checks that do not depend on the source, before a person is asked for its secret.
    pub fn admit(name: &OsString, options: &Options, conversion: &Conversion<'_>) -> Result<()> {
        if conversion.args.no_create {
            return Ok(());
        }
        let format = conversion.args.output_format.as_deref().unwrap_or("raw");
        let version = version(format, conversion.persona)?;
        let path = image_spec::file(name, conversion.persona)?;
        let named = |error: Error| error.with_path(&path);
        check_new(version, options, conversion).map_err(named)?;
        let place = Place::new(&path, conversion.persona.overwrites(conversion.args.overwrite));
        place.map(drop).map_err(named)
    }

    /// Opens or makes a target for `len` bytes.
    pub fn open(
        name: &OsString,
        source: &Source,
        len: u64,
        options: &Options,
        conversion: &Conversion<'_>,
    ) -> std::result::Result<Self, Failure> {
        let shown = name.to_string_lossy().into_owned();
        let format = conversion.args.output_format.as_deref().unwrap_or("raw");
        let prefix = format!("{shown}: error while converting {format}");
        if conversion.args.no_create {
            let data = existing(name, source, len, conversion)?;
            return Ok(Self { shown, data, prefix, secret: None });
        }
        let version = version(format, conversion.persona)?;
        let path = image_spec::file(name, conversion.persona)?;
        let named = |error: Error| Failure::from(error.with_path(&path));
        check_new(version, options, conversion).map_err(named)?;
        let named = |error: Error| Failure::creating(&prefix)(error.with_path(&path));
        if source.is_file(&path) {
            return Err(named(invalid("it is the source")));
        }
        let (data, secret) = match version {
            Some(version) => new_luks(version, &path, len, options, conversion).map_err(named)?,
            None => (new_raw(&path, source, len, options, conversion).map_err(named)?, None),
        };
        Ok(Self { shown, data, prefix, secret })
    }

    /// The image of `len` bytes, for the report.
    pub fn written(&self, len: u64) -> WrittenImage {
        let opened = match &self.data {
            Data::NewRaw(_) | Data::Raw(_) => None,
            Data::NewLuks(image) => Some((image.header(), 0)),
            Data::Luks(opened) => Some((opened.image.header(), opened.keyslot)),
        };
        WrittenImage::new(self.shown.clone(), len, opened)
    }

    /// Side of the copy that is written.
    pub fn side(&self) -> Result<Side<'_>> {
        match &self.data {
            Data::NewRaw(file) => Side::raw(file.storage()),
            Data::NewLuks(image) => Ok(Side::volume(image.volume()?)),
            Data::Raw(raw) => Side::raw(raw.storage().as_ref()),
            Data::Luks(opened) => Ok(Side::volume(&opened.volume)),
        }
    }

    /// Whether the target reads as zeros.
    pub fn is_zero(&self, args: &ConvertArgs) -> bool {
        let is_new = match &self.data {
            Data::NewRaw(_) => true,
            // Preallocated clusters are not zeros, and never holes.
            Data::NewLuks(image) => image.qcow2().is_some_and(|it| !it.preallocated),
            Data::Raw(_) | Data::Luks(_) => false,
        };
        is_new || args.target_is_zero
    }

    /// Makes the written data durable.
    pub fn sync(&self) -> Result<()> {
        if let Data::Luks(opened) = &self.data {
            // The clusters that a qcow2 image does not use any more are released.
            return opened.volume.sync();
        }
        self.file().map_or(Ok(()), |file| {
            let failed = |e| Error::failed(Operation::Sync, "the target", e).with_path(file.path());
            file.sync_data().map_err(failed)
        })
    }

    /// Makes the next read come from the disk.
    pub fn evict(&self) {
        if let Some(file) = self.file() {
            file.evict(0, file.len().unwrap_or(0));
        }
    }

    fn file(&self) -> Option<&FileStorage> {
        match &self.data {
            Data::NewRaw(file) => Some(file.storage()),
            Data::NewLuks(image) => Some(image.file()),
            Data::Raw(raw) => Some(raw.file()),
            Data::Luks(opened) => opened.image.file(),
        }
    }

    /// Adds to an error of the copy a hint about an existing target.
    pub fn spoiled(&self, error: Error) -> Error {
        match self.data {
            // A target that is too small.
            _ if error.kind() == ErrorKind::InvalidInput => error,
            // The image itself must be mended before it can be written.
            _ if error.hint().is_some() => error,
            Data::NewRaw(_) | Data::NewLuks(_) => error,
            Data::Raw(_) | Data::Luks(_) => {
                error.with_hint(format!("convert again: {} is written only in part", self.shown))
            }
        }
    }

    /// Opens a new LUKS image with its secret, as its users will.
    pub fn check(&self) -> Result<()> {
        match (&self.data, &self.secret) {
            (Data::NewLuks(image), Some(secret)) => image.check(secret),
            _ => Ok(()),
        }
    }

    /// Gives a new target its name.
    pub fn finish(self) -> std::result::Result<(), Failure> {
        let named = match self.data {
            Data::NewRaw(file) => file.publish(),
            Data::NewLuks(image) => image.finish().map(drop),
            Data::Raw(_) | Data::Luks(_) => Ok(()),
        };
        named.map_err(Failure::creating(&self.prefix))
    }
}
