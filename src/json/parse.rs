//! Parses JSON text. All tokens of the value are checked before any of it is parsed, as QEMU does.
//! This bounds a hostile text before memory is allocated for it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::{Chars, FromStr};

use zeroize::Zeroizing;

use super::token::{BLANKS, Token, Tokens};
use super::{Kind, Object, Value};
use crate::error::{Error, ErrorKind};

/// A dialect of JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Whether strings may use single quotes, which may then be escaped
    pub single_quotes: bool,
    /// Whether strings may contain Unicode noncharacters
    pub noncharacters: bool,
    /// Whether an object may repeat a key, in which case the last value counts
    pub key_twice: bool,
    /// Nesting limit for objects and arrays
    pub max_depth: usize,
    /// Limit on the total number of values
    pub max_values: usize,
}

impl Rules {
    /// The dialect of LUKS2 metadata: RFC 8259 with json-c's nesting limit.
    pub const STRICT: Self = Self {
        single_quotes: false,
        noncharacters: true,
        key_twice: true,
        max_depth: 32,
        // 32 keyslots and 32 tokens have a few thousand values. Each takes about 100 bytes.
        max_values: 1 << 16,
    };
}

/// The first fault of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Fault<'a> {
    pub wrong: Wrong,
    /// Offset in the text, in bytes
    pub at: usize,
    /// The faulty piece of the text. It may be a piece of a secret.
    pub piece: &'a str,
}

/// Kinds of faults.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wrong {
    Deep,
    DuplicateKey,
    Empty,
    End,
    Escape,
    KeyKind,
    Keyword,
    Many,
    NoColon,
    NoCommaInArray,
    NoCommaInObject,
    NoValue,
    Noncharacter,
    Stray,
    Trailing,
    UnicodeEscape,
}

/// Parses `text`, which must be a single value.
pub(crate) fn parse<'a>(text: &'a str, rules: &Rules) -> Result<Value, Fault<'a>> {
    let end = scan(text, rules)?;
    let tokens = Tokens::new(&text[..end], rules);
    let value = Parser { tokens, rules: *rules, end }.value()?;
    let rest = text[end..].trim_start_matches(BLANKS);
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Fault::new(Wrong::Trailing, text.len() - rest.len()))
    }
}

/// Finds the end of the first value, at its closing bracket. Checks every token up to there, and
/// bounds the nesting and the number of values.
fn scan<'a>(text: &'a str, rules: &Rules) -> Result<usize, Fault<'a>> {
    let mut tokens = Tokens::new(text, rules);
    let (mut depth, mut values) = (0_usize, 1_usize);
    while let Some(token) = tokens.next().transpose()? {
        match token {
            Token::Punctuation(b'{' | b'[') => {
                depth += 1;
                values += 1;
            }
            Token::Punctuation(b'}' | b']') => depth = depth.saturating_sub(1),
            Token::Punctuation(b',') => values += 1,
            _ => {}
        }
        if depth > rules.max_depth {
            return Err(Fault::new(Wrong::Deep, tokens.at() - 1));
        }
        if values > rules.max_values {
            return Err(Fault::new(Wrong::Many, tokens.at() - 1));
        }
        if depth == 0 {
            break;
        }
    }
    if tokens.at() == 0 { Err(Fault::new(Wrong::Empty, text.len())) } else { Ok(tokens.at()) }
}

