//! Booleans, numbers and sizes, in all the forms that QEMU accepts.

use super::invalid;
use super::words::with_qemu_hint;
use crate::error::Result;

/// Parses the boolean of option `key`: `on`, `yes`, `true`, `y` or the opposites.
///
/// ```
/// assert!(keyslot::qemu::boolean("read-only", "yes")?);
/// # Ok::<(), keyslot::Error>(())
/// ```
pub fn boolean(key: &str, value: &str) -> Result<bool> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(invalid(format!("Parameter '{key}' expects 'on' or 'off'"))),
    }
}

/// Parses the number of option `key` as C's `strtoull` with base 0 would: blanks and a sign
/// before it, `0x` for hexadecimal and `0` for octal.
///
/// ```
/// assert_eq!(keyslot::qemu::number("keyslot", "0x3")?, 3);
/// assert!(keyslot::qemu::number("keyslot", "1k").is_err());
/// # Ok::<(), keyslot::Error>(())
/// ```
pub fn number(key: &str, value: &str) -> Result<i64> {
    let (negative, digits) = split_sign(value);
    let magnitude = match split_hexadecimal(digits) {
        Some(digits) => magnitude(digits, 16),
        None if digits.starts_with('0') => magnitude(digits, 8),
        None => magnitude(digits, 10),
    }
    .ok_or_else(|| invalid(format!("Parameter '{key}' expects a number")))?;
    if magnitude > u128::from(u64::MAX) {
        return Err(invalid(format!("Value '{value}' is too large for parameter '{key}'")));
    }
    // The magnitude has at most 64 bits, so the conversion succeeds.
    let signed = i128::try_from(magnitude).unwrap_or(i128::MAX);
    i64::try_from(if negative { -signed } else { signed })
        .map_err(|_| invalid(format!("Parameter '{key}' expects integer")))
}

/// Parses the size of option `key`: `512`, `0x200`, `10M`, `1.5G`.
///
/// ```
/// assert_eq!(keyslot::qemu::size("size", "1.5k")?, 1536);
/// # Ok::<(), keyslot::Error>(())
/// ```
pub fn size(key: &str, value: &str) -> Result<u64> {
    parse_size(value).map_err(|fault| match fault {
        SizeFault::Range => {
            invalid(format!("Value '{value}' is out of range for parameter '{key}'"))
        }
        SizeFault::Syntax => {
            let text = format!("Parameter '{key}' expects a non-negative number below 2^64");
            let hint = "Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n\
                        and exabytes, respectively.";
            with_qemu_hint(invalid(text), hint)
        }
    })
}

/// Parses the SIZE that `create` takes after the file's name.
pub fn image_size(value: &str) -> Result<u64> {
    size_argument("image size", value)
}

/// Parses another size on QEMU's command lines; `what` is its name in the error.
pub fn size_argument(what: &str, value: &str) -> Result<u64> {
    match parse_size(value) {
        Ok(size) if i64::try_from(size).is_ok() => Ok(size),
        Err(SizeFault::Syntax) => Err(invalid(format!("Invalid {what} specified: '{value}'."))),
        Ok(_) | Err(SizeFault::Range) => {
            let most = i64::MAX;
            Err(invalid(format!("Invalid {what} specified. Must be between 0 and {most}.")))
        }
    }
}

enum SizeFault {
    Range,
    Syntax,
}

fn parse_size(value: &str) -> std::result::Result<u64, SizeFault> {
    let (negative, digits) = split_sign(value);
    if let Some(digits) = split_hexadecimal(digits) {
        return match magnitude(digits, 16) {
            Some(size) if !negative => u64::try_from(size).map_err(|_| SizeFault::Range),
            _ => Err(SizeFault::Syntax),
        };
    }
    let (whole, rest) = digits.split_at(run_of_digits(digits));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(run_of_digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(SizeFault::Syntax);
    }
    let unit = unit(suffix).ok_or(SizeFault::Syntax)?;
    let size = magnitude(if whole.is_empty() { "0" } else { whole }, 10);
    let size = u64::try_from(size.unwrap_or(u128::MAX)).ok().filter(|_| !negative);
    let Some(size) = size else {
        // QEMU ignores everything after a number that is too large.
        let alone = rest.is_empty() || whole.is_empty();
        return Err(if alone { SizeFault::Range } else { SizeFault::Syntax });
    };
    let part = part_of_unit(fraction, unit).ok_or(SizeFault::Syntax)?;
    size.checked_mul(unit).and_then(|size| size.checked_add(part)).ok_or(SizeFault::Range)
}

/// `unit` times 0.`digits`, rounded. `None` for a fraction of a byte.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::cast_sign_loss)]
fn part_of_unit(digits: &str, unit: u64) -> Option<u64> {
    if digits.bytes().all(|digit| digit == b'0') {
        return Some(0);
    }
    let fraction: f64 = format!("0.{digits}").parse().ok()?;
    // Digits that round to 1.0 in a double count as 1, as in QEMU.
    if unit == 1 && fraction < 1.0 {
        return None;
    }
    Some((fraction * unit as f64 + 0.5) as u64)
}

