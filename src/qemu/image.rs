//! How an image is named: a file, QEMU's `--image-opts`, or `json:{...}`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::Options;
use super::node::{
    self, FileNode, Inherited, RawLayer, check_known, child, every_node, no_file, switch,
};
use crate::error::{Error, ErrorKind, Result};

/// An image and what was said of it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ImageSpec {
    /// The name as it was written, for messages
    pub shown: String,
    /// The file, and what of it the image is. The first layer of a raw image is its own.
    pub file: FileNode,
    /// The format as it was said, if it was
    pub driver: Option<String>,
    /// The secret object that opens it
    pub key_secret: Option<String>,
    /// Whether it may only be read
    pub read_only: bool,
    /// Whether others may do anything with it meanwhile
    pub force_share: bool,
    /// The file with the header, if it is detached
    pub header: Option<FileNode>,
}

impl ImageSpec {
    /// Reads the image's name: a file, `json:{...}`, or with `image_opts` QEMU's `--image-opts`.
    /// `format` is `-f`, which cannot be said of the last.
    ///
    /// ```
    /// use keyslot::qemu::ImageSpec;
    ///
    /// let spec = ImageSpec::parse("driver=luks,file.filename=a.img,key-secret=s".as_ref(), true, None)?;
    /// assert_eq!((spec.file.path.to_str(), spec.key_secret.as_deref()), (Some("a.img"), Some("s")));
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
                file: FileNode { path: PathBuf::from(name), ..FileNode::default() },
                driver: format.map(str::to_owned),
                key_secret: None,
                read_only: false,
                force_share: false,
                header: None,
            });
        };
        // With `--image-opts` there is no `-f`; over what JSON says, `-f` wins.
        if let Some(format) = format {
            options.push("driver", format);
        }
        Self::from_options(&options)
    }

    fn from_options(options: &Options) -> Result<Self> {
        let mut driver = options.text("driver");
        check_driver(driver)?;
        let mut names = Vec::new();
        let inherited = every_node(options, &Inherited::default(), &mut names)?;
        let file = match child(options, "file")? {
            Some(file) => file,
            None if driver.is_none() && options.last("file").is_none() => {
                return Err(invalid("Must specify either driver or file"));
            }
            None => return Err(no_file()),
        };
        let mut file = node::file(file, inherited, &mut names)?;
        // What cuts a range out of the file is QEMU's raw driver, named or not.
        let own = RawLayer::read(options)?;
        if driver.is_none() && !own.is_whole() {
            driver = Some("raw");
        }
        let is_raw = driver == Some("raw");
        let mut header = None;
        if !is_raw && let Some(node) = child(options, "header")? {
            let node = node::file(node, Inherited::default(), &mut names)?;
            node::range(&node.layers)?;
            header = Some(node);
        }
        let (format, known) = if is_raw {
            ("raw", &["file.", "offset", "size"][..])
        } else {
            ("luks", &["key-secret", "file.", "header."][..])
        };
        let refusal =
            |key: &str| format!("Block format '{format}' does not support the option '{key}'");
        if options.asks_help() {
            return Err(invalid(refusal("help")));
        }
        let mut options = options.clone();
        options.drop_empty("backing");
        check_known(&options, known, refusal)?;
        if is_raw {
            file.layers.insert(0, own);
        }
        node::range(&file.layers)?;
        Ok(Self {
            shown: String::new(),
            file,
            driver: driver.map(str::to_owned),
            key_secret: options.given("key-secret").map(str::to_owned),
            read_only: switch(&options, "read-only")?.unwrap_or(false),
            force_share: switch(&options, "force-share")?.unwrap_or(false),
            header,
        })
    }

    /// Offset and length in bytes of the range of the file that the image is; a length of `None` is to
    /// the end of the file. `None` if the image is the whole file.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        self.file.range()
    }

    /// Whether it was asked not to lock one of the files.
    pub fn is_unlocked(&self) -> bool {
        self.file.unlocked || self.header.as_ref().is_some_and(|header| header.unlocked)
    }

    /// Whether the image is a part of its file.
    pub fn is_part(&self) -> bool {
        self.range().is_some()
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

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

fn unsupported(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unsupported, text)
}
