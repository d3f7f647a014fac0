//! Report of `info`, in the format of `qemu-img info`.

use std::fmt::{self, Display, Formatter};

use keyslot::container::Qcow2Header;
use keyslot::kdf::estimate;
use keyslot::qemu::ImageSpec;
use keyslot::{Image, Result};
use serde::Serialize;
use serde_json::{Map, Value};

use super::super::backup_info::BackupInfo;
use super::super::create::Version;
use super::super::image_spec;
use super::super::output;
use super::super::qemu_format::{human, size};
use super::super::report::ErrorReport;
use super::disk::DiskInfo;
use super::luks1::Luks1Info;
use super::luks2::{Luks2Info, printed_members};
use super::nodes::{self, Child};
use super::qcow2::{Backing, Qcow2Info};

/// An image, under qemu-img's names.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct InfoReport {
    children: Vec<Child>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename_format: Option<String>,
    /// `None` if the payload cannot be used
    virtual_size: Option<u64>,
    filename: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster_size: Option<u64>,
    pub format: &'static str,
    actual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_specific: Option<FormatSpecific>,
    #[serde(skip_serializing_if = "Option::is_none")]
    full_backing_filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encrypted: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backing_filename: Option<String>,
    dirty_flag: bool,
    #[serde(flatten)]
    pub disk: Option<DiskInfo>,
    #[serde(flatten)]
    pub backup: Option<BackupInfo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_opens: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimates: Option<Vec<Estimate>>,
}

#[derive(Serialize)]
struct FormatSpecific {
    #[serde(rename = "type")]
    format: &'static str,
    data: Data,
}

#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    header: Option<HeaderInfo>,
    /// LUKS2: the metadata, only in JSON
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(flatten)]
    weaknesses: Weaknesses,
}

#[derive(Serialize)]
#[serde(untagged)]
enum HeaderInfo {
    Luks1(Luks1Info),
    Luks2(Box<Luks2Info>),
    Qcow2(Box<Qcow2Info>),
}

#[derive(Serialize)]
struct Weaknesses {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weaknesses: Vec<String>,
}

/// Estimated time to open a keyslot on this machine.
#[derive(Serialize)]
pub struct Estimate {
    keyslot: usize,
    milliseconds: u64,
}

/// Estimates how long each active keyslot takes to open.
pub fn estimates(image: &Image) -> Result<Vec<Estimate>> {
    let active = image.keyslots().filter(|keyslot| keyslot.active);
    active
        .map(|keyslot| {
            let milliseconds = u64::try_from(estimate(&keyslot)?.as_millis()).unwrap_or(u64::MAX);
            Ok(Estimate { keyslot: keyslot.index, milliseconds })
        })
        .collect()
}

impl InfoReport {
    /// A LUKS image.
    pub fn new(image: &Image, spec: &ImageSpec) -> Result<Self> {
        let (children, actual_size) = nodes::nodes(image, spec)?;
        let header = image.header();
        let format = Version::of_header(header).format();
        let luks2 = header.luks2().map(|it| HeaderInfo::Luks2(Box::new(Luks2Info::new(it))));
        let luks1 = || {
            let luks1 = Luks1Info::new(header.luks1()?);
            Some(match image.qcow2() {
                Some(qcow2) => HeaderInfo::Qcow2(Box::new(Qcow2Info::new(qcow2, luks1))),
                None => HeaderInfo::Luks1(luks1),
            })
        };
        let format = if image.qcow2().is_some() { "qcow2" } else { format };
        let backing = image.qcow2().and_then(|qcow2| Backing::new(qcow2, &spec.file.path));
        let (backing_filename, full_backing_filename, backing_filename_format) = match backing {
            Some(Backing { name, full_name, format }) => (Some(name), Some(full_name), format),
            None => (None, None, None),
        };
        let data = Data {
            header: luks2.or_else(luks1),
            metadata: header.luks2().map(|it| printed_members(it.metadata().value())),
            weaknesses: Weaknesses { weaknesses: header.weaknesses() },
        };
        Ok(Self {
            virtual_size: image.volume_len()?,
            format_specific: Some(FormatSpecific { format, data }),
            encrypted: Some(true),
            cluster_size: image.qcow2().map(Qcow2Header::cluster_size),
            dirty_flag: image.qcow2().is_some_and(Qcow2Header::is_dirty),
            backing_filename,
            full_backing_filename,
            backing_filename_format,
            backup: BackupInfo::new(image)?,
            format,
            ..Self::raw(
                children,
                0,
                image_spec::qemu_name(spec, image.qcow2().is_some()),
                actual_size,
            )
        })
    }

    /// A raw image of `len` bytes.
    pub fn raw(children: Vec<Child>, len: u64, filename: String, actual_size: u64) -> Self {
        Self {
            children,
            backing_filename_format: None,
            virtual_size: Some(len),
            filename,
            cluster_size: None,
            format: "raw",
            actual_size,
            format_specific: None,
            full_backing_filename: None,
            encrypted: None,
            backing_filename: None,
            dirty_flag: false,
            disk: None,
            backup: None,
            error: None,
            secret_opens: None,
            estimates: None,
        }
    }
}

impl InfoReport {
    /// Writes the lines of a qcow2 image that precede its format's own.
    fn write_qcow2(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(size) = self.cluster_size {
            writeln!(f, "cluster_size: {size}")?;
        }
        if self.dirty_flag {
            writeln!(f, "cleanly shut down: no")?;
        }
        if let (Some(name), Some(full)) = (&self.backing_filename, &self.full_backing_filename) {
            write!(f, "backing file: {}", output::foreign(name))?;
            if name != full {
                write!(f, " (actual path: {})", output::foreign(full))?;
            }
            writeln!(f)?;
        }
        if let Some(format) = &self.backing_filename_format {
            writeln!(f, "backing file format: {}", output::foreign(format))?;
        }
        Ok(())
    }
}

/// As qemu-img prints it for people.
impl Display for InfoReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "image: {}", output::foreign(&self.filename))?;
        writeln!(f, "file format: {}", self.format)?;
        match self.virtual_size {
            Some(len) => writeln!(f, "virtual size: {} ({len} bytes)", size(len))?,
            None => writeln!(f, "virtual size: unavailable")?,
        }
        writeln!(f, "disk size: {}", size(self.actual_size))?;
        if let Some(FormatSpecific { data, .. }) = &self.format_specific {
            writeln!(f, "encrypted: yes")?;
            self.write_qcow2(f)?;
            writeln!(f, "Format specific information:")?;
            f.write_str(&human(&data.header, 1).map_err(|_| fmt::Error)?)?;
            f.write_str(&human(&data.weaknesses, 1).map_err(|_| fmt::Error)?)?;
        }
        if let Some(disk) = &self.disk {
            write!(f, "{disk}")?;
        }
        f.write_str(&nodes::text(&self.children, "", 0))?;
        if let Some(backup) = &self.backup {
            writeln!(f, "{backup}")?;
        }
        match self.secret_opens.as_deref() {
            None => {}
            Some([]) => writeln!(f, "secret opens: no keyslot")?,
            Some(opened) => {
                let opened: Vec<_> = opened.iter().map(ToString::to_string).collect();
                writeln!(f, "secret opens: keyslot {}", opened.join(", "))?;
            }
        }
        for Estimate { keyslot, milliseconds: ms } in self.estimates.iter().flatten() {
            writeln!(f, "keyslot {keyslot} opens in about {ms} ms on this machine")?;
        }
        Ok(())
    }
}
