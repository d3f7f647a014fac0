//! Man pages and shell completions, from the same definitions as the arguments.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;
use keyslot::Error;

use super::{Outcome, output};

/// Print completions for a shell
#[derive(Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Write the man pages
#[derive(Args)]
pub struct ManArgs {
    /// Directory that they are written to
    directory: PathBuf,
}

/// Runs `keyslot completions`.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "keyslot", &mut script);
    Ok(output::print(&String::from_utf8_lossy(&script))?)
}

/// Runs `keyslot man`: a page for the program and one for each of its commands.
pub fn man(args: &ManArgs, command: Command) -> Outcome {
    clap_mangen::generate_to(command, &args.directory).map_err(|error| {
        Error::io("write the man pages", error).with_path(args.directory.clone())
    })?;
    Ok(())
}
