//! `keyslot token`: the tokens of a LUKS2 header, by which other programs find a passphrase.

use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyslot::header::Edit;
use keyslot::header::luks2::{Metadata, Token};
use keyslot::json::{Object, Value};
use keyslot::storage::{Place, Preallocation, Storage};
use keyslot::{Error, ErrorKind, Image, Operation, Result};
use serde::Serialize;

use super::config::edit;
use super::location::ImageArgs;
use super::output::{self, Report};
use super::report::Remedies;
use super::{ChangeArgs, Outcome, Output, Status};

/// List, import, export and remove the tokens of a LUKS2 image
#[derive(Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    List(ListArgs),
    Import(ImportArgs),
    Export(ExportArgs),
    Remove(RemoveArgs),
}

/// List the tokens with their numbers, types and keyslots
#[derive(Args)]
struct ListArgs {
    /// Output format
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,

    #[command(flatten)]
    image: ImageArgs,
}

/// Import a token from JSON
///
/// The JSON needs "type" and "keyslots"; other members are kept as they are.
#[derive(Args)]
struct ImportArgs {
    /// Number of the token [default: the first free one]
    #[arg(long, value_name = "N", visible_alias = "token-id")]
    token: Option<usize>,

    /// Replace an existing token
    #[arg(long)]
    replace_token: bool,

    /// Keyslot of the token, instead of those in its JSON; may be given several times
    #[arg(long, value_name = "N", visible_alias = "key-slot")]
    keyslot: Vec<usize>,

    /// File with the JSON; '-' is standard input [default: standard input]
    #[arg(long, value_name = "PATH")]
    json_file: Option<PathBuf>,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Export a token as JSON
#[derive(Args)]
struct ExportArgs {
    /// Number of the token
    #[arg(long, value_name = "N", visible_alias = "token-id")]
    token: u32,

    /// File to write [default: standard output]
    #[arg(long, value_name = "PATH")]
    json_file: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long, visible_alias = "force")]
    overwrite: bool,

    #[command(flatten)]
    image: ImageArgs,
}

/// Remove a token; its keyslots stay
#[derive(Args)]
struct RemoveArgs {
    /// Number of the token
    #[arg(long, value_name = "N", visible_alias = "token-id")]
    token: usize,

    #[command(flatten)]
    change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

impl TokenArgs {
    /// Options of the command that lift a refusal, and whether they were given.
    pub fn remedies(&self) -> Remedies {
        match &self.command {
            Command::List(_) => Remedies::default(),
            Command::Export(args) => {
                Remedies { overwrite: Some(args.overwrite), ..Remedies::default() }
            }
            Command::Import(args) => Remedies::of(&args.change),
            Command::Remove(args) => Remedies::of(&args.change),
        }
    }

    /// Output format asked for.
    pub fn output(&self) -> Output {
        match &self.command {
            Command::List(args) => args.output,
            Command::Import(args) => args.change.output,
            Command::Export(_) => Output::Human,
            Command::Remove(args) => args.change.output,
        }
    }
}

/// Runs the command.
pub fn run(args: &TokenArgs) -> Outcome {
    match &args.command {
        Command::List(args) => list(args),
        Command::Import(args) => import(args),
        Command::Export(args) => export(args),
        Command::Remove(args) => remove(args),
    }
}

fn list(args: &ListArgs) -> Outcome {
    let image = args.image.open()?;
    let tokens = metadata(&image, args.image.path())?.tokens();
    let report = TokensReport {
        filename: output::filename(args.image.path()),
        tokens: tokens.iter().map(TokenReport::new).collect(),
    };
    Ok(output::report(&report, args.output, false)?)
}

/// The tokens of an image.
#[derive(Serialize)]
struct TokensReport {
    filename: String,
    tokens: Vec<TokenReport>,
}

impl Report for TokensReport {}

impl Display for TokensReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.tokens.iter().try_for_each(|token| writeln!(f, "{token}"))
    }
}

/// A token.
#[derive(Serialize)]
pub struct TokenReport {
    token: u32,
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<u32>,
}

impl TokenReport {
    pub fn new(token: &Token) -> Self {
        let Token { number, kind, keyslots, .. } = token.clone();
        Self { token: number, kind, keyslots }
    }
}

