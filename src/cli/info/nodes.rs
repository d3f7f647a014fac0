//! The block nodes below an image, as qemu-img reports them: its children.

use std::fmt::Write as _;
use std::path::Path;

use keyslot::qemu::ImageSpec;
use keyslot::storage::{FileStorage, Storage};
use keyslot::{Error, Image, Result};
use serde_json::{Value, json};

use super::super::image_spec;
use super::super::output;
use super::super::qemu_format::size;

/// The nodes of an image, and the bytes that their files occupy together.
pub fn nodes(image: &Image, spec: &ImageSpec) -> Result<(Vec<Value>, u64)> {
    let mut nodes = Vec::new();
    let mut occupied = 0;
    if let Some(header) = image.header_file() {
        let (node, disk_size) = file(header.path(), header)?;
        nodes.push(child("header", &node));
        occupied += disk_size;
    }
    if let Some(storage) = image.file() {
        let (mut node, disk_size) = file(&spec.path, storage)?;
        if image.part().is_some() {
            // QEMU counts in sectors.
            let len = image.payload_storage_len()?.next_multiple_of(512);
            node = raw(spec, len, disk_size, &node);
        }
        nodes.push(child("file", &node));
        occupied += disk_size;
    }
    Ok((nodes, occupied))
}

/// The nodes of a raw image, which are its file, and the bytes that it occupies.
pub fn raw_nodes(spec: &ImageSpec, storage: &FileStorage) -> Result<(Vec<Value>, u64)> {
    let (node, disk_size) = file(&spec.path, storage)?;
    Ok((vec![child("file", &node)], disk_size))
}

fn child(name: &str, info: &Value) -> Value {
    json!({ "name": name, "info": info })
}

/// A file, and the bytes that it occupies.
fn file(path: &Path, storage: &FileStorage) -> Result<(Value, u64)> {
    let failed = |e| Error::io("read the length", e).with_path(path);
    let len = storage.len().map_err(failed)?.next_multiple_of(512);
    let disk_size = storage.actual_size().map_err(failed)?;
    let node = json!({
        "children": [],
        "virtual-size": len,
        "filename": path.to_string_lossy(),
        "format": "file",
        "actual-size": disk_size,
        "format-specific": { "type": "file", "data": {} },
        "dirty-flag": false,
    });
    Ok((node, disk_size))
}

/// A part of a file.
fn raw(spec: &ImageSpec, len: u64, disk_size: u64, file: &Value) -> Value {
    json!({
        "children": [child("file", file)],
        "virtual-size": len,
        "filename": image_spec::raw_name(spec),
        "format": "raw",
        "actual-size": disk_size,
        "dirty-flag": false,
    })
}

/// The nodes as qemu-img prints them for people, below the node at `path`.
pub fn text(children: &[Value], path: &str, indent: usize) -> String {
    let mut out = String::new();
    let spaces = " ".repeat(indent);
    for child in children {
        let path = format!("{path}/{}", child["name"].as_str().unwrap_or_default());
        let info = &child["info"];
        let bytes = |member: &str| info[member].as_u64().unwrap_or_default();
        let filename = output::foreign(info["filename"].as_str().unwrap_or_default());
        let (len, disk_size) = (bytes("virtual-size"), size(bytes("actual-size")));
        let len = format!("{} ({len} bytes)", size(len));
        let lines = if info["format"] == "file" {
            [
                format!("filename: {filename}"),
                "protocol type: file".to_owned(),
                format!("file length: {len}"),
                format!("disk size: {disk_size}"),
            ]
        } else {
            [
                format!("image: {filename}"),
                format!("file format: {}", info["format"].as_str().unwrap_or_default()),
                format!("virtual size: {len}"),
                format!("disk size: {disk_size}"),
            ]
        };
        let _ = writeln!(out, "{spaces}Child node '{path}':");
        for line in lines {
            let _ = writeln!(out, "{spaces}    {line}");
        }
        let below = info["children"].as_array().map(Vec::as_slice).unwrap_or_default();
        out += &text(below, &path, indent + 4);
    }
    out
}
