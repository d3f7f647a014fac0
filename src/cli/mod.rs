//! The command line: one file per command, and the parts they share.
//!
//! Under the name `qemu-img` (a link to the same program), the commands that qemu-img has print its
//! errors with its prefix, and every failure exits with status 1. Command lines that are not about
//! LUKS go to the real qemu-img.

mod amend;
mod amendment;
mod backup_info;
mod benchmark;
mod changes;
mod check;
mod config;
mod convert;
mod create;
mod edit;
mod erase;
mod generate;
mod hand_over;
mod header;
mod image_spec;
mod info;
mod is_luks;
mod kdf;
mod location;
mod manual;
mod opening;
mod output;
mod progress;
mod prompt;
mod qemu_format;
mod qemu_img;
mod qemu_words;
mod repair;
mod report;
mod secrets;
mod status;
mod token;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind as ClapKind;
use clap::{Arg, ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use keyslot::{Error, ErrorKind, Image, Limits, OpenOptions, Override, Overrides, Result};
use nix::sys::signal::{SigSet, Signal};

use self::hand_over::hand_over;
use self::kdf::{KDF_TWICE, KdfArgs, KdfName, check_count};
use self::report::{Failure, Remedies};
use self::status::Status;

/// The command line. `create` has the short options of `cryptsetup luksFormat`, `-h` among them.
fn command() -> clap::Command {
    let with_short = |create: clap::Command| {
        let help = Arg::new("help").long("help").action(ArgAction::Help).help("Print help");
        create
            .disable_help_flag(true)
            .arg(help)
            .mut_arg("cipher", |arg| arg.short('c'))
            .mut_arg("key_size", |arg| arg.short('s'))
            .mut_arg("hash", |arg| arg.short('h'))
    };
    // In place: `mut_subcommand` would move it to the end.
    Cli::command().mut_subcommands(|command| match command.get_name() {
        "create" => with_short(command),
        _ => command,
    })
}

/// Parses the arguments, runs the command and reports a failure.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    // Keeps secrets out of core dumps and from other processes of the same user. Cannot fail.
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
    // Exceeding the shell's limit on file sizes must be an error, not end the process.
    let _ = SigSet::from(Signal::SIGXFSZ).thread_block();
    let mut arguments: Vec<_> = arguments.collect();
    // `create -h` asks for help if no hash follows.
    let is_create = arguments.get(1).is_some_and(|command| command == "create");
    let has_operands_only = arguments.iter().any(|argument| argument == "--");
    if let Some(last) = arguments.last_mut().filter(|last| *last == "-h")
        && is_create
        && !has_operands_only
    {
        *last = "--help".into();
    }
    let name = Persona::of(arguments.first());
    if name == Persona::QemuImg
        && let Some(status) = qemu_img::run(&arguments)
    {
        return status;
    }
    // qemu-img accepts repeated options; the last one counts.
    let parser = command().args_override_self(name == Persona::QemuImg);
    let matches = parser.try_get_matches_from(&arguments);
    let parsed = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let is_served = match &parsed {
        Ok(cli) => cli.command.images().is_none_or(|images| images.is_served()),
        Err(error) => error.kind() == ClapKind::DisplayVersion,
    };
    // Before any secret is read and anything is written.
    if name == Persona::QemuImg
        && !is_served
        && let Some(failed) = hand_over(&arguments)
    {
        return failed;
    }
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => return report::usage(name, &arguments, &error),
    };
    let (asked, remedies) = (cli.command.output(), cli.command.remedies());
    let result = match cli.command {
        Command::Add(args) => edit::add(&args),
        Command::Amend(args) => amend::run(&args, name),
        Command::Benchmark(args) => benchmark::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Config(args) => config::config(&args),
        Command::Convert(args) => convert::run(&args, name),
        Command::Completions(args) => generate::completions(&args, command()),
        Command::Create(args) => create::run(&args, name),
        Command::Erase(args) => erase::erase(&args),
        Command::Header(args) => header::run(&args),
        Command::Info(args) => info::run(&args, name),
        Command::IsLuks(args) => is_luks::run(&args),
        Command::Man(args) => generate::man(&args, command()),
        Command::Repair(args) => repair::run(&args),
        Command::Replace(args) => edit::replace(&args),
        Command::Token(args) => token::run(&args),
        Command::Uuid(args) => config::uuid(&args),
    };
    match result {
        // qemu-img has one status for every failure.
        Ok(status) if name == Persona::QemuImg && status != Status::Done => Status::Failed.into(),
        Ok(status) => status.into(),
        Err(failure) => report::failure(name, asked, remedies, &failure),
    }
}

