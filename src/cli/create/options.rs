//! QEMU's options of a new image (`-o`).

use std::time::Duration;

use keyslot::kdf::Cost;
use keyslot::qemu::{Options, boolean, number, size};
use keyslot::{CreateOptions, Preallocation, Result};

use super::super::{KdfArgs, check_count};
use super::cipher;
use super::invalid;
use super::luks::{LuksArgs, Version};
use super::qcow2::QCOW2_HELP;

/// Options of the encryption, in the order in which qemu-img prints them.
pub const ENCRYPT: [&str; 7] = [
    "key-secret",
    "cipher-alg",
    "cipher-mode",
    "ivgen-alg",
    "ivgen-hash-alg",
    "hash-alg",
    "iter-time",
];

/// Options as qemu-img prints them, in the order of its own list.
pub fn echo(options: &Options) -> String {
    let order = ENCRYPT.iter().chain(&["detached-header", "preallocation"]);
    order.filter_map(|key| Some(format!(" {key}={}", options.last(key)?))).collect()
}

/// Whether the options ask for a detached header.
pub fn is_detached(options: &Options) -> bool {
    options.last("detached-header").is_some_and(|value| boolean("", value).unwrap_or(false))
}

/// Checks the names and values of options, in their order.
pub fn check_options(options: &Options) -> Result<()> {
    options.iter().try_for_each(|(key, value)| match key {
        "detached-header" => boolean(key, value).map(drop),
        "iter-time" => number(key, value).map(drop),
        "size" => size(key, value).map(drop),
        _ if KEYS.contains(&key) => Ok(()),
        _ => Err(invalid(format!("Invalid parameter '{key}'"))),
    })
}

pub fn create_options(
    version: Version,
    options: &Options,
    kdf: &KdfArgs,
    luks: &LuksArgs,
) -> Result<CreateOptions> {
    let mut pbkdf = kdf.pbkdf();
    if let Some(text) = options.last("iter-time") {
        let ms = number("iter-time", text)?;
        pbkdf.cost = Cost::Time(Duration::from_millis(ms.cast_unsigned()));
    }
    check_count(&pbkdf, version.kdf())?;
    let mut create = CreateOptions::new()?
        .format(luks.format(version)?)
        .cipher(cipher::cipher(options, luks)?)
        .hash(cipher::hash(options, luks)?)
        .pbkdf(pbkdf)
        .preallocation(preallocation(options)?);
    if let Some(uuid) = luks.uuid()? {
        create = create.uuid(uuid);
    }
    Ok(create)
}

pub fn preallocation(options: &Options) -> Result<Preallocation> {
    match options.last("preallocation") {
        None | Some("off" | "metadata") => Ok(Preallocation::Off),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => Err(invalid(format!("invalid parameter value: {other}"))),
    }
}

const KEYS: [&str; 10] = [
    "cipher-alg",
    "cipher-mode",
    "detached-header",
    "hash-alg",
    "iter-time",
    "ivgen-alg",
    "ivgen-hash-alg",
    "key-secret",
    "preallocation",
    "size",
];

/// The text of `-o help`. As in qemu-img, options of the file, not of the format, are listed only if a
/// file is named.
pub fn help(version: Version, names_a_file: bool) -> String {
    if version == Version::Qcow2 {
        let more = if names_a_file { "" } else { HELP_MORE };
        let format = if names_a_file { "" } else { "qcow2 " };
        return format!("Supported {format}options:\n{QCOW2_HELP}{more}");
    }
    let (detached, format) = (HELP_DETACHED, version.format());
    if names_a_file {
        format!("Supported options:\n{HELP}{detached}{HELP_REST}{HELP_PREALLOCATION}{HELP_SIZE}")
    } else {
        format!("Supported {format} options:\n{HELP}{detached}{HELP_REST}{HELP_SIZE}{HELP_MORE}")
    }
}

const HELP: &str = "  \
  cipher-alg=<str>       - Name of encryption cipher algorithm
  cipher-mode=<str>      - Name of encryption cipher mode
";
const HELP_DETACHED: &str = "  detached-header=<bool (on/off)> - Create a detached LUKS header\n";
const HELP_REST: &str = "  \
  hash-alg=<str>         - Name of encryption hash algorithm
  iter-time=<num>        - Time to spend in PBKDF in milliseconds
  ivgen-alg=<str>        - Name of IV generator algorithm
  ivgen-hash-alg=<str>   - Name of IV generator hash algorithm
  key-secret=<str>       - ID of the secret that provides the keyslot passphrase
";
const HELP_PREALLOCATION: &str =
    "  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)\n";
const HELP_SIZE: &str = "  size=<size>            - Virtual disk size\n";
const HELP_MORE: &str = "
The protocol level may support further options.
Specify the target filename to include those options.
";
