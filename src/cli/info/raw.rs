//! Report of `info` on a raw image, under the name qemu-img.

use keyslot::container::{Qcow2Disk, RawImage, image_format};
use keyslot::qemu::{ImageSpec, RawLayer};
use keyslot::{Error, OpenOptions, Operation, Result};

use super::super::Persona;
use super::super::image_spec;
use super::nodes::raw_nodes;
use super::report::InfoReport;

/// Report on an image that is raw, as named or as probed. `None` for other images.
pub fn describe(spec: &ImageSpec, persona: Persona) -> Result<Option<InfoReport>> {
    let format = spec.driver.as_deref();
    let opened = || image_spec::located(spec, OpenOptions::new()).open(&spec.file.path);
    let is_raw = format == Some("raw")
        || spec.key_secret.is_none() && persona.guesses_raw(&opened(), format);
    if !is_raw {
        return Ok(None);
    }
    let raw = image_spec::located(spec, OpenOptions::new()).open_raw(&spec.file.path)?;
    if format.is_none() && image_format(raw.storage().as_ref()).is_some() {
        return Ok(None);
    }
    report(spec, &raw).map(Some)
}

/// The report on a qcow2 image that is not encrypted.
pub fn report_qcow2(spec: &ImageSpec, raw: &RawImage, disk: &Qcow2Disk) -> Result<InfoReport> {
    let (children, disk_size) = raw_nodes(&spec.file.path, &spec.file.layers, raw.file())?;
    let filename = image_spec::qemu_name(spec, true);
    let len = disk.header().virtual_size();
    let mut report = InfoReport::raw(children, len, filename, disk_size);
    report.format = "qcow2";
    Ok(report)
}

/// The report on a raw image.
pub fn report(spec: &ImageSpec, raw: &RawImage) -> Result<InfoReport> {
    let failed = |e| Error::failed(Operation::Read, "the length", e).with_path(&spec.file.path);
    let len = raw.storage().len().map_err(failed)?.next_multiple_of(512);
    let mut layers = spec.file.layers.clone();
    // The image itself is a layer, whether named or probed.
    if spec.driver.as_deref() != Some("raw") || layers.is_empty() {
        layers.insert(0, RawLayer::default());
    }
    let (children, disk_size) = raw_nodes(&spec.file.path, &layers[1..], raw.file())?;
    let filename = image_spec::raw_name(&spec.file.path, &layers);
    Ok(InfoReport::raw(children, len, filename, disk_size))
}
