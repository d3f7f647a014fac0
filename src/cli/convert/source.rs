//! Source of a conversion.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use keyslot::container::{Qcow2Disk, Qcow2Header, RawImage, image_format};
use keyslot::qemu::ImageSpec;
use keyslot::storage::{FileStorage, Version};
use keyslot::volume::{Side, Volume};
use keyslot::{Error, ErrorKind, Image, OpenOptions, Passphrase, Result, Sharing};

use super::super::image_spec;
use super::super::limits;
use super::super::report::Failure;
use super::super::secrets::{Question, not_both};
use super::named_files::NamedFiles;
use super::{Conversion, Persona, invalid};

/// The source, open until the end.
pub struct Source {
    data: Data,
    /// File version when the source was opened; `None` if others may write to it
    version: Option<Version>,
}

enum Data {
    Raw(RawImage),
    /// A qcow2 image that is not encrypted
    Disk(RawImage, Qcow2Disk),
    Luks(Box<(Image, Volume)>),
}

impl Source {
    /// Opens the source, and keeps writers out unless it is shared.
    pub fn open(
        name: &OsString,
        conversion: &Conversion<'_>,
    ) -> std::result::Result<Self, Failure> {
        let args = conversion.args;
        let spec =
            image_spec::parse(name, args.image_opts, args.format.as_deref(), conversion.persona)?;
        let opening =
            |error: Error| Failure::opening(&spec.shown)(error.with_path(&spec.file.path));
        let is_shared = args.force_share || spec.force_share;
        let sharing = if is_shared { Sharing::None } else { Sharing::ReadStable };
        if spec.is_unlocked() {
            let text = "file.locking=off is refused: -U reads a source that others write to";
            return Err(opening(invalid(text)));
        }
        not_both(spec.key_secret.as_deref(), args.secret.as_ref(), "--secret")?;
        let data = open(&spec, sharing, conversion).map_err(opening)?;
        let mut source = Self { data, version: None };
        if let (false, Some(file)) = (is_shared, source.file()) {
            let failed = |e| opening(Error::io("look at the file", e));
            source.version = Some(file.version().map_err(failed)?);
        }
        Ok(source)
    }

    /// Side of the copy that is read.
    pub fn side(&self) -> Result<Side<'_>> {
        match &self.data {
            Data::Raw(raw) => Side::raw(raw.storage().as_ref()),
            Data::Disk(_, disk) => Side::raw(disk.storage().as_ref()),
            Data::Luks(opened) => Ok(Side::volume(&opened.1)),
        }
    }

    /// Refuses a source that a program which takes no locks wrote to.
    pub fn is_unchanged(&self) -> Result<()> {
        let (Some(before), Some(file)) = (self.version, self.file()) else { return Ok(()) };
        let now = file.version().map_err(|e| Error::io("look at the file", e));
        if now.map_err(|error| error.with_path(file.path()))? == before {
            return Ok(());
        }
        let text = "the source was written to while it was read";
        Err(Error::new(ErrorKind::Changed, text).with_path(file.path()))
    }

    /// Whether `path` leads to the source's file.
    pub fn is_file(&self, path: &Path) -> bool {
        self.file().is_some_and(|file| file.is_file(path).unwrap_or(false))
    }

    /// File of the source.
    pub fn file(&self) -> Option<&FileStorage> {
        match &self.data {
            Data::Raw(raw) | Data::Disk(raw, _) => Some(raw.file()),
            Data::Luks(opened) => opened.0.file(),
        }
    }
}

fn open(spec: &ImageSpec, sharing: Sharing, conversion: &Conversion<'_>) -> Result<Data> {
    image_spec::check_persona(spec, conversion.persona)?;
    no_named_files(spec)?;
    let secret = conversion.args.secret.as_ref();
    // Only its own options select a part of a raw source.
    let raw = || {
        conversion.args.location.check_none("a raw source")?;
        image_spec::located(spec, OpenOptions::new().sharing(sharing)).open_raw(&spec.file.path)
    };
    if spec.driver.as_deref() == Some("raw") {
        return match secret {
            Some(_) => Err(invalid("--secret does not apply to a raw source")),
            None => raw().map(Data::Raw),
        };
    }
    let options = OpenOptions::new().sharing(sharing).limits(limits(conversion.args.ignore_limits));
    let opens_named = conversion.args.named_files || conversion.persona == Persona::QemuImg;
    let options =
        if opens_named { options.gate(Arc::new(NamedFiles { sharing })) } else { options };
    let disk_options = options.clone();
    let opened = conversion.args.location.apply_with(spec, options)?.open(&spec.file.path);
    if spec.key_secret.is_none() && conversion.persona.guesses_raw(&opened, spec.driver.as_deref())
    {
        drop(opened);
        return raw_unless_other(raw()?, &disk_options, opens_named);
    }
    let image = match opened {
        // Neither a format nor a secret was given.
        Err(error)
            if error.kind() == ErrorKind::NotLuks
                && matches!(spec.driver.as_deref(), None | Some("qcow2"))
                && spec.key_secret.is_none()
                && secret.is_none()
                && !conversion.args.location.is_given() =>
        {
            return raw_unless_other(raw()?, &disk_options, opens_named);
        }
        image => image?,
    };
    let id = spec.key_secret.as_deref();
    let what = "Passphrase of the source";
    let question = Question { option: "--secret", what, image: Some(&spec.file.path) };
    let unlocked = if conversion.persona == Persona::QemuImg {
        // QEMU looks the secret up before it reads the header.
        let secret = conversion.secrets.opening(id, secret, &question, conversion.persona)?;
        conversion.persona.admit(&image)?;
        image.unlock(&secret)?
    } else {
        image.header().check_openable()?;
        let open = |secret: &Passphrase| image.unlock(secret);
        conversion.secrets.open(id, secret, &question, conversion.persona, open)?
    };
    let volume = image.volume(&unlocked);
    let volume = volume.map_err(|error| hinted(error, image.qcow2(), opens_named))?;
    Ok(Data::Luks(Box::new((image, volume))))
}

/// A raw source, or the disk in a qcow2 image.
fn raw_unless_other(raw: RawImage, options: &OpenOptions, opens_named: bool) -> Result<Data> {
    match image_format(raw.storage().as_ref()) {
        Some("qcow2") => {
            let disk = options.open_disk_storage(Arc::clone(raw.storage()));
            let header = || Qcow2Header::read(raw.storage().as_ref()).ok();
            let disk = disk.map_err(|error| hinted(error, header().as_ref(), opens_named))?;
            Ok(Data::Disk(raw, disk))
        }
        Some(format) => Err(other(format)),
        None => Ok(Data::Raw(raw)),
    }
}

/// Refuses options that replace the files which a qcow2 image names. Reading others would be wrong.
pub fn no_named_files(spec: &ImageSpec) -> Result<()> {
    if !spec.names_files {
        return Ok(());
    }
    let text = "the options 'backing' and 'data-file' are not supported for data";
    Err(Error::new(ErrorKind::Unsupported, text))
}

/// Adds a hint to the error for a file that the image names and that was not opened.
fn hinted(error: Error, header: Option<&Qcow2Header>, opens_named: bool) -> Error {
    let names = header.is_some_and(|it| it.backing_file().is_some() || it.has_data_file());
    if names && !opens_named && error.kind() == ErrorKind::Unsupported {
        return error.with_hint("use --named-files to open the files that the image names");
    }
    error
}

fn other(format: &str) -> Error {
    let text = format!("{format} images are not supported yet");
    let hint = "use -f raw to convert the file as it is";
    Error::new(ErrorKind::Unsupported, text).with_hint(hint)
}
