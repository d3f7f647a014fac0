//! Conversion into an existing target (`-n`).

use std::ffi::OsString;

use keyslot::container::{Qcow2Header, is_luks_at};
use keyslot::qemu::ImageSpec;
use keyslot::{Error, ErrorKind, OpenOptions, Operation, Passphrase, Result, Sharing};

use super::super::image_spec;
use super::super::limits;
use super::super::report::Failure;
use super::super::secrets::{Question, not_both};
use super::new::{no_header, no_keyslot};
use super::source::{Source, no_named_files};
use super::target::{Data, Opened};
use super::{Conversion, invalid};

/// Opens an existing target, locked as an amendment locks an image.
pub fn existing(
    name: &OsString,
    source: &Source,
    len: u64,
    conversion: &Conversion<'_>,
) -> std::result::Result<Data, Failure> {
    let args = conversion.args;
    let format = match &args.output_format {
        Some(format) => Some(format.as_str()),
        None if args.target_image_opts => None,
        None => Some("raw"),
    };
    let spec = image_spec::parse(name, args.target_image_opts, format, conversion.persona)?;
    let opening = |error: Error| Failure::opening(&spec.shown)(error.with_path(&spec.file.path));
    let refusal = if spec.force_share && !spec.read_only {
        "force-share=on can only be used with read-only images"
    } else if spec.is_unlocked() {
        "file.locking=off is refused: the target is always locked"
    } else if spec.read_only {
        "Block node is read-only"
    } else if source.is_file(&spec.file.path) {
        "it is the source"
    } else {
        ""
    };
    if !refusal.is_empty() {
        return Err(opening(invalid(refusal)));
    }
    no_named_files(&spec).map_err(opening)?;
    if spec.driver.as_deref() == Some("raw") {
        return existing_raw(&spec, len, conversion).map_err(opening);
    }
    no_header(conversion)?;
    let (id, source) = (spec.key_secret.as_deref(), args.new_secret.as_ref());
    not_both(id, source, "--new-secret")?;
    let unlocked = || {
        let options = OpenOptions::new()
            .sharing(Sharing::Amend)
            .limits(limits(conversion.args.ignore_limits));
        let image = image_spec::located(&spec, options).open(&spec.file.path)?;
        conversion.persona.admit(&image)?;
        if image.qcow2().is_some_and(Qcow2Header::has_extended_l2) {
            // Clusters that exist could be written, but the first new one would be refused.
            let text = "writing an image with extended L2 entries is not supported";
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        let what = "Passphrase of the target";
        let question = Question { option: "--new-secret", what, image: Some(&spec.file.path) };
        let open = |secret: &Passphrase| image.unlock(secret);
        let unlocked = conversion.secrets.open(id, source, &question, conversion.persona, open)?;
        let (keyslot, volume) = (unlocked.keyslot().unwrap_or_default(), image.volume(&unlocked)?);
        Ok(Data::Luks(Box::new(Opened { image, keyslot, volume })))
    };
    unlocked().map_err(opening)
}

fn existing_raw(spec: &ImageSpec, len: u64, conversion: &Conversion<'_>) -> Result<Data> {
    no_keyslot(conversion)?;
    let options = OpenOptions::new().sharing(Sharing::Amend);
    let raw = image_spec::located(spec, options).open_raw(&spec.file.path)?;
    let file = raw.storage();
    let stored = file.len().map_err(|e| Error::failed(Operation::Read, "the length", e))?;
    let is_luks = is_luks_at(file, 0);
    let is_said = conversion.args.output_format.is_some()
        || conversion.args.target_image_opts
        || conversion.args.overwrite;
    // QEMU would overwrite the header.
    if is_luks && !is_said {
        let hint = "use -O luks to write into it, or -O raw to overwrite it";
        let text = "the target is a LUKS image, but no format was given";
        return Err(Error::new(ErrorKind::Refused, text).with_hint(hint));
    }
    // Fill up the last sector, which the copy may skip.
    if stored < len && stored.next_multiple_of(512) >= len {
        let rest = vec![0; usize::try_from(len - stored).unwrap_or(0)];
        let failed = |e| {
            Error::failed(Operation::Write, format_args!("at byte {stored}"), e).with_offset(stored)
        };
        file.write_all_at(&rest, stored).map_err(failed)?;
    }
    Ok(Data::Raw(raw))
}
