//! What `info` shows of a raw image, under the name qemu-img.

use keyslot::container::image_format;
use keyslot::qemu::ImageSpec;
use keyslot::storage::Access;
use keyslot::{Error, OpenOptions, Result, Sharing};
use serde_json::{Value, json};

use super::super::Persona;
use super::super::image_spec;
use super::super::raw_file::RawFile;
use super::nodes::raw_nodes;

/// The document of an image that is raw, by its name or to a guess; `None` of another.
pub fn describe(spec: &ImageSpec, persona: Persona) -> Result<Option<Value>> {
    let format = spec.driver.as_deref();
    let opened = || image_spec::located(spec, OpenOptions::new()).open(&spec.path);
    let is_raw = format == Some("raw")
        || spec.key_secret.is_none() && persona.guesses_raw(&opened(), format);
    if !is_raw {
        return Ok(None);
    }
    let raw = RawFile::open(spec, Access::ReadOnly, Sharing::None)?;
    if format.is_none() && image_format(raw.storage()).is_some() {
        return Ok(None);
    }
    let failed = |e| Error::io("read the length", e).with_path(&spec.path);
    let len = raw.storage().len().map_err(failed)?.next_multiple_of(512);
    let (children, disk_size) = raw_nodes(spec, raw.file())?;
    Ok(Some(json!({
        "children": children,
        "virtual-size": len,
        "filename": if spec.is_part() { image_spec::raw_name(spec) } else { image_spec::qemu_name(spec) },
        "format": "raw",
        "actual-size": disk_size,
        "dirty-flag": false,
    })))
}
