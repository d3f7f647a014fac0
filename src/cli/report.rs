//! Failures: one line, at most one hint, and the exit status.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind as ClapKind};
use keyslot::qemu::words;
use keyslot::storage::sharing::Conflict;
use keyslot::{Error, ErrorKind, Operation, Override};
use serde::Serialize;

use super::output::{self, Report};
use super::qemu_words::{QEMU_VERSION, getopt_words};
use super::{ChangeArgs, Output, Persona, Status};

/// An error, and the prefix that qemu-img prints before it.
pub struct Failure {
    error: Error,
    qemu_prefix: String,
    /// Whether the image was opened to be amended, which qemu-img does in two steps
    is_amend: bool,
    /// The command whose help qemu-img points to
    help: Option<&'static str>,
    /// Second line of qemu-img, with its name before it
    second_line: Option<&'static str>,
}

impl Failure {
    /// A failure to open the image that was named `shown`.
    pub fn opening(shown: &str) -> impl Fn(Error) -> Self {
        Self::prefixed(format!("Could not open '{shown}': "))
    }

    /// Wrong usage of a command, where qemu-img points to its help.
    pub fn usage(text: impl Into<String>, command: &'static str) -> Self {
        let error = Error::new(ErrorKind::InvalidInput, text);
        Self { help: Some(command), ..Self::from(error) }
    }

    /// A failure of which qemu-img says more in a second line.
    pub fn followed(error: Error, line: &'static str) -> Self {
        Self { second_line: Some(line), ..Self::from(error) }
    }

    /// Whether it is wrong usage of a command.
    pub fn is_usage(&self) -> bool {
        self.help.is_some()
    }

    /// A failure to create the image that was named `shown`.
    pub fn creating(shown: &str) -> impl Fn(Error) -> Self {
        Self::prefixed(format!("{shown}: "))
    }

    /// A failure to open the image that was named `shown`, to amend it.
    pub fn amending(shown: &str) -> impl Fn(Error) -> Self {
        let opening = Self::opening(shown);
        move |error| Self { is_amend: true, ..opening(error) }
    }

    /// Prefixes an `InUse` failure of an amendment as a failure to open the image, as qemu-img
    /// does.
    pub fn while_amending(self, shown: &str) -> Self {
        match self.error.kind() {
            ErrorKind::InUse => Self::amending(shown)(self.error),
            _ => self,
        }
    }

    /// The error alone, without qemu-img's prefix.
    pub fn into_error(self) -> Error {
        self.error
    }

    fn prefixed(qemu_prefix: String) -> impl Fn(Error) -> Self {
        move |error| Self { qemu_prefix: qemu_prefix.clone(), ..Self::from(error) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, qemu_prefix: String::new(), is_amend: false, help: None, second_line: None }
    }
}

/// Options of a command that lift a refusal, and whether they were given. `None` if the command
/// lacks the option.
#[derive(Clone, Copy, Debug, Default)]
pub struct Remedies {
    /// `--wait`
    pub wait: Option<bool>,
    /// `--overwrite`
    pub overwrite: Option<bool>,
    /// `--ignore-limits`
    pub limits: Option<bool>,
    /// `--busy-device`
    pub busy_device: Option<bool>,
}

impl Remedies {
    /// Remedies of a command that changes an image.
    pub fn of(change: &ChangeArgs) -> Self {
        Self {
            wait: Some(change.wait.is_some()),
            overwrite: None,
            limits: Some(change.ignore_limits),
            busy_device: Some(change.busy_device),
        }
    }
}

/// The option that lifts a refusal.
fn option(of: Override) -> &'static str {
    match of {
        Override::OverwriteKeyslot => "--overwrite-keyslot",
        Override::EraseInactive => "--erase-inactive",
        Override::LoseKey => "--lose-key",
        Override::InPlace => "--in-place",
        Override::ForeignHeader => "--foreign-header",
        Override::ForeignData => "--foreign-data",
        Override::NewerCopy => "--newer-copy",
        Override::ReplaceToken => "--replace-token",
        _ => "--force",
    }
}

