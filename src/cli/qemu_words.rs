//! qemu-img's messages about its own command line.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};

/// Message of `getopt_long` about an option.
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

/// Version of qemu-img whose options and texts these are. Scripts choose options by it.
pub const QEMU_VERSION: &str =
    concat!("qemu-img version 10.0.2 (keyslot ", env!("CARGO_PKG_VERSION"), ")\n");
