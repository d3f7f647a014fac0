//! How an image is named: a file, QEMU's `--image-opts`, or `json:{...}`.

use std::ffi::OsStr;
use std::path::PathBuf;

use keyslot::options::Options;
use keyslot::{Error, ErrorKind, Result};

/// An image and what was said of it.
pub struct ImageSpec {
    /// As it was written, for messages
    pub shown: String,
    pub path: PathBuf,
    /// The secret object that opens it
    pub key_secret: Option<String>,
    /// The options that QEMU would print with the image's name; empty for a plain file name
    pub read_only: bool,
}

impl ImageSpec {
    /// Reads the image's name. `format` is `-f`.
    pub fn parse(name: &OsStr, image_opts: bool, format: Option<&str>) -> Result<Self> {
        if image_opts && format.is_some() {
            return Err(invalid("--image-opts and --format are mutually exclusive"));
        }
        let shown = name.to_string_lossy().into_owned();
        if image_opts {
            let text = name.to_str().ok_or_else(|| invalid("--image-opts must be UTF-8 text"))?;
            return Self::from_options(shown.clone(), &Options::parse_image(text)?);
        }
        if let Some(json) = name.to_str().and_then(|name| name.strip_prefix("json:")) {
            return Self::from_options(shown.clone(), &Options::parse_json(json)?);
        }
        driver(format)?;
        Ok(Self { shown, path: PathBuf::from(name), key_secret: None, read_only: false })
    }

    fn from_options(shown: String, options: &Options) -> Result<Self> {
        let known = |key: &str| {
            ["driver", "key-secret", "read-only", "force-share", "node-name"].contains(&key)
                || key.starts_with("cache.")
                || key.starts_with("file.")
        };
        let format = options.last("driver");
        driver(format)?;
        if let Some(name) = options.last("file") {
            let text = format!("Cannot find device='{name}' nor node-name='{name}'");
            return Err(invalid(text));
        }
        if options.iter().any(|(key, _)| key.starts_with("header")) {
            let text = "a detached header is not supported yet";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let file = options.strip_prefix("file.");
        let file = match file.last("driver") {
            Some("raw") => file.strip_prefix("file."),
            _ => file,
        };
        match file.last("driver") {
            None | Some("file" | "host_device") => {}
            Some(other) => return Err(invalid(format!("Unknown driver '{other}'"))),
        }
        match file.last("locking") {
            None | Some("on" | "auto") => {}
            Some("off") => {
                return Err(invalid("file.locking=off is refused: the image is always locked"));
            }
            Some(other) => {
                let text = format!("Parameter 'locking' does not accept value '{other}'");
                return Err(invalid(text));
            }
        }
        let Some(path) = file.last("filename") else {
            return Err(invalid("A block device must be specified for \"file\""));
        };
        if let Some((key, _)) = options.iter().find(|(key, _)| !known(key)) {
            let text = format!("Block format 'luks' does not support the option '{key}'");
            return Err(invalid(text));
        }
        Ok(Self {
            shown,
            path: PathBuf::from(path),
            key_secret: options.last("key-secret").map(str::to_owned),
            read_only: options
                .last("read-only")
                .is_some_and(|value| value == "on" || value == "true"),
        })
    }
}

/// Checks the format that an image is said to have.
fn driver(format: Option<&str>) -> Result<()> {
    match format {
        None | Some("luks") => Ok(()),
        Some("raw") => {
            let text = "Format driver 'raw' does not support option amendment";
            Err(Error::new(ErrorKind::Unsupported, text))
        }
        Some("qcow2") => {
            Err(Error::new(ErrorKind::Unsupported, "qcow2 images are not supported yet"))
        }
        Some(other) => Err(invalid(format!("Unknown driver '{other}'"))),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
