//! QEMU's secret objects: `--object secret,id=sec0,...`.

use std::fs::File;
use std::io;

use super::encoding::{decode_base64, decrypt};
use super::{Options, check_identifier, parse_json};
use crate::error::{Error, ErrorKind, Result};
use crate::json::Kind;
use crate::secret::{LARGEST_SECRET, Passphrase, SecretBytes};

/// Secrets defined so far, by id.
///
/// ```
/// let mut objects = keyslot::qemu::SecretObjects::new();
/// objects.add("secret,id=sec0,data=aHVudGVyMg==,format=base64")?;
/// assert_eq!(objects.passphrase("sec0")?.as_bytes(), b"hunter2");
/// # Ok::<(), keyslot::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct SecretObjects {
    objects: Vec<(String, Passphrase)>,
}

impl SecretObjects {
    /// No secrets.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates the object of one `--object`, reading its file if it has one.
    ///
    /// `definition` is `secret,id=ID,data=TEXT|file=PATH[,format=raw|base64][,keyid=ID,iv=BASE64]`
    /// or the same as a JSON object. The secret that `keyid` names must exist already.
    pub fn add(&mut self, definition: &str) -> Result<()> {
        let definition = parse(definition)?;
        let id = check(&definition)?;
        check_identifier(id)?;
        if self.objects.iter().any(|(other, _)| other == id) {
            return Err(invalid(format!(
                "attempt to add duplicate property '{id}' to object (type 'container')"
            )));
        }
        let secret = self.load(id, &definition)?;
        self.objects.push((id.to_owned(), secret.into()));
        Ok(())
    }

    /// Text that QEMU prints for `help` in a definition.
    pub fn help(definition: &str) -> Option<&'static str> {
        let options = Options::parse_keyval(definition, QOM_TYPE).ok()?;
        match options.last(QOM_TYPE) {
            _ if !options.asks_help() => None,
            None => Some("List of user creatable objects:\n  secret\n"),
            Some(_) => Some(
                "secret options:\n  data=<string>\n  file=<string>\n  \
                 format=<QCryptoSecretFormat>\n  iv=<string>\n  keyid=<string>\n",
            ),
        }
    }

    /// Whether `definition` names a type of object other than `secret`.
    pub fn is_other(definition: &str) -> bool {
        let parsed = if definition.starts_with('{') {
            parse_members(definition)
        } else {
            let before = before_data(definition).unwrap_or(definition);
            Options::parse_keyval(before, QOM_TYPE)
        };
        parsed.is_ok_and(|it| it.last(QOM_TYPE).is_some_and(|qom_type| qom_type != "secret"))
    }

    /// Bytes of secret `id`, which need not be UTF-8.
    pub fn passphrase(&self, id: &str) -> Result<Passphrase> {
        let found = self.objects.iter().find(|(other, _)| other == id);
        let (_, secret) =
            found.ok_or_else(|| invalid(format!("No secret with id '{}'", shown(id))))?;
        Ok(secret.clone())
    }

    /// Bytes of secret `id`, if QEMU would accept them as a passphrase.
    pub fn passphrase_utf8(&self, id: &str) -> Result<Passphrase> {
        let secret = self.passphrase(id)?;
        if secret.is_qemu_compatible() {
            Ok(secret)
        } else {
            Err(invalid(format!("Data from secret {id} is not valid UTF-8")))
        }
    }

    fn load(&self, id: &str, definition: &Options) -> Result<SecretBytes> {
        let input = match (definition.last("data"), definition.last("file")) {
            (Some(_), Some(_)) => return Err(invalid("'file' and 'data' are mutually exclusive")),
            (Some(data), None) => SecretBytes::from_slice(data.as_bytes())?,
            (None, Some(file)) => read_file(file)?,
            (None, None) => return Err(invalid("Either 'file' or 'data' must be provided")),
        };
        let is_base64 = definition.last("format") == Some("base64");
        let decode = || {
            if is_base64 { decode_base64(input.as_slice()) } else { Ok(input) }
        };
        let Some(keyid) = definition.last("keyid") else {
            return decode();
        };
        if keyid == id {
            return Err(invalid(format!("Secret with id '{id}' has no data")));
        }
        let key = self.passphrase(keyid)?;
        if key.as_bytes().len() != 32 {
            return Err(invalid("Key should be 32 bytes in length"));
        }
        let iv = definition.last("iv");
        let iv = decode_base64(
            iv.ok_or_else(|| invalid("IV is required to decrypt secret"))?.as_bytes(),
        )?;
        if iv.len() != 16 {
            return Err(invalid(format!("IV should be 16 bytes in length not {}", iv.len())));
        }
        decrypt(key.as_bytes(), iv.as_slice(), decode()?)
    }
}

const QOM_TYPE: &str = "qom-type";
const KNOWN: [&str; 7] = [QOM_TYPE, "id", "data", "file", "format", "iv", "keyid"];

