//! What `info` shows of a raw image, under the name qemu-img.

use keyslot::options::ImageSpec;
use keyslot::storage::{Access, FileStorage, Storage};
use keyslot::{Error, Image, Result};
use serde_json::{Value, json};

use super::super::Persona;
use super::super::convert::other_format;
use super::super::image_spec;
use super::file_node;

/// The document of an image that is raw, by its name or to a guess; `None` of another.
pub fn describe(spec: &ImageSpec, persona: Persona) -> Result<Option<Value>> {
    let format = spec.driver.as_deref();
    let is_raw = format == Some("raw")
        || spec.key_secret.is_none() && persona.guesses_raw(&Image::open(&spec.path), format);
    if !is_raw {
        return Ok(None);
    }
    let file = FileStorage::open(&spec.path, Access::ReadOnly)?;
    if format.is_none() && other_format(&file).is_some() {
        return Ok(None);
    }
    let failed = |e| Error::io("read the length", e).with_path(&spec.path);
    let len = file.len().map_err(failed)?.next_multiple_of(512);
    let disk_size = file.actual_size().map_err(failed)?;
    Ok(Some(json!({
        "children": [file_node(spec, len, disk_size)],
        "virtual-size": len,
        "filename": image_spec::qemu_name(spec),
        "format": "raw",
        "actual-size": disk_size,
        "dirty-flag": false,
    })))
}
