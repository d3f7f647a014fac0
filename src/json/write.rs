//! Writes JSON values without spaces, as json-c and `serde_json` do.

use std::fmt::{self, Display, Formatter, Write};

use super::{Kind, Object, Value};

impl Display for Value {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Array(items) => {
                f.write_char('[')?;
                for (i, item) in items.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    item.fmt(f)?;
                }
                f.write_char(']')
            }
            Kind::Bool(value) => write!(f, "{value}"),
            Kind::Null => f.write_str("null"),
            Kind::Number(text) => f.write_str(text),
            Kind::Object(object) => object.fmt(f),
            Kind::String(text) => write_string(f, text),
        }
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_char('{')?;
        for (i, (key, value)) in self.iter().enumerate() {
            f.write_str(if i == 0 { "" } else { "," })?;
            write_string(f, key)?;
            f.write_char(':')?;
            value.fmt(f)?;
        }
        f.write_char('}')
    }
}

/// Writes the text as a JSON string, with its quotes.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    // Writing to a String cannot fail.
    let _ = write_string(&mut quoted, text);
    quoted
}

fn write_string(out: &mut impl Write, text: &str) -> fmt::Result {
    out.write_char('"')?;
    for char in text.chars() {
        match char {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\x08' => out.write_str("\\b"),
            '\x0c' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\0'..' ' => write!(out, "\\u{:04x}", u32::from(char)),
            char => out.write_char(char),
        }?;
    }
    out.write_char('"')
}
