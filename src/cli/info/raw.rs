//! What `info` shows of a raw image, under the name qemu-img.

use keyslot::container::{RawImage, image_format};
use keyslot::qemu::ImageSpec;
use keyslot::{Error, OpenOptions, Operation, Result};

use super::super::Persona;
use super::super::image_spec;
use super::nodes::raw_nodes;
use super::report::InfoReport;

/// The report on an image that is raw, by its name or to a guess; `None` of another.
pub fn describe(spec: &ImageSpec, persona: Persona) -> Result<Option<InfoReport>> {
    let format = spec.driver.as_deref();
    let opened = || image_spec::located(spec, OpenOptions::new()).open(&spec.path);
    let is_raw = format == Some("raw")
        || spec.key_secret.is_none() && persona.guesses_raw(&opened(), format);
    if !is_raw {
        return Ok(None);
    }
    let raw = image_spec::located(spec, OpenOptions::new()).open_raw(&spec.path)?;
    if format.is_none() && image_format(raw.storage().as_ref()).is_some() {
        return Ok(None);
    }
    report(spec, &raw).map(Some)
}

/// The report on a raw image.
pub fn report(spec: &ImageSpec, raw: &RawImage) -> Result<InfoReport> {
    let failed = |e| Error::failed(Operation::Read, "the length", e).with_path(&spec.path);
    let len = raw.storage().len().map_err(failed)?.next_multiple_of(512);
    let (children, disk_size) = raw_nodes(spec, raw.file())?;
    let filename = if spec.is_part() { image_spec::raw_name } else { image_spec::qemu_name }(spec);
    Ok(InfoReport::raw(children, len, filename, disk_size))
}
