//! Edits of tokens, priorities and names, which touch no key.

use super::edit::Draft;
use super::json::shown;
use super::keyslot::quoted;
use super::write::Writer;
use super::{Luks2Header, Metadata};
use crate::error::{Error, ErrorKind, Result};
use crate::header::{Edit, Priority, Stage};
use crate::json::{Object, Value};
use crate::overrides::Override;

impl Luks2Header {
    /// Lowers edits to the writes of one commit. Also returns the header after them.
    pub(in crate::header) fn lower_edits(&self, edits: &[Edit]) -> Result<(Vec<Stage>, Self)> {
        let mut writer = Writer::new(self)?;
        let raw = &mut writer.header.raw;
        for edit in edits {
            match edit {
                Edit::SetLabel(label) => raw.label = name(label, "label")?,
                Edit::SetSubsystem(subsystem) => raw.subsystem = name(subsystem, "subsystem")?,
                Edit::SetUuid(uuid) => {
                    let text = uuid.hyphenated().to_string();
                    raw.uuid = [0; 40];
                    raw.uuid[..text.len()].copy_from_slice(text.as_bytes());
                }
                _ => {}
            }
        }
        let metadata = self.metadata.edited(self.hdr_size(), |draft| {
            edits.iter().try_for_each(|edit| draft.edit(&self.metadata, edit))
        })?;
        writer.commit(metadata, "it may or may not have taken effect", "it has taken effect")?;
        writer.finish()
    }
}

impl Draft {
    fn edit(&mut self, before: &Metadata, edit: &Edit) -> Result<()> {
        match edit {
            Edit::PutToken { number, token, replace } => {
                check_token(before, token)?;
                let tokens = self.object("tokens")?;
                let number = free_number(tokens, *number, *replace)?;
                tokens.insert(&number.to_string(), token.clone());
            }
            Edit::RemoveToken { number } => {
                let removed = self.object("tokens")?.remove(&number.to_string());
                if removed.is_none() {
                    return Err(invalid(format!("token {number} does not exist")));
                }
            }
            Edit::SetPriority { keyslot, priority } => self.set_priority(*keyslot, *priority)?,
            Edit::SetLabel(_) | Edit::SetSubsystem(_) | Edit::SetUuid(_) => {}
        }
        Ok(())
    }

    /// Sets the priority of a keyslot. Normal priority is the absence of the member.
    fn set_priority(&mut self, keyslot: usize, priority: Priority) -> Result<()> {
        let slot = self.object("keyslots")?.get_mut(&keyslot.to_string());
        let Some(slot) = slot.and_then(Value::as_object_mut) else {
            return Err(invalid(format!("keyslot {keyslot} does not exist")));
        };
        let number = match priority {
            Priority::Ignore => 0_u32,
            Priority::Prefer => 2,
            Priority::Normal => {
                slot.remove("priority");
                return Ok(());
            }
        };
        slot.insert("priority", number);
        Ok(())
    }
}

/// The requested number, or the first free one.
fn free_number(tokens: &Object, asked: Option<usize>, replace: bool) -> Result<usize> {
    let is_free = |number: &usize| tokens.get(&number.to_string()).is_none();
    match asked {
        Some(number) if number >= TOKENS => {
            Err(invalid(format!("token {number}: must be 0 to {}", TOKENS - 1)))
        }
        Some(number) if replace || is_free(&number) => Ok(number),
        Some(number) => {
            let text = format!("token {number} already exists");
            Err(Override::ReplaceToken.refused(text))
        }
        None => (0..TOKENS)
            .find(is_free)
            .ok_or_else(|| invalid(format!("all {TOKENS} tokens are in use"))),
    }
}

/// Checks that cryptsetup makes before it imports a token. Checks that apply to all tokens are made when
/// the metadata is parsed.
fn check_token(metadata: &Metadata, token: &Object) -> Result<()> {
    let Some(kind) = token.get("type").and_then(Value::as_str).filter(|kind| !kind.is_empty())
    else {
        return Err(invalid("the token has no type"));
    };
    let Some(keyslots) = token.get("keyslots").and_then(Value::as_array) else {
        return Err(invalid("the token has no keyslots: it must be an array, which may be empty"));
    };
    for keyslot in keyslots {
        let is_there = keyslot.as_str().is_some_and(|number| {
            metadata.keyslots().iter().any(|slot| slot.number.to_string() == number)
        });
        if !is_there {
            let shown = shown(keyslot);
            if keyslot.as_str().is_none() {
                let text = format!("the token has {shown} in keyslots: it must be a string");
                return Err(invalid(text).with_hint("write keyslots as strings: [\"0\"], not [0]"));
            }
            return Err(invalid(format!(
                "the token refers to keyslot {shown}, which does not exist"
            )));
        }
    }
    if kind == "luks2-keyring" {
        if token.get("key_description").and_then(Value::as_str).is_none() {
            return Err(invalid("the token of type luks2-keyring has no key_description"));
        }
    } else if kind.starts_with(BUILT_IN) {
        let kind = quoted(kind);
        return Err(invalid(format!(
            "unknown token type {kind}: the prefix {BUILT_IN} is reserved for cryptsetup"
        )));
    }
    Ok(())
}

/// Converts a label or subsystem to a NUL terminated field.
pub(crate) fn name(text: &str, what: &str) -> Result<[u8; 48]> {
    let mut field = [0; 48];
    if text.contains(char::is_control) {
        return Err(invalid(format!(
            "{what} {}: must not contain control characters",
            quoted(text)
        )));
    }
    match field.get_mut(..text.len()) {
        Some(start) if text.len() < 48 => start.copy_from_slice(text.as_bytes()),
        _ => {
            let len = text.len();
            return Err(invalid(format!("{what} of {len} bytes: must have at most 47")));
        }
    }
    Ok(field)
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Number of tokens that cryptsetup supports
const TOKENS: usize = 32;
/// Prefix of cryptsetup's own token types
const BUILT_IN: &str = "luks2-";