impl Display for TokenReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "token {}: {}, for ", self.token, output::foreign(&self.kind))?;
        match self.keyslots.as_slice() {
            [] => write!(f, "no keyslot"),
            keyslots => f.write_str(&output::keyslots(keyslots)),
        }
    }
}

/// A token that is imported or removed.
#[derive(Serialize)]
struct TokenChange {
    token: Option<u32>,
    /// `imported`, `removed`
    #[serde(skip)]
    done: &'static str,
}

impl Display for TokenChange {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "token {} {}", self.token.unwrap_or_default(), self.done)
    }
}

fn import(args: &ImportArgs) -> Outcome {
    let json_file = args.json_file.as_deref().filter(|path| *path != Path::new("-"));
    let mut token = read(json_file)?;
    if !args.keyslot.is_empty() {
        token.insert("keyslots", args.keyslot.iter().map(ToString::to_string).collect::<Value>());
    }
    let replace = args.change.force || args.replace_token;
    let put = Edit::PutToken { number: args.token, token, replace };
    edit(&args.image, &args.change, &[put], |before, after| {
        let is_new = |token: &&Token| {
            let number = token.number.to_string();
            args.token == Some(token.number as usize)
                || before.and_then(|before| before.value().get("tokens")?.get(&number)).is_none()
        };
        let token = after.and_then(|after| after.tokens().iter().find(is_new)).map(|it| it.number);
        TokenChange { token, done: "imported" }
    })
}

/// The JSON of a token, which must be an object.
fn read(path: Option<&Path>) -> Result<Object> {
    let mut text = Vec::new();
    let named = |error: Error| match path {
        Some(path) => error.with_path(path),
        None => error,
    };
    let failed = |error| named(Error::failed(Operation::Read, "the token", error));
    match path {
        Some(path) => {
            let file = File::open(path)
                .map_err(|error| named(Error::io("open", error).with_operation(Operation::Open)))?;
            file.take(LONGEST).read_to_end(&mut text).map_err(failed)?;
        }
        None => {
            io::stdin().lock().take(LONGEST).read_to_end(&mut text).map_err(failed)?;
        }
    }
    let text = str::from_utf8(&text).map_err(|error| {
        let at = error.valid_up_to();
        named(invalid(format!("the token is not UTF-8 text at byte {at}")))
    })?;
    let mut token: Value = text.parse().map_err(named)?;
    let members = token.as_object_mut().map(std::mem::take);
    members.ok_or_else(|| named(invalid("the token is not a JSON object")))
}

fn export(args: &ExportArgs) -> Outcome {
    let image = args.image.open()?;
    let tokens = metadata(&image, args.image.path())?.value().get("tokens");
    let Some(token) = tokens.and_then(|tokens| tokens.get(&args.token.to_string())) else {
        let text = format!("token {} does not exist", args.token);
        return Err(invalid(text).with_path(args.image.path()).into());
    };
    let text = output::json_text(&format!("{token}\n"));
    let Some(path) = args.json_file.as_ref().filter(|path| *path != Path::new("-")) else {
        output::print(&text)?;
        return Ok(Status::Done);
    };
    let is_image = image.file().is_some_and(|file| file.is_file(path).unwrap_or(false));
    if is_image {
        let text = "the token would overwrite the image that it is in";
        return Err(invalid(text).with_path(path).into());
    }
    // The token may hold a secret that opens a keyslot.
    let place = Place::new(path, args.overwrite)?.private();
    let file = place.create(text.len() as u64, Preallocation::Off)?;
    let written = file.storage().write_all_at(text.as_bytes(), 0);
    written.map_err(|error| Error::failed(Operation::Write, "the token", error).with_path(path))?;
    file.publish()?;
    Ok(Status::Done)
}

fn remove(args: &RemoveArgs) -> Outcome {
    let number = args.token;
    edit(&args.image, &args.change, &[Edit::RemoveToken { number }], |_, _| TokenChange {
        token: u32::try_from(number).ok(),
        done: "removed",
    })
}

/// LUKS2 metadata of an image, which holds its tokens.
fn metadata<'a>(image: &'a Image, path: &Path) -> Result<&'a Metadata> {
    let header = image
        .header()
        .luks2()
        .ok_or_else(|| invalid("a LUKS1 header has no tokens").with_path(path))?;
    Ok(header.metadata())
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

/// Largest JSON of a token, in bytes: no header has room for more.
const LONGEST: u64 = 4 << 20;
