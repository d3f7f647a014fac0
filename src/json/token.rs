//! The tokens of a JSON text.

use super::parse::{Fault, Rules, Wrong};

/// A token, in its original spelling.
#[derive(Clone, Copy)]
pub(super) enum Token<'a> {
    Number(&'a str),
    Punctuation(u8),
    /// The string including its quotes
    String(&'a str),
    Word(&'a str),
}

/// Splits a text into tokens. A copy continues independently from the same position.
#[derive(Clone)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    /// Start of the next token
    at: usize,
    single_quotes: bool,
}

impl<'a> Tokens<'a> {
    pub fn new(text: &'a str, rules: &Rules) -> Self {
        Self { text, at: 0, single_quotes: rules.single_quotes }
    }

    /// End of the last token.
    pub fn at(&self) -> usize {
        self.at
    }

    fn one(&self, rest: &'a str) -> Result<(usize, Token<'a>), Fault<'a>> {
        let stray = |end| {
            let piece = through(rest, end);
            Fault::new(Wrong::Stray, self.text.len() - rest.len() + end).with(piece)
        };
        let first = rest.as_bytes()[0];
        Ok(match first {
            b'{' | b'[' | b'}' | b']' | b':' | b',' => (1, Token::Punctuation(first)),
            b'"' | b'\'' if first == b'"' || self.single_quotes => {
                let len = string_len(rest).map_err(stray)?;
                (len, Token::String(&rest[..len]))
            }
            b'-' | b'0'..=b'9' => {
                let len = number_len(rest).map_err(stray)?;
                (len, Token::Number(&rest[..len]))
            }
            b'a'..=b'z' => {
                let len = rest.bytes().take_while(u8::is_ascii_lowercase).count();
                (len, Token::Word(&rest[..len]))
            }
            _ => return Err(stray(0)),
        })
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Result<Token<'a>, Fault<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.text[self.at..].trim_start_matches(BLANKS);
        if rest.is_empty() {
            return None;
        }
        let start = self.text.len() - rest.len();
        Some(self.one(rest).map(|(len, token)| {
            self.at = start + len;
            token
        }))
    }
}

/// `text` up to and including the character at `index`, or all of it if it is shorter.
fn through(text: &str, index: usize) -> &str {
    let len = text[index..].chars().next().map_or(0, char::len_utf8);
    &text[..index + len]
}

/// Length of the string at the start of `text`, or the position of its fault.
fn string_len(text: &str) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let mut index = 1;
    while let Some(&byte) = bytes.get(index) {
        match byte {
            _ if byte == bytes[0] => return Ok(index + 1),
            b'\\' if bytes.get(index + 1).is_some_and(|next| (b' '..0x80).contains(next)) => {
                index += 2;
            }
            0..0x20 => return Err(index),
            _ => index += 1,
        }
    }
    Err(text.len())
}

/// Length of the number at the start of `text`, or the position of its fault.
fn number_len(text: &str) -> Result<usize, usize> {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        let run = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if run == 0 { Err(from) } else { Ok(from + run) }
    };
    let start = usize::from(bytes[0] == b'-');
    let mut end = digits(start)?;
    if bytes[start] == b'0' && end > start + 1 {
        return Err(start + 1);
    }
    if bytes.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
        end = digits(end + 1 + sign)?;
    }
    Ok(end)
}

/// Whitespace of JSON (RFC 8259, section 2)
pub(super) const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];
