//! Report of `info` on a partitioned disk image: its partitions, and the LUKS headers in them.

use std::fmt::{self, Display, Formatter};
use std::sync::Arc;

use keyslot::container::{Partition, PartitionTable, TableKind, image_format};
use keyslot::header::Header;
use keyslot::qemu::ImageSpec;
use keyslot::storage::{Storage, Window};
use keyslot::{ErrorKind, OpenOptions, Result};
use serde::Serialize;

use super::super::create::Version;
use super::super::image_spec;
use super::super::output;
use super::super::qemu_format::size;
use super::raw;
use super::report::InfoReport;

/// A partition table.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DiskInfo {
    partition_table: &'static str,
    partitions: Vec<PartitionInfo>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct PartitionInfo {
    partition: u32,
    #[serde(rename = "type")]
    kind: String,
    offset: u64,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    type_name: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether the partition ends beyond the end of the disk
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    luks: Option<LuksInfo>,
}

/// A LUKS header in a partition.
#[derive(Serialize)]
#[serde(untagged)]
enum LuksInfo {
    Valid {
        format: &'static str,
        uuid: String,
        /// `LUKS1`, `LUKS2`
        #[serde(skip)]
        version: &'static str,
    },
    Unusable {
        unusable: String,
    },
}

/// The report on a disk image with a partition table. `None` if no partition holds LUKS, or the table
/// is damaged.
pub fn describe(spec: &ImageSpec) -> Result<Option<InfoReport>> {
    let options = || image_spec::located(spec, OpenOptions::new());
    let disk = options().open_raw(&spec.file.path)?;
    let guest = match image_format(disk.storage().as_ref()) {
        // The partitions of a guest's disk that needs other files are unknown.
        Some("qcow2") => options().open_disk_storage(Arc::clone(disk.storage())).ok(),
        _ => None,
    };
    let storage = guest.as_ref().map_or(disk.storage(), |guest| guest.storage());
    let table = match PartitionTable::read(storage.as_ref()) {
        Ok(Some(table)) => table,
        Ok(None) => return Ok(None),
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(None),
        Err(error) => return Err(error.with_path(&spec.file.path)),
    };
    let partitions = table.partitions.iter().map(|it| PartitionInfo::new(it, storage));
    let partitions = partitions.collect::<Result<Vec<_>>>();
    let partitions = partitions.map_err(|error| error.with_path(&spec.file.path))?;
    if partitions.iter().all(|it| it.luks.is_none()) {
        return Ok(None);
    }
    let partition_table = match table.kind {
        TableKind::Gpt => "gpt",
        _ => "mbr",
    };
    let mut report = match &guest {
        Some(guest) => raw::report_qcow2(spec, &disk, guest)?,
        None => raw::report(spec, &disk)?,
    };
    report.disk = Some(DiskInfo { partition_table, partitions });
    Ok(Some(report))
}

impl PartitionInfo {
    fn new(partition: &Partition, disk: &Arc<dyn Storage>) -> Result<Self> {
        let window = Window::new(Arc::clone(disk), partition.offset, Some(partition.len)).ok();
        Ok(Self {
            partition: partition.number,
            kind: partition.kind.to_string(),
            offset: partition.offset,
            size: partition.len,
            type_name: partition.kind.name(),
            name: partition.name.clone(),
            truncated: window.is_none(),
            luks: window.map(|window| LuksInfo::read(&window)).transpose()?.flatten(),
        })
    }
}

impl LuksInfo {
    /// The header in a partition. `None` if it holds something else.
    fn read(partition: &Window) -> Result<Option<Self>> {
        match Header::read(partition) {
            Ok(header) => Ok(Some(Self::Valid {
                format: Version::of_header(&header).format(),
                uuid: header.uuid(),
                version: header.format(),
            })),
            Err(error) => match error.kind() {
                ErrorKind::NotLuks => Ok(None),
                ErrorKind::Corrupt | ErrorKind::Unsupported => {
                    Ok(Some(Self::Unusable { unusable: error.message().to_owned() }))
                }
                _ => Err(error),
            },
        }
    }
}

impl Display for DiskInfo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "partition table: {}", self.partition_table.to_ascii_uppercase())?;
        self.partitions.iter().try_for_each(|partition| writeln!(f, "{partition}"))
    }
}

impl Display for PartitionInfo {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let number = self.partition;
        let kind = output::foreign(self.type_name.unwrap_or(&self.kind));
        write!(f, "partition {number}: {kind}")?;
        if let Some(name) = &self.name {
            write!(f, " \"{}\"", output::foreign(name))?;
        }
        write!(f, ", {} from byte {}", size(self.size), self.offset)?;
        match &self.luks {
            None => {}
            Some(LuksInfo::Valid { uuid, version, .. }) => {
                write!(f, ", {version} {}; use --partition {number}", output::foreign(uuid))?;
            }
            Some(LuksInfo::Unusable { unusable }) => {
                let why = output::foreign(unusable);
                write!(f, ", LUKS header unusable: {why}; use --partition {number}")?;
            }
        }
        if self.truncated {
            write!(f, ", ends beyond the end of the disk")?;
        }
        Ok(())
    }
}
