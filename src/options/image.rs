//! How an image is named: a file, QEMU's `--image-opts`, or `json:{...}`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::{Options, boolean};
use crate::error::{Error, ErrorKind, Result};

/// An image and what was said of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ImageSpec {
    /// The name as it was written, for messages
    pub shown: String,
    /// The file
    pub path: PathBuf,
    /// The format as it was said, if it was
    pub driver: Option<String>,
    /// The secret object that opens it
    pub key_secret: Option<String>,
    /// Whether it may only be read
    pub read_only: bool,
    /// Whether others may do anything with it meanwhile
    pub force_share: bool,
    /// Whether it was asked not to lock the file
    pub unlocked: bool,
}

impl ImageSpec {
    /// Reads the image's name: a file, `json:{...}`, or with `image_opts` QEMU's `--image-opts`.
    /// `format` is `-f`, which cannot be said of the last.
    ///
    /// ```
    /// use keyslot::options::ImageSpec;
    ///
    /// let spec = ImageSpec::parse("driver=luks,file.filename=a.img,key-secret=s".as_ref(), true, None)?;
    /// assert_eq!((spec.path.to_str(), spec.key_secret.as_deref()), (Some("a.img"), Some("s")));
    /// # Ok::<(), keyslot::Error>(())
    /// ```
    pub fn parse(name: &OsStr, image_opts: bool, format: Option<&str>) -> Result<Self> {
        let spec = Self::read(name, image_opts, format)?;
        Ok(Self { shown: name.to_string_lossy().into_owned(), ..spec })
    }

    fn read(name: &OsStr, image_opts: bool, format: Option<&str>) -> Result<Self> {
        let mut options = if image_opts {
            let text = name.to_str().ok_or_else(|| invalid("--image-opts must be UTF-8 text"))?;
            Options::parse_image(text)?
        } else if let Some(json) = name.to_str().and_then(|name| name.strip_prefix("json:")) {
            Options::parse_json(json)?
        } else {
            check_driver(format)?;
            if name.is_empty() {
                return Err(invalid("The 'file' block driver requires a file name"));
            }
            return Ok(Self {
                shown: String::new(),
                path: PathBuf::from(name),
                driver: format.map(str::to_owned),
                key_secret: None,
                read_only: false,
                force_share: false,
                unlocked: false,
            });
        };
        if let (Some(format), None) = (format, options.last("driver")) {
            options.push("driver", format);
        }
        Self::from_options(&options)
    }

    fn from_options(options: &Options) -> Result<Self> {
        let driver = options.last("driver");
        check_driver(driver)?;
        if let Some(name) = options.last("file") {
            let text = format!("Cannot find device='{name}' nor node-name='{name}'");
            return Err(invalid(text));
        }
        if options.keys().any(|key| key == "header" || key.starts_with("header.")) {
            return Err(unsupported("a detached header is not supported yet"));
        }
        let mut file = options.strip_prefix("file.");
        if file.is_empty() {
            return Err(invalid(if driver.is_none() {
                "Must specify either driver or file"
            } else {
                "A block device must be specified for \"file\""
            }));
        }
        let read_only = switch(options, "read-only")?;
        let force_share = switch(options, "force-share")?;
        if file.last("driver") == Some("raw") {
            if let Some(key) = file.keys().find(|key| ["offset", "size"].contains(key)) {
                return Err(unsupported(format!("file.{key} of a raw layer is not supported")));
            }
            check_known(&file, &["file."], |key| {
                format!("Block format 'raw' does not support the option '{key}'")
            })?;
            file = file.strip_prefix("file.");
        }
        match file.last("driver") {
            None | Some("file" | "host_device") => {}
            Some(other) => return Err(invalid(format!("Unknown driver '{other}'"))),
        }
        let unlocked = match file.last("locking") {
            None | Some("on" | "auto") => false,
            Some("off") => true,
            Some(other) => return Err(invalid(format!("invalid parameter value: {other}"))),
        };
        let Some(path) = file.last("filename").filter(|path| !path.is_empty()) else {
            return Err(invalid("The 'file' block driver requires a file name"));
        };
        check_known(&file, &["filename", "locking", "aio", "x-check-cache-dropped"], |key| {
            format!("Block protocol 'file' doesn't support the option '{key}'")
        })?;
        let (format, known) = match driver {
            Some("raw") => ("raw", &["file."][..]),
            _ => ("luks", &["key-secret", "file."][..]),
        };
        check_known(options, known, |key| {
            format!("Block format '{format}' does not support the option '{key}'")
        })?;
        Ok(Self {
            shown: String::new(),
            path: PathBuf::from(path),
            driver: driver.map(str::to_owned),
            key_secret: options.last("key-secret").map(str::to_owned),
            read_only,
            force_share,
            unlocked,
        })
    }
}

/// Checks the format that an image is said to have: [`ErrorKind::Unsupported`] for qcow2,
/// [`ErrorKind::InvalidInput`] for one that is not known.
pub fn check_driver(driver: Option<&str>) -> Result<()> {
    match driver {
        // A raw image opens; the command has to say that it can do nothing with it. Which LUKS it
        // is, the header says, and `info` calls the second one by this name.
        None | Some("luks" | "luks2" | "raw") => Ok(()),
        Some("qcow2") => Err(unsupported("qcow2 images are not supported yet")),
        Some(other) => Err(invalid(format!("Unknown driver '{other}'"))),
    }
}

/// Refuses what is neither `known` nor an option of every block node. Those of the cache and the
/// like are taken and change nothing.
fn check_known(options: &Options, known: &[&str], refusal: impl Fn(&str) -> String) -> Result<()> {
    const EVERY_NODE: [&str; 8] = [
        "auto-read-only",
        "cache.",
        "detect-zeroes",
        "discard",
        "driver",
        "force-share",
        "node-name",
        "read-only",
    ];
    let is = |key: &str, known: &str| {
        if known.ends_with('.') { key.starts_with(known) } else { key == known }
    };
    match options.keys().find(|key| !EVERY_NODE.iter().chain(known).any(|known| is(key, known))) {
        Some(key) => Err(invalid(refusal(key))),
        None => Ok(()),
    }
}

fn switch(options: &Options, key: &str) -> Result<bool> {
    options.last(key).map_or(Ok(false), |value| boolean(key, value))
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}
