//! QEMU's options of a new qcow2 image (`-o`).

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use keyslot::container::{Qcow2Header, Qcow2Options};
use keyslot::qemu::{Options, boolean, number, size};
use keyslot::storage::{Access, FileStorage, Storage};
use keyslot::{Error, ErrorKind, OpenOptions, Operation, Result};

use super::super::Persona;
use super::invalid;
use super::options::ENCRYPT;

/// The options of a new qcow2 image, apart.
pub struct Qcow2Create {
    /// Options of the encryption, without their prefix, and those of every format
    pub luks: Options,
    /// Options of qcow2
    own: Options,
}

impl Qcow2Create {
    /// Splits the options. Those of the encryption have the prefix `encrypt.`, which keyslot's own
    /// command does not require.
    pub fn new(options: &Options, persona: Persona) -> Result<Self> {
        let (mut luks, mut own) = (Options::new(), Options::new());
        for (key, value) in options.iter() {
            match key.strip_prefix("encrypt.") {
                Some("format") => own.push(key, value),
                Some(name) if ENCRYPT.contains(&name) => luks.push(name, value),
                None if OWN.contains(&key) => own.push(key, value),
                None if EVERY.contains(&key) => luks.push(key, value),
                None if persona == Persona::Keyslot && ENCRYPT.contains(&key) => {
                    luks.push(key, value);
                }
                _ => return Err(invalid(format!("Invalid parameter '{key}'"))),
            }
        }
        Ok(Self { luks, own })
    }

    /// Adds qemu-img's `-b` and `-F`.
    pub fn with_backing(mut self, file: Option<&str>, format: Option<&str>) -> Self {
        let given = [("backing_file", file), ("backing_fmt", format)];
        for (key, value) in given.into_iter().filter_map(|(key, value)| Some((key, value?))) {
            self.own.push(key, value);
        }
        self
    }

    /// Whether the image is encrypted, has no backing file, and no option that keyslot does not have.
    pub fn is_served(&self) -> bool {
        let is_luks = self.own.last("encrypt.format") == Some("luks");
        let others = ["backing_file", "encryption"];
        is_luks && others.iter().all(|key| self.own.last(key).is_none()) && self.options().is_ok()
    }

    /// The library's options, of which those that it does not have are refused.
    pub fn options(&self) -> Result<Qcow2Options> {
        let unsupported = |text: String| Err(Error::new(ErrorKind::Unsupported, text));
        match self.own.last("encrypt.format") {
            None | Some("luks") => {}
            Some("aes") => return unsupported("qcow2's AES encryption has no keyslots".into()),
            Some(other) => {
                let text = format!("Parameter 'encrypt.format' does not accept value '{other}'");
                return Err(invalid(text));
            }
        }
        let on = |key: &str| self.own.last(key).map_or(Ok(false), |value| boolean(key, value));
        if let Some(key) = self.own.keys().find(|key| ["data_file", "data_file_raw"].contains(key))
        {
            return unsupported(format!("'{key}' is not supported"));
        }
        if on("extended_l2")? {
            return unsupported("'extended_l2' is not supported".into());
        }
        if on("encryption")? {
            return unsupported("qcow2's AES encryption has no keyslots".into());
        }
        match self.own.last("compression_type") {
            None | Some("zlib") => {}
            Some(other) => return unsupported(format!("compression type '{other}'")),
        }
        let mut options = Qcow2Options::default();
        if let Some(text) = self.own.last("cluster_size") {
            options.cluster_size = size("cluster_size", text)?;
        }
        options.version = match self.own.last("compat") {
            None | Some("1.1" | "v3") => 3,
            Some("0.10" | "v2") => 2,
            Some(other) => {
                let text = format!("Parameter 'version' does not accept value '{other}'");
                return Err(invalid(text));
            }
        };
        if let Some(text) = self.own.last("refcount_bits") {
            let bits = number("refcount_bits", text)?;
            options.refcount_bits = u32::try_from(bits).unwrap_or(u32::MAX);
        }
        options.lazy_refcounts = on("lazy_refcounts")?;
        options.preallocated = !matches!(self.luks.last("preallocation"), None | Some("off"));
        let format = self.own.last("backing_fmt").map_or(&[][..], str::as_bytes).to_vec();
        let backing = self.own.last("backing_file").filter(|name| !name.is_empty());
        options.backing_file = backing.map(|name| (name.as_bytes().to_vec(), format));
        Ok(options)
    }

