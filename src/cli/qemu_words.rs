//! Words of qemu-img, for what fails under its name.

use std::ffi::OsString;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};
use keyslot::Error;
use keyslot::container::Outside;
use keyslot::qemu::{beyond, too_long};
use keyslot::storage::sharing::{Conflict, Permissions};

/// What `getopt_long` says of an option.
pub fn getopt_words(arguments: &[OsString], error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let last = arguments.last()?.to_string_lossy();
    let long = argument.split([' ', '=']).next().filter(|name| name.starts_with("--"));
    match (error.kind(), long) {
        (ClapKind::UnknownArgument, Some(long)) => {
            // As it was written, value included.
            let mut written = arguments.iter().map(|argument| argument.to_string_lossy());
            let written = written.find(|argument| argument.split('=').next() == Some(long));
            Some(format!("unrecognized option '{}'", written.as_deref().unwrap_or(long)))
        }
        (ClapKind::UnknownArgument, None) => {
            Some(format!("invalid option -- '{}'", argument.trim_start_matches('-')))
        }
        (ClapKind::TooManyValues, Some(long)) => {
            Some(format!("option '{long}' doesn't allow an argument"))
        }
        (ClapKind::InvalidValue, Some(_)) if last.starts_with("--") => {
            Some(format!("option '{last}' requires an argument"))
        }
        (ClapKind::InvalidValue, Some(_)) if last.starts_with('-') => {
            Some(format!("option requires an argument -- '{}'", last.chars().last()?))
        }
        _ => None,
    }
}

/// What qemu-img says where ours says what it was about to do.
pub fn qemu_words(error: &Error) -> String {
    if let Some(Outside { offset, len, end, .. }) = error.reason() {
        return match len {
            Some(len) if offset <= end => too_long(*offset, *len, *end),
            _ => beyond(*offset, *end),
        };
    }
    let path = error.path().unwrap_or(Path::new("")).display();
    match error.message() {
        text if text.starts_with("cannot open it for ") => format!("Could not open '{path}'"),
        text if text.starts_with("cannot create a file in ") => {
            format!("Could not create '{path}'")
        }
        text => text.to_owned(),
    }
}

/// What `qemu-img amend` says of a conflict, and whether it does so while it opens the image: it
/// opens it to read and write, and keeps others from both in a second step.
pub fn amend_words(conflict: &Conflict) -> Option<(bool, String)> {
    let names = [(Permissions::CONSISTENT_READ, "consistent read"), (Permissions::WRITE, "write")];
    let first = |taken: Permissions| names.iter().find(|(it, _)| taken.contains(*it));
    if let Some((_, name)) = first(conflict.refused()) {
        return Some((true, format!("Failed to get \"{name}\" lock")));
    }
    let (_, name) = first(conflict.used())?;
    Some((false, format!("Failed to get shared \"{name}\" lock")))
}

/// Whether qemu-img prints this line too.
pub fn is_from_qemu(hint: &str) -> bool {
    const QEMU_HINTS: [&str; 5] = [
        QEMU_FAILED,
        "Identifiers consist of ",
        "Optional suffix ",
        "This option is only supported for image creation",
        QEMU_TRY,
    ];
    QEMU_HINTS.iter().any(|start| hint.starts_with(start))
}

/// The version of qemu-img whose options and texts these are: scripts decide by it.
pub const QEMU_VERSION: &str =
    concat!("qemu-img version 10.0.2 (keyslot ", env!("CARGO_PKG_VERSION"), ")\n");

pub const QEMU_FAILED: &str = "Failed to write to keyslot ";
pub const QEMU_TRY: &str = "Try 'qemu-img ";
