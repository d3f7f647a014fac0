//! `keyslot check`: whether the header is sound, what a crash left, and what a secret opens.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use keyslot::header::luks2::Token;
use keyslot::header::{Header, Leftover, Priority, luks1};
use keyslot::keyslot::{Until, cannot_open, wrong_secret};
use keyslot::secret::Passphrase;
use keyslot::{Error, ErrorKind, Image, OpenOptions, Result, Sharing};
use serde_json::{Value, json};

use super::changes::{kdf, set_kdf};
use super::create::Version;
use super::progress::Spinner;
use super::qemu_format;
use super::report::{self, Failure};
use super::secrets::Secrets;
use super::{ObjectArgs, Outcome, Output, SOURCES, limits, output};

/// Check the header, and which keyslots a secret opens
///
/// Says of every keyslot whether it is active and whether its area is blank, and finds what an
/// interrupted amendment left behind. Nothing is written.
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct CheckArgs {
    /// Secret to try on every keyslot
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    /// Stop at the first keyslot that the secret opens
    #[arg(long, requires = "secret")]
    first: bool,

    /// Try keyslots that ask for absurd iteration counts or memory, too
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    objects: ObjectArgs,

    /// How it is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<PathBuf>,
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Outcome {
    let secrets = Secrets::new(&args.objects.objects, &[&args.secret])?;
    let secret = match &args.secret {
        Some(source) => Some(secrets.existing(Some(source), "--secret", "Passphrase")?),
        None => None,
    };
    let mut failed = None;
    // Where nothing is tried at once, an image is not open for longer than it takes.
    let at_once = if secret.is_some() && !args.first { AT_ONCE } else { 1 };
    let images = args.images.chunks(at_once).flat_map(|paths| open(paths, secret.as_ref(), args));
    for (path, image) in images {
        let checked = image.and_then(|(image, tried)| {
            Ok((image.header().format(), check(path, &image, tried, args.first)?))
        });
        let (mut document, error) = match checked {
            Ok((format, document)) => {
                if args.output == Output::Human && !args.quiet {
                    output::print(&text(format, &document))?;
                }
                let is_wrong = document["secret-opens"].as_array().is_some_and(Vec::is_empty);
                let secret = secret.as_ref().filter(|_| is_wrong);
                (document, secret.map(|secret| opens_nothing(secret).with_path(path)))
            }
            Err(error) => (json!({ "filename": path.to_string_lossy() }), Some(error)),
        };
        if let Some(error) = &error {
            report::tell(error);
            document["error"] = report::document(error);
        }
        if args.output == Output::Json {
            output::print(&qemu_format::json_line(&document))?;
        }
        if let Some(error) = error {
            failed.get_or_insert(Failure::told(error));
        }
    }
    failed.map_or(Ok(()), Err)
}

type Tried = Vec<(usize, Result<bool>)>;
type Opened = (Image, Option<Tried>);

/// Opens some images, and tries the secret on all of their keyslots at once.
fn open<'a>(
    paths: &'a [PathBuf],
    secret: Option<&Passphrase>,
    args: &CheckArgs,
) -> Vec<(&'a Path, Result<Opened>)> {
    let sharing = if secret.is_some() { Sharing::ReadData } else { Sharing::None };
    let options = OpenOptions::new().sharing(sharing).limits(limits(args.force));
    let images: Vec<_> = paths.iter().map(|path| (path.as_path(), options.open(path))).collect();
    let mut tried = VecDeque::new();
    if let Some(secret) = secret {
        let _spinner = Spinner::start("trying the keyslots", args.quiet);
        let opened: Vec<_> = images.iter().filter_map(|(_, image)| image.as_ref().ok()).collect();
        tried.extend(match opened.as_slice() {
            [image] if args.first => vec![first(image, secret)],
            images => Image::try_images(images, secret),
        });
    }
    let mut with_tried = |image| (image, tried.pop_front());
    images.into_iter().map(|(path, image)| (path, image.map(&mut with_tried))).collect()
}

/// What is known when one keyslot opens.
fn first(image: &Image, secret: &Passphrase) -> Tried {
    let keyslots: Vec<_> = image.keyslots().map(|keyslot| keyslot.index).collect();
    let outcomes = image.try_keyslots(&keyslots, secret, Until::First);
    keyslots.into_iter().zip(outcomes).filter_map(|(it, outcome)| Some((it, outcome?))).collect()
}

