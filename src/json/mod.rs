//! JSON values that keep the order of members and the spelling of numbers.
//!
//! One parser reads LUKS2 metadata and QEMU's option strings. They differ in their `Rules`.

mod parse;
mod token;
mod write;

use std::fmt;

use zeroize::Zeroizing;

#[cfg(feature = "qemu")]
pub(crate) use self::parse::Fault;
pub(crate) use self::parse::{Rules, Wrong, parse};
pub(crate) use self::write::quoted;

/// A JSON value.
///
/// Parsed by [`str::parse`] and written by [`ToString`], without spaces. Members keep their order
/// and numbers their spelling, of any length. Strings and numbers are wiped from memory when
/// dropped, because they may be secrets.
///
/// ```
/// use keyslot::json::Value;
///
/// let value: Value = r#"{ "z": 1.10, "a": 123456789012345678901234567890 }"#.parse()?;
/// assert_eq!(value.to_string(), r#"{"z":1.10,"a":123456789012345678901234567890}"#);
/// # Ok::<(), keyslot::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Value(pub(crate) Kind);

/// The six kinds of JSON values.
#[derive(Clone, Eq, PartialEq)]
pub(crate) enum Kind {
    Array(Vec<Value>),
    Bool(bool),
    Null,
    /// The number as spelled in the text
    Number(Zeroizing<String>),
    Object(Object),
    String(Zeroizing<String>),
}

/// The members of a JSON object, in order. Equality ignores the order.
#[derive(Clone, Default)]
pub struct Object(Vec<(String, Value)>);

impl Value {
    /// The member called `name`, if the value is an object that has one.
    pub fn get(&self, name: &str) -> Option<&Self> {
        self.as_object()?.get(name)
    }

    /// The members, if the value is an object.
    pub fn as_object(&self) -> Option<&Object> {
        match &self.0 {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The members, if the value is an object.
    pub fn as_object_mut(&mut self) -> Option<&mut Object> {
        match &mut self.0 {
            Kind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The items, if the value is an array.
    pub fn as_array(&self) -> Option<&[Self]> {
        match &self.0 {
            Kind::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The items, if the value is an array.
    pub fn as_array_mut(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.0 {
            Kind::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The text, if the value is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.0 {
            Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if the value is an integer that fits 64 bits. `1.0` and `1e3` are not integers.
    pub fn as_i64(&self) -> Option<i64> {
        match &self.0 {
            Kind::Number(text) => text.parse().ok(),
            _ => None,
        }
    }
}

impl Object {
    /// An object without members.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The member called `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    /// The member called `name`, mutable.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// Names and values, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Value)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The values, in order, mutable.
    pub fn values_mut(&mut self) -> impl ExactSizeIterator<Item = &mut Value> {
        self.0.iter_mut().map(|(_, value)| value)
    }

    /// Sets the member called `name`: in place if it exists, otherwise at the end.
    pub fn insert(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.get_mut(name) {
            Some(place) => *place = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }

    /// Removes the member called `name`. The others keep their order.
    pub fn remove(&mut self, name: &str) -> Option<Value> {
        let place = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.remove(place).1)
    }

    /// Removes the members for which `keep` returns false.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &Value) -> bool) {
        self.0.retain(|(key, value)| keep(key, value));
    }
}

impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        // Sorted, because an object of a hostile header may have tens of thousands of members.
        let sorted = |object: &'_ Self| {
            let mut places: Vec<_> = (0..object.len()).collect();
            places.sort_unstable_by(|&a, &b| object.0[a].0.cmp(&object.0[b].0));
            places
        };
        self.len() == other.len()
            && sorted(self).into_iter().zip(sorted(other)).all(|(a, b)| self.0[a] == other.0[b])
    }
}

impl Eq for Object {}

impl IntoIterator for Object {
    type Item = (String, Value);
    type IntoIter = std::vec::IntoIter<(String, Value)>;

    /// Names and values, in order.
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<String>, V: Into<Value>> FromIterator<(K, V)> for Object {
    /// The names must be distinct.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(members: I) -> Self {
        Self(members.into_iter().map(|(key, value)| (key.into(), value.into())).collect())
    }
}

impl<K: Into<String>, V: Into<Value>, const N: usize> From<[(K, V); N]> for Object {
    fn from(members: [(K, V); N]) -> Self {
        members.into_iter().collect()
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Self {
        Self(Kind::Array(items.into_iter().map(Into::into).collect()))
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        Self(Kind::Object(object))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self(Kind::String(Zeroizing::new(text)))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self(Kind::Number(Zeroizing::new(number.to_string())))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        u64::from(number).into()
    }
}

/// Shows only the kind: the value may be a secret.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Kind::Array(_) => "Array(..)",
            Kind::Bool(_) => "Bool(..)",
            Kind::Null => "Null",
            Kind::Number(_) => "Number(..)",
            Kind::Object(_) => "Object(..)",
            Kind::String(_) => "String(..)",
        })
    }
}

/// Shows only the number of members: they may be secrets.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({} members)", self.len())
    }
}
