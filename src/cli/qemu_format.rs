//! Sizes, JSON and lists in the format of qemu-img, for programs that parse its output.

use std::fmt::Write;

use keyslot::{Error, Result};
use serde::Serialize;
use serde_json::Value;

use super::output;

/// Formats a size with three significant digits, in the unit that keeps it below 1000: `9.97 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are printed")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}B", three_digits(value), UNITS[unit])
}

/// C's `%.3g` for 0 and for values from 0.5 to 1000.
fn three_digits(value: f64) -> String {
    let decimals = match value {
        0.0 => 0,
        v if v < 0.99995 => 3,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    let text = format!("{value:.decimals$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}

/// Formats JSON as `info` prints it: QEMU's indent of four, one member per line, ASCII only.
pub fn json(value: &(impl Serialize + ?Sized)) -> Result<String> {
    let mut out = String::new();
    write_json(&mut out, &members(value)?, 0);
    Ok(out)
}

/// A string in JSON, ASCII only.
pub fn json_string(text: &str) -> String {
    let mut out = String::new();
    write_string(&mut out, text);
    out
}

/// Formats JSON on one line, as all other commands print it.
pub fn json_line(value: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string(value).map_err(not_json)?;
    Ok(output::json_text(&(text + "\n")))
}

/// The members of a report, in their order.
fn members(value: &(impl Serialize + ?Sized)) -> Result<Value> {
    serde_json::to_value(value).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> Error {
    Error::io("write JSON", error.into())
}

fn write_json(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(members) => {
            let item = |out: &mut String, (key, value): (&String, &Value)| {
                write_string(out, key);
                out.push_str(": ");
                write_json(out, value, depth + 1);
            };
            write_list(out, ['{', '}'], members.iter(), depth, item);
        }
        Value::Array(items) => {
            let item = |out: &mut String, value| write_json(out, value, depth + 1);
            write_list(out, ['[', ']'], items.iter(), depth, item);
        }
        Value::String(text) => write_string(out, text),
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

fn write_list<T>(
    out: &mut String,
    [open, close]: [char; 2],
    items: impl Iterator<Item = T>,
    depth: usize,
    mut write_item: impl FnMut(&mut String, T),
) {
    out.push(open);
    for (i, item) in items.enumerate() {
        out.push_str(if i == 0 { "\n" } else { ",\n" });
        out.push_str(&INDENT.repeat(depth + 1));
        write_item(out, item);
    }
    out.push('\n');
    out.push_str(&INDENT.repeat(depth));
    out.push(close);
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            ' '..='~' => out.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
    out.push('"');
}

/// Formats a value as QEMU's `Format specific information`: dashes in names become spaces, list
/// items are named by their index in brackets.
pub fn human(value: &impl Serialize, depth: usize) -> Result<String> {
    let mut out = String::new();
    write_human(&mut out, &members(value)?, depth);
    Ok(out)
}

fn write_human(out: &mut String, value: &Value, depth: usize) {
    let mut line = |name: String, value: &Value| {
        let indent = INDENT.repeat(depth);
        match value {
            Value::Object(_) | Value::Array(_) => {
                let _ = writeln!(out, "{indent}{name}:");
                write_human(out, value, depth + 1);
            }
            Value::String(text) => {
                let _ = writeln!(out, "{indent}{name}: {}", output::foreign(text));
            }
            other => {
                let _ = writeln!(out, "{indent}{name}: {other}");
            }
        }
    };
    match value {
        Value::Object(members) => {
            members
                .iter()
                .for_each(|(key, value)| line(output::foreign(key).replace('-', " "), value));
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, value)| line(format!("[{i}]"), value));
        }
        _ => {}
    }
}

const INDENT: &str = "    ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_as_qemu_img_prints_them() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1000, "0.977 KiB"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (10_240_000, "9.77 MiB"),
            (10_457_088, "9.97 MiB"),
            (1_047_527_424, "999 MiB"),
            (123_456_789_504, "115 GiB"),
            (1_100_000_000_000, "1 TiB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn empty_lists_take_two_lines() {
        assert_eq!(json(&serde_json::json!({ "a": [] })).unwrap(), "{\n    \"a\": [\n    ]\n}");
    }
}