/// Prints a failure, as JSON too if that was asked for, and returns the exit status.
pub fn failure(persona: Persona, asked: Output, remedies: Remedies, failure: &Failure) -> ExitCode {
    let Failure { error, qemu_prefix, is_amend, help, second_line } = failure;
    if persona == Persona::QemuImg {
        let cause = cause(error);
        match error.reason::<Conflict>() {
            Some(conflict) => {
                let text = match words::amend_conflict(conflict).filter(|_| *is_amend) {
                    Some((true, text)) => format!("{qemu_prefix}{text}"),
                    Some((false, text)) => text,
                    None => format!("{qemu_prefix}{conflict}"),
                };
                output::tell(&format!("qemu-img: {text}"));
                let path = error.path().unwrap_or(Path::new("")).display();
                output::tell(&format!("Is another process using the image [{path}]?"));
            }
            None => {
                output::tell(&format!("qemu-img: {qemu_prefix}{}{cause}", words::message(error)));
            }
        }
        if let Some(lines) = words::below(error) {
            lines.lines().for_each(output::tell);
        }
        if let Some(line) = second_line {
            output::tell(&format!("qemu-img: {line}"));
        }
        if let Some(command) = help {
            output::tell(&format!("Try 'qemu-img {command} --help' for more info"));
        }
        return Status::Failed.into();
    }
    tell(error, remedies);
    let filename = error.path().map(|path| path.to_string_lossy().into_owned());
    let report = FailureReport { filename, error: ErrorReport::new(error, remedies) };
    report.print(asked);
    report.exit_status().into()
}

/// An error for JSON.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct ErrorReport {
    kind: &'static str,
    message: String,
    exit_status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyslot: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_error: Option<i32>,
}

impl ErrorReport {
    pub fn new(error: &Error, remedies: Remedies) -> Self {
        Self {
            kind: error.kind().name(),
            message: format!("{}{}", error.message(), cause(error)),
            exit_status: Status::of(error.kind()),
            hint: hint(error, remedies),
            operation: error.operation().map(Operation::name),
            offset: error.offset(),
            keyslot: error.keyslot(),
            os_error: error.raw_os_error(),
        }
    }

    /// Exit status that the error leads to.
    pub fn exit_status(&self) -> Status {
        self.exit_status
    }
}

/// A failure in place of a result. Its text is empty, because a person reads the error on standard
/// error.
#[derive(Serialize)]
pub struct FailureReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filename: Option<String>,
    pub error: ErrorReport,
}

impl FailureReport {
    /// Prints the failure if JSON was asked for. An error of printing is ignored: the exit status
    /// is a failure already.
    pub fn print(&self, form: Output) {
        let _ = output::report(self, form, false);
    }
}

impl Report for FailureReport {
    fn exit_status(&self) -> Status {
        self.error.exit_status()
    }
}

