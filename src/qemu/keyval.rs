//! The stricter `key=value` lists of `--object`.

use std::collections::BTreeSet;

use super::words::with_qemu_hint;
use super::{Options, invalid, is_help, split_value};
use crate::error::Result;

/// Longest name that QEMU accepts between two dots.
const LONGEST_NAME: usize = 127;

pub(super) fn parse(text: &str, implied_key: &str) -> Result<Options> {
    let mut options = Options::new();
    let mut rest = text;
    while !rest.is_empty() {
        let first = rest.len() == text.len();
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if is_help(word) && !after.starts_with('=') {
            options.help = true;
            rest = after.strip_prefix(',').unwrap_or(after);
        } else if first && !word.is_empty() && !after.starts_with('=') {
            options.push(implied_key, word);
            rest = after.strip_prefix(',').unwrap_or(after);
        } else {
            check_key(word)?;
            let Some(value) = after.strip_prefix('=') else {
                return Err(invalid(format!("Expected '=' after parameter '{word}'")));
            };
            let (value, after) = split_value(value);
            options.push_secret(word.to_owned(), value);
            rest = after;
        }
    }
    check_consistent(&options)?;
    Ok(options)
}

/// Refuses an invalid `id`.
pub(crate) fn check_identifier(id: &str) -> Result<()> {
    let mut bytes = id.bytes();
    if bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    {
        return Ok(());
    }
    let hint = "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.";
    Err(with_qemu_hint(invalid("Parameter 'id' expects an identifier"), hint))
}

fn check_key(key: &str) -> Result<()> {
    let mut rest = key;
    loop {
        let first = rest.len() == key.len();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let len =
            if !first && digits > 0 && matches!(rest.as_bytes().get(digits), None | Some(b'.')) {
                digits
            } else {
                name_len(rest)
            };
        let (name, after) = rest.split_at(len);
        if name.is_empty() || !(after.is_empty() || after.starts_with('.')) {
            return Err(invalid(format!("Invalid parameter '{key}'")));
        }
        if name.len() > LONGEST_NAME {
            let fragment = if first { "" } else { " fragment" };
            return Err(invalid(format!("Parameter{fragment} '{name}' is too long")));
        }
        match after.strip_prefix('.') {
            Some(after) => rest = after,
            None => return Ok(()),
        }
    }
}

/// Length of the name that `text` begins with, of the form `[__reversed.domain_]name`; 0 for none.
fn name_len(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut start = 0;
    if let Some(vendor) = bytes.strip_prefix(b"__") {
        let domain = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-.".contains(byte);
        let len = vendor.iter().take_while(domain).count();
        if len == 0 || vendor.get(len) != Some(&b'_') {
            return 0;
        }
        start = 2 + len + 1;
    }
    if !bytes.get(start).is_some_and(u8::is_ascii_alphabetic) {
        return 0;
    }
    let name = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    start + bytes[start..].iter().take_while(name).count()
}

/// Refuses a key that has a value and also keys below it.
fn check_consistent(options: &Options) -> Result<()> {
    let keys: BTreeSet<&str> = options.keys().collect();
    for key in &keys {
        for (dot, _) in key.match_indices('.') {
            if keys.contains(&key[..dot]) {
                let outer = &key[..dot];
                return Err(invalid(format!("Parameters '{outer}.*' used inconsistently")));
            }
        }
    }
    Ok(())
}
