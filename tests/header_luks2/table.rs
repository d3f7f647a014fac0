//! What a row of the table is, and the changes it can make.
//!
//! The image that is changed is `testdata/luks2_keyslots.img`: copies of 16384 bytes, areas from
//! byte 32768 to byte 360448, where the data begins; keyslots 0, 3, 5 and 7.

pub use crate::support::luks2::Change;
pub use Verdict::{Accepts, Refuses};

use keyslot::ErrorKind;
use serde_json::Value;

#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub change: Change,
    /// `None` if it is a valid header to us
    pub ours: Option<(ErrorKind, &'static str)>,
    /// cryptsetup's `luksDump`
    pub cryptsetup: Verdict,
    /// Why we refuse what it takes
    pub because: &'static str,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Accepts,
    Refuses,
}

pub const BOUND: &str = "cryptsetup finds out when it opens the keyslot, or computes for hours";
pub const DIGEST: &str = "cryptsetup finds out when it opens a keyslot of this digest";
pub const JSON: &str = "json-c takes what is not JSON (RFC 8259), and no program writes it";
pub const NAME: &str = "another name of 0";
pub const NUMBERS: &str = "LUKS2 has 32 of them, and cryptsetup aborts over a token 32";
pub const OPAL: &str = "cryptsetup 2.6 does not know Opal; 2.7 refuses it as we do";
pub const OVERFLOW: &str = "no device ends there; cryptsetup finds out when it maps the segment";
pub const PRIORITY: &str = "cryptsetup has no such priority, and never tries the keyslot";
pub const SMALL_AREA: &str = "cryptsetup reads key material beyond the area";
pub const STRIPES: &str = "cryptsetup takes no notice of the number, others may";

pub fn row(
    name: &'static str,
    change: Change,
    ours: Option<(ErrorKind, &'static str)>,
    cryptsetup: Verdict,
    because: &'static str,
) -> Case {
    Case { name, change, ours, cryptsetup, because }
}

#[allow(clippy::unnecessary_wraps, reason = "rows are easier to read")]
pub fn corrupt(text: &'static str) -> Option<(ErrorKind, &'static str)> {
    Some((ErrorKind::Corrupt, text))
}

#[allow(clippy::unnecessary_wraps, reason = "rows are easier to read")]
pub fn unsupported(text: &'static str) -> Option<(ErrorKind, &'static str)> {
    Some((ErrorKind::Unsupported, text))
}

#[allow(clippy::unnecessary_wraps, reason = "rows are easier to read")]
pub fn not_luks(text: &'static str) -> Option<(ErrorKind, &'static str)> {
    Some((ErrorKind::NotLuks, text))
}

pub fn set(values: Vec<(&'static str, Value)>) -> Change {
    Change::Set(values)
}

pub fn both(one: Change, other: Change) -> Change {
    Change::Both(Box::new(one), Box::new(other))
}

pub fn only(copy: usize, change: Change) -> Change {
    Change::Only(copy, Box::new(change))
}

pub fn binary(offset: usize, bytes: &[u8]) -> Change {
    Change::Binary(offset, bytes.into())
}

/// Another algorithm for the checksum.
pub fn checksum(name: &str) -> Change {
    let mut field = [0; 32];
    field[..name.len()].copy_from_slice(name.as_bytes());
    binary(72, &field)
}

/// Other text in place of the metadata.
pub fn text(text: &str) -> Change {
    let mut area = vec![0; 12288];
    area[..text.len()].copy_from_slice(text.as_bytes());
    Change::Area(0, area)
}

/// Something behind the metadata's last brace.
pub fn behind(what: &'static str) -> Change {
    let whole = r#""json_size":"12288","keyslots_size":"327680"}}"#;
    let with: &str = Box::leak(format!("{whole}{what}").into_boxed_str());
    Change::Text(whole, with)
}

pub fn digits() -> Change {
    let with: &str = Box::leak(format!("[{},", "1".repeat(300)).into_boxed_str());
    Change::Text("[null,", with)
}

/// Arrays in each other, in a token.
pub fn nested(depth: usize) -> Change {
    let with = format!("[{}{},", "[".repeat(depth), "]".repeat(depth));
    Change::Text("[null,", Box::leak(with.into_boxed_str()))
}

/// Keyslot 0 under another number, in its digest and its token as well.
pub fn renamed(name: &'static str) -> Change {
    let leak = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
    let from = r#"{"0":{"type":"luks2""#;
    let slot = Change::Text(from, leak(from.replace('0', name)));
    let digest = Change::Text(
        r#""type":"pbkdf2","keyslots":["0""#,
        leak(format!(r#""type":"pbkdf2","keyslots":["{name}""#)),
    );
    let token = Change::Text(
        r#""nobody-knows","keyslots":["0""#,
        leak(format!(r#""nobody-knows","keyslots":["{name}""#)),
    );
    both(slot, both(digest, token))
}
