//! The name qemu-img: which command lines keyslot serves itself, and the commands that exist only
//! under this name. Their options, texts and exit statuses are those of qemu-img.

mod check;
mod compare;
mod dd;
mod image;
mod map;
mod measure;
mod resize;
mod served;
mod snapshot;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use self::served::{Images, Side};
use super::hand_over::hand_over;
use super::report::{self, Failure, Remedies};
use super::{Output, Persona};

#[derive(Parser)]
#[command(name = "qemu-img", disable_version_flag = true, infer_long_args = true)]
#[command(args_override_self = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(check::CheckArgs),
    Compare(compare::CompareArgs),
    Dd(dd::DdArgs),
    Map(map::MapArgs),
    Measure(measure::MeasureArgs),
    Resize(resize::ResizeArgs),
    Snapshot(snapshot::SnapshotArgs),
}

/// Exit status of a command that did what it was asked to do.
type Exit = Result<u8, Failure>;

type Result<T, E = keyslot::Error> = std::result::Result<T, E>;

/// Runs the command, or hands it over to the real qemu-img. `None` if the command is not one of
/// these.
pub fn run(arguments: &[OsString]) -> Option<ExitCode> {
    let name = arguments.get(1)?.to_str()?;
    Cli::command().get_subcommands().find(|it| it.get_name() == name)?;
    let (rest, size) = without_size(arguments);
    let command = match Cli::try_parse_from(rest) {
        Ok(cli) => cli.command,
        Err(error) => {
            let handed = hand_over(arguments);
            return handed.or_else(|| Some(report::usage(Persona::QemuImg, arguments, &error)));
        }
    };
    if !command.images().is_served()
        && let Some(failed) = hand_over(arguments)
    {
        return Some(failed);
    }
    let result = match &command {
        Command::Check(args) => check::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Dd(args) => dd::run(args),
        Command::Map(args) => map::run(args),
        Command::Measure(args) => measure::run(args),
        Command::Resize(args) => resize::run(args, size.as_ref()),
        Command::Snapshot(args) => snapshot::run(args),
    };
    Some(match result {
        Ok(status) => status.into(),
        Err(failure) => {
            let status =
                report::failure(Persona::QemuImg, Output::Human, Remedies::default(), &failure);
            match command {
                // 1 means that the images differ.
                Command::Compare(_) if !failure.is_usage() => compare::FAILED.into(),
                _ => status,
            }
        }
    })
}

/// Takes a size such as `-1K` out of the arguments of `resize`. It is not an option if it follows the
/// image's name.
fn without_size(arguments: &[OsString]) -> (Vec<OsString>, Option<OsString>) {
    let mut rest = arguments.to_vec();
    let is_size = |it: &OsString| matches!(it.as_bytes(), [b'-', b'0'..=b'9', ..]);
    let Some(at) = arguments.iter().position(is_size) else { return (rest, None) };
    let before = Cli::try_parse_from(&arguments[..at]).map(|cli| cli.command);
    match before {
        Ok(Command::Resize(args)) if args.ends_with(&arguments[at - 1]) => {
            let size = rest.remove(at);
            (rest, Some(size))
        }
        _ => (rest, None),
    }
}

impl Command {
    /// Images that the arguments name.
    fn images(&self) -> Images<'_> {
        match self {
            Self::Check(args) => args.named(),
            Self::Compare(args) => args.named(),
            Self::Dd(args) => args.named(),
            Self::Map(args) => args.named(),
            Self::Measure(args) => args.named(),
            Self::Resize(args) => args.named(),
            Self::Snapshot(args) => args.named(),
        }
    }
}

/// Parses `--output`.
fn output(form: Option<&str>, command: &'static str) -> Result<Output, Failure> {
    match form {
        None | Some("human") => Ok(Output::Human),
        Some("json") => Ok(Output::Json),
        Some(other) => {
            let text = format!("--output expects 'human' or 'json' not '{other}'");
            Err(Failure::usage(text, command))
        }
    }
}