fn check(path: &Path, image: &Image, tried: Option<Tried>, first: bool) -> Result<Value> {
    let header = image.header();
    let mut keyslots = Vec::new();
    for keyslot in image.keyslots() {
        let mut value = json!({ "keyslot": keyslot.index, "active": keyslot.active });
        match keyslot.kdf.alg {
            _ if !keyslot.active => value["blank"] = json!(image.is_blank(keyslot.index)?),
            alg => set_kdf(&mut value, alg),
        }
        if keyslot.priority != Priority::Normal {
            value["priority"] = json!(keyslot.priority.name());
        }
        if !keyslot.is_bound {
            value["unbound"] = json!(true);
        }
        if let Some(token) = opener(header, keyslot.index) {
            value["token"] = json!({ "token": token.number, "type": token.kind });
        }
        keyslots.push(value);
    }
    for (index, why) in header.unusable() {
        keyslots.push(json!({ "keyslot": index, "active": true, "unusable": why }));
    }
    let usable: Vec<_> = image.keyslots().map(|keyslot| keyslot.index).collect();
    let entries = header.luks1().into_iter().flat_map(luks1::Header::entries);
    for entry in entries.filter(|it| !it.active && !usable.contains(&it.index)) {
        let index = entry.index;
        keyslots.push(match entry.damage {
            Some(why) => json!({ "keyslot": index, "active": false, "damage": why }),
            None => json!({ "keyslot": index, "active": false, "blank": image.is_blank(index)? }),
        });
    }
    keyslots.sort_by_key(|keyslot| keyslot["keyslot"].as_u64());
    let hash = header.digest().map(|digest| digest.hash.name().to_owned());
    let mut document = json!({
        "filename": path.to_string_lossy(),
        "format": Version::of_header(header).format(),
        "cipher": header.cipher_text(),
        "key-bits": header.key_size().map(|size| 8 * size),
        "hash": hash.or_else(|| Some(header.luks1()?.hash_text())),
        "keyslots": keyslots,
        "leftovers": header.leftovers().into_iter().map(leftover).collect::<Vec<_>>(),
    });
    if let Some(warning) = header.warning() {
        document["warning"] = json!(warning);
    }
    let weaknesses = header.weaknesses();
    if !weaknesses.is_empty() {
        document["weaknesses"] = json!(weaknesses);
    }
    let len = image.storage().len().map_err(|e| Error::io("read the length", e))?;
    if header.payload_offset() > len {
        document["payload-missing"] = json!(true);
    }
    if let Some(tried) = tried {
        document["secret-opens"] = json!(opened(image, tried, first)?);
    }
    Ok(document)
}

/// The token without which nobody opens a keyslot.
fn opener(header: &Header, keyslot: usize) -> Option<&Token> {
    header.luks2()?.metadata().opener_of(u32::try_from(keyslot).ok()?)
}

/// The keyslots that a secret opens, all of them tried.
pub fn opened_by(image: &Image, secret: &Passphrase) -> Result<Vec<usize>> {
    let mut tried = Image::try_images(&[image], secret);
    opened(image, tried.pop().unwrap_or_default(), false)
}

