//! Block nodes: the options that every node has, a file, and the ranges that `raw` layers cut out
//! of it.

use std::path::PathBuf;

use super::{Options, Type, boolean, check_identifier, number, size};
use crate::error::{Error, ErrorKind, Result};

/// A file, and the `raw` layers on it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct FileNode {
    /// The file
    pub path: PathBuf,
    /// `raw` layers, the outermost first
    pub layers: Vec<RawLayer>,
    /// Whether `locking=off` was given
    pub unlocked: bool,
    /// Whether the driver was given as `host_device`, which opens devices alone
    pub is_device: bool,
}

/// A `raw` layer: a range of the node below it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RawLayer {
    /// First byte; 0 if not given
    pub offset: Option<Bytes>,
    /// Length; to the end if not given
    pub size: Option<Bytes>,
}

/// A number of bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bytes {
    /// The number
    pub count: u64,
    /// The number as it was written
    pub written: String,
    /// Whether it was written as a JSON number, without quotes
    pub is_json_number: bool,
}

impl FileNode {
    /// Offset and length in bytes of the range of the file that the layers leave; a length of
    /// `None` reaches to the end of the file. `None` if that is the whole file.
    pub fn range(&self) -> Option<(u64, Option<u64>)> {
        range(&self.layers).ok().flatten()
    }
}

impl RawLayer {
    /// The layer of this range.
    pub fn new(offset: u64, len: Option<u64>) -> Self {
        let bytes = |count: u64| Bytes { count, written: count.to_string(), is_json_number: false };
        Self { offset: Some(bytes(offset)), size: len.map(bytes) }
    }

    /// Whether neither offset nor size is given.
    pub fn is_whole(&self) -> bool {
        self.offset.is_none() && self.size.is_none()
    }

    /// Reads `offset` and `size` of a node.
    pub(super) fn read(node: &Options) -> Result<Self> {
        let bytes = |key: &str| {
            let Some(value) = node.given(key) else { return Ok(None) };
            let count = size(key, value)?;
            if !count.is_multiple_of(512) {
                return Err(invalid(format!("Specified {key} is not multiple of 512")));
            }
            let is_json_number = node.kind(key) == Type::Number;
            Ok(Some(Bytes { count, written: value.to_owned(), is_json_number }))
        };
        Ok(Self { offset: bytes("offset")?, size: bytes("size")? })
    }
}

/// Range of the file that the layers leave. An error if a layer exceeds the one below it.
pub(super) fn range(layers: &[RawLayer]) -> Result<Option<(u64, Option<u64>)>> {
    let (mut start, mut len) = (0_u64, None);
    for layer in layers.iter().rev() {
        let offset = layer.offset.as_ref().map_or(0, |it| it.count);
        if let Some(len) = len.filter(|&len| offset > len) {
            return Err(invalid(beyond(offset, len)));
        }
        let rest = len.map(|len| len - offset);
        len = match (layer.size.as_ref().map(|it| it.count), rest) {
            (Some(size), Some(rest)) if size > rest => {
                return Err(invalid(too_long(offset, size, offset + rest)));
            }
            (Some(size), _) => Some(size),
            (None, rest) => rest,
        };
        start = start.checked_add(offset).ok_or_else(|| invalid(beyond(offset, u64::MAX)))?;
    }
    Ok((start > 0 || len.is_some()).then_some((start, len)))
}

/// QEMU's text for an offset beyond the end of the node below.
pub fn beyond(offset: u64, len: u64) -> String {
    format!("Offset ({offset}) cannot be greater than size of the containing file ({len})")
}

/// QEMU's text for a range that ends beyond the end of the node below.
pub fn too_long(offset: u64, size: u64, len: u64) -> String {
    format!(
        "The sum of offset ({offset}) and size ({size}) has to be smaller or equal to the  \
         actual size of the containing file ({len})"
    )
}

/// Options that the node below inherits.
#[derive(Debug, Default)]
pub(super) struct Inherited {
    /// `cache.direct`
    is_direct: bool,
    /// Whether `discard` defaults to `unmap`
    discards: bool,
}

/// Checks the options that every node has, and returns those that the next node inherits. `names`
/// are the node names so far.
pub(super) fn every_node(
    node: &Options,
    above: &Inherited,
    names: &mut Vec<String>,
) -> Result<Inherited> {
    let switches = ["read-only", "auto-read-only", "force-share", "cache.no-flush", "active"];
    for key in switches {
        switch(node, key)?;
    }
    let is_direct = switch(node, "cache.direct")?.unwrap_or(above.is_direct);
    let discards = match node.given("discard") {
        None => above.discards,
        Some("unmap" | "on") => true,
        Some("ignore" | "off") => false,
        Some(_) => return Err(invalid("Invalid discard option")),
    };
    match node.given("detect-zeroes") {
        None | Some("on" | "off") => {}
        Some("unmap") if discards => {}
        Some("unmap") => {
            return Err(invalid(
                "setting detect-zeroes to unmap is not allowed without setting discard operation \
                 to unmap",
            ));
        }
        Some(other) => return Err(invalid(format!("invalid parameter value: {other}"))),
    }
    if let Some(name) = node.given("node-name") {
        if check_identifier(name).is_err() {
            return Err(invalid(format!("Invalid node-name: '{name}'")));
        }
        if name.len() > LONGEST_NAME {
            return Err(invalid("Node name too long"));
        }
        if names.iter().any(|it| it == name) {
            return Err(invalid(format!("Duplicate nodes with node-name='{name}'")));
        }
        names.push(name.to_owned());
    }
    Ok(Inherited { is_direct, discards: true })
}

