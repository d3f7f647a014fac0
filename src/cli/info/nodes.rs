//! The block nodes below an image, as qemu-img reports them: its children.

use std::fmt::Write as _;
use std::path::Path;

use keyslot::qemu::{Bytes, ImageSpec, RawLayer};
use keyslot::storage::{FileStorage, Storage};
use keyslot::{Error, Image, Operation, Result};
use serde::Serialize;

use super::super::image_spec;
use super::super::output;
use super::super::qemu_format::size;

/// A node below another one.
#[derive(Serialize)]
pub struct Child {
    name: &'static str,
    info: Node,
}

/// A file, or a part of one.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Node {
    children: Vec<Child>,
    virtual_size: u64,
    filename: String,
    format: &'static str,
    actual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_specific: Option<FileSpecific>,
    dirty_flag: bool,
}

#[derive(Serialize)]
struct FileSpecific {
    #[serde(rename = "type")]
    kind: &'static str,
    data: Empty,
}

#[derive(Serialize)]
struct Empty {}

/// The nodes of an image, and the bytes that their files occupy together.
pub fn nodes(image: &Image, spec: &ImageSpec) -> Result<(Vec<Child>, u64)> {
    let mut nodes = Vec::new();
    let mut occupied = 0;
    if let Some(storage) = image.header_file() {
        let layers = spec.header.as_ref().map_or(&[][..], |header| &header.layers);
        let info = layered(storage.path(), layers, storage)?;
        occupied += info.actual_size;
        nodes.push(Child { name: "header", info });
    }
    if let Some(storage) = image.file() {
        let info = layered(&spec.file.path, &spec.file.layers, storage)?;
        occupied += info.actual_size;
        nodes.push(Child { name: "file", info });
    }
    Ok((nodes, occupied))
}

/// The nodes below a raw image, and the bytes that their file occupies.
pub fn raw_nodes(
    path: &Path,
    layers: &[RawLayer],
    storage: &FileStorage,
) -> Result<(Vec<Child>, u64)> {
    let info = layered(path, layers, storage)?;
    let occupied = info.actual_size;
    Ok((vec![Child { name: "file", info }], occupied))
}

/// A file with layers on it, the outermost first.
fn layered(path: &Path, layers: &[RawLayer], storage: &FileStorage) -> Result<Node> {
    let mut node = file(path, storage)?;
    for (index, layer) in layers.iter().enumerate().rev() {
        let count = |bytes: &Option<Bytes>| bytes.as_ref().map(|it| it.count);
        let rest = node.virtual_size.saturating_sub(count(&layer.offset).unwrap_or_default());
        node = Node {
            // QEMU counts in sectors.
            virtual_size: count(&layer.size).unwrap_or(rest).next_multiple_of(512),
            filename: image_spec::raw_name(path, &layers[index..]),
            format: "raw",
            actual_size: node.actual_size,
            children: vec![Child { name: "file", info: node }],
            format_specific: None,
            dirty_flag: false,
        };
    }
    Ok(node)
}

/// A file.
fn file(path: &Path, storage: &FileStorage) -> Result<Node> {
    let failed = |e| Error::failed(Operation::Read, "the length", e).with_path(path);
    Ok(Node {
        children: Vec::new(),
        virtual_size: storage.len().map_err(failed)?.next_multiple_of(512),
        filename: output::filename(path),
        format: if storage.is_block_device() { "host_device" } else { "file" },
        actual_size: storage.actual_size().map_err(failed)?,
        format_specific: Some(FileSpecific { kind: "file", data: Empty {} }),
        dirty_flag: false,
    })
}

/// The nodes as qemu-img prints them for people, below the node at `path`.
pub fn text(children: &[Child], path: &str, indent: usize) -> String {
    let mut out = String::new();
    let spaces = " ".repeat(indent);
    for Child { name, info } in children {
        let path = format!("{path}/{name}");
        let filename = output::foreign(&info.filename);
        let disk_size = size(info.actual_size);
        let len = format!("{} ({} bytes)", size(info.virtual_size), info.virtual_size);
        // Of these nodes, only files have specific fields.
        let lines = if info.format_specific.is_some() {
            [
                format!("filename: {filename}"),
                format!("protocol type: {}", info.format),
                format!("file length: {len}"),
                format!("disk size: {disk_size}"),
            ]
        } else {
            [
                format!("image: {filename}"),
                format!("file format: {}", info.format),
                format!("virtual size: {len}"),
                format!("disk size: {disk_size}"),
            ]
        };
        let _ = writeln!(out, "{spaces}Child node '{path}':");
        for line in lines {
            let _ = writeln!(out, "{spaces}    {line}");
        }
        out += &text(&info.children, &path, indent + 4);
    }
    out
}
