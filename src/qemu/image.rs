//! How an image is named: a file, QEMU's `--image-opts`, or `json:{...}`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::{Options, boolean, size};
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
    /// The file with the header, if it is detached
    pub header: Option<PathBuf>,
    /// The byte of the file that the image begins at
    pub offset: u64,
    /// Length of the image in bytes, if it does not go to the end of the file
    pub size: Option<u64>,
}

impl ImageSpec {
    /// Reads the image's name: a file, `json:{...}`, or with `image_opts` QEMU's `--image-opts`.
    /// `format` is `-f`, which cannot be said of the last.
    ///
    /// ```
    /// use keyslot::qemu::ImageSpec;
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
                header: None,
                offset: 0,
                size: None,
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
        let header = header(options)?;
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
        let (mut offset, mut len) = (0, None);
        if file.last("driver") == Some("raw") {
            (offset, len) = raw_layer(&file)?;
            file = file.strip_prefix("file.");
        }
        let (path, unlocked) = protocol(&file)?;
        let (format, known) = match driver {
            Some("raw") => ("raw", &["file."][..]),
            _ => ("luks", &["key-secret", "file.", "header."][..]),
        };
        check_known(options, known, |key| {
            format!("Block format '{format}' does not support the option '{key}'")
        })?;
        Ok(Self {
            shown: String::new(),
            path,
            driver: driver.map(str::to_owned),
            key_secret: options.last("key-secret").map(str::to_owned),
            read_only,
            force_share,
            unlocked,
            header,
            offset,
            size: len,
        })
    }

    /// Whether the image is a part of its file.
    pub fn is_part(&self) -> bool {
        self.offset > 0 || self.size.is_some()
    }
}

/// The file with the header, if it is detached: QEMU's `header` node.
fn header(options: &Options) -> Result<Option<PathBuf>> {
    if let Some(name) = options.last("header") {
        return Err(invalid(format!("Cannot find device='{name}' nor node-name='{name}'")));
    }
    let mut header = options.strip_prefix("header.");
    if header.is_empty() {
        return Ok(None);
    }
    if header.last("driver") == Some("raw") {
        if raw_layer(&header)? != (0, None) {
            return Err(unsupported("header.offset and header.size are not supported"));
        }
        header = header.strip_prefix("file.");
    }
    let (path, unlocked) = protocol(&header)?;
    if unlocked {
        return Err(unsupported(
            "header.locking=off is not supported: the header is always locked",
        ));
    }
    Ok(Some(path))
}

/// The range of QEMU's `raw` layer: offset, and length if one is given.
fn raw_layer(layer: &Options) -> Result<(u64, Option<u64>)> {
    check_known(layer, &["file.", "offset", "size"], |key| {
        format!("Block format 'raw' does not support the option '{key}'")
    })?;
    let bytes = |key: &str| {
        let Some(value) = layer.last(key) else { return Ok(None) };
        let bytes = size(key, value)?;
        if bytes.is_multiple_of(512) {
            return Ok(Some(bytes));
        }
        Err(invalid(format!("Specified {key} is not multiple of 512")))
    };
    Ok((bytes("offset")?.unwrap_or(0), bytes("size")?))
}

/// The file of QEMU's `file` layer, and whether it was asked not to lock it.
fn protocol(file: &Options) -> Result<(PathBuf, bool)> {
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
    check_known(file, &["filename", "locking", "aio", "x-check-cache-dropped"], |key| {
        format!("Block protocol 'file' doesn't support the option '{key}'")
    })?;
    Ok((PathBuf::from(path), unlocked))
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