/// The keyslots that the secret opens. One that is over the limit is skipped if another opens, and so
/// is any that fails if it is only about the first.
fn opened(image: &Image, tried: Tried, first: bool) -> Result<Vec<usize>> {
    let mut opened = Vec::new();
    let mut over_limit = None;
    for (keyslot, outcome) in tried {
        match outcome {
            Ok(true) => opened.push(keyslot),
            Ok(false) => {}
            Err(error)
                if first || matches!(error.kind(), ErrorKind::Limit | ErrorKind::OutOfMemory) =>
            {
                over_limit.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    if first {
        opened.truncate(1);
    }
    let named = |error: Error| match image.file() {
        Some(file) => error.with_path(file.path()),
        None => error,
    };
    image.header().check_supported().map_err(named)?;
    if let (None, Some((index, why))) = (image.keyslots().next(), image.header().unusable().first())
    {
        return Err(named(cannot_open(*index, why)));
    }
    match over_limit {
        Some(error) if opened.is_empty() => Err(error),
        _ => Ok(opened),
    }
}

/// The error of a secret that opens no keyslot.
pub fn opens_nothing(secret: &Passphrase) -> Error {
    wrong_secret("no keyslot opens with the secret", secret)
}

pub fn leftover(leftover: Leftover) -> Value {
    match leftover {
        Leftover::Wipe { keyslot } => json!({ "kind": "wipe", "keyslot": keyslot }),
        Leftover::Replace { keyslot, staging } => {
            json!({ "kind": "replace", "keyslot": keyslot, "staging": staging })
        }
        Leftover::Twins { keyslot, staging } => {
            json!({ "kind": "twins", "keyslot": keyslot, "staging": staging })
        }
        Leftover::Staging { keyslot, staging } => {
            json!({ "kind": "staging", "keyslot": keyslot, "staging": staging })
        }
        Leftover::Area(area) => {
            json!({ "kind": "area", "offset": area.offset, "size": area.len })
        }
        _ => Value::Null,
    }
}

/// What there is to say of a keyslot.
fn keyslot(slot: &Value) -> String {
    let mut text = if let Some(why) = slot["damage"].as_str() {
        format!("inactive, its entry is damaged: {why}; 'keyslot repair' puts it right")
    } else if let Some(why) = slot["unusable"].as_str() {
        format!("cannot be opened: {why}")
    } else if let Some(kdf) = kdf(slot) {
        format!("active, {kdf}")
    } else if slot["blank"] == json!(true) {
        "inactive, blank".to_owned()
    } else {
        "inactive, not blank (random data, or old key material)".to_owned()
    };
    if let Some(priority) = slot["priority"].as_str() {
        text = format!("{text}, priority {priority}");
    }
    if slot["unbound"] == json!(true) {
        text.push_str(", unbound: its key is not the volume key");
    }
    if let (Some(number), Some(kind)) = (slot["token"].get("token"), slot["token"]["type"].as_str())
    {
        text = format!("{text}, only token {number} ({kind}) opens it");
    }
    text
}

fn text(format: &str, document: &Value) -> String {
    let string = |key: &str| document[key].as_str().unwrap_or("unknown");
    let bits = document["key-bits"].as_u64().map(|bits| format!("{bits}-bit"));
    let list = |key: &str| document[key].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_damaged = list("keyslots").iter().any(|slot| slot["damage"].is_string());
    let is_sound = list("weaknesses").is_empty() && !is_damaged;
    let mut lines = vec![format!(
        "{}: {}{format} header, {}, {} key, {}",
        string("filename"),
        if is_sound { "sound " } else { "" },
        string("cipher"),
        bits.as_deref().unwrap_or("unknown"),
        string("hash"),
    )];
    for slot in list("keyslots") {
        lines.push(format!("keyslot {}: {}", slot["keyslot"], keyslot(slot)));
    }
    lines.extend(document["warning"].as_str().map(|warning| format!("warning: {warning}")));
    for weakness in list("weaknesses") {
        lines.extend(weakness.as_str().map(|weakness| format!("warning: {weakness}")));
    }
    if document["payload-missing"] == json!(true) {
        let text = "note: the file ends before the payload: a header backup or a truncated image";
        lines.push(text.to_owned());
    }
    for left in list("leftovers") {
        let (keyslot, staging) = (&left["keyslot"], &left["staging"]);
        lines.push(match left["kind"].as_str() {
            Some("wipe") => format!(
                "leftover: erasing keyslot {keyslot} was interrupted before its area was overwritten; 'keyslot repair' overwrites it"
            ),
            Some("replace") => format!(
                "leftover: replacing keyslot {keyslot} was interrupted; its new secret opens keyslot {staging}; 'keyslot repair' finishes it"
            ),
            Some("area") => {
                let (offset, size) = (&left["offset"], &left["size"]);
                format!(
                    "leftover: {size} bytes from byte {offset} on may be key material of an erased keyslot; 'keyslot repair' overwrites them"
                )
            }
            Some("staging") => format!(
                "leftover: replacing keyslot {keyslot} was interrupted; its old secret still opens it, the new one opens keyslot {staging}; 'keyslot repair' takes the new one back"
            ),
            _ => format!(
                "leftover: keyslot {staging} holds a copy of the key material of keyslot {keyslot}; 'keyslot repair' removes it"
            ),
        });
    }
    let opened: Vec<_> = list("secret-opens").iter().map(ToString::to_string).collect();
    match opened.as_slice() {
        [] => {}
        [keyslot] => lines.push(format!("the secret opens keyslot {keyslot}")),
        keyslots => lines.push(format!("the secret opens keyslots {}", keyslots.join(", "))),
    }
    lines.push(String::new());
    lines.join("\n")
}

/// As many images are open, and locked, at a time
const AT_ONCE: usize = 8;
