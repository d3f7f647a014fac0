//! Conversion into a new target.

use std::path::Path;

use keyslot::qemu::{Options, size};
use keyslot::storage::Place;
use keyslot::{Error, ErrorKind, Format, Passphrase, Preallocation, Result};

use super::super::create::{self, Qcow2Create, Version};
use super::super::progress::Spinner;
use super::super::secrets::Question;
use super::super::{KDF_TWICE, limits};
use super::source::Source;
use super::target::Data;
use super::{Conversion, Persona, invalid};

/// Checks names and numbers of options, and refuses options that do not apply.
pub fn check_new(
    version: Option<Version>,
    options: &Options,
    conversion: &Conversion<'_>,
) -> Result<()> {
    if let Some(version) = version {
        conversion.args.luks.check(version)?;
        let qcow2 = qcow2(version, options, conversion.persona)?;
        let options = qcow2.as_ref().map_or(options, |qcow2| &qcow2.luks);
        if options.last("iter-time").is_some() && conversion.args.kdf.is_given() {
            return Err(invalid(KDF_TWICE));
        }
        return create::check_options(options);
    }
    for (key, value) in options.iter() {
        match key {
            "preallocation" => {}
            "size" => drop(size(key, value)?),
            _ => return Err(invalid(format!("Invalid parameter '{key}'"))),
        }
    }
    no_keyslot(conversion)
}

/// Refuses options of a new LUKS header, for targets that get none.
pub fn no_header(conversion: &Conversion<'_>) -> Result<()> {
    let kdf = &conversion.args.kdf;
    if kdf.is_given() {
        return Err(invalid("--iter-time and --iterations apply only to a new LUKS target"));
    }
    if kdf.pbkdf.is_some() || kdf.pbkdf_memory.is_some() || kdf.pbkdf_parallel.is_some() {
        return Err(invalid("--pbkdf and its options apply only to a new LUKS target"));
    }
    conversion.args.luks.check_none()
}

/// Refuses options of a new LUKS header, and a secret, for a raw target.
pub fn no_keyslot(conversion: &Conversion<'_>) -> Result<()> {
    no_header(conversion)?;
    if conversion.args.new_secret.is_some()
        && conversion.args.output_format.as_deref() != Some("luks")
    {
        return Err(invalid("--new-secret does not apply to a raw target"));
    }
    Ok(())
}

pub fn new_luks(
    version: Version,
    path: &Path,
    len: u64,
    options: &Options,
    conversion: &Conversion<'_>,
) -> Result<(Data, Option<Passphrase>)> {
    let Conversion { args, secrets, persona } = *conversion;
    let overwrite = persona.overwrites(args.overwrite);
    if create::is_detached(options) {
        let text = "a conversion cannot make a detached header";
        let error = Error::new(ErrorKind::Unsupported, text);
        return Err(error.with_hint("use 'keyslot create --header' first, then convert with -n"));
    }
    let qcow2 = qcow2(version, options, persona)?;
    let options = qcow2.as_ref().map_or(options, |qcow2| &qcow2.luks);
    let create = create::create_options(version, options, &args.kdf, &args.luks)?;
    let create = match &qcow2 {
        Some(qcow2) => create.format(Format::Qcow2(qcow2.options()?)),
        None => create,
    };
    let create = create.limits(limits(args.ignore_limits)).overwrite(overwrite);
    let create = create.keep_file(persona == Persona::QemuImg);
    create.check(len)?;
    // Reasons to refuse the target's name are found before a person is asked for a secret.
    drop(Place::new(path, overwrite)?);
    let what = "New passphrase";
    let question = Question { option: "--new-secret", what, image: Some(path) };
    let source = args.new_secret.as_ref();
    let empty = args.allow_empty_secret;
    let secret = create::new_secret(options, source, secrets, &question, empty, persona)?;
    let warns = !args.quiet && persona == Persona::Keyslot;
    if warns {
        create::warn_of(&secret, version, &path.to_string_lossy());
    }
    let image = {
        let _spinner = Spinner::start("creating the target", args.quiet);
        create.begin(path, len, &secret)?
    };
    if warns {
        create::warn_of_cipher(image.header(), &path.to_string_lossy());
    }
    Ok((Data::NewLuks(Box::new(image)), Some(secret)))
}

/// The options of a qcow2 target.
fn qcow2(version: Version, options: &Options, persona: Persona) -> Result<Option<Qcow2Create>> {
    if version != Version::Qcow2 {
        return Ok(None);
    }
    let qcow2 = Qcow2Create::new(options, persona)?;
    if qcow2.options()?.backing_file.is_some() {
        let text = "a conversion into an image with a backing file is not supported";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    Ok(Some(qcow2))
}

pub fn new_raw(
    path: &Path,
    source: &Source,
    len: u64,
    options: &Options,
    conversion: &Conversion<'_>,
) -> Result<Data> {
    if options.last("preallocation") == Some("metadata") {
        return Err(invalid("Unsupported preallocation mode: metadata"));
    }
    let mut space = create::preallocation(options)?;
    if conversion.args.sparse_size.as_deref() == Some("0") && space == Preallocation::Full {
        // The copy will write all of it.
        space = Preallocation::Falloc;
    }
    let overwrite = conversion.persona.overwrites(conversion.args.overwrite);
    let keep_file = conversion.persona == Persona::QemuImg;
    let mut place = Place::new(path, overwrite)?.keep_file(keep_file);
    if let Some(file) = source.file() {
        place = place.no_wider_than(file)?;
    }
    let file = place.create(len, space)?;
    Ok(Data::NewRaw(Box::new(file)))
}

/// Version of a LUKS target, or `None` for a raw one. Other formats are refused.
pub fn version(format: &str, persona: Persona) -> Result<Option<Version>> {
    match format {
        "raw" => Ok(None),
        _ => Version::of(format, persona).map(Some),
    }
}

/// Text that `-o help` prints.
pub fn help(version: Option<Version>, names_a_file: bool) -> String {
    version.map_or_else(|| HELP_RAW.to_owned(), |version| create::help(version, names_a_file))
}

const HELP_RAW: &str = "Supported raw options:
  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)
  size=<size>            - Virtual disk size
";
