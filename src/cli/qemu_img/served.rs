//! Decides which of qemu-img's command lines keyslot serves. All others are for the real qemu-img.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use keyslot::OpenOptions;
use keyslot::container::{RawImage, image_format, is_luks1};
use keyslot::qemu::{ImageSpec, SecretObjects};

use super::super::Persona;
use super::super::image_spec;

/// The images of a command line, and the objects that it defines.
pub struct Images<'a> {
    pub objects: &'a [String],
    pub sides: Vec<Side<'a>>,
}

/// An image that a command line names.
#[derive(Clone, Copy)]
pub enum Side<'a> {
    /// An existing image; `format` is `-f`
    Existing { name: &'a OsStr, image_opts: bool, format: Option<&'a str> },
    /// An image to create, if it is named
    New { name: Option<&'a OsStr>, format: &'a str },
}

/// Format of an image in QEMU's eyes.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Format {
    /// LUKS1, as named or as probed
    Luks,
    /// Raw, as named or as probed
    Raw,
    /// Not served: another format, a specification that keyslot does not read, a missing file
    Other,
}

impl Images<'_> {
    /// Whether keyslot serves the command line: at least one image is LUKS, and all others are LUKS
    /// or raw. Reads the images' first bytes, takes no lock, and reads no secret.
    pub fn is_served(&self) -> bool {
        let formats: Vec<_> = self.sides.iter().map(Side::format).collect();
        formats.contains(&Format::Luks)
            && !formats.contains(&Format::Other)
            && !self.objects.iter().any(|it| SecretObjects::is_other(it))
    }
}

impl Side<'_> {
    fn format(&self) -> Format {
        match *self {
            Self::New { name, format } => {
                if name.is_none_or(can_be_made) {
                    Format::of_driver(format)
                } else {
                    Format::Other
                }
            }
            Self::Existing { name, image_opts, format } => {
                let spec = image_spec::parse(name, image_opts, format, Persona::QemuImg);
                spec.map_or(Format::Other, |spec| Format::of(&spec))
            }
        }
    }
}

/// Whether keyslot can make a file of this name: it does not exist, or is a regular file.
fn can_be_made(name: &OsStr) -> bool {
    let Ok(path) = image_spec::file(name, Persona::QemuImg) else { return false };
    match fs::metadata(&path) {
        Ok(metadata) => metadata.is_file(),
        Err(_) => !path.is_symlink(),
    }
}

impl Format {
    fn of(spec: &ImageSpec) -> Self {
        match &spec.driver {
            Some(driver) => Self::of_driver(driver),
            // QEMU probes the payload, and then has no use for the header.
            None if spec.header.is_some() => Self::Other,
            None => Self::probe(spec).unwrap_or(Self::Other),
        }
    }

    fn of_driver(driver: &str) -> Self {
        match driver {
            "luks" => Self::Luks,
            "raw" => Self::Raw,
            _ => Self::Other,
        }
    }

    /// Reads the first bytes of an existing file or block device.
    fn probe(spec: &ImageSpec) -> Option<Self> {
        let path = &spec.file.path;
        // Opening a pipe would wait for its other end, and reading would take bytes from it.
        let kind = fs::metadata(path).ok()?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return None;
        }
        let raw = image_spec::located(spec, OpenOptions::new()).open_raw(path).ok()?;
        Some(Self::of_contents(path, &raw))
    }

    fn of_contents(path: &Path, raw: &RawImage) -> Self {
        let storage = raw.storage().as_ref();
        if is_luks1(storage) {
            return Self::Luks;
        }
        // QEMU knows Apple's disk images by their names.
        let is_dmg = path.extension().is_some_and(|it| it == "dmg");
        if is_dmg || image_format(storage).is_some() { Self::Other } else { Self::Raw }
    }
}