fn unit(suffix: &str) -> Option<u64> {
    Some(match suffix {
        "" | "b" | "B" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        "e" | "E" => 1 << 60,
        _ => return None,
    })
}

fn split_sign(value: &str) -> (bool, &str) {
    let value = value.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    }
}

fn split_hexadecimal(digits: &str) -> Option<&str> {
    digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"))
}

fn run_of_digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

/// Value of a string of digits. Saturates if it does not fit.
fn magnitude(digits: &str, radix: u32) -> Option<u128> {
    if digits.is_empty() {
        return None;
    }
    digits.chars().try_fold(0_u128, |value, digit| {
        let digit = digit.to_digit(radix)?;
        Some(value.saturating_mul(radix.into()).saturating_add(digit.into()))
    })
}

#[cfg(test)]
mod tests {
    //! Tests against the results of qemu-img 10.0.2.

    use std::fmt;

    use super::*;

    fn message<T: fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().message().to_owned()
    }

    #[test]
    fn numbers() {
        for (text, value) in [
            ("0x3", 3),
            ("0X1", 1),
            ("01", 1),
            ("017", 15),
            (" 1", 1),
            ("\t\n\x0b1", 1),
            ("+1", 1),
            ("-0x1", -1),
            ("-0", 0),
            ("00000000000000000000000000000001", 1),
            ("9223372036854775807", i64::MAX),
            ("-9223372036854775808", i64::MIN),
        ] {
            assert_eq!(number("keyslot", text).unwrap(), value, "{text:?}");
        }
        for text in
            ["", "1k", "1.5", "0b1", "08", "1 ", "- 1", "--1", "+-1", "0x", "0xg", "1e3", "٣"]
        {
            assert_eq!(message(number("keyslot", text)), "Parameter 'keyslot' expects a number");
        }
        for text in ["9223372036854775808", "0xffffffffffffffff", "-9223372036854775809"] {
            assert_eq!(message(number("keyslot", text)), "Parameter 'keyslot' expects integer");
        }
        let huge = "9".repeat(100);
        for text in ["18446744073709551616", "-18446744073709551616", "0x10000000000000000", &huge]
        {
            let expected = format!("Value '{text}' is too large for parameter 'keyslot'");
            assert_eq!(message(number("keyslot", text)), expected);
        }
    }

    #[test]
    fn booleans() {
        for (text, value) in [("on", true), ("y", true), ("no", false), ("false", false)] {
            assert_eq!(boolean("read-only", text).unwrap(), value, "{text:?}");
        }
        for text in ["", "On", "1", "maybe"] {
            let expected = "Parameter 'read-only' expects 'on' or 'off'";
            assert_eq!(message(boolean("read-only", text)), expected);
        }
    }

    #[test]
    fn sizes() {
        for (text, value) in [
            ("512", 512),
            ("10M", 10 << 20),
            ("1.5G", 3 << 29),
            ("0", 0),
            ("+1", 1),
            ("\t1", 1),
            ("0x1e", 30),
            ("010M", 10 << 20),
            ("1B", 1),
            (".5M", 1 << 19),
            ("1.", 1),
            (".0", 0),
            ("1.k", 1024),
            ("1.1k", 1126),
            ("1.9k", 1946),
            ("0.0019k", 2),
            ("1.99999999999999999999k", 2048),
            ("0.9999999999999999999b", 1),
            ("7.99E", 9_211_842_821_808_707_328),
            ("9007199254740993", 9_007_199_254_740_993),
        ] {
            assert_eq!(size("size", text).unwrap(), value, "{text:?}");
            assert_eq!(image_size(text).unwrap(), value, "{text:?}");
        }
        for text in [
            "",
            "x",
            ".",
            ".k",
            "1.5",
            "0.1",
            "1.9b",
            "1..",
            "1.5.5",
            "1e3",
            "1.5e1M",
            "1Z",
            "1KB",
            "1M ",
            "1 M",
            "0x",
            "0x10M",
            "0x1.8",
            "-1k",
            "-1.5",
            "-0x10",
            "- 1",
            "+-1",
            "nan",
            "inf",
            "1_0",
            "00x10",
            "99999999999999999999k",
            "99999999999999999999.5",
            "1.0000000000000000000001",
        ] {
            let error = size("size", text).unwrap_err();
            assert_eq!(
                error.message(),
                "Parameter 'size' expects a non-negative number below 2^64",
                "{text:?}"
            );
            assert!(error.hint().unwrap().ends_with("peta-\nand exabytes, respectively."));
            assert_eq!(
                message(image_size(text)),
                format!("Invalid image size specified: '{text}'.")
            );
        }
        for text in
            ["-1", "-0", "-.5", "16E", "18446744073709551616", "65536P", "0xfffffffffffffffff"]
        {
            let expected = format!("Value '{text}' is out of range for parameter 'size'");
            assert_eq!(message(size("size", text)), expected);
        }
        assert_eq!(size("size", "18446744073709551615").unwrap(), u64::MAX);
        for text in
            ["-1", "8E", "9223372036854775808", "18446744073709551615.9999999999999999999999"]
        {
            assert_eq!(
                message(image_size(text)),
                "Invalid image size specified. Must be between 0 and 9223372036854775807."
            );
        }
    }
}