impl Display for FailureReport {
    fn fmt(&self, _: &mut Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}

/// Prints an error: its line, and its hint.
pub fn tell(error: &Error, remedies: Remedies) {
    output::tell(&format!("keyslot: {error}{}", cause(error)));
    if let Some(hint) = hint(error, remedies) {
        output::tell(&format!("hint: {hint}"));
    }
}

/// Hint of an error: its own, or for its kind an option of the command that was not given.
fn hint(error: &Error, remedies: Remedies) -> Option<String> {
    let Remedies { wait, overwrite, limits, busy_device } = remedies;
    let is_claimed = || error.reason().is_some_and(Conflict::is_claimed);
    let general = match error.kind() {
        ErrorKind::Exists if overwrite == Some(false) => Some("use --overwrite to replace it"),
        ErrorKind::InUse if is_claimed() && busy_device == Some(false) => {
            Some("unmount or close it, or use --busy-device to change it anyway")
        }
        ErrorKind::InUse if is_claimed() => Some("unmount or close it, and try again"),
        ErrorKind::InUse if wait == Some(false) => Some("close it, or use --wait SECONDS"),
        ErrorKind::InUse => Some("close it, and try again"),
        ErrorKind::Limit if limits == Some(false) => Some("use --ignore-limits to try it anyway"),
        _ => None,
    };
    if let Some(hint) = error.hint().or(general) {
        return Some(hint.replace('\n', " "));
    }
    let lifted_by = error.reason::<Override>().copied().map(option)?;
    Some(format!("use {lifted_by} to do it anyway"))
}

/// Prints an error in the arguments, or the help that was asked for.
pub fn usage(persona: Persona, arguments: &[OsString], error: &clap::Error) -> ExitCode {
    if error.kind() == ClapKind::DisplayVersion && persona == Persona::QemuImg {
        let _ = output::print(QEMU_VERSION);
        return ExitCode::SUCCESS;
    }
    if matches!(error.kind(), ClapKind::DisplayHelp | ClapKind::DisplayVersion) {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = match error.kind() {
        ClapKind::DisplayHelpOnMissingArgumentOrSubcommand | ClapKind::MissingSubcommand => {
            "Not enough arguments".to_owned()
        }
        ClapKind::InvalidSubcommand => match error.get(ContextKind::InvalidSubcommand) {
            Some(ContextValue::String(command)) => format!("Command not found: {command}"),
            _ => "Command not found".to_owned(),
        },
        // clap's first paragraph, on one line.
        _ => {
            let rendered = error.to_string();
            let lines: Vec<_> =
                rendered.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
            lines.join(" ").trim_start_matches("error: ").to_owned()
        }
    };
    match (persona, arguments.get(1).filter(|_| error.kind() != ClapKind::InvalidSubcommand)) {
        (Persona::Keyslot, command) => {
            let command = command.map(|command| command.to_string_lossy());
            let hint = match command.filter(|command| !command.starts_with('-')) {
                Some(command) => format!("see 'keyslot {command} --help'"),
                None => "see 'keyslot --help'".to_owned(),
            };
            let error = Error::new(ErrorKind::InvalidInput, text).with_hint(hint);
            tell(&error, Remedies::default());
            let asked = if asks_json(arguments) { Output::Json } else { Output::Human };
            let error = ErrorReport::new(&error, Remedies::default());
            FailureReport { filename: None, error }.print(asked);
        }
        (Persona::QemuImg, None) => {
            output::tell(&format!("qemu-img: {text}"));
            output::tell("Try 'qemu-img --help' for more info");
        }
        (Persona::QemuImg, Some(command)) => {
            let command = command.to_string_lossy();
            match getopt_words(arguments, error) {
                Some(text) => output::tell(&format!("qemu-img {command}: {text}")),
                None => output::tell(&format!("qemu-img: {text}")),
            }
            output::tell(&format!("Try 'qemu-img {command} --help' for more info"));
        }
    }
    Status::Failed.into()
}

/// Whether arguments that cannot be parsed ask for JSON.
fn asks_json(arguments: &[OsString]) -> bool {
    let is_separate = arguments.windows(2).any(|pair| pair[0] == "--output" && pair[1] == "json");
    is_separate || arguments.iter().any(|argument| argument == "--output=json")
}

/// Messages of the sources of an error, such as `: No such file or directory`.
fn cause(error: &Error) -> String {
    let mut text = String::new();
    let mut source = error.source();
    while let Some(error) = source.filter(|source| !source.is::<Conflict>()) {
        let words = match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            // Without the " (os error 2)" of the standard library.
            Some(code) => {
                let words = io::Error::from_raw_os_error(code).to_string();
                words.split(" (os error").next().unwrap_or_default().to_owned()
            }
            None => error.to_string(),
        };
        text = format!("{text}: {words}");
        source = error.source();
    }
    text
}
