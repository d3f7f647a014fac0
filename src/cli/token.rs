//! `keyslot token`: what other programs keep in a LUKS2 header to come by a passphrase.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use keyslot::header::Edit;
use keyslot::header::luks2::{Metadata, Token};
use keyslot::storage::{Place, Preallocation, Storage};
use keyslot::{Error, ErrorKind, Image, Result};
use serde_json::{Map, Value, json};

use super::config::edit;
use super::location::ImageArgs;
use super::report::Overrides;
use super::{ChangeArgs, Outcome, Output, output, qemu_format};

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

/// List the tokens: their numbers, their types, and the keyslots they are for
#[derive(Args)]
struct ListArgs {
    /// How it is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,

    #[command(flatten)]
    image: ImageArgs,
}

/// Import a token from JSON
///
/// It needs a "type" and "keyslots"; whatever else it has is kept as it is.
#[derive(Args)]
struct ImportArgs {
    /// Number of the token [default: the first that is free]; --force takes another's place
    #[arg(long, value_name = "N", visible_alias = "token-id")]
    token: Option<usize>,

    /// Keyslot that it is for, instead of those in its JSON; as often as there are some
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

    /// File to make [default: standard output]
    #[arg(long, value_name = "PATH")]
    json_file: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    image: ImageArgs,
}

/// Remove a token; the keyslots that it was for stay
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
    /// The overrides that the command has.
    pub fn overrides(&self) -> Overrides {
        match &self.command {
            Command::List(_) => Overrides::default(),
            Command::Export(args) => Overrides { force: Some(args.force), ..Overrides::default() },
            Command::Import(args) => Overrides::of(&args.change),
            Command::Remove(args) => Overrides::of(&args.change),
        }
    }

    /// The form of output that was asked for.
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
    let text = if args.output == Output::Json {
        let tokens: Vec<_> = tokens.iter().map(listed).collect();
        let filename = args.image.path().to_string_lossy();
        qemu_format::json_line(&json!({ "filename": filename, "tokens": tokens }))
    } else {
        tokens.iter().map(line).collect()
    };
    Ok(output::print(&text)?)
}

fn listed(token: &Token) -> Value {
    json!({ "token": token.number, "type": token.kind, "keyslots": token.keyslots })
}

fn line(token: &Token) -> String {
    let Token { number, kind, keyslots, .. } = token;
    let kind = output::foreign(kind);
    let numbers: Vec<_> = keyslots.iter().map(ToString::to_string).collect();
    match numbers.as_slice() {
        [] => format!("token {number}: {kind}, for no keyslot\n"),
        [one] => format!("token {number}: {kind}, for keyslot {one}\n"),
        several => format!("token {number}: {kind}, for keyslots {}\n", several.join(", ")),
    }
}

fn import(args: &ImportArgs) -> Outcome {
    let json_file = args.json_file.as_deref().filter(|path| *path != Path::new("-"));
    let mut token = read(json_file)?;
    if !args.keyslot.is_empty() {
        let keyslots = args.keyslot.iter().map(ToString::to_string).map(Value::from).collect();
        token.insert("keyslots".to_owned(), keyslots);
    }
    let replace = args.change.force;
    let put = Edit::PutToken { number: args.token, token, replace };
    edit(&args.image, &args.change, &[put], |before, after| {
        let is_new = |token: &&Token| {
            let number = token.number.to_string();
            args.token == Some(token.number as usize)
                || before.is_none_or(|before| before.value()["tokens"].get(&number).is_none())
        };
        let number = after.and_then(|after| after.tokens().iter().find(is_new)).map(|it| it.number);
        (json!({ "token": number }), format!("token {} imported", number.unwrap_or_default()))
    })
}

/// The JSON of a token, which must be an object.
fn read(path: Option<&Path>) -> Result<Map<String, Value>> {
    let mut text = Vec::new();
    let named = |error: Error| match path {
        Some(path) => error.with_path(path),
        None => error,
    };
    let failed = |error| named(Error::io("read the token", error));
    match path {
        Some(path) => {
            let file = File::open(path).map_err(|error| named(Error::io("open", error)))?;
            file.take(LONGEST).read_to_end(&mut text).map_err(failed)?;
        }
        None => {
            io::stdin().lock().take(LONGEST).read_to_end(&mut text).map_err(failed)?;
        }
    }
    serde_json::from_slice(&text).map_err(|error| {
        let text = format!("the token is no JSON object: {error}");
        named(Error::new(ErrorKind::InvalidInput, text))
    })
}

fn export(args: &ExportArgs) -> Outcome {
    let image = args.image.open()?;
    let tokens = &metadata(&image, args.image.path())?.value()["tokens"];
    let Some(token) = tokens.get(args.token.to_string()) else {
        let text = format!("there is no token {}", args.token);
        return Err(Error::new(ErrorKind::InvalidInput, text).with_path(args.image.path()).into());
    };
    let text = output::json_text(&format!("{token}\n"));
    let Some(path) = args.json_file.as_ref().filter(|path| *path != Path::new("-")) else {
        return Ok(output::print(&text)?);
    };
    let is_image = image.file().is_some_and(|file| file.is_file(path).unwrap_or(false));
    if is_image {
        let text = "the token would take the place of the image that it is in";
        return Err(Error::new(ErrorKind::InvalidInput, text).with_path(path).into());
    }
    // It may hold what opens a keyslot.
    let place = Place::new(path, args.force)?.private();
    let file = place.create(text.len() as u64, Preallocation::Off)?;
    let written = file.storage().write_all_at(text.as_bytes(), 0);
    written.map_err(|error| Error::io("write the token", error).with_path(path))?;
    Ok(file.publish()?)
}

fn remove(args: &RemoveArgs) -> Outcome {
    let number = args.token;
    edit(&args.image, &args.change, &[Edit::RemoveToken { number }], |_, _| {
        (json!({ "token": number }), format!("token {number} removed"))
    })
}

/// What there are tokens in.
fn metadata<'a>(image: &'a Image, path: &Path) -> Result<&'a Metadata> {
    let header = image.header().luks2().ok_or_else(|| {
        Error::new(ErrorKind::InvalidInput, "a LUKS1 header has no tokens").with_path(path)
    })?;
    Ok(header.metadata())
}

/// Bytes of a token's JSON, at most: no header has room for more.
const LONGEST: u64 = 4 << 20;
