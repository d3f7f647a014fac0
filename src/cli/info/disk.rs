//! What `info` shows of a disk image that is not LUKS itself: its partitions, and which hold LUKS.

use std::fmt::Write as _;
use std::sync::Arc;

use keyslot::container::{Partition, PartitionTable, TableKind};
use keyslot::header::Header;
use keyslot::qemu::ImageSpec;
use keyslot::storage::{Storage, Window};
use keyslot::{ErrorKind, OpenOptions, Result};
use serde_json::{Value, json};

use super::super::image_spec;
use super::super::output;
use super::super::qemu_format::size;
use super::raw;

/// The document of a disk image with a partition table. `None` if no partition holds LUKS.
pub fn describe(spec: &ImageSpec) -> Result<Option<Value>> {
    let disk = image_spec::located(spec, OpenOptions::new()).open_raw(&spec.path)?;
    let Some(table) = PartitionTable::read(disk.storage().as_ref())? else { return Ok(None) };
    let mut partitions = Vec::new();
    for found in &table.partitions {
        partitions.push(partition(found, disk.storage())?);
    }
    if partitions.iter().all(|it| it.get("luks").is_none()) {
        return Ok(None);
    }
    let mut document = raw::document(spec, &disk)?;
    document["partition-table"] = json!(match table.kind {
        TableKind::Gpt => "gpt",
        _ => "mbr",
    });
    document["partitions"] = json!(partitions);
    Ok(Some(document))
}

fn partition(partition: &Partition, disk: &Arc<dyn Storage>) -> Result<Value> {
    let mut value = json!({
        "partition": partition.number,
        "type": partition.kind.to_string(),
        "offset": partition.offset,
        "size": partition.len,
    });
    if let Some(name) = partition.kind.name() {
        value["type-name"] = json!(name);
    }
    if let Some(name) = &partition.name {
        value["name"] = json!(name);
    }
    let window = Window::new(Arc::clone(disk), partition.offset, Some(partition.len));
    let Ok(window) = window else {
        value["truncated"] = json!(true);
        return Ok(value);
    };
    match Header::read(&window) {
        Ok(header) => {
            let format = if header.luks2().is_some() { "luks2" } else { "luks" };
            value["luks"] = json!({ "format": format, "uuid": header.uuid() });
        }
        Err(error) if error.kind() == ErrorKind::NotLuks => {}
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported) => {
            value["luks"] = json!({ "unusable": error.message() });
        }
        Err(error) => return Err(error),
    }
    Ok(value)
}

/// The lines of the partitions for people; none if the document has no partition table.
pub fn text(document: &Value) -> String {
    let Some(partitions) = document["partitions"].as_array() else { return String::new() };
    let kind = document["partition-table"].as_str().unwrap_or_default().to_ascii_uppercase();
    let mut out = format!("partition table: {kind}\n");
    for partition in partitions {
        let text = |member: &str| partition[member].as_str().map(output::foreign);
        let kind = text("type-name").or_else(|| text("type")).unwrap_or_default();
        let name = text("name").map_or(String::new(), |name| format!(" \"{name}\""));
        let (number, offset) = (&partition["partition"], &partition["offset"]);
        let len = size(partition["size"].as_u64().unwrap_or_default());
        let _ = write!(out, "partition {number}: {kind}{name}, {len} from byte {offset}");
        if let Some(luks) = partition.get("luks") {
            let text = |member: &str| luks[member].as_str().map(output::foreign);
            let _ = match (text("uuid"), text("unusable")) {
                (Some(uuid), _) if luks["format"] == "luks2" => write!(out, ", LUKS2 {uuid}"),
                (Some(uuid), _) => write!(out, ", LUKS1 {uuid}"),
                (None, why) => write!(out, ", LUKS header unusable: {}", why.unwrap_or_default()),
            };
            let _ = write!(out, "; use --partition {number}");
        }
        if partition["truncated"] == json!(true) {
            out.push_str(", ends behind the end of the disk");
        }
        out.push('\n');
    }
    out
}
