//! JSON as QEMU reads it: strings in single quotes too, no key twice, and errors of its own.
//!
//! Like QEMU this cuts one whole value into tokens first and parses it then, so that the error
//! it finds is the one QEMU finds.

use std::collections::BTreeSet;
use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use zeroize::Zeroizing;

/// How deep objects and lists may nest.
const DEEPEST: usize = 128;

/// A parsed value. Texts are wiped on drop: they may be secrets.
pub(crate) enum Value {
    Array(Vec<Value>),
    Bool(bool),
    Null,
    Number(Zeroizing<String>),
    Object(Vec<(String, Value)>),
    String(Zeroizing<String>),
}

/// What is wrong with the text.
pub(crate) struct Fault {
    before: &'static str,
    /// A piece of the text, in the middle of the message.
    piece: Option<String>,
    after: &'static str,
}

/// Parses the one value that `text` has to be.
pub(crate) fn parse(text: &str) -> Result<Value, Fault> {
    let (tokens, rest) = tokens(text)?;
    if tokens.is_empty() {
        return Err(Fault::new("Expecting a JSON value"));
    }
    let value = Parser { tokens: tokens.into_iter().peekable() }.value()?;
    if rest.trim_start_matches(BLANKS).is_empty() {
        Ok(value)
    } else {
        Err(Fault::new("Expecting at most one JSON value"))
    }
}

impl Fault {
    /// The message without any piece of the text, which may be one of a secret.
    pub(crate) fn redacted(&self) -> String {
        format!("{}{}", self.before.trim_end(), self.after)
    }

    fn new(message: &'static str) -> Self {
        Self { before: message, piece: None, after: "" }
    }

    fn stray(piece: &str) -> Self {
        Self { piece: Some(format!("'{piece}'")), ..Self::new("JSON parse error, stray ") }
    }