struct Parser<'a> {
    tokens: Tokens<'a>,
    rules: Rules,
    /// End of the text
    end: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self) -> Result<Value, Fault<'a>> {
        let token = self.next()?;
        Ok(Value(match token {
            Token::Punctuation(b'{') => Kind::Object(self.object()?),
            Token::Punctuation(b'[') => Kind::Array(self.array()?),
            Token::Punctuation(_) => return Err(self.fault(Wrong::NoValue, 1)),
            Token::Number(text) => Kind::Number(Zeroizing::new(text.to_owned())),
            Token::String(text) => Kind::String(self.unquote(text)?),
            Token::Word("true") => Kind::Bool(true),
            Token::Word("false") => Kind::Bool(false),
            Token::Word("null") => Kind::Null,
            Token::Word(word) => return Err(self.fault(Wrong::Keyword, word.len()).with(word)),
        }))
    }

    fn object(&mut self) -> Result<Object, Fault<'a>> {
        let mut members: Vec<(String, Value)> = Vec::new();
        if self.next_is(b'}') {
            return Ok(Object(members));
        }
        let mut places = BTreeMap::new();
        loop {
            let Kind::String(key) = self.value()?.0 else {
                return Err(self.fault(Wrong::KeyKind, 1));
            };
            let Token::Punctuation(b':') = self.next()? else {
                return Err(self.fault(Wrong::NoColon, 1));
            };
            let value = self.value()?;
            match places.get(key.as_str()) {
                None => {
                    places.insert(key.to_string(), members.len());
                    members.push((key.to_string(), value));
                }
                Some(&place) if self.rules.key_twice => members[place].1 = value,
                Some(_) => return Err(self.fault(Wrong::DuplicateKey, 1)),
            }
            match self.next()? {
                Token::Punctuation(b'}') => return Ok(Object(members)),
                Token::Punctuation(b',') => {}
                _ => return Err(self.fault(Wrong::NoCommaInObject, 1)),
            }
        }
    }

    fn array(&mut self) -> Result<Vec<Value>, Fault<'a>> {
        let mut values = Vec::new();
        if self.next_is(b']') {
            return Ok(values);
        }
        loop {
            values.push(self.value()?);
            match self.next()? {
                Token::Punctuation(b']') => return Ok(values),
                Token::Punctuation(b',') => {}
                _ => return Err(self.fault(Wrong::NoCommaInArray, 1)),
            }
        }
    }

    fn next(&mut self) -> Result<Token<'a>, Fault<'a>> {
        let end = Fault::new(Wrong::End, self.end);
        self.tokens.next().unwrap_or(Err(end))
    }

    fn next_is(&mut self, punctuation: u8) -> bool {
        let mut ahead = self.tokens.clone();
        let is_it = matches!(ahead.next(), Some(Ok(Token::Punctuation(it))) if it == punctuation);
        if is_it {
            self.tokens = ahead;
        }
        is_it
    }

    /// A fault in the last `len` bytes.
    fn fault(&self, wrong: Wrong, len: usize) -> Fault<'a> {
        Fault::new(wrong, self.tokens.at() - len)
    }

    fn unquote(&self, quoted: &'a str) -> Result<Zeroizing<String>, Fault<'a>> {
        // An escape sequence is never shorter than its character, so the buffer does not
        // reallocate.
        let mut text = Zeroizing::new(String::with_capacity(quoted.len()));
        let mut rest = quoted[1..quoted.len() - 1].chars();
        loop {
            let left = rest.as_str().len();
            let Some(char) = rest.next() else { return Ok(text) };
            // The quote is included.
            let fault = |wrong| self.fault(wrong, left + 1);
            if char != '\\' {
                if !self.rules.noncharacters && is_noncharacter(char) {
                    return Err(fault(Wrong::Noncharacter));
                }
                text.push(char);
                continue;
            }
            text.push(match rest.next() {
                Some(it @ ('"' | '\\' | '/')) => it,
                Some('\'') if self.rules.single_quotes => '\'',
                Some('b') => '\x08',
                Some('f') => '\x0c',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some('u') => {
                    let code = rest.as_str();
                    let end = code.char_indices().nth(4).map_or(code.len(), |(end, _)| end);
                    let wrong = fault(Wrong::UnicodeEscape).with(&code[..end]);
                    let char = unicode_escape(&mut rest).ok_or(wrong)?;
                    if !self.rules.noncharacters && is_noncharacter(char) {
                        return Err(wrong);
                    }
                    char
                }
                _ => return Err(fault(Wrong::Escape)),
            });
        }
    }
}

/// The character of the `XXXX` after `\u`, including the second half of a surrogate pair.
fn unicode_escape(rest: &mut Chars<'_>) -> Option<char> {
    let mut code = four_digits(rest)?;
    if (0xd800..0xdc00).contains(&code) {
        *rest = rest.as_str().strip_prefix("\\u")?.chars();
        let low = four_digits(rest).filter(|low| (0xdc00..0xe000).contains(low))?;
        code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    }
    char::from_u32(code)
}

fn four_digits(rest: &mut Chars<'_>) -> Option<u32> {
    (0..4).try_fold(0, |code, _| Some(code * 16 + rest.next()?.to_digit(16)?))
}

fn is_noncharacter(char: char) -> bool {
    let code = u32::from(char);
    code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code)
}

impl<'a> Fault<'a> {
    pub(super) fn new(wrong: Wrong, at: usize) -> Self {
        Self { wrong, at, piece: "" }
    }

    pub(super) fn with(self, piece: &'a str) -> Self {
        Self { piece, ..self }
    }
}

/// Shows the position, but nothing of the text.
impl fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.wrong {
            Wrong::Deep => "nested too deep",
            Wrong::DuplicateKey => "a key for the second time",
            Wrong::Empty => "no value",
            Wrong::End => "the text ends early",
            Wrong::Escape => "an invalid escape sequence",
            Wrong::KeyKind => "a key that is not a string",
            Wrong::Keyword => "an unknown word",
            Wrong::Many => "too many values",
            Wrong::NoColon => "':' is missing",
            Wrong::NoCommaInArray => "',' or ']' is missing",
            Wrong::NoCommaInObject => "',' or '}' is missing",
            Wrong::NoValue => "a value is missing",
            Wrong::Noncharacter => "a character that is not allowed in a string",
            Wrong::Stray => "an unexpected character",
            Wrong::Trailing => "text after the value",
            Wrong::UnicodeEscape => "an invalid \\u escape",
        };
        write!(f, "{text} at byte {}", self.at)
    }
}

/// Parses LUKS2's dialect: RFC 8259 with at most 32 nesting levels.
impl FromStr for Value {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        parse(text, &Rules::STRICT).map_err(|fault| {
            Error::new(ErrorKind::InvalidInput, format!("the JSON text is malformed: {fault}"))
        })
    }
}
