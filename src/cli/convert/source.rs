//! The image that is converted.

use std::ffi::OsString;
use std::path::Path;

use keyslot::storage::{Access, FileStorage};
use keyslot::volume::{Side, Volume};
use keyslot::{Error, ErrorKind, Image, Limits, OpenOptions, Result, Sharing};

use super::super::image_spec::ImageSpec;
use super::super::report::Failure;
use super::super::secrets::Secrets;
use super::{ConvertArgs, Persona, invalid};

/// The source, open until the end.
pub enum Source {
    Raw(FileStorage),
    Luks(Box<(Image, Volume)>),
}

impl Source {
    /// Opens it and keeps writers out, unless that is not wanted.
    pub fn open(
        name: &OsString,
        args: &ConvertArgs,
        secrets: &Secrets,
        persona: Persona,
    ) -> std::result::Result<Self, Failure> {
        let spec = ImageSpec::parse(name, args.image_opts, args.format.as_deref())?;
        let opening = |error: Error| Failure::opening(&spec.shown)(error.with_path(&spec.path));
        let is_shared = args.force_share || spec.force_share;
        let sharing = if is_shared { Sharing::None } else { Sharing::ReadStable };
        if spec.unlocked {
            let text = "file.locking=off is refused: -U reads a source that others write to";
            return Err(opening(invalid(text)));
        }
        match spec.driver.as_deref() {
            Some("raw") => Self::raw(&spec.path, sharing).map_err(opening),
            driver => {
                let limits = if args.force { Limits::NONE } else { Limits::default() };
                let options = OpenOptions::new().sharing(sharing).limits(limits);
                match options.open(&spec.path) {
                    Err(error) if driver.is_none() && error.kind() == ErrorKind::NotLuks => {
                        Self::raw(&spec.path, sharing).map_err(opening)
                    }
                    image => {
                        let image = image.map_err(opening)?;
                        let secret = match (&spec.key_secret, &args.secret) {
                            (Some(_), Some(_)) => {
                                let text = "--secret must not be given beside a key-secret";
                                return Err(invalid(text).into());
                            }
                            (Some(id), None) => secrets.objects.passphrase_utf8(id),
                            (None, None) if persona == Persona::QemuImg => {
                                Err(invalid("Parameter 'key-secret' is required for cipher"))
                            }
                            (None, source) => secrets.existing(
                                source.as_ref(),
                                "--secret",
                                "Passphrase of the source",
                            ),
                        };
                        let unlocked = image.unlock(&secret.map_err(opening)?).map_err(opening)?;
                        let volume = image.volume(&unlocked).map_err(opening)?;
                        Ok(Self::Luks(Box::new((image, volume))))
                    }
                }
            }
        }
    }

    fn raw(path: &Path, sharing: Sharing) -> Result<Self> {
        FileStorage::open_shared(path, Access::ReadOnly, sharing, None).map(Self::Raw)
    }

    /// What is read.
    pub fn side(&self) -> Result<Side<'_>> {
        match self {
            Self::Raw(file) => Side::file(file),
            Self::Luks(opened) => Ok(Side::volume(&opened.1)),
        }
    }

    /// Whether this is its file, under whatever name.
    pub fn is_file(&self, path: &Path) -> bool {
        match self {
            Self::Raw(file) => file.is_file(path),
            Self::Luks(opened) => opened.0.file().is_some_and(|file| file.is_file(path)),
        }
    }
}
