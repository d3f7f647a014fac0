//! QEMU's option strings: the syntax of `-o`, `--image-opts`, `--object` and `json:`.
//!
//! This module only parses, so unknown options are kept for the caller to refuse. The four dialects
//! differ as they do in QEMU, and errors have QEMU's texts: `-o` and `--image-opts` take `,,` for a
//! comma and a bare name for a boolean, `--object` wants an `=` and checks the names, and `json:`
//! is lenient JSON.

mod amend;
mod encoding;
mod image;
mod json;
mod keyval;
mod node;
mod number;
mod secret_object;
pub mod words;

use std::collections::BTreeSet;
use std::fmt;

use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::json::{Kind, Value};

pub use amend::{AMEND_HELP, QCOW2_AMEND_HELP, qcow2_amend_options};
pub use image::{ImageSpec, check_driver};
pub(crate) use json::parse as parse_json;
pub(crate) use keyval::check_identifier;
pub use node::{Bytes, FileNode, RawLayer};
#[doc(hidden)]
pub use node::{beyond, too_long};
pub use number::{boolean, image_size, number, size, size_argument};
pub use secret_object::SecretObjects;

/// An ordered list of options, keys repeated as they were given.
///
/// Values are wiped from memory on drop: one of them may be the `data=` of a secret.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Options {
    pairs: Vec<(String, Zeroizing<String>, Type)>,
    help: bool,
}

/// JSON type of the value of an option.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Type {
    Text,
    Number,
    Bool,
    Null,
    /// An empty object or array
    Empty,
}

