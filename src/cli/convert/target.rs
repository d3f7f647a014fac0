//! The image that is written: a new one, or one that exists (`-n`).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use keyslot::options::{Options, size};
use keyslot::storage::{Access, FileStorage, NewFile, Place, Storage};
use keyslot::volume::{Side, Volume};
use keyslot::{
    Error, ErrorKind, Image, Limits, NewImage, OpenOptions, Preallocation, Result, Sharing,
};

use super::super::image_spec::ImageSpec;
use super::super::progress::Spinner;
use super::super::report::Failure;
use super::super::secrets::Secrets;
use super::source::Source;
use super::{ConvertArgs, Persona, create, invalid};

/// The target.
pub struct Target {
    /// As it was written, for messages
    shown: String,
    data: Data,
}

enum Data {
    NewRaw(Box<NewFile>),
    NewLuks(Box<NewImage>),
    Raw(FileStorage),
    Luks(Box<Opened>),
}

/// An image that exists, unlocked.
struct Opened {
    image: Image,
    volume: Volume,
}

impl Target {
    /// Opens or makes a target for `len` bytes.
    pub fn open(
        name: &OsString,
        source: &Source,
        len: u64,
        options: &Options,
        args: &ConvertArgs,
        secrets: &Secrets,
        persona: Persona,
    ) -> std::result::Result<Self, Failure> {
        let shown = name.to_string_lossy().into_owned();
        if args.no_create {
            let data = existing(name, source, len, args, secrets, persona)?;
            return Ok(Self { shown, data });
        }
        let format = args.output_format.as_deref().unwrap_or("raw");
        check_format(format)?;
        let path = PathBuf::from(name);
        let prefix = format!("{shown}: error while converting {format}");
        let creating = Failure::creating(&prefix);
        let named = |error: Error| creating(error.with_path(&path));
        if source.is_file(&path) {
            return Err(named(invalid("it is the source")));
        }
        let data = match format {
            "luks" => new_luks(&path, len, options, args, secrets, persona).map_err(named)?,
            _ => new_raw(&path, len, options, args).map_err(named)?,
        };
        Ok(Self { shown, data })
    }

    /// As it was written, for messages.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// QEMU's name of its format.
    pub fn format(&self) -> &'static str {
        match self.data {
            Data::NewRaw(_) | Data::Raw(_) => "raw",
            Data::NewLuks(_) | Data::Luks(_) => "luks",
        }
    }

    /// What is written.
    pub fn side(&self) -> Result<Side<'_>> {
        match &self.data {
            Data::NewRaw(file) => Side::file(file.storage()),
            Data::NewLuks(image) => Ok(Side::volume(image.volume())),
            Data::Raw(file) => Side::file(file),
            Data::Luks(opened) => Ok(Side::volume(&opened.volume)),
        }
    }

    /// Whether it reads as zeros.
    pub fn is_zero(&self, args: &ConvertArgs) -> bool {
        matches!(self.data, Data::NewRaw(_)) || args.target_is_zero
    }

    /// Has what was written reach the disk.
    pub fn sync(&self) -> Result<()> {
        self.file().map_or(Ok(()), |file| {
            let failed = |e| Error::io("sync the target", e).with_path(file.path());
            file.sync_data().map_err(failed)
        })
    }

    /// Has the next read come from the disk.
    pub fn evict(&self) {
        if let Some(file) = self.file() {
            file.evict(0, file.len().unwrap_or(0));
        }
    }

    fn file(&self) -> Option<&FileStorage> {
        match &self.data {
            Data::NewRaw(file) => Some(file.storage()),
            Data::NewLuks(image) => Some(image.file()),
            Data::Raw(file) => Some(file),
            Data::Luks(opened) => opened.image.file(),
        }
    }

    /// Says of an error what it leaves.
    pub fn spoiled(&self, error: Error) -> Error {
        match self.data {
            Data::NewRaw(_) | Data::NewLuks(_) => error,
            Data::Raw(_) | Data::Luks(_) => {
                error.with_hint(format!("{} is written in part now", self.shown))
            }
        }
    }

    /// Gives a new target its name.
    pub fn finish(self) -> Result<()> {
        match self.data {
            Data::NewRaw(file) => file.publish(),
            Data::NewLuks(image) => image.finish(),
            Data::Raw(_) | Data::Luks(_) => Ok(()),
        }
    }
}

