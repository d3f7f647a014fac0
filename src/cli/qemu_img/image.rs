//! An image as qemu-img opens it: named by `-f` and `--image-opts`, unlocked by its `key-secret`.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::Args;
use keyslot::container::{RawImage, image_format};
use keyslot::unlock::wrong_secret;
use keyslot::volume::{Side, Volume};
use keyslot::{Error, ErrorKind, Image, OpenOptions, Sharing};

use super::super::image_spec;
use super::super::report::Failure;
use super::super::secrets::{Question, Secrets};
use super::super::{ObjectArgs, Persona};
use super::Result;
use super::served::{Images, Side as Named};

/// One image, with the options that every command has for it
#[derive(Args)]
pub struct ImageArgs {
    #[command(flatten)]
    pub objects: ObjectArgs,

    #[command(flatten)]
    pub opening: OpeningArgs,

    /// Format of the image
    #[arg(short, long)]
    pub format: Option<String>,

    /// Image, or its options
    pub images: Vec<OsString>,
}

/// Options that say how images are named and opened
#[derive(Args)]
pub struct OpeningArgs {
    /// Images are lists of QEMU's image options
    #[arg(long)]
    pub image_opts: bool,

    /// Read an image that other programs write to
    #[arg(short = 'U', long)]
    pub force_share: bool,
}

/// An open image.
pub enum Opened {
    Raw(RawImage),
    /// An unlocked image, and its contents
    Luks(Box<(Image, Volume)>),
}

impl ImageArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        let names = self.images.iter();
        let sides = names.map(|name| self.opening.named(name, self.format.as_deref()));
        Images::new(&self.objects.objects, sides)
    }

    /// Opens the image. Any other number of images than one is wrong usage of `command`.
    pub fn open(&self, sharing: Sharing, command: &'static str) -> Result<Opened, Failure> {
        let [name] = self.images.as_slice() else {
            return Err(Failure::usage("Expecting one image file name", command));
        };
        self.open_named(name, sharing)
    }

    /// Opens the image of this name.
    pub fn open_named(&self, name: &OsStr, sharing: Sharing) -> Result<Opened, Failure> {
        let secrets = Secrets::new(&self.objects.objects, [])?;
        self.opening.open(name, self.format.as_deref(), &secrets, sharing)
    }
}

impl OpeningArgs {
    /// Name of an existing image. `format` is its `-f`.
    pub fn named<'a>(&self, name: &'a OsStr, format: Option<&'a str>) -> Named<'a> {
        Named::Existing { name, image_opts: self.image_opts, format }
    }

    /// Opens and unlocks an image.
    pub fn open(
        &self,
        name: &OsStr,
        format: Option<&str>,
        secrets: &Secrets,
        sharing: Sharing,
    ) -> Result<Opened, Failure> {
        let persona = Persona::QemuImg;
        let spec = image_spec::parse(name, self.image_opts, format, persona)?;
        let path = &spec.file.path;
        let opening = |error: Error| Failure::opening(&spec.shown)(error.with_path(path));
        image_spec::check_persona(&spec, persona).map_err(opening)?;
        let is_changed = sharing == Sharing::Amend;
        let refusal = if spec.force_share && is_changed && !spec.read_only {
            "force-share=on can only be used with read-only images"
        } else if spec.is_unlocked() {
            "file.locking=off is refused: the image is always locked"
        } else {
            ""
        };
        if !refusal.is_empty() {
            return Err(opening(invalid(refusal)));
        }
        let is_shared = self.force_share || spec.force_share;
        let options = image_spec::located(&spec, OpenOptions::new());
        let options = options.sharing(if is_shared { Sharing::None } else { sharing });
        if spec.driver.as_deref() == Some("raw") {
            return Ok(Opened::Raw(options.open_raw(path).map_err(opening)?));
        }
        let image = options.open(path);
        if spec.key_secret.is_none() && persona.guesses_raw(&image, spec.driver.as_deref()) {
            drop(image);
            let raw = options.open_raw(path).map_err(opening)?;
            return match image_format(raw.storage().as_ref()) {
                Some(format) => {
                    let text = format!("{format} images are not supported yet");
                    Err(opening(Error::new(ErrorKind::Unsupported, text)))
                }
                None => Ok(Opened::Raw(raw)),
            };
        }
        let question = Question { option: "key-secret", what: "Passphrase", image: Some(path) };
        let unlocked = || {
            // QEMU looks the secret up before it reads the header.
            let image = match image {
                Err(error) if !is_about_header(&error) => return Err(error),
                image => image,
            };
            let secret = secrets.opening(spec.key_secret.as_deref(), None, &question, persona)?;
            let image = image?;
            persona.admit(&image)?;
            if is_changed && spec.read_only {
                return Err(invalid("Block node is read-only"));
            }
            // QEMU reports an image without active keyslots as a wrong password.
            let openable = image.header().check_openable();
            openable.map_err(|_| wrong_secret(WRONG, &secret))?;
            let volume = image.volume(&image.unlock(&secret)?)?;
            Ok(Opened::Luks(Box::new((image, volume))))
        };
        unlocked().map_err(opening)
    }
}

impl Opened {
    /// Side of a comparison or a copy.
    pub fn side(&self) -> Result<Side<'_>> {
        match self {
            Self::Raw(raw) => Side::raw(raw.storage().as_ref()),
            Self::Luks(opened) => Ok(Side::volume(&opened.1)),
        }
    }

    /// Image and contents. Fails for raw and qcow2 images, which only the real qemu-img serves.
    pub fn luks(self) -> Result<(Image, Volume)> {
        match self {
            Self::Luks(opened) if opened.0.qcow2().is_none() => Ok(*opened),
            Self::Luks(_) | Self::Raw(_) => Err(only_luks()),
        }
    }

    /// Fails for a qcow2 image, which only the real qemu-img serves.
    pub fn check_not_qcow2(&self) -> Result<()> {
        match self {
            Self::Luks(opened) if opened.0.qcow2().is_some() => Err(only_luks()),
            Self::Luks(_) | Self::Raw(_) => Ok(()),
        }
    }

    /// Where a raw image ends, if that is within a sector.
    pub fn partial_end(&self) -> Option<u64> {
        let Self::Raw(raw) = self else { return None };
        raw.storage().len().ok().filter(|len| !len.is_multiple_of(512))
    }

    /// Whether `path` leads to the image's file.
    pub fn is_file(&self, path: &Path) -> bool {
        let file = match self {
            Self::Raw(raw) => Some(raw.file()),
            Self::Luks(opened) => opened.0.file(),
        };
        file.is_some_and(|file| file.is_file(path).unwrap_or(false))
    }
}

/// Whether the error is about the header, and not about the file.
fn is_about_header(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotLuks | ErrorKind::Corrupt | ErrorKind::Unsupported)
}

fn only_luks() -> Error {
    let text = "keyslot does this only to LUKS images, and found no other qemu-img";
    Error::new(ErrorKind::Unsupported, text)
}

const WRONG: &str = "Invalid password, cannot unlock any keyslot";

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
