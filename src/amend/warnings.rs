//! Warnings of a plan: secrets that QEMU cannot use, images that no secret alone opens any more, and
//! tokens that lose their keyslot or hold an outdated secret.

use super::{Plan, PlannedChange};
use crate::header::luks2::Token;
use crate::header::{Header, HeldKey, Occupant, Priority, Staging};

impl Plan {
    /// Adds the warnings that follow from the changes.
    pub(super) fn warn(&mut self) {
        // QEMU opens no LUKS2 image.
        let is_luks1 = self.header.luks2().is_none();
        for change in &self.changes {
            let (PlannedChange::Add { keyslot, new } | PlannedChange::Replace { keyslot, new, .. }) =
                change
            else {
                continue;
            };
            if is_luks1 && !new.secret.is_qemu_compatible() {
                self.warnings.push(format!(
                    "QEMU cannot use the new secret of keyslot {keyslot}: it contains NUL or is not valid UTF-8"
                ));
            }
            if let PlannedChange::Replace { staging: Staging::InPlace, .. } = change {
                self.warnings.push(format!(
                    "keyslot {keyslot} is overwritten in place: if this is interrupted, neither the old nor the new secret opens it"
                ));
            }
        }
        self.warn_of_rest();
        self.warn_of_tokens();
    }

    /// Warns if an erase leaves no keyslot that opens with a typed secret and without `--keyslot`.
    fn warn_of_rest(&mut self) {
        let erases = |it: &PlannedChange| matches!(it, PlannedChange::Erase { .. });
        let is_tried = |keyslot: usize| {
            let keyslot = self.header.keyslot(keyslot);
            keyslot.is_some_and(|it| it.is_bound && it.priority != Priority::Ignore)
        };
        // New secrets count as typed ones.
        let opens = |it: &PlannedChange| match *it {
            PlannedChange::Erase { .. } => false,
            PlannedChange::Replace { keyslot, is_new: false, .. } => is_tried(keyslot),
            PlannedChange::Add { .. } | PlannedChange::Replace { .. } => true,
        };
        if !self.changes.iter().any(erases) || self.changes.iter().any(opens) {
            return;
        }
        let is_erased = |keyslot: usize| {
            let is_it = |it: &PlannedChange| matches!(it, PlannedChange::Erase { keyslot: other } if *other == keyslot);
            self.changes.iter().any(is_it)
        };
        let occupants = self.header.occupants();
        let left = |keyslot: &usize| occupants[*keyslot].is_some() && !is_erased(*keyslot);
        let left: Vec<_> = (0..occupants.len()).filter(left).collect();
        self.warnings.extend(warning_of_rest(&self.header, &occupants, &left));
    }

    /// Warns of tokens whose keyslot gets another secret, and of tokens that lose their last keyslot.
    fn warn_of_tokens(&mut self) {
        let Some(header) = self.header.luks2() else { return };
        let mut warnings = Vec::new();
        for change in &self.changes {
            let PlannedChange::Replace { keyslot, is_new: false, .. } = change else { continue };
            let number = u32::try_from(*keyslot).unwrap_or(u32::MAX);
            if let Some(token) = header.metadata().opener_of(number) {
                warnings.push(format!(
                    "token {} ({}) holds the old secret of keyslot {keyslot} and is detached from it",
                    token.number, token.kind
                ));
            }
        }
        let of_stale = if self.keep_tokens { kept_token } else { removed_token };
        warnings.extend(self.stale_tokens().iter().map(of_stale));
        self.warnings.extend(warnings);
    }

    /// The tokens that lose their last keyslot.
    fn stale_tokens(&self) -> Vec<Token> {
        let Some(header) = self.header.luks2() else { return Vec::new() };
        let loses = |token: &Token, keyslot: u32| {
            let is_opener = token.holds_secret();
            self.changes.iter().any(|change| match change {
                PlannedChange::Erase { keyslot: other } => *other == keyslot as usize,
                PlannedChange::Replace { keyslot: other, is_new, .. } => {
                    *other == keyslot as usize && (*is_new || is_opener)
                }
                PlannedChange::Add { .. } => false,
            })
        };
        let is_stale = |token: &&Token| {
            let mut keyslots = token.keyslots.iter();
            !token.keyslots.is_empty() && keyslots.all(|&keyslot| loses(token, keyslot))
        };
        header.metadata().tokens().iter().filter(is_stale).cloned().collect()
    }
}

/// Warning for a token that is removed with its last keyslot.
fn removed_token(token: &Token) -> String {
    format!("token {} ({}) refers to no other keyslot and is removed", token.number, token.kind)
}

/// Warning for a token that stays without a keyslot.
fn kept_token(token: &Token) -> String {
    format!("token {} ({}) is left without a keyslot", token.number, token.kind)
}

/// Warning if none of the keyslots that are `left` opens the image with a typed secret and without
/// `--keyslot`.
fn warning_of_rest(
    header: &Header,
    occupants: &[Option<Occupant>],
    left: &[usize],
) -> Option<String> {
    let holds = |keyslot: &usize| occupants[*keyslot].is_some_and(|it| it.key == HeldKey::Volume);
    let (holders, others): (Vec<usize>, Vec<usize>) = left.iter().copied().partition(holds);
    let Some(first) = holders.first() else {
        return Some(match others.first() {
            Some(keyslot) => format!(
                "no keyslot with the volume key is left, so nothing opens the image: keyslot {keyslot} holds another key"
            ),
            None => "no keyslot is left, so nothing opens the image".to_owned(),
        });
    };
    let tokens: Option<Vec<_>> = holders.iter().map(|&it| header.token_only(it)).collect();
    if let Some(tokens) = tokens {
        return Some(format!(
            "only token-protected keyslots remain: keyslot {first} is opened by {}",
            tokens[0]
        ));
    }
    let limits: Option<Vec<_>> =
        holders.iter().map(|&it| Some(format!("keyslot {it} {}", limit(header, it)?))).collect();
    let text = limits?.join(", ");
    Some(format!("no remaining keyslot opens with a secret alone: {text}"))
}

/// Reason why a keyslot does not open with a secret alone, if there is one.
fn limit(header: &Header, keyslot: usize) -> Option<String> {
    if let Some(token) = header.token_only(keyslot) {
        return Some(format!("is opened by {token}"));
    }
    match header.keyslot(keyslot) {
        Some(keyslot) if keyslot.priority == Priority::Ignore => Some("is ignored".to_owned()),
        Some(_) => None,
        None => Some("cannot be opened by this program".to_owned()),
    }
}
