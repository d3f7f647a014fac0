//! JSON as QEMU parses it: strings may have single quotes, keys are unique, and errors have QEMU's
//! texts.

use std::fmt;

use crate::json::{self, Rules, Value, Wrong};

/// QEMU's dialect (its `qobject/json-parser.c`).
const RULES: Rules = Rules {
    single_quotes: true,
    noncharacters: false,
    key_twice: false,
    max_depth: 128,
    max_values: usize::MAX,
};

/// First fault of a text, in QEMU's words.
pub(crate) struct Fault<'a>(json::Fault<'a>);

/// Parses `text`, which must be a single value.
pub(crate) fn parse(text: &str) -> Result<Value, Fault<'_>> {
    json::parse(text, &RULES).map_err(Fault)
}

impl Fault<'_> {
    /// Message without any piece of the text, which may be a part of a secret.
    pub(crate) fn redacted(&self) -> String {
        let (before, after) = self.text();
        format!("{}{after}", before.trim_end())
    }

    /// Message before and after the piece of the text.
    fn text(&self) -> (&'static str, &'static str) {
        let before = match self.0.wrong {
            Wrong::Deep | Wrong::Many => "JSON nesting depth limit exceeded",
            Wrong::DuplicateKey => "JSON parse error, duplicate key",
            Wrong::Empty => "Expecting a JSON value",
            Wrong::End => "JSON parse error, premature EOI",
            Wrong::Escape => "JSON parse error, invalid escape sequence in string",
            Wrong::KeyKind => "JSON parse error, key is not a string in object",
            Wrong::Keyword => "JSON parse error, invalid keyword ",
            Wrong::NoColon => "JSON parse error, missing : in object pair",
            Wrong::NoCommaInArray => "JSON parse error, expected separator in list",
            Wrong::NoCommaInObject => "JSON parse error, expected separator in dict",
            Wrong::NoValue => "JSON parse error, expecting value",
            Wrong::Noncharacter => "JSON parse error, invalid UTF-8 sequence in string",
            Wrong::Stray => "JSON parse error, stray ",
            Wrong::Trailing => "Expecting at most one JSON value",
            Wrong::UnicodeEscape => {
                return ("JSON parse error, ", " is not a valid Unicode character");
            }
        };
        (before, "")
    }
}

impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.text();
        let piece = self.0.piece;
        match self.0.wrong {
            Wrong::Keyword | Wrong::Stray => write!(f, "{before}'{piece}'{after}"),
            Wrong::UnicodeEscape => write!(f, "{before}\\u{piece}{after}"),
            _ => f.write_str(before),
        }
    }
}