    /// Length of the backing file's disk in bytes, if the image at `path` has a backing file. QEMU
    /// requires its format.
    pub fn backing_size(&self, path: &Path) -> Result<Option<u64>> {
        let Some(name) = self.own.last("backing_file").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let Some(format) = self.own.last("backing_fmt") else {
            return Err(invalid("Backing file specified without backing format"));
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let file: PathBuf = directory.join(OsStr::from_bytes(name.as_bytes()));
        let storage = FileStorage::open(&file, Access::ReadOnly)?;
        let len = || storage.len().map_err(|e| Error::failed(Operation::Read, "the length", e));
        match format {
            "raw" => len().map(Some),
            "qcow2" => Qcow2Header::read(&storage).map(|header| Some(header.virtual_size())),
            "luks" => OpenOptions::new().open(&file)?.volume_len(),
            other => {
                let text = format!("the size of a backing file of format '{other}' is unknown");
                return Err(Error::new(ErrorKind::Unsupported, text).with_hint("give SIZE"));
            }
        }
        .map_err(|error| error.with_path(&file))
    }

    /// The options as qemu-img prints them, in the order of its own list.
    pub fn echo(&self, size: u64) -> String {
        let mut text = " encrypt.format=luks".to_owned();
        let mut add = |key: &str, value: &str| {
            let _ = write!(text, " {key}={value}");
        };
        for key in ENCRYPT {
            if let Some(value) = self.luks.last(key) {
                add(&format!("encrypt.{key}"), value);
            }
        }
        let on = |key: &str| {
            let is_on = self.own.last(key).is_some_and(|value| boolean("", value).unwrap_or(false));
            if is_on { "on" } else { "off" }
        };
        let cluster_size = self.own.last("cluster_size").map(|text| self::size("", text));
        add("cluster_size", &cluster_size.and_then(Result::ok).unwrap_or(65536).to_string());
        add("extended_l2", on("extended_l2"));
        if let Some(value) = self.luks.last("preallocation") {
            add("preallocation", value);
        }
        add("compression_type", self.own.last("compression_type").unwrap_or("zlib"));
        add("size", &size.to_string());
        for key in ["compat", "backing_file", "backing_fmt"] {
            if let Some(value) = self.own.last(key) {
                add(key, value);
            }
        }
        add("lazy_refcounts", on("lazy_refcounts"));
        add("refcount_bits", self.own.last("refcount_bits").unwrap_or("16"));
        text
    }
}

/// Text of `-o help`.
pub const QCOW2_HELP: &str = "\
  backing_file=<str>     - File name of a base image
  backing_fmt=<str>      - Image format of the base image
  cluster_size=<size>    - qcow2 cluster size
  compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])
  encrypt.cipher-alg=<str> - Name of encryption cipher algorithm
  encrypt.cipher-mode=<str> - Name of encryption cipher mode
  encrypt.format=<str>   - Encrypt the image, format choices: 'luks'
  encrypt.hash-alg=<str> - Name of encryption hash algorithm
  encrypt.iter-time=<num> - Time to spend in PBKDF in milliseconds
  encrypt.ivgen-alg=<str> - Name of IV generator algorithm
  encrypt.ivgen-hash-alg=<str> - Name of IV generator hash algorithm
  encrypt.key-secret=<str> - ID of the secret that provides the keyslot passphrase
  lazy_refcounts=<bool (on/off)> - Postpone refcount updates
  preallocation=<str>    - Preallocation mode (allowed values: off, metadata, falloc, full)
  refcount_bits=<num>    - Width of a reference count entry in bits
  size=<size>            - Virtual disk size
";

const EVERY: [&str; 2] = ["preallocation", "size"];
const OWN: [&str; 11] = [
    "backing_file",
    "backing_fmt",
    "cluster_size",
    "compat",
    "compression_type",
    "data_file",
    "data_file_raw",
    "encryption",
    "extended_l2",
    "lazy_refcounts",
    "refcount_bits",
];