impl Options {
    /// No options at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses one `-o`, for example `state=active,keyslot=1`.
    ///
    /// A bare `name` is `name=on` and a bare `noname` is `name=off`. As QEMU does, `id` is
    /// dropped, and a list that begins or ends with a comma is refused.
    ///
    /// ```
    /// let options = keyslot::qemu::Options::parse("state=active,new-secret=a,,b")?;
    /// assert_eq!(options.last("new-secret"), Some("a,b"));
    /// # Ok::<(), keyslot::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let trailing = text.len() - text.trim_end_matches(',').len();
        if text.is_empty() || text.starts_with(',') || trailing % 2 == 1 {
            return Err(invalid(format!("Invalid option list: {text}")));
        }
        let mut options = Self::split(text, None);
        options.pairs.retain(|(key, ..)| key != "id");
        Ok(options)
    }

    /// Parses the file name of `--image-opts`, for example `driver=luks,file.filename=a.luks`.
    ///
    /// A bare first word is the value of `file`.
    pub fn parse_image(text: &str) -> Result<Self> {
        let options = Self::split(text, Some("file"));
        options.last("id").map_or(Ok(()), check_identifier)?;
        Ok(options)
    }

    /// Parses `--object`, for example `secret,id=sec0,data=x`; `implied_key` is the key of a bare
    /// first word.
    ///
    /// The errors name the offending key as QEMU's do.
    pub fn parse_keyval(text: &str, implied_key: &str) -> Result<Self> {
        keyval::parse(text, implied_key)
    }

    /// Parses an image specification, the part after `json:`.
    ///
    /// Nested objects and lists become dotted keys (`file.filename`, `a.0`), booleans `on` and
    /// `off`, and `null` and empty objects and lists the empty text.
    ///
    /// ```
    /// let spec = r#"{"driver": "luks", "file": {"filename": "a.luks"}}"#;
    /// let options = keyslot::qemu::Options::parse_json(spec)?;
    /// assert_eq!(options.last("file.filename"), Some("a.luks"));
    /// # Ok::<(), keyslot::Error>(())
    /// ```
    pub fn parse_json(text: &str) -> Result<Self> {
        let value = json::parse(text)
            .map_err(|fault| invalid(format!("Could not parse the JSON options: {fault}")))?;
        let Kind::Object(members) = value.0 else {
            return Err(invalid("Invalid JSON object given"));
        };
        let (mut options, mut nested) = (Self::new(), BTreeSet::new());
        let mut is_nested = Vec::new();
        for (key, value) in members {
            let nests = matches!(value.0, Kind::Object(_) | Kind::Array(_));
            options.flatten(key, value)?;
            let new = &options.pairs[is_nested.len()..];
            nested.extend(new.iter().filter(|_| nests).map(|(key, ..)| key.clone()));
            is_nested.resize(options.pairs.len(), nests);
        }
        // `"a": {"b": 1}` takes precedence over `"a.b": 2`, in either order.
        let mut is_nested = is_nested.into_iter();
        options.pairs.retain(|(key, ..)| is_nested.next() == Some(true) || !nested.contains(key));
        Ok(options)
    }

    /// Adds the options of another `-o` after these.
    pub fn append(&mut self, other: Self) {
        self.pairs.extend(other.pairs);
        self.help |= other.help;
    }

    /// Adds one option after these.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.push_secret(key.into(), Zeroizing::new(value.into()));
    }

    pub(crate) fn push_secret(&mut self, key: String, value: Zeroizing<String>) {
        self.pairs.push((key, value, Type::Text));
    }

    /// Value of `key`, if it is text and not another JSON type.
    fn text(&self, key: &str) -> Option<&str> {
        self.last(key).filter(|_| self.kind(key) == Type::Text)
    }

    /// The value of `key`. QEMU takes a null for an option that is not given.
    fn given(&self, key: &str) -> Option<&str> {
        self.last(key).filter(|_| self.kind(key) != Type::Null)
    }

    /// The type of the value of `key`.
    fn kind(&self, key: &str) -> Type {
        let last = self.pairs.iter().rev().find(|(name, ..)| name == key);
        last.map_or(Type::Null, |(.., kind)| *kind)
    }

    /// Drops an option without a value.
    fn drop_empty(&mut self, key: &str) {
        self.pairs
            .retain(|(name, value, kind)| name != key || *kind == Type::Empty || !value.is_empty());
    }

    /// Last value of `key`.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.iter().rev().find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    /// Keys and values in the order they were given.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> + ExactSizeIterator {
        self.pairs.iter().map(|(key, value, _)| (key.as_str(), value.as_str()))
    }

    /// Keys in the order they were given.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &str> + ExactSizeIterator {
        self.pairs.iter().map(|(key, ..)| key.as_str())
    }

    /// Whether the list has no options.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The options below `prefix` (`encrypt.`, `keys.0.`), without it.
    #[must_use]
    pub fn strip_prefix(&self, prefix: &str) -> Self {
        let below = |(key, value, kind): &(String, Zeroizing<String>, Type)| {
            key.strip_prefix(prefix).map(|key| (key.to_owned(), value.clone(), *kind))
        };
        Self { pairs: self.pairs.iter().filter_map(below).collect(), help: false }
    }

    /// Whether the list has a bare `help` or `?`, for which QEMU only prints the known options.
    pub fn asks_help(&self) -> bool {
        self.help
    }

    fn split(text: &str, implied_key: Option<&str>) -> Self {
        let mut options = Self::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['=', ',']).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            if let Some(value) = after.strip_prefix('=') {
                let (value, after) = split_value(value);
                options.push_secret(word.to_owned(), value);
                rest = after;
                continue;
            }
            if let Some(key) = implied_key.filter(|_| rest.len() == text.len()) {
                let (value, after) = split_value(rest);
                options.push_secret(key.to_owned(), value);
                rest = after;
                continue;
            }
            match word.strip_prefix("no") {
                _ if is_help(word) => options.help = true,
                Some(name) => options.push(name, "off"),
                None => options.push(word, "on"),
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        options
    }

    fn push_type(&mut self, key: String, value: &str, kind: Type) {
        self.pairs.push((key, Zeroizing::new(value.to_owned()), kind));
    }

    fn flatten(&mut self, key: String, value: Value) -> Result<()> {
        if key.len() > LONGEST_JSON_KEY {
            return Err(invalid(format!(
                "An option name in the JSON options is longer than {LONGEST_JSON_KEY} bytes"
            )));
        }
        match value.0 {
            Kind::Object(members) if !members.is_empty() => {
                for (name, value) in members {
                    self.flatten(format!("{key}.{name}"), value)?;
                }
            }
            Kind::Array(values) if !values.is_empty() => {
                for (index, value) in values.into_iter().enumerate() {
                    self.flatten(format!("{key}.{index}"), value)?;
                }
            }
            Kind::Object(_) | Kind::Array(_) => self.push_type(key, "", Type::Empty),
            Kind::Null => self.push_type(key, "", Type::Null),
            Kind::Bool(on) => self.push_type(key, if on { "on" } else { "off" }, Type::Bool),
            Kind::Number(text) => self.pairs.push((key, text, Type::Number)),
            Kind::String(text) => self.push_secret(key, text),
        }
        Ok(())
    }
}

/// Longest key in bytes: deep nesting turns short texts into very long keys.
const LONGEST_JSON_KEY: usize = 1023;

/// Splits off a value up to the next single comma; `,,` is a comma in the value.
fn split_value(text: &str) -> (Zeroizing<String>, &str) {
    let mut end = text.len();
    let mut commas = 0;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((index, byte)) = bytes.next() {
        if byte != b',' {
            continue;
        }
        if bytes.next_if(|(_, next)| *next == b',').is_none() {
            end = index;
            break;
        }
        commas += 1;
    }
    let mut value = Zeroizing::new(String::with_capacity(end - commas));
    for (index, part) in text[..end].split(",,").enumerate() {
        if index > 0 {
            value.push(',');
        }
        value.push_str(part);
    }
    (value, text.get(end + 1..).unwrap_or(""))
}

fn is_help(word: &str) -> bool {
    word == "help" || word == "?"
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(key, value)| (key, if key == "data" { ".." } else { value });
        f.debug_map().entries(self.iter().map(shown)).finish()
    }
}

#[cfg(test)]
mod tests;
