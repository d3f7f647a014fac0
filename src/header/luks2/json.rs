//! The JSON area, and members of it that know where they stand.

use base64ct::{Base64, Encoding};

use super::corrupt;
use crate::error::{Error, Result};
use crate::json::{self, Kind, Object, Rules, Value, Wrong};

/// The text in a JSON area and the object that it is.
///
/// Stricter than json-c, which takes comments, single quotes, raw control characters and what is
/// not UTF-8: no program writes those.
pub(super) fn parse_area(area: &[u8]) -> Result<(&str, Object)> {
    let Some(end) = area.iter().position(|&byte| byte == 0) else {
        return Err(corrupt("the JSON area does not end with a NUL"));
    };
    let (text, rest) = area.split_at(end);
    if let Some(at) = rest.iter().position(|&byte| byte != 0) {
        let text = format!("byte {} of the JSON area, behind its text, is not NUL", end + at);
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
        _ => Err(corrupt("the JSON text is no object")),
    }
}

/// A member of the metadata: its value, and its path for error texts.
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

    /// A member that must be there.
    pub fn member(&self, name: &str) -> Result<Self> {
        self.optional(name)?.ok_or_else(|| missing(&self.path_to(name)))
    }

    /// A member, if it is there.
    pub fn optional(&self, name: &str) -> Result<Option<Self>> {
        let value = self.object()?.get(name);
        Ok(value.map(|value| Self { value, path: self.path_to(name) }))
    }

    /// Members by their numbers, ascending.
    pub fn numbered(&self) -> Result<Vec<(u32, Self)>> {
        let mut found = Vec::new();
        for (key, value) in self.object()?.iter() {
            let path = format!("{}.{}", self.path, shown(&Value::from(key)));
            let number = number_of(key).ok_or_else(|| {
                corrupt(format!("{path}: a number from 0 to {MAX_NUMBER} is its name"))
            })?;
            found.push((number, Self { value, path }));
        }
        found.sort_by_key(|(number, _)| *number);
        Ok(found)
    }

    /// The members of an array.
    pub fn items(&self) -> Result<Vec<Self>> {
        let items = self.value.as_array().ok_or_else(|| self.wrong("it must be an array"))?;
        let item = |(i, value)| Self { value, path: format!("{}[{i}]", self.path) };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// An array of the names of numbered members.
    pub fn numbers(&self) -> Result<Vec<u32>> {
        self.items()?.iter().map(Self::number).collect()
    }

    /// The name of a numbered member.
    fn number(&self) -> Result<u32> {
        number_of(self.string()?).ok_or_else(|| self.wrong("there is none of that number"))
    }

    /// An array of strings.
    pub fn strings(&self) -> Result<Vec<String>> {
        self.items()?.iter().map(|item| item.string().map(str::to_owned)).collect()
    }

    /// Any string.
    pub fn string(&self) -> Result<&'a str> {
        self.value.as_str().ok_or_else(|| self.wrong("it must be a string"))
    }

    /// A string of a character at least.
    pub fn name(&self) -> Result<&'a str> {
        match self.string()? {
            "" => Err(self.wrong("it must not be empty")),
            name => Ok(name),
        }
    }

    /// A string of decimal digits: how the metadata writes numbers of 64 bits.
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

    /// An integer of 32 bits, and not 0.
    pub fn count(&self) -> Result<u32> {
        let number = u32::try_from(self.integer()?).ok().filter(|&number| number > 0);
        number.ok_or_else(|| self.wrong("it must be from 1 to 4294967295"))
    }

    /// An integer of 32 bits.
    pub fn unsigned(&self) -> Result<u32> {
        u32::try_from(self.integer()?).map_err(|_| self.wrong("it must be from 0 to 4294967295"))
    }

    /// Bytes in base64, as many as `len` has.
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

    /// The error of a value that cannot be.
    pub fn wrong(&self, why: impl std::fmt::Display) -> Error {
        let shown = shown(self.value);
        corrupt(format!("{} is {shown}: {why}", self.path))
    }

    /// Refuses what is no object.
    pub fn object(&self) -> Result<&'a Object> {
        self.value.as_object().ok_or_else(|| self.wrong("it must be an object"))
    }

    fn path_to(&self, name: &str) -> String {
        format!("{}.{}", self.path, name.escape_debug())
    }
}

/// A value for an error: the start of it, in one line.
pub(super) fn shown(value: &Value) -> String {
    let mut text = printable(&value.to_string());
    if let Some((end, _)) = text.char_indices().nth(SHOWN) {
        text.truncate(end);
        text.push_str("...");
    }
    text
}

/// What a terminal would obey is escaped; JSON lets some of it stand.
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

/// A number as it names a member: decimal, nothing before it.
fn number_of(name: &str) -> Option<u32> {
    let number = name.parse().ok().filter(|&number| number <= MAX_NUMBER)?;
    (u32::to_string(&number) == name).then_some(number)
}

/// The last keyslot, token, segment or digest that there can be.
const MAX_NUMBER: u32 = 31;
/// Characters of a value that an error shows
const SHOWN: usize = 60;