/// The program to act as, chosen by the name it was started under.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persona {
    Keyslot,
    QemuImg,
}

impl Persona {
    fn of(program: Option<&OsString>) -> Self {
        match program.and_then(|program| Path::new(program).file_name()) {
            Some(name) if name == "qemu-img" => Self::QemuImg,
            _ => Self::Keyslot,
        }
    }

    /// Whether an existing file may be replaced. qemu-img always does so.
    fn overwrites(self, is_allowed: bool) -> bool {
        is_allowed || self == Self::QemuImg
    }

    /// Whether qemu-img would probe the image as raw. Never with an explicit format.
    fn guesses_raw(self, image: &Result<Image>, format: Option<&str>) -> bool {
        let is_other = match image {
            Ok(image) => image.header().luks2().is_some(),
            Err(error) => error.kind() == ErrorKind::NotLuks,
        };
        self == Self::QemuImg && format.is_none() && is_other
    }

    /// Under the name qemu-img, refuses formats and headers that qemu-img refuses, with its
    /// messages.
    fn admit(self, image: &Image) -> Result<()> {
        match image.header().luks1() {
            _ if self == Self::Keyslot => Ok(()),
            Some(header) if image.is_detached() => header.check_strictly_detached(),
            Some(header) => header.check_strictly(),
            None => Err(Error::new(ErrorKind::Unsupported, "LUKS version 2 is not supported")),
        }
    }
}

/// Read, check, add, erase and replace the keyslots of LUKS disk images.
#[derive(Parser)]
#[command(name = "keyslot", version, disable_version_flag = true, infer_long_args = true)]
#[command(after_help = exit_status())]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

#[derive(Subcommand)]
enum Command {
    Add(edit::AddArgs),
    Amend(amend::AmendArgs),
    Benchmark(benchmark::BenchmarkArgs),
    Check(check::CheckArgs),
    Config(config::ConfigArgs),
    Convert(convert::ConvertArgs),
    Completions(generate::CompletionsArgs),
    Create(create::CreateArgs),
    Erase(erase::EraseArgs),
    Header(header::HeaderArgs),
    Info(info::InfoArgs),
    IsLuks(is_luks::IsLuksArgs),
    Man(generate::ManArgs),
    Repair(repair::RepairArgs),
    Replace(edit::ReplaceArgs),
    Token(token::TokenArgs),
    Uuid(config::UuidArgs),
}

impl Command {
    /// Options of the command that lift a refusal, and whether they were given.
    fn remedies(&self) -> Remedies {
        let change = match self {
            Self::Add(args) => Some(&args.change),
            Self::Amend(args) => Some(&args.change),
            Self::Config(args) => Some(&args.change),
            Self::Erase(args) => Some(&args.change),
            Self::Header(args) => args.change(),
            Self::Repair(args) => Some(&args.change),
            Self::Replace(args) => Some(&args.change),
            Self::Token(args) => return args.remedies(),
            Self::Uuid(args) => Some(&args.change),
            _ => None,
        };
        match self {
            Self::Create(args) => args.remedies(),
            Self::Convert(args) => args.remedies(),
            _ => change.map_or_else(Remedies::default, Remedies::of),
        }
    }

