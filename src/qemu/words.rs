//! Texts of qemu-img, for errors that this crate words differently or only types.

use std::fmt;
use std::path::Path;

use super::{beyond, too_long};
use crate::amend::{AmendFault, ChangeKind};
use crate::container::Outside;
use crate::error::{Error, Operation};
#[cfg(feature = "file")]
use crate::storage::sharing::{Conflict, Permissions};

/// Gives an error qemu-img's message, if `qemu-img amend` makes the same check.
pub fn amend_error(error: Error) -> Error {
    match error.reason().copied().and_then(amend_text) {
        Some(text) => error.with_message(text),
        None => error,
    }
}

/// Message of `qemu-img amend` for a fault (`qcrypto_block_luks_amend_options` and the two
/// functions below it). keyslot's own `replace` has the same messages for the same faults.
fn amend_text(fault: AmendFault) -> Option<String> {
    Some(match fault {
        AmendFault::Active { keyslot } => {
            format!("Refusing to overwrite active keyslot {keyslot} - please erase it first")
        }
        AmendFault::AllInUse => "Can't add a keyslot - all keyslots are in use".to_owned(),
        AmendFault::AlreadyErased { keyslot } => {
            format!("Given keyslot {keyslot} is already erased (inactive) ")
        }
        AmendFault::LastHolder { keyslot } => format!(
            "Attempt to erase the only active keyslot {keyslot} which will erase all the data in the image irreversibly - refusing operation"
        ),
        AmendFault::LastHolders => "All the active keyslots match the (old) password that was given and erasing them will erase all the data in the image irreversibly - refusing operation".to_owned(),
        AmendFault::NoMatch { change: ChangeKind::Erase } => {
            "No keyslots match given (old) password for erase operation".to_owned()
        }
        AmendFault::NoTarget { change: ChangeKind::Erase } => {
            "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must be given".to_owned()
        }
        AmendFault::OutOfRange { number, keyslots, change } => {
            // QEMU prints the index of a keyslot to add as an unsigned number.
            let shown = match (change, i32::try_from(number)) {
                (ChangeKind::Add, Ok(number)) => number.cast_unsigned().into(),
                _ => number,
            };
            let last = keyslots.saturating_sub(1);
            format!("Invalid keyslot {shown} specified, must be between 0 and {last}")
        }
        AmendFault::WrongSecret { keyslot, change } => {
            let what = match change {
                ChangeKind::Replace => "to replace",
                _ => "for erase operation",
            };
            format!("Given keyslot {keyslot} doesn't contain the given old password {what}")
        }
        AmendFault::Inactive { .. }
        | AmendFault::NoMatch { .. }
        | AmendFault::NoTarget { .. }
        | AmendFault::Unbound { .. } => return None,
    })
}

/// Message of qemu-img, which names the file where this crate names the operation.
pub fn message(error: &Error) -> String {
    if let Some(Outside { offset, len, end, .. }) = error.reason() {
        return match len {
            Some(len) if offset <= end => too_long(*offset, *len, *end),
            _ => beyond(*offset, *end),
        };
    }
    let path = error.path().unwrap_or(Path::new("")).display();
    match error.operation() {
        Some(Operation::Open) => format!("Could not open '{path}'"),
        Some(Operation::Create) => format!("Could not create '{path}'"),
        Some(Operation::Resize) => "Could not resize file".to_owned(),
        _ => error.message().to_owned(),
    }
}

/// Lines that qemu-img prints below the error's own.
pub fn below(error: &Error) -> Option<String> {
    if error.reason::<QemuHint>().is_some() {
        return error.hint().map(str::to_owned);
    }
    match (error.operation(), error.keyslot()) {
        (Some(Operation::Derive), Some(keyslot)) => {
            Some(format!("Failed to write to keyslot {keyslot}"))
        }
        _ => None,
    }
}

/// The message of `qemu-img amend` on a conflict, and whether it comes while the image is opened:
/// qemu-img opens it to read and write, and keeps others from both in a second step.
#[cfg(feature = "file")]
pub fn amend_conflict(conflict: &Conflict) -> Option<(bool, String)> {
    let names = [(Permissions::CONSISTENT_READ, "consistent read"), (Permissions::WRITE, "write")];
    let first = |taken: Permissions| names.iter().find(|(it, _)| taken.contains(*it));
    if let Some((_, name)) = first(conflict.refused()) {
        return Some((true, format!("Failed to get \"{name}\" lock")));
    }
    let (_, name) = first(conflict.used())?;
    Some((false, format!("Failed to get shared \"{name}\" lock")))
}

/// Adds a hint that qemu-img prints too, verbatim.
pub(super) fn with_qemu_hint(error: Error, hint: &str) -> Error {
    error.with_hint(hint).with_reason(QemuHint)
}

/// Marks an error whose hint is QEMU's.
#[derive(Debug)]
struct QemuHint;

impl fmt::Display for QemuHint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the hint is QEMU's")
    }
}

impl std::error::Error for QemuHint {}
