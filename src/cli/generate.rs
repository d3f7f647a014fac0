//! Man pages and shell completions, from the same definitions as the arguments.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Arg, Args, Command, ValueHint};
use clap_complete::Shell;
use keyslot::crypto::HashAlg;

use super::{Outcome, Status, manual, output};

/// Print completions for a shell
#[derive(Args)]
pub struct CompletionsArgs {
    /// Shell to print completions for
    shell: Shell,
}

/// Write the man pages: one for the program and one for each command
#[derive(Args)]
pub struct ManArgs {
    /// Directory to write them to; created if missing
    directory: PathBuf,
}

/// Runs `keyslot completions`.
pub fn completions(args: &CompletionsArgs, command: Command) -> Outcome {
    let mut command = with_values(command);
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "keyslot", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(Status::Done)
}

/// Runs `keyslot man`.
pub fn man(args: &ManArgs, command: Command) -> Outcome {
    manual::write(command, &args.directory)?;
    Ok(Status::Done)
}

/// Adds the likely values of arguments, for completion only: the arguments accept other values too.
fn with_values(command: Command) -> Command {
    let is_new = command.get_name() == "create";
    let command = command.mut_args(|argument| suggest(argument, is_new));
    command.mut_subcommands(with_values)
}

fn suggest(argument: Arg, is_new: bool) -> Arg {
    let name = argument.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
    let values: Vec<&str> = match name.as_deref() {
        Some("SOURCE") => vec!["prompt", "file:", "env:", "fd:", "stdin", "object:"],
        Some("FMT") if is_new => vec!["luks", "luks2"],
        Some("FMT") => vec!["raw", "luks", "luks2"],
        Some("HASH") => HashAlg::ALL.iter().map(|hash| hash.name()).collect(),
        Some("SPEC") => vec!["aes-xts-plain64", "aes-cbc-essiv:sha256", "serpent-xts-plain64"],
        Some("CACHE") => vec!["none", "writeback", "unsafe", "directsync", "writethrough"],
        Some("IMAGE" | "SRC" | "DST" | "PATH" | "FILE") => {
            return argument.value_hint(ValueHint::FilePath);
        }
        _ => return argument,
    };
    argument.value_parser(PossibleValuesParser::new(values))
}
