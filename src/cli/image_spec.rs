//! How an image is named on the command line.

use std::ffi::OsStr;

use keyslot::options::ImageSpec;
use keyslot::{Error, ErrorKind};

use super::Persona;
use super::qemu_format;
use super::report::Failure;

/// Reads the image's name. `format` is `-f`.
pub fn parse(name: &OsStr, image_opts: bool, format: Option<&str>) -> Result<ImageSpec, Failure> {
    if image_opts && format.is_some() {
        let text = "--image-opts and --format are mutually exclusive";
        return Err(Error::new(ErrorKind::InvalidInput, text).into());
    }
    let shown = name.to_string_lossy();
    ImageSpec::parse(name, image_opts, format).map_err(Failure::opening(&shown))
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

/// The name under which qemu-img reports the image: with what a file name cannot say.
pub fn qemu_name(spec: &ImageSpec) -> String {
    let path = spec.path.to_string_lossy();
    match &spec.key_secret {
        Some(id) => format!(
            r#"json:{{"driver": "luks", "file": {{"driver": "file", "filename": {}}}, "key-secret": {}}}"#,
            qemu_format::json(&path.as_ref().into()),
            qemu_format::json(&id.as_str().into()),
        ),
        None => path.into_owned(),
    }
}