fn parse(definition: &str) -> Result<Options> {
    if definition.starts_with('{') {
        return parse_members(definition);
    }
    let options = Options::parse_keyval(definition, QOM_TYPE).map_err(|error| {
        // After `data=`, an unknown word may be the second half of a secret with a comma in it.
        let Some(before) = before_data(definition) else { return error };
        match Options::parse_keyval(before, QOM_TYPE) {
            Err(error) => error,
            Ok(_) => invalid("Invalid parameter after 'data'")
                .with_hint("write a comma in a value twice: ,,"),
        }
    })?;
    // So may a word that parses as another parameter.
    let behind_data = options.keys().skip_while(|&key| key != "data");
    if behind_data.into_iter().any(|key| !KNOWN.contains(&key)) {
        return Err(invalid("Invalid parameter after 'data'")
            .with_hint("write a comma in a value twice: ,,"));
    }
    if options.asks_help() {
        return Err(invalid("'help' lists the parameters of an object and creates none"));
    }
    if let Some((key, name)) = options.keys().find_map(|key| Some((key, key.split_once('.')?.0))) {
        // A dotted key is never known; a vendor's name (`__org.example_x`) has dots of its own.
        return Err(invalid(if key.starts_with("__") {
            format!("Parameter '{key}' is unexpected")
        } else if KNOWN.contains(&name) {
            format!("Parameters '{name}.*' are unexpected")
        } else {
            format!("Parameter '{name}' is unexpected")
        }));
    }
    Ok(options)
}

fn before_data(definition: &str) -> Option<&str> {
    if definition.starts_with("data=") {
        return Some("");
    }
    definition.find(",data=").map(|comma| &definition[..comma])
}

/// Members of a JSON definition. Unknown ones are kept for [`check`] to name.
fn parse_members(definition: &str) -> Result<Options> {
    let value = parse_json(definition).map_err(|fault| invalid(fault.redacted()))?;
    let mut options = Options::new();
    if let Kind::Object(members) = value.0 {
        for (key, value) in members {
            match value.0 {
                Kind::String(text) => options.push_secret(key, text),
                _ if KNOWN.contains(&key.as_str()) => {
                    return Err(invalid(format!(
                        "Invalid parameter type for '{key}', expected: string"
                    )));
                }
                _ => options.push(key, ""),
            }
        }
    }
    Ok(options)
}

/// Checks everything that does not need the object's data, in QEMU's order, and returns the id.
fn check(definition: &Options) -> Result<&str> {
    let required = |key: &str| {
        definition.last(key).ok_or_else(|| invalid(format!("Parameter '{key}' is missing")))
    };
    let qom_type = required(QOM_TYPE)?;
    if qom_type == "secret_keyring" {
        return Err(Error::new(ErrorKind::Unsupported, "secret_keyring objects are not supported")
            .with_hint("give the key in a pipe: keyctl pipe SERIAL"));
    }
    if qom_type != "secret" {
        let value = shown(qom_type);
        return Err(invalid(format!("Parameter '{QOM_TYPE}' does not accept value '{value}'")));
    }
    let id = required("id")?;
    if let Some(format) = definition.last("format")
        && !["raw", "base64"].contains(&format)
    {
        let value = shown(format);
        return Err(invalid(format!("Parameter 'format' does not accept value '{value}'")));
    }
    if let Some(key) = definition.keys().find(|key| !KNOWN.contains(key)) {
        return Err(invalid(format!("Parameter '{key}' is unexpected")));
    }
    Ok(id)
}

/// A value for an error message, without a `data=` that an extra comma made a part of it
/// (`format=raw,,data=x`).
fn shown(value: &str) -> &str {
    value.find(",data=").map_or(value, |comma| &value[..comma])
}

/// Reads `path`. Errors have the texts that QEMU gets from `GLib`.
fn read_file(path: &str) -> Result<SecretBytes> {
    let fault = |what: &str, error: &io::Error| {
        let (path, reason) = (shown(path), system_message(error));
        Error::new(
            ErrorKind::of_system(error),
            format!("Unable to read {path}: {what} file “{path}”: {reason}"),
        )
    };
    let mut file = File::open(path).map_err(|error| fault("Failed to open", &error))?;
    SecretBytes::read_to_end(&mut file, LARGEST_SECRET).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            let (path, limit) = (shown(path), LARGEST_SECRET >> 20);
            invalid(format!("Unable to read {path}: The file is larger than {limit} MiB"))
        }
        _ => fault("Error reading", &error),
    })
}

/// Text of `strerror`, without the number that [`io::Error`] adds.
fn system_message(error: &io::Error) -> String {
    let text = error.to_string();
    match error.raw_os_error() {
        Some(code) => text.trim_end_matches(&format!(" (os error {code})")).to_owned(),
        None => text,
    }
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests;
