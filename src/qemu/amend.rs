//! Amendments in QEMU's options: `state=active,new-secret=sec1,keyslot=3`, or several at once as
//! `keys.0.state=...,keys.1.state=...` (the form first proposed for QEMU's amend interface).

use std::time::Duration;

use super::SecretObjects;
use super::words::with_qemu_hint;
use super::{Options, boolean, number, size};
use crate::amend::{Change, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::kdf::{Cost, Pbkdf};
use crate::overrides::Overrides;

impl Request {
    /// Reads the options of `qemu-img amend` for LUKS; secrets are named by object.
    ///
    /// `pbkdf` is the KDF of new keyslots, and their cost unless `iter-time` is given.
    pub fn from_options(
        options: &Options,
        secrets: &SecretObjects,
        pbkdf: Pbkdf,
        overrides: Overrides,
    ) -> Result<Self> {
        let sets = change_sets(options)?;
        sets.iter().try_for_each(check)?;
        let changes = sets.iter().map(|set| change(set, secrets, pbkdf)).collect::<Result<_>>()?;
        Ok(Self::new(changes).overrides(overrides))
    }
}

/// Text that `-o help` prints: the options of `amend` for LUKS images.
pub const AMEND_HELP: &str = "\
Amend options for 'luks':
  iter-time=<num>        - Time to spend in PBKDF in milliseconds
  keyslot=<num>          - Select a single keyslot to modify explicitly
  new-secret=<str>       - New secret to set in the matching keyslots. Empty string to erase
  old-secret=<str>       - Select all keyslots that match this password
  state=<str>            - Select new state of affected keyslots (active/inactive)
";

/// Text that `-o help` prints for qcow2 images.
pub const QCOW2_AMEND_HELP: &str = "\
Amend options for 'qcow2':
  backing_file=<str>     - File name of a base image
  backing_fmt=<str>      - Image format of the base image
  compat=<str>           - Compatibility level (v2 [0.10] or v3 [1.1])
  data_file=<str>        - File name of an external data file
  data_file_raw=<bool (on/off)> - The external data file must stay valid as a raw image
  encrypt.iter-time=<num> - Time to spend in PBKDF in milliseconds
  encrypt.keyslot=<num>  - Select a single keyslot to modify explicitly
  encrypt.new-secret=<str> - New secret to set in the matching keyslots. Empty string to erase
  encrypt.old-secret=<str> - Select all keyslots that match this password
  encrypt.state=<str>    - Select new state of affected keyslots (active/inactive)
  lazy_refcounts=<bool (on/off)> - Postpone refcount updates
  refcount_bits=<num>    - Width of a reference count entry in bits
  size=<size>            - Virtual disk size
";

/// The options of a qcow2 image's amendment, without the prefix `encrypt.`. Options without it are
/// refused if they are `strict`ly QEMU's.
///
/// Fails with [`ErrorKind::Unsupported`] for options that change more than keyslots.
pub fn qcow2_amend_options(options: &Options, strict: bool) -> Result<Options> {
    let mut amend = Options::new();
    for (key, value) in options.iter() {
        match key.strip_prefix("encrypt.") {
            Some(key) if strict && !KEYS.contains(&key) => {
                let error = invalid(format!("Invalid parameter 'encrypt.{key}'"));
                let is_create = CREATE_ONLY.contains(&key) || key == "format";
                let hint = "This option is only supported for image creation";
                return Err(if is_create { with_qemu_hint(error, hint) } else { error });
            }
            Some(key) => amend.push(key, value),
            None if QCOW2_ONLY.contains(&key) => {
                let text = format!("'{key}' changes more than the keyslots of a qcow2 image");
                let error = Error::new(ErrorKind::Unsupported, text);
                return Err(error.with_hint("use qemu-img amend for it, in a separate amendment"));
            }
            None if strict => return Err(invalid(format!("Invalid parameter '{key}'"))),
            None => amend.push(key, value),
        }
    }
    Ok(amend)
}

/// The options of each change: all of them, or those under `keys.0.`, `keys.1.` ...
fn change_sets(options: &Options) -> Result<Vec<Options>> {
    if !options.iter().any(|(key, _)| key.starts_with("keys.")) {
        return Ok(vec![options.clone()]);
    }
    let mut sets = Vec::new();
    let mut taken = 0;
    while taken < options.iter().count() {
        let set = options.strip_prefix(&format!("keys.{}.", sets.len()));
        if set.iter().next().is_none() {
            // End of the sequence: the remaining options are outside the list, or after a gap in
            // it.
            let next = format!("keys.{}.", sets.len());
            let in_list = |key: &str| {
                let index = key.strip_prefix("keys.").and_then(|rest| rest.split_once('.'));
                index.is_some_and(|(i, _)| i.parse::<usize>().is_ok_and(|i| i < sets.len()))
            };
            let stray = options.iter().map(|(key, _)| key).find(|key| !in_list(key));
            return Err(match stray {
                Some(key) if !key.starts_with("keys.") => {
                    invalid(format!("'{key}' cannot be used with 'keys.N.' options"))
                }
                _ => invalid(format!("Parameter '{next}state' is missing")),
            });
        }
        taken += set.iter().count();
        sets.push(set);
    }
    Ok(sets)
}

/// Checks the names and values of options, in their order.
fn check(options: &Options) -> Result<()> {
    let check = |key: &str, value: &str| match key {
        "iter-time" | "keyslot" => number(key, value).map(drop),
        _ if KEYS.contains(&key) => Ok(()),
        _ => Err(invalid(format!("Invalid parameter '{key}'"))),
    };
    // QEMU parses the list again as options of `create`, and adds a hint if they are all valid.
    let fits_create = |(key, value): (&str, &str)| match key {
        "detached-header" => boolean(key, value).is_ok(),
        "size" => size(key, value).is_ok(),
        _ => CREATE_ONLY.contains(&key) || check(key, value).is_ok(),
    };
    options.iter().try_for_each(|(key, value)| check(key, value)).map_err(|error| {
        if options.iter().all(fits_create) {
            with_qemu_hint(error, "This option is only supported for image creation")
        } else {
            error
        }
    })
}

fn change(options: &Options, secrets: &SecretObjects, pbkdf: Pbkdf) -> Result<Change> {
    let keyslot = options.last("keyslot").map(|value| number("keyslot", value)).transpose()?;
    let iter_time =
        options.last("iter-time").map(|value| number("iter-time", value)).transpose()?;
    let old_secret = options.last("old-secret").map(|id| secrets.passphrase_utf8(id));
    let new_secret = options.last("new-secret").map(|id| secrets.passphrase_utf8(id));

    match options.last("state") {
        None => Err(invalid("Parameter 'state' is missing")),
        Some("active") => {
            let Some(new_secret) = new_secret else {
                return Err(invalid("'new-secret' is required to activate a keyslot"));
            };
            if old_secret.is_some() {
                return Err(invalid("'old-secret' must not be given when activating keyslots"));
            }
            // QEMU reinterprets the bits of a negative time as an unsigned number.
            let time = |ms: i64| Cost::Time(Duration::from_millis(ms.cast_unsigned()));
            let cost = iter_time.map_or(pbkdf.cost, time);
            Ok(Change::Add { keyslot, new_secret, pbkdf: Pbkdf { cost, ..pbkdf } })
        }
        Some("inactive") => {
            if new_secret.is_some() {
                return Err(invalid("'new-secret' must not be given when erasing keyslots"));
            }
            if iter_time.is_some() {
                return Err(invalid("'iter-time' must not be given when erasing keyslots"));
            }
            Ok(Change::Erase { keyslot, old_secret })
        }
        Some(other) => Err(invalid(format!("Parameter 'state' does not accept value '{other}'"))),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

const KEYS: [&str; 5] = ["state", "keyslot", "old-secret", "new-secret", "iter-time"];
const QCOW2_ONLY: [&str; 8] = [
    "backing_file",
    "backing_fmt",
    "compat",
    "data_file",
    "data_file_raw",
    "lazy_refcounts",
    "refcount_bits",
    "size",
];
const CREATE_ONLY: [&str; 6] =
    ["cipher-alg", "cipher-mode", "hash-alg", "ivgen-alg", "ivgen-hash-alg", "key-secret"];