    /// Images of a command that qemu-img has too.
    fn images(&self) -> Option<qemu_img::Images<'_>> {
        match self {
            Self::Amend(args) => Some(args.named()),
            Self::Convert(args) => Some(args.named()),
            Self::Create(args) => Some(args.named()),
            Self::Info(args) => Some(args.named()),
            _ => None,
        }
    }

    /// Output format asked for.
    fn output(&self) -> Output {
        match self {
            Self::Add(args) => args.change.output,
            Self::Amend(args) => args.change.output,
            Self::Benchmark(args) => args.output,
            Self::Check(args) => args.output,
            Self::Config(args) => args.change.output,
            Self::Convert(args) => args.output,
            Self::Create(args) => args.output,
            Self::Erase(args) => args.change.output,
            Self::Header(args) => args.output(),
            Self::Info(args) => args.output,
            Self::Repair(args) => args.change.output,
            Self::Replace(args) => args.change.output,
            Self::Token(args) => args.output(),
            Self::Uuid(args) => args.change.output,
            Self::Completions(_) | Self::IsLuks(_) | Self::Man(_) => Output::Human,
        }
    }
}

/// The exit statuses, for help.
fn exit_status() -> String {
    let list = Status::ALL.map(|status| format!("{} {}", status.code(), status.meaning()));
    format!("Exit status: {}.", list.join("; "))
}

const SOURCES: &str = "\
SOURCE says where to read a secret: prompt (the default on a terminal), file:PATH, env:NAME, \
fd:N, stdin or object:ID. Bytes are used as they are, but prompt and stdin drop one newline at \
the end. If several secrets are read from stdin, each is one line: first --secret, then \
--old-secret, then --new-secret.";

/// `--object`, which may be repeated
#[derive(Args)]
struct ObjectArgs {
    /// QEMU secret object: secret,id=ID,file=PATH|data=TEXT[,format=base64][,keyid=ID,iv=BASE64]
    #[arg(long = "object", value_name = "OBJDEF", action = clap::ArgAction::Append)]
    objects: Vec<String>,
}

/// Options of every command that changes an image
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
struct ChangeArgs {
    /// Show what would be done, without doing it
    #[arg(long)]
    dry_run: bool,

    /// Override every refusal for which this command has an option
    #[arg(long)]
    force: bool,

    /// Ignore the limits on iteration counts and memory of keyslots
    #[arg(long)]
    ignore_limits: bool,

    /// Wait up to SECONDS until no other program has the image open
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u32>,

    /// Change a block device that is mounted or mapped, or a file under a loop device
    #[arg(long)]
    busy_device: bool,

    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

impl ChangeArgs {
    /// Overrides whose option is given; with `--force`, all of `options`.
    fn overrides(&self, options: &[(Override, bool)]) -> Overrides {
        let given = options.iter().filter(|(_, is_given)| *is_given || self.force);
        given.map(|(it, _)| *it).collect()
    }

    fn limits(&self) -> Limits {
        limits(self.ignore_limits)
    }

    /// Open options of a change: the image is locked before the header is read.
    fn open_options(&self) -> OpenOptions {
        OpenOptions::new()
            .sharing(keyslot::Sharing::Amend)
            .wait(self.wait.map(|seconds| Duration::from_secs(seconds.into())))
            .busy_device(self.busy_device)
            .limits(self.limits())
    }
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
enum Output {
    #[default]
    Human,
    Json,
}

/// Limits on the work that a header may ask for.
fn limits(ignore: bool) -> Limits {
    if ignore { Limits::NONE } else { Limits::default() }
}

/// Refuses an unknown cache mode of QEMU. The known ones have no effect.
fn check_cache(cache: Option<&String>, what: &str) -> Result<()> {
    const MODES: [&str; 6] = ["none", "writeback", "unsafe", "directsync", "writethrough", "off"];
    match cache {
        Some(cache) if !MODES.contains(&cache.as_str()) => {
            let text = format!("Invalid {what} option: {cache}");
            Err(Error::new(ErrorKind::InvalidInput, text))
        }
        _ => Ok(()),
    }
}

type Outcome = std::result::Result<Status, Failure>;
