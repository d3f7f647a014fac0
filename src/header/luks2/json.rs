//! The JSON area, and its members with their paths for error messages.

use base64ct::{Base64, Encoding};

use super::corrupt;
use crate::error::{Error, Result};
use crate::json::{self, Kind, Object, Rules, Value, Wrong};

/// Parses a JSON area into its text and its object.
///
/// The parser is stricter than json-c, which accepts comments, single quotes, raw control characters and
/// invalid UTF-8. No program writes those.
pub(super) fn parse_area(area: &[u8]) -> Result<(&str, Object)> {
    let Some(end) = area.iter().position(|&byte| byte == 0) else {
        return Err(corrupt("the JSON area does not end with a NUL"));
    };
    let (text, rest) = area.split_at(end);
    if let Some(at) = rest.iter().position(|&byte| byte != 0) {
        let text = format!("byte {} of the JSON area, after its text, is not NUL", end + at);
        return Err(corrupt(text));
    }
    let text = str::from_utf8(text).map_err(|error| {
        corrupt(format!("the JSON text is not UTF-8 at byte {}", error.valid_up_to()))
    })?;
    if !text.starts_with('{') {
        return Err(corrupt("the JSON text does not begin with '{'"));
    }
    let value = json::parse(text, &Rules::STRICT).map_err(|fault| {
        corrupt(match fault.wrong {
            Wrong::Deep => {
                format!("the JSON text is nested deeper than {}", Rules::STRICT.max_depth)
            }
            Wrong::Many => {
                format!("the JSON text has more than {} values", Rules::STRICT.max_values)
            }
            _ => format!("the JSON text is malformed: {fault}"),
        })
    })?;
    match value.0 {
        Kind::Object(members) => Ok((text, members)),
        _ => Err(corrupt("the JSON text is not an object")),
    }
}

/// A member of the metadata, with its path for error messages.
#[derive(Clone)]
pub(super) struct Member<'a> {
    value: &'a Value,
    path: String,
}

impl<'a> Member<'a> {
    /// A member of the metadata's outermost object.
    pub fn top(members: &'a Object, name: &str) -> Result<Self> {
        let value = members.get(name).ok_or_else(|| missing(name))?;
        Ok(Self { value, path: name.to_owned() })
    }

    /// Required member.
    pub fn member(&self, name: &str) -> Result<Self> {
        self.optional(name)?.ok_or_else(|| missing(&self.path_to(name)))
    }

    /// Optional member.
    pub fn optional(&self, name: &str) -> Result<Option<Self>> {
        let value = self.object()?.get(name);
        Ok(value.map(|value| Self { value, path: self.path_to(name) }))
    }

    /// Members with numbers as keys, in ascending order.
    pub fn numbered(&self) -> Result<Vec<(u32, Self)>> {
        let mut found = Vec::new();
        for (key, value) in self.object()?.iter() {
            let path = format!("{}.{}", self.path, shown(&Value::from(key)));
            let number = number_of(key).ok_or_else(|| {
                corrupt(format!("{path}: the key must be a number from 0 to {MAX_NUMBER}"))
            })?;
            found.push((number, Self { value, path }));
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// Items of an array.
    pub fn items(&self) -> Result<Vec<Self>> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("it must be an array"))?;
        let item = |(i, value)| Self { value, path: format!("{}[{i}]", self.path) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// Array of the keys of numbered members.
    pub fn numbers(&self) -> Result<Vec<u32>> {
        self.items()?.iter().map(Self::number).collect()
    }

    /// Key of a numbered member.
    fn number(&self) -> Result<u32> {
        number_of(self.string()?)
            .ok_or_else(|| self.wrong(format_args!("it must be a number from 0 to {MAX_NUMBER}")))
    }

    /// Array of strings.
    pub fn strings(&self) -> Result<Vec<String>> {
        self.items()?.iter().map(|item| item.string().map(str::to_owned)).collect()
    }

    /// Any string.
    pub fn string(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wrong("it must be a string"))
    }

    /// String of at least one character.
    pub fn name(&self) -> Result<&'a str> {
        match self.string()? {
            "" => Err(self.wrong("it must not be empty")),
            name => Ok(name),
        }
    }

    /// String of decimal digits, which is the metadata's form of a 64-bit number.
    pub fn decimal(&self) -> Result<u64> {
        let text = self.string()?;
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok() } else { None };
        number.ok_or_else(|| self.wrong("it must be a string of digits, below 2^64"))
    }

    /// Any integer.
    pub fn integer(&self) -> Result<i64> {
        self.value.as_i64().ok_or_else(|| self.wrong("it must be an integer"))
    }

    /// Positive 32-bit integer.
    pub fn count(&self) -> Result<u32> {
        let number = u32::try_from(self.integer()?).ok().filter(|&number| number > 0);
        number.ok_or_else(|| self.wrong("it must be from 1 to 4294967295"))
    }

    /// Unsigned 32-bit integer.
    pub fn unsigned(&self) -> Result<u32> {
        u32::try_from(self.integer()?).map_err(|_| self.wrong("it must be from 0 to 4294967295"))
    }

    /// Base64 string whose decoded length is in `len`.
    pub fn base64(&self, len: std::ops::RangeInclusive<usize>) -> Result<Vec<u8>> {
        let bytes =
            Base64::decode_vec(self.string()?).map_err(|_| self.wrong("it must be base64"))?;
        if len.contains(&bytes.len()) {
            return Ok(bytes);
        }
        let (from, to) = (len.start(), len.end());
        let wanted = if from == to { from.to_string() } else { format!("{from} to {to}") };
        Err(self.wrong(format_args!("it must be {wanted} bytes")))
    }

    /// Error for an invalid value.
    pub fn wrong(&self, why: impl std::fmt::Display) -> Error {
        let shown = shown(self.value);
        corrupt(format!("{} is {shown}: {why}", self.path))
    }

    /// Object.
    pub fn object(&self) -> Result<&'a Object> {
        self.value.as_object().ok_or_else(|| self.wrong("it must be an object"))
    }

    fn path_to(&self, name: &str) -> String {
        format!("{}.{}", self.path, name.escape_debug())
    }
}

/// Formats the start of a value in one line, for an error message.
pub(super) fn shown(value: &Value) -> String {
    let mut text = printable(&value.to_string());
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// Escapes control characters, some of which JSON permits, because a terminal would obey them.
pub(super) fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

fn missing(path: &str) -> Error {
    corrupt(format!("{path} is missing"))
}

/// Parses a key: a decimal number without leading zeros or a sign.
fn number_of(name: &str) -> Option<u32> {
    let number = name.parse().ok().filter(|&number| number <= MAX_NUMBER)?;
    (u32::to_string(&number) == name).then_some(number)
}

/// Highest number of a keyslot, token, segment or digest.
const MAX_NUMBER: u32 = 31;
/// Maximum number of characters of a value in an error message
const SHOWN: usize = 60;
