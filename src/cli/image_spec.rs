//! How an image is named on the command line.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use keyslot::qemu::ImageSpec;
use keyslot::{Error, ErrorKind, OpenOptions};

use super::Persona;
use super::qemu_format;
use super::report::Failure;

/// Reads the image's name. `format` is `-f`.
pub fn parse(
    name: &OsStr,
    image_opts: bool,
    format: Option<&str>,
    persona: Persona,
) -> Result<ImageSpec, Failure> {
    if image_opts && format.is_some() {
        let text = "--image-opts and --format are mutually exclusive";
        return Err(Error::new(ErrorKind::InvalidInput, text).into());
    }
    let shown = name.to_string_lossy();
    let failed = Failure::opening(&shown);
    let mut spec = ImageSpec::parse(name, image_opts, format).map_err(&failed)?;
    // It is the name of a file, if it is not options of one.
    if spec.path == name {
        spec.path = file(name, persona).map_err(failed)?;
    }
    Ok(spec)
}

/// The file of this name, which may begin with QEMU's `file:` under the name qemu-img.
pub fn file(name: &OsStr, persona: Persona) -> keyslot::Result<PathBuf> {
    let text = name.to_string_lossy();
    let unknown = |protocol: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("Unknown protocol '{protocol}'")))
    };
    match text.split_once(':') {
        Some(("json", _)) => unknown("json"),
        Some((protocol, _)) if persona == Persona::Keyslot || protocol.contains('/') => {
            Ok(name.into())
        }
        Some(("file", _)) => {
            let path = name.as_bytes().strip_prefix(b"file:").unwrap_or_default();
            Ok(OsStr::from_bytes(path).into())
        }
        Some((protocol, _)) => unknown(protocol),
        None => Ok(name.into()),
    }
}

/// Refuses the name of a format that qemu-img does not have, under its name.
pub fn check_persona(spec: &ImageSpec, persona: Persona) -> keyslot::Result<()> {
    match spec.driver.as_deref() {
        Some("luks2") if persona == Persona::QemuImg => {
            Err(Error::new(ErrorKind::InvalidInput, "Unknown driver 'luks2'"))
        }
        _ => Ok(()),
    }
}

/// The options, with where the image's own options say that it is.
pub fn located(spec: &ImageSpec, options: OpenOptions) -> OpenOptions {
    let options = match &spec.header {
        Some(header) => options.header(header),
        None => options,
    };
    if spec.is_part() { options.range(spec.offset, spec.size) } else { options }
}

/// The name under which qemu-img reports the image: with what a file name cannot say.
pub fn qemu_name(spec: &ImageSpec) -> String {
    if spec.key_secret.is_none() && !spec.is_part() {
        return spec.path.to_string_lossy().into_owned();
    }
    let secret = match &spec.key_secret {
        Some(id) => format!(r#", "key-secret": {}"#, qemu_format::json_string(id)),
        None => String::new(),
    };
    let file = if spec.is_part() { raw_node(spec) } else { file_node(spec) };
    format!(r#"json:{{"driver": "luks", "file": {file}{secret}}}"#)
}

/// The name under which qemu-img reports the part of the file that the image is.
pub fn raw_name(spec: &ImageSpec) -> String {
    format!("json:{}", raw_node(spec))
}

fn raw_node(spec: &ImageSpec) -> String {
    // In this order, which is that of QEMU's hash table.
    let size = spec.size.map_or(String::new(), |size| format!(r#", "size": "{size}""#));
    let (offset, file) = (spec.offset, file_node(spec));
    format!(r#"{{"offset": "{offset}", "driver": "raw"{size}, "file": {file}}}"#)
}

fn file_node(spec: &ImageSpec) -> String {
    let path = spec.path.to_string_lossy();
    format!(r#"{{"driver": "file", "filename": {}}}"#, qemu_format::json_string(&path))
}
