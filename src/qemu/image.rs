//! Image specifications: a file name, QEMU's `--image-opts`, or `json:{...}`.

use std::ffi::OsStr;
use std::path::PathBuf;

use super::Options;
use super::node::{
    self, FileNode, Inherited, RawLayer, check_known, child, every_node, no_file, switch,
};
use crate::error::{Error, ErrorKind, Result};

/// An image, as specified on a command line.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ImageSpec {
    /// Specification as written, for messages
    pub shown: String,
    /// File, and the range of it that is the image. The first layer of a raw image is its own
    pub file: FileNode,
    /// Format, if given
    pub driver: Option<String>,
    /// ID of the secret object that opens the image
    pub key_secret: Option<String>,
    /// Whether the image may only be read
    pub read_only: bool,
    /// Whether other programs may use the image without restrictions meanwhile
    pub force_share: bool,
    /// File with the header, if it is detached
    pub header: Option<FileNode>,
    /// Whether the options name a backing or data file, or none, instead of those that a qcow2 image
    /// names
    pub names_files: bool,
}

impl ImageSpec {
    /// Parses an image specification: a file name, `json:{...}`, or with `image_opts` QEMU's
    /// `--image-opts`. `format` is `-f`, which `--image-opts` excludes.
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
                names_files: false,
            });
        };
        // `--image-opts` excludes `-f`; in JSON, `-f` overrides the driver.
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
        // Only QEMU's raw driver cuts a range out of the file, whether or not it is named.
        let own = RawLayer::read(options)?;
        if driver.is_none() && !own.is_whole() {
            driver = Some("raw");
        }
        // Only QEMU's qcow2 driver has options for encryption.
        let has_encrypt = |key: &str| key.starts_with("encrypt.");
        if driver.is_none() && options.keys().any(has_encrypt) {
            driver = Some("qcow2");
        }
        let (is_raw, is_qcow2) = (driver == Some("raw"), driver == Some("qcow2"));
        let mut header = None;
        if !is_raw
            && !is_qcow2
            && let Some(node) = child(options, "header")?
        {
            let node = node::file(node, Inherited::default(), &mut names)?;
            node::range(&node.layers)?;
            header = Some(node);
        }
        let (format, known) = if is_raw {
            ("raw", &["file.", "offset", "size"][..])
        } else if is_qcow2 {
            ("qcow2", QCOW2)
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
        let of_files =
            |key: &str| ["backing", "data-file"].iter().any(|it| key.split('.').next() == Some(it));
        let names_files = is_qcow2 && options.keys().any(of_files);
        if is_qcow2 {
            check_encrypt(&options.strip_prefix("encrypt."))?;
        }
        if is_raw {
            file.layers.insert(0, own);
        }
        node::range(&file.layers)?;
        Ok(Self {
            shown: String::new(),
            file,
            driver: driver.map(str::to_owned),
            key_secret: options
                .given(if is_qcow2 { "encrypt.key-secret" } else { "key-secret" })
                .map(str::to_owned),
            read_only: switch(&options, "read-only")?.unwrap_or(false),
            force_share: switch(&options, "force-share")?.unwrap_or(false),
            header,
            names_files,
        })
    }

    /// Offset and length in bytes of the range of the file that the image is; a length of `None`
    /// reaches to the end of the file. `None` if the image is the whole file.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        self.file.range()
    }

    /// Whether `locking=off` was given for one of the files.
    pub fn is_unlocked(&self) -> bool {
        self.file.unlocked || self.header.as_ref().is_some_and(|header| header.unlocked)
    }

    /// Whether the image is a part of its file.
    pub fn is_part(&self) -> bool {
        self.range().is_some()
    }
}

/// Checks the format given for an image. The error is [`ErrorKind::InvalidInput`] for an unknown
/// format.
pub fn check_driver(driver: Option<&str>) -> Result<()> {
    match driver {
        // Raw is accepted, because each command has its own error for it. LUKS2 is the name that
        // `info` prints; the header decides which version it is.
        None | Some("luks" | "luks2" | "raw" | "qcow2") => Ok(()),
        Some(other) => Err(invalid(format!("Unknown driver '{other}'"))),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Checks the options of a qcow2 image's encryption.
fn check_encrypt(options: &Options) -> Result<()> {
    if let Some(key) = options.keys().find(|key| !["format", "key-secret"].contains(key)) {
        return Err(invalid(format!("Parameter '{key}' is unexpected")));
    }
    match options.given("format") {
        None | Some("luks") => Ok(()),
        Some("aes") => {
            let text = "Header reported 'luks' encryption format but options specify 'aes'";
            Err(invalid(text))
        }
        Some(other) => Err(invalid(format!("Parameter 'format' does not accept value '{other}'"))),
    }
}

/// Options of QEMU's qcow2 driver. Those of caches and checks have no effect here, and neither
/// backing nor data files are opened for keyslots.
const QCOW2: &[&str] = &[
    "backing",
    "backing.",
    "cache-clean-interval",
    "cache-size",
    "data-file",
    "data-file.",
    "discard-no-unref",
    "encrypt.",
    "file.",
    "l2-cache-entry-size",
    "l2-cache-size",
    "lazy-refcounts",
    "overlap-check",
    "overlap-check.",
    "pass-discard-other",
    "pass-discard-request",
    "pass-discard-snapshot",
    "refcount-cache-size",
];
