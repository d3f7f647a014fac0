//! Decides which of qemu-img's command lines keyslot serves. All others are for the real qemu-img.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::FileTypeExt;

use keyslot::OpenOptions;
use keyslot::container::{Qcow2Encryption, Qcow2Header, RawImage, image_format, is_luks1};
use keyslot::qemu::{ImageSpec, SecretObjects};

use super::super::Persona;
use super::super::image_spec;

/// The images of a command line, and the objects that it defines.
pub struct Images<'a> {
    objects: &'a [String],
    sides: Vec<Side<'a>>,
    serves_qcow2: bool,
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
    /// LUKS1 in a qcow2 image
    Qcow2,
    /// Raw, as named or as probed
    Raw,
    /// Not served: another format, a specification that keyslot does not read, a missing file
    Other,
}

impl<'a> Images<'a> {
    /// The images of a command line that is served for LUKS1 images.
    pub fn new(objects: &'a [String], sides: impl IntoIterator<Item = Side<'a>>) -> Self {
        Self { objects, sides: sides.into_iter().collect(), serves_qcow2: false }
    }

    /// Whether the command line is served for LUKS1 in qcow2, too. One that needs the guest's data is
    /// not, because keyslot does not read compressed clusters.
    #[must_use]
    pub fn with_qcow2(self, serves_qcow2: bool) -> Self {
        Self { serves_qcow2, ..self }
    }

    /// The first of the images alone.
    #[must_use]
    pub fn first(mut self) -> Self {
        self.sides.truncate(1);
        self
    }

    /// Whether keyslot serves the command line: at least one image is LUKS, and all others are LUKS
    /// or raw. Reads the images' first bytes, takes no lock, and reads no secret.
    pub fn is_served(&self) -> bool {
        let formats: Vec<_> = self.sides.iter().map(Side::format).collect();
        let is_luks = |it: &Format| match it {
            Format::Luks => true,
            Format::Qcow2 => self.serves_qcow2,
            Format::Raw | Format::Other => false,
        };
        formats.iter().any(is_luks)
            && formats.iter().all(|it| *it == Format::Raw || is_luks(it))
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
            Some(driver) if driver != "qcow2" => Self::of_driver(driver),
            // QEMU probes the payload, and then has no use for the header.
            None if spec.header.is_some() => Self::Other,
            _ => Self::probe(spec).unwrap_or(Self::Other),
        }
    }

    fn of_driver(driver: &str) -> Self {
        match driver {
            "luks" => Self::Luks,
            "qcow2" => Self::Qcow2,
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
        Some(Self::of_contents(spec, &raw))
    }

    fn of_contents(spec: &ImageSpec, raw: &RawImage) -> Self {
        let storage = raw.storage().as_ref();
        // With a driver, that is qcow2.
        if spec.driver.is_some() || image_format(storage) == Some("qcow2") {
            return match Qcow2Header::read(storage) {
                Ok(header) if header.encryption() == Qcow2Encryption::Luks => Self::Qcow2,
                _ => Self::Other,
            };
        }
        if is_luks1(storage) {
            return Self::Luks;
        }
        // QEMU knows Apple's disk images by their names.
        let is_dmg = spec.file.path.extension().is_some_and(|it| it == "dmg");
        if is_dmg || image_format(storage).is_some() { Self::Other } else { Self::Raw }
    }
}