    fn escape(piece: &str) -> Self {
        let piece = Some(format!("\\u{piece}"));
        Self { before: "JSON parse error, ", piece, after: " is not a valid Unicode character" }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let piece = self.piece.as_deref().unwrap_or("");
        write!(f, "{}{piece}{}", self.before, self.after)
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

#[derive(Clone, Copy)]
enum Token<'a> {
    Number(&'a str),
    Punctuation(u8),
    /// With its quotes.
    String(&'a str),
    Word(&'a str),
}

/// Cuts one value off `text`: up to the bracket that closes the first one.
fn tokens(text: &str) -> Result<(Vec<Token<'_>>, &str), Fault> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    let mut rest = text.trim_start_matches(BLANKS);
    while let Some(first) = rest.bytes().next() {
        let (len, token) = match first {
            b'{' | b'[' | b'}' | b']' | b':' | b',' => (1, Token::Punctuation(first)),
            b'"' | b'\'' => {
                let len = string_len(rest)?;
                (len, Token::String(&rest[..len]))
            }
            b'-' | b'0'..=b'9' => {
                let len = number_len(rest)?;
                (len, Token::Number(&rest[..len]))
            }
            b'a'..=b'z' => {
                let len = rest.bytes().take_while(u8::is_ascii_lowercase).count();
                (len, Token::Word(&rest[..len]))
            }
            _ => return Err(Fault::stray(through(rest, 0))),
        };
        tokens.push(token);
        rest = &rest[len..];
        match first {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return Err(Fault::new("JSON nesting depth limit exceeded"));
        }
        if depth == 0 {
            break;
        }
        rest = rest.trim_start_matches(BLANKS);
    }
    Ok((tokens, rest))
}

/// `text` up to and with the character at `index`.
fn through(text: &str, index: usize) -> &str {
    let len = text[index..].chars().next().map_or(0, char::len_utf8);
    &text[..index + len]
}

fn string_len(text: &str) -> Result<usize, Fault> {
    let bytes = text.as_bytes();
    let mut index = 1;
    while let Some(&byte) = bytes.get(index) {
        match byte {
            _ if byte == bytes[0] => return Ok(index + 1),
            b'\\' if bytes.get(index + 1).is_some_and(|next| (b' '..0x80).contains(next)) => {
                index += 2;
            }
            0..0x20 => return Err(Fault::stray(through(text, index))),
            _ => index += 1,
        }
    }
    Err(Fault::stray(text))
}

fn number_len(text: &str) -> Result<usize, Fault> {
    let bytes = text.as_bytes();
    let digits = |from: usize| {
        let run = bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if run == 0 { Err(Fault::stray(end_of_piece(text, from))) } else { Ok(from + run) }
    };
    let start = usize::from(bytes[0] == b'-');
    let mut end = digits(start)?;
    if bytes[start] == b'0' && end > start + 1 {
        return Err(Fault::stray(through(text, start + 1)));
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

fn end_of_piece(text: &str, index: usize) -> &str {
    if index < text.len() { through(text, index) } else { text }
}

struct Parser<'a> {
    tokens: Peekable<std::vec::IntoIter<Token<'a>>>,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Value, Fault> {
        match self.next()? {
            Token::Punctuation(b'{') => self.object(),
            Token::Punctuation(b'[') => self.array(),
            Token::Punctuation(_) => Err(Fault::new("JSON parse error, expecting value")),
            Token::Number(text) => Ok(Value::Number(Zeroizing::new(text.to_owned()))),
            Token::String(text) => unquote(text).map(Value::String),
            Token::Word("true") => Ok(Value::Bool(true)),
            Token::Word("false") => Ok(Value::Bool(false)),
            Token::Word("null") => Ok(Value::Null),
            Token::Word(word) => Err(Fault {
                piece: Some(format!("'{word}'")),
                ..Fault::new("JSON parse error, invalid keyword ")
            }),
        }
    }

    fn object(&mut self) -> Result<Value, Fault> {
        let mut members = Vec::new();
        if self.next_is(b'}') {
            return Ok(Value::Object(members));
        }
        let mut keys = BTreeSet::new();
        loop {
            let Value::String(key) = self.value()? else {
                return Err(Fault::new("JSON parse error, key is not a string in object"));
            };
            let Token::Punctuation(b':') = self.next()? else {
                return Err(Fault::new("JSON parse error, missing : in object pair"));
            };
            let value = self.value()?;
            if !keys.insert(key.to_string()) {
                return Err(Fault::new("JSON parse error, duplicate key"));
            }
            members.push((key.to_string(), value));
            match self.next()? {
                Token::Punctuation(b'}') => return Ok(Value::Object(members)),
                Token::Punctuation(b',') => {}
                _ => return Err(Fault::new("JSON parse error, expected separator in dict")),
            }
        }
    }

    fn array(&mut self) -> Result<Value, Fault> {
        let mut values = Vec::new();
        if self.next_is(b']') {
            return Ok(Value::Array(values));
        }
        loop {
            values.push(self.value()?);
            match self.next()? {
                Token::Punctuation(b']') => return Ok(Value::Array(values)),
                Token::Punctuation(b',') => {}
                _ => return Err(Fault::new("JSON parse error, expected separator in list")),
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>, Fault> {
        self.tokens.next().ok_or_else(|| Fault::new("JSON parse error, premature EOI"))
    }

    fn next_is(&mut self, punctuation: u8) -> bool {
        let same =
            |token: &Token<'_>| matches!(token, Token::Punctuation(it) if *it == punctuation);
        self.tokens.next_if(same).is_some()
    }
}

fn unquote(quoted: &str) -> Result<Zeroizing<String>, Fault> {
    // An escape is never shorter than what it stands for, so the text is not moved as it grows.
    let mut text = Zeroizing::new(String::with_capacity(quoted.len()));
    let mut rest = quoted[1..quoted.len() - 1].chars();
    while let Some(char) = rest.next() {
        if char != '\\' {
            if is_noncharacter(char) {
                return Err(Fault::new("JSON parse error, invalid UTF-8 sequence in string"));
            }
            text.push(char);
            continue;
        }
        text.push(match rest.next() {
            Some(it @ ('"' | '\'' | '\\' | '/')) => it,
            Some('b') => '\x08',
            Some('f') => '\x0c',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => unicode_escape(&mut rest)?,
            _ => return Err(Fault::new("JSON parse error, invalid escape sequence in string")),
        });
    }
    Ok(text)
}

/// The character of the `XXXX` after `\u`, and of a second half `\uXXXX` after it.
fn unicode_escape(rest: &mut Chars<'_>) -> Result<char, Fault> {
    let text = rest.as_str();
    let fault = || Fault::escape(&text.chars().take(4).collect::<String>());
    let mut code = four_digits(rest).ok_or_else(fault)?;
    if (0xd800..0xdc00).contains(&code) {
        let second = rest.as_str().strip_prefix("\\u").ok_or_else(fault)?;
        *rest = second.chars();
        let low = four_digits(rest).filter(|low| (0xdc00..0xe000).contains(low));
        code = 0x10000 + ((code - 0xd800) << 10) + (low.ok_or_else(fault)? - 0xdc00);
    }
    char::from_u32(code).filter(|char| !is_noncharacter(*char)).ok_or_else(fault)
}

fn four_digits(rest: &mut Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |code, _| Some(code * 16 + rest.next()?.to_digit(16)?))
}

fn is_noncharacter(char: char) -> bool {
    let code = u32::from(char);
    code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code)
}
