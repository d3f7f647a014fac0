//! Images as the command line names them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use keyslot::container::DiskFormat;
use keyslot::qemu::{Bytes, ImageSpec, Options, RawLayer};
use keyslot::{Error, ErrorKind, OpenOptions};

use super::Persona;
use super::qemu_format;
use super::report::Failure;

/// Parses the image's name. `format` is `-f`.
pub fn parse(
    name: &OsStr,
    image_opts: bool,
    format: Option<&str>,
    persona: Persona,
) -> Result<ImageSpec, Failure> {
    if image_opts && format.is_some() {
        let text = "--image-opts and --format are mutually exclusive";
        return Err(Error::new(ErrorKind::InvalidInput, text).into());
    }
    let shown = name.to_string_lossy();
    let failed = Failure::opening(&shown);
    if image_opts && let Some(text) = name.to_str() {
        // A syntax error in the list is reported without the name of an image.
        Options::parse_image(text)?;
    }
    let mut spec = ImageSpec::parse(name, image_opts, format).map_err(&failed)?;
    // Not options but a file name, which may have a protocol prefix.
    if spec.file.path == name {
        spec.file.path = file(name, persona).map_err(&failed)?;
    }
    let headers = spec.header.iter().map(|it| (&it.path, it.is_device));
    for (path, is_device) in headers.chain([(&spec.file.path, spec.file.is_device)]) {
        check_type(path, is_device, persona).map_err(&failed)?;
    }
    Ok(spec)
}

/// Refuses a file of a type that QEMU's driver does not open. A missing file is refused later, when
/// it is opened.
fn check_type(path: &Path, is_device: bool, persona: Persona) -> keyslot::Result<()> {
    let Ok(metadata) = fs::metadata(path) else { return Ok(()) };
    let kind = metadata.file_type();
    let path = path.display();
    if kind.is_block_device() || kind.is_char_device() {
        return Ok(());
    }
    let text = if is_device {
        format!("'host_device' driver requires '{path}' to be either a character or block device")
    } else if kind.is_file() || persona == Persona::Keyslot {
        return Ok(());
    } else {
        format!("'file' driver requires '{path}' to be a regular file")
    };
    Err(Error::new(ErrorKind::InvalidInput, text))
}

/// Path of the file of this name. Under the name qemu-img, the name may begin with QEMU's `file:`.
pub fn file(name: &OsStr, persona: Persona) -> keyslot::Result<PathBuf> {
    let text = name.to_string_lossy();
    let unknown = |protocol: &str| {
        Err(Error::new(ErrorKind::InvalidInput, format!("Unknown protocol '{protocol}'")))
    };
    match text.split_once(':') {
        Some(("json", _)) => unknown("json"),
        Some((protocol, _)) if persona == Persona::Keyslot || protocol.contains('/') => {
            Ok(name.into())
        }
        Some(("file", _)) => {
            let path = name.as_bytes().strip_prefix(b"file:").unwrap_or_default();
            if path.is_empty() {
                let text = "The 'file' block driver requires a file name";
                return Err(Error::new(ErrorKind::InvalidInput, text));
            }
            Ok(OsStr::from_bytes(path).into())
        }
        Some((protocol, _)) => unknown(protocol),
        None => Ok(name.into()),
    }
}

/// Path of a file that the qcow2 image at `image` names. `None` if the name has a protocol, so that it
/// is not a path.
pub fn named_file(image: &Path, name: &[u8]) -> Option<PathBuf> {
    let has_protocol = name.iter().take_while(|&&byte| byte != b'/').any(|&byte| byte == b':');
    let directory = image.parent().unwrap_or(Path::new(""));
    (!has_protocol).then(|| directory.join(OsStr::from_bytes(name)))
}

/// Under the name qemu-img, refuses formats that qemu-img does not have.
pub fn check_persona(spec: &ImageSpec, persona: Persona) -> keyslot::Result<()> {
    if persona == Persona::QemuImg && spec.driver.is_none() && spec.header.is_some() {
        // QEMU probes the payload, which looks raw.
        let text = "Block format 'raw' does not support the option 'header.filename'";
        return Err(Error::new(ErrorKind::InvalidInput, text));
    }
    match spec.driver.as_deref() {
        Some("luks2") if persona == Persona::QemuImg => {
            Err(Error::new(ErrorKind::InvalidInput, "Unknown driver 'luks2'"))
        }
        _ => Ok(()),
    }
}

/// Adds the location in the image's own options to `options`.
pub fn located(spec: &ImageSpec, options: OpenOptions) -> OpenOptions {
    let options = match spec.range() {
        Some((offset, len)) => options.range(offset, len),
        None => options,
    };
    let options = match spec.driver.as_deref() {
        Some("qcow2") => options.format(DiskFormat::Qcow2),
        Some("luks" | "luks2") => options.format(DiskFormat::Raw),
        _ => options,
    };
    let Some(header) = &spec.header else { return options };
    let options = options.header(&header.path);
    match header.range() {
        Some((offset, len)) => options.header_range(offset, len),
        None => options,
    }
}

/// Name under which qemu-img reports the image: `json:` where a file name is not enough.
pub fn qemu_name(spec: &ImageSpec, is_qcow2: bool) -> String {
    if spec.key_secret.is_none() && spec.file.layers.is_empty() {
        return spec.file.path.to_string_lossy().into_owned();
    }
    let secret = match &spec.key_secret {
        Some(id) => format!(r#", "key-secret": {}"#, qemu_format::json_string(id)),
        None => String::new(),
    };
    let header = match &spec.header {
        Some(header) => format!(r#""header": {}, "#, node(&header.path, &header.layers)),
        None => String::new(),
    };
    let file = node(&spec.file.path, &spec.file.layers);
    if is_qcow2 {
        let secret = match &spec.key_secret {
            Some(id) => format!(r#""encrypt.key-secret": {}, "#, qemu_format::json_string(id)),
            None => String::new(),
        };
        return format!(r#"json:{{{secret}"driver": "qcow2", "file": {file}}}"#);
    }
    format!(r#"json:{{{header}"driver": "luks", "file": {file}{secret}}}"#)
}

/// Name under which qemu-img reports a raw image of these layers, of which the first is its own.
pub fn raw_name(path: &Path, layers: &[RawLayer]) -> String {
    match layers {
        [] => path.to_string_lossy().into_owned(),
        [own] if own.is_whole() => path.to_string_lossy().into_owned(),
        layers => format!("json:{}", node(path, layers)),
    }
}

/// JSON of the file and of the layers on it, which begin with the outermost.
fn node(path: &Path, layers: &[RawLayer]) -> String {
    let path = qemu_format::json_string(&path.to_string_lossy());
    let file = format!(r#"{{"driver": "file", "filename": {path}}}"#);
    layers.iter().rev().fold(file, |below, layer| {
        // Members are in the order of QEMU's hash table.
        let offset = layer.offset.as_ref().map(|it| format!(r#""offset": {}, "#, written(it)));
        let size = layer.size.as_ref().map(|it| format!(r#", "size": {}"#, written(it)));
        let (offset, size) = (offset.unwrap_or_default(), size.unwrap_or_default());
        format!(r#"{{{offset}"driver": "raw"{size}, "file": {below}}}"#)
    })
}

/// Formats a number of bytes for JSON, as it was written.
fn written(bytes: &Bytes) -> String {
    if bytes.is_json_number {
        return bytes.written.clone();
    }
    qemu_format::json_string(&bytes.written)
}