/// Boolean value of this key, if given.
pub(super) fn switch(node: &Options, key: &str) -> Result<Option<bool>> {
    node.given(key).map(|value| boolean(key, value)).transpose()
}

/// Options of the node below that has this name. `None` if it does not exist.
pub(super) fn child(node: &Options, name: &str) -> Result<Option<Options>> {
    let below = node.strip_prefix(&format!("{name}."));
    match node.last(name) {
        Some(reference) if node.kind(name) == Type::Text => {
            let text = format!("Cannot find device='{reference}' nor node-name='{reference}'");
            Err(invalid(text))
        }
        _ => Ok((!below.is_empty()).then_some(below)),
    }
}

/// Reads a file, and the `raw` layers on it.
pub(super) fn file(
    node: Options,
    mut above: Inherited,
    names: &mut Vec<String>,
) -> Result<FileNode> {
    let mut layers = Vec::new();
    let mut node = node;
    loop {
        above = every_node(&node, &above, names)?;
        if node.text("driver") != Some("raw") {
            break;
        }
        let Some(below) = child(&node, "file")? else { return Err(no_file()) };
        layers.push(RawLayer::read(&node)?);
        check_known(&node, &["file.", "offset", "size"], |key| {
            format!("Block format 'raw' does not support the option '{key}'")
        })?;
        if layers.len() > MOST_LAYERS {
            return Err(invalid(format!("more than {MOST_LAYERS} raw layers")));
        }
        node = below;
    }
    let driver = node.text("driver");
    let name = match driver {
        None | Some("file") => "file",
        Some("host_device") => "host_device",
        Some(other) => return Err(invalid(format!("Unknown driver '{other}'"))),
    };
    let path = match node.text("filename") {
        None if driver.is_none() => return Err(invalid("Must specify either driver or file")),
        None | Some("") => {
            return Err(invalid(format!("The '{name}' block driver requires a file name")));
        }
        Some(path) => PathBuf::from(path),
    };
    let unlocked = protocol(&node, name, &above)?;
    Ok(FileNode { path, layers, unlocked, is_device: name == "host_device" })
}

/// Checks the options of a file. Returns whether locking is off.
fn protocol(node: &Options, name: &str, inherited: &Inherited) -> Result<bool> {
    switch(node, "drop-cache")?;
    switch(node, "x-check-cache-dropped")?;
    node.given("aio-max-batch").map(|value| number("aio-max-batch", value)).transpose()?;
    let other = |value: &str| invalid(format!("invalid parameter value: {value}"));
    match node.given("aio") {
        None | Some("threads" | "io_uring") => {}
        Some("native") if inherited.is_direct => {}
        Some("native") => {
            return Err(invalid(
                "aio=native was specified, but it requires cache.direct=on, which was not \
                 specified.",
            ));
        }
        Some(value) => return Err(other(value)),
    }
    let unlocked = match node.given("locking") {
        None | Some("on" | "auto") => false,
        Some("off") => true,
        Some(value) => return Err(other(value)),
    };
    if let Some(id) = node.given("pr-manager") {
        return Err(invalid(format!("No persistent reservation manager with id '{id}'")));
    }
    let known =
        ["filename", "locking", "aio", "aio-max-batch", "drop-cache", "x-check-cache-dropped"];
    check_known(node, &known, |key| {
        format!("Block protocol '{name}' doesn't support the option '{key}'")
    })?;
    Ok(unlocked)
}

/// Refuses options that are neither `known` nor those of every node. A known option that ends with
/// a dot stands for all options below it.
pub(super) fn check_known(
    node: &Options,
    known: &[&str],
    refusal: impl Fn(&str) -> String,
) -> Result<()> {
    const EVERY_NODE: [&str; 10] = [
        "active",
        "auto-read-only",
        "cache.direct",
        "cache.no-flush",
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
    match node.keys().find(|key| !EVERY_NODE.iter().chain(known).any(|known| is(key, known))) {
        Some(key) => Err(invalid(refusal(key))),
        None => Ok(()),
    }
}

/// QEMU's error for a node without a file.
pub(super) fn no_file() -> Error {
    invalid("A block device must be specified for \"file\"")
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Bytes of the longest node name
const LONGEST_NAME: usize = 31;
/// QEMU has no limit.
const MOST_LAYERS: usize = 16;