fn new_luks(
    path: &Path,
    len: u64,
    options: &Options,
    args: &ConvertArgs,
    secrets: &Secrets,
    persona: Persona,
) -> Result<Data> {
    create::check_options(options)?;
    if options.last("iter-time").is_some() && args.kdf.is_given() {
        return Err(invalid(super::super::KDF_TWICE));
    }
    let create = create::create_options(options, &args.kdf, args.force)?;
    // What stands against the target's name is found before a person is asked for a secret.
    drop(Place::new(path, args.force)?);
    let source = args.new_secret.as_ref();
    let secret = create::new_secret(options, source, secrets, args.force, persona)?;
    if !args.quiet {
        create::warn_of(&secret, &path.to_string_lossy());
    }
    let _spinner = Spinner::start("creating the target", args.quiet);
    create.begin(path, len, &secret).map(|image| Data::NewLuks(Box::new(image)))
}

fn new_raw(path: &Path, len: u64, options: &Options, args: &ConvertArgs) -> Result<Data> {
    for (key, value) in options.iter() {
        match key {
            "preallocation" if value == "metadata" => {
                return Err(invalid("Unsupported preallocation mode: metadata"));
            }
            "preallocation" => {}
            "size" => drop(size(key, value)?),
            _ => return Err(invalid(format!("Invalid parameter '{key}'"))),
        }
    }
    if args.new_secret.is_some() {
        return Err(invalid("--new-secret is of no use for a raw target"));
    }
    let mut space = create::preallocation(options)?;
    if args.sparse_size.as_deref() == Some("0") && space == Preallocation::Full {
        // All of it is going to be written.
        space = Preallocation::Falloc;
    }
    let file = Place::new(path, args.force)?.create(len, space)?;
    Ok(Data::NewRaw(Box::new(file)))
}

/// Opens a target that exists, for nobody else.
fn existing(
    name: &OsString,
    source: &Source,
    len: u64,
    args: &ConvertArgs,
    secrets: &Secrets,
    persona: Persona,
) -> std::result::Result<Data, Failure> {
    let format = match &args.output_format {
        Some(format) => Some(format.as_str()),
        None if args.target_image_opts => None,
        None => Some("raw"),
    };
    let spec = ImageSpec::parse(name, args.target_image_opts, format)?;
    let opening = |error: Error| Failure::opening(&spec.shown)(error.with_path(&spec.path));
    if spec.force_share && !spec.read_only {
        return Err(opening(invalid("force-share=on can only be used with read-only images")));
    }
    if spec.unlocked {
        return Err(opening(invalid("file.locking=off is refused: the target is always locked")));
    }
    if spec.read_only {
        return Err(opening(invalid("Block node is read-only")));
    }
    if source.is_file(&spec.path) {
        return Err(opening(invalid("it is the source")));
    }
    let data = if spec.driver.as_deref() == Some("raw") {
        let sharing = Sharing::Amend;
        let file = FileStorage::open_shared(&spec.path, Access::ReadWrite, sharing, None);
        Data::Raw(file.map_err(opening)?)
    } else {
        let limits = if args.force { Limits::NONE } else { Limits::default() };
        let options = OpenOptions::new().sharing(Sharing::Amend).limits(limits);
        let image = options.open(&spec.path).map_err(opening)?;
        let secret = match (&spec.key_secret, &args.new_secret) {
            (Some(_), Some(_)) => {
                return Err(invalid("--new-secret must not be given beside a key-secret").into());
            }
            (Some(id), None) => secrets.objects.passphrase_utf8(id),
            (None, None) if persona == Persona::QemuImg => {
                Err(invalid("Parameter 'key-secret' is required for cipher"))
            }
            (None, source) => {
                secrets.existing(source.as_ref(), "--new-secret", "Passphrase of the target")
            }
        };
        let unlocked = image.unlock(&secret.map_err(opening)?).map_err(opening)?;
        let volume = image.volume(&unlocked).map_err(opening)?;
        Data::Luks(Box::new(Opened { image, volume }))
    };
    let there = match &data {
        Data::Luks(opened) => opened.volume.len(),
        Data::Raw(file) => Side::file(file)?.len(),
        Data::NewRaw(_) | Data::NewLuks(_) => len,
    };
    if there < len {
        let error = invalid("output file is smaller than input file").with_path(&spec.path);
        return Err(error.into());
    }
    Ok(data)
}

/// Whether targets of this format can be made.
pub fn check_format(format: &str) -> Result<()> {
    match format {
        "raw" | "luks" => Ok(()),
        "luks2" | "qcow2" => {
            let text = format!("creating {format} images is not supported yet");
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        other => Err(invalid(format!("Unknown file format '{other}'"))),
    }
}

/// What `-o help` prints.
pub fn help(format: &str, names_a_file: bool) -> String {
    match format {
        "luks" => create::help(names_a_file),
        _ => HELP_RAW.to_owned(),
    }
}

const HELP_RAW: &str = "Supported options:
  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)
  size=<size>            - Virtual disk size
";
