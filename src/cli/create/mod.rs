//! `keyslot create`: a new image, with qemu-img's options, or in cryptsetup's words.

mod cipher;
mod luks;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use keyslot::header::Header;
use keyslot::keyslot::Cost;
use keyslot::options::{Options, boolean, image_size, number, size};
use keyslot::storage::Place;
use keyslot::{CreateOptions, Error, ErrorKind, Passphrase, Preallocation, Result};
use serde_json::{Value, json};

pub use self::luks::{LuksArgs, Version};
use super::opening::key_file;
use super::progress::Spinner;
use super::qemu_format;
use super::report::{Failure, Overrides};
use super::secrets::{Question, Secrets, check_not_empty, line_end_warning, not_both};
use super::{
    KDF_TWICE, KdfArgs, ObjectArgs, Outcome, Output, Persona, SOURCES, changes, check_count,
    image_spec, limits, output,
};

/// Create an image with one keyslot
///
/// Takes the arguments of qemu-img create, for LUKS1 and for LUKS2, whose defaults are those of
/// cryptsetup luksFormat. The file has its header and SIZE bytes of payload. An existing one is not
/// replaced without --force, and then only when the new image is complete.
#[derive(Args)]
#[command(after_help = SOURCES)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct CreateArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// Format of the image: luks (which is LUKS1) or luks2
    #[arg(short, long, visible_alias = "type", value_name = "FMT")]
    format: String,

    /// QEMU's options; -o help lists them
    #[arg(short, long, value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Secret that shall open the image
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    #[command(flatten)]
    kdf: KdfArgs,

    #[command(flatten)]
    luks: LuksArgs,

    /// Read the new secret from this file; '-' is standard input, with any newline at its end
    #[arg(short = 'd', long, value_name = "PATH", conflicts_with = "new_secret")]
    key_file: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    /// Allow an empty new secret, with which everybody can open the image
    #[arg(long)]
    allow_empty_secret: bool,

    /// Make a keyslot that asks for an absurd iteration count or memory
    #[arg(long)]
    ignore_limits: bool,

    /// How the result is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(super) output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Image, and the size of its payload in bytes (or with K, M, G, T)
    #[arg(value_names = ["IMAGE", "SIZE"])]
    operands: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &CreateArgs, persona: Persona) -> Outcome {
    let new_secret_source = args.new_source();
    let secrets = Secrets::new(&args.objects.objects, &new_secret_source)?;
    let mut options = Options::new();
    for text in &args.options {
        options.append(Options::parse(text)?);
    }
    if options.asks_help() {
        let version = Version::of(&args.format, persona)?;
        return Ok(output::print(&help(version, !args.operands.is_empty()))?);
    }
    let (image, size_operand) = match args.operands.as_slice() {
        [image] => (image, None),
        [image, size] => (image, Some(size.to_string_lossy())),
        [] => return Err(Failure::usage("Expecting image file name", "create")),
        [_, _, more, ..] => {
            let text = format!("Unexpected argument: {}", more.to_string_lossy());
            return Err(Failure::usage(text, "create"));
        }
    };
    let shown = image.to_string_lossy();
    let creating = Failure::creating(&shown);
    let path = image_spec::file(image, persona).map_err(&creating)?;
    let named = |error: Error| creating(error.with_path(&path));
    let version = Version::of(&args.format, persona).map_err(named)?;
    args.luks.check(version).map_err(named)?;
    check_options(&options).map_err(named)?;
    let size = match (&size_operand, options.last("size")) {
        (Some(_), Some(_)) => {
            return Err(named(invalid("The image size must be specified only once")));
        }
        (Some(text), _) => image_size(text)?,
        (None, Some(text)) => size("size", text).map_err(named)?,
        (None, None) => return Err(named(invalid("Image creation needs a size parameter"))),
    };
    // qemu-img says what it is about to make; a person is told when it is made.
    if !args.quiet && persona == Persona::QemuImg {
        let options = echo(&options);
        let line = format!("Formatting '{shown}', fmt=luks size={size}{options}");
        output::print(&(output::foreign(&line) + "\n"))?;
    }
    if options.last("iter-time").is_some() && args.kdf.is_given() {
        return Err(named(invalid(KDF_TWICE)));
    }
    let create = create_options(version, &options, &args.kdf, &args.luks).map_err(named)?;
    let overwrite = persona.overwrites(args.force);
    let create = create.limits(limits(args.ignore_limits)).overwrite(overwrite);
    create.check(size).map_err(named)?;
    let source = new_secret_source.as_ref();
    if Secrets::asks(source) {
        drop(Place::new(&path, overwrite).map_err(named)?);
    }
    let question = Question { option: "--new-secret", what: "New passphrase", image: Some(&path) };
    let empty = args.allow_empty_secret;
    let secret =
        new_secret(&options, source, &secrets, &question, empty, persona).map_err(named)?;
    if !args.quiet && persona == Persona::Keyslot {
        warn_of(&secret, version, &shown);
    }
    let header = {
        let _spinner = Spinner::start("creating the image", args.quiet);
        let image = create.begin(&path, size, &secret).map_err(named)?;
        let header = image.header().clone();
        image.finish().map_err(named)?;
        header
    };
    if !args.quiet && persona == Persona::Keyslot {
        warn_of_cipher(&header, &shown);
    }
    if args.output == Output::Json {
        let result = result(&shown, size.next_multiple_of(512), Some((&header, 0)));
        output::print_done(&qemu_format::json_line(&result))?;
    } else if !args.quiet && persona == Persona::Keyslot {
        output::print_done(&format!(
            "{}: {} image of {} created, its secret is in keyslot 0\n",
            output::foreign(&shown),
            version.name(),
            qemu_format::size(size.next_multiple_of(512))
        ))?;
    }
    Ok(())
}

/// The result for JSON: of a raw image, or of one with this header whose secret opens this keyslot.
pub(super) fn result(shown: &str, size: u64, opened: Option<(&Header, usize)>) -> Value {
    let format = opened.map_or("raw", |(header, _)| Version::of_header(header).format());
    let mut value = json!({ "filename": shown, "format": format, "virtual-size": size });
    if let Some((header, index)) = opened {
        value["uuid"] = json!(header.uuid());
        value["keyslot"] = json!(index);
        if let Some(keyslot) = header.keyslot(index) {
            changes::set_kdf(&mut value, keyslot.kdf.alg);
        }
    }
    value
}

impl CreateArgs {
    /// The overrides that it has.
    pub(super) fn overrides(&self) -> Overrides {
        Overrides { wait: None, force: Some(self.force), limits: Some(self.ignore_limits) }
    }

    /// The source of the new secret, if one is given.
    fn new_source(&self) -> Option<OsString> {
        self.new_secret.clone().or_else(|| self.key_file.as_deref().map(key_file))
    }
}

/// The secret that shall open a new image: the `key-secret` among its options, or `--new-secret`.
pub(super) fn new_secret(
    options: &Options,
    source: Option<&OsString>,
    secrets: &Secrets,
    question: &Question<'_>,
    allow_empty: bool,
    persona: Persona,
) -> Result<Passphrase> {
    let id = options.last("key-secret");
    not_both(id, source, "--new-secret")?;
    match id {
        Some(id) => {
            let secret = secrets.objects.passphrase_utf8(id)?;
            check_not_empty(&secret, allow_empty || persona == Persona::QemuImg)?;
            Ok(secret)
        }
        None if persona == Persona::QemuImg => {
            Err(invalid("Parameter 'key-secret' is required for cipher"))
        }
        None => secrets.new_secret(source, question, allow_empty),
    }
}

/// Says that QEMU will not open what this secret opens, if that is so. (LUKS2 it opens with none.)
pub(super) fn warn_of(secret: &Passphrase, version: Version, shown: &str) {
    if let Some(warning) = line_end_warning(secret) {
        output::tell(&format!("warning: {shown}: {warning}"));
    }
    if version == Version::Luks1 && !secret.is_qemu_compatible() {
        output::tell(&format!(
            "warning: {shown}: QEMU cannot use the secret: it is not UTF-8 text without NUL"
        ));
    }
}

/// Warns of a cipher that keeps nothing secret, as `check` does.
pub(super) fn warn_of_cipher(header: &Header, shown: &str) {
    for weakness in header.weaknesses() {
        output::tell(&format!("warning: {shown}: {weakness}"));
    }
}

/// The options as qemu-img repeats them, in the order of its own list.
fn echo(options: &Options) -> String {
    const ORDER: [&str; 9] = [
        "key-secret",
        "cipher-alg",
        "cipher-mode",
        "ivgen-alg",
        "ivgen-hash-alg",
        "hash-alg",
        "iter-time",
        "detached-header",
        "preallocation",
    ];
    let given = ORDER.iter().filter_map(|key| Some(format!(" {key}={}", options.last(key)?)));
    given.collect()
}

/// Checks names and numbers, each option in its turn.
pub(super) fn check_options(options: &Options) -> Result<()> {
    options.iter().try_for_each(|(key, value)| match key {
        "detached-header" => boolean(key, value).map(drop),
        "iter-time" => number(key, value).map(drop),
        "size" => size(key, value).map(drop),
        _ if KEYS.contains(&key) => Ok(()),
        _ => Err(invalid(format!("Invalid parameter '{key}'"))),
    })
}

pub(super) fn create_options(
    version: Version,
    options: &Options,
    kdf: &KdfArgs,
    luks: &LuksArgs,
) -> Result<CreateOptions> {
    if options.last("detached-header").is_some_and(|value| boolean("", value).unwrap_or(true)) {
        let text = "creating a detached header is not supported yet";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let mut pbkdf = kdf.pbkdf();
    if let Some(text) = options.last("iter-time") {
        let ms = number("iter-time", text)?;
        pbkdf.cost = Cost::Time(std::time::Duration::from_millis(ms.cast_unsigned()));
    }
    check_count(&pbkdf, version.kdf())?;
    let mut create = CreateOptions::new()?
        .format(luks.format(version)?)
        .cipher(cipher::cipher(options, luks)?)
        .hash(cipher::hash(options, luks)?)
        .pbkdf(pbkdf)
        .preallocation(preallocation(options)?);
    if let Some(uuid) = luks.uuid()? {
        create = create.uuid(uuid);
    }
    Ok(create)
}

pub(super) fn preallocation(options: &Options) -> Result<Preallocation> {
    match options.last("preallocation") {
        None | Some("off" | "metadata") => Ok(Preallocation::Off),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => Err(invalid(format!("invalid parameter value: {other}"))),
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

const KEYS: [&str; 10] = [
    "cipher-alg",
    "cipher-mode",
    "detached-header",
    "hash-alg",
    "iter-time",
    "ivgen-alg",
    "ivgen-hash-alg",
    "key-secret",
    "preallocation",
    "size",
];

/// What `-o help` prints. As in qemu-img, what is an option of the file and not of the format needs
/// a file's name.
pub(super) fn help(version: Version, names_a_file: bool) -> String {
    let (format, detached) = match version {
        Version::Luks1 => ("luks", HELP_DETACHED),
        Version::Luks2 => ("luks2", ""),
    };
    if names_a_file {
        format!("Supported options:\n{HELP}{detached}{HELP_REST}{HELP_PREALLOCATION}{HELP_SIZE}")
    } else {
        format!("Supported {format} options:\n{HELP}{detached}{HELP_REST}{HELP_SIZE}{HELP_MORE}")
    }
}

const HELP: &str = "  \
  cipher-alg=<str>       - Name of encryption cipher algorithm
  cipher-mode=<str>      - Name of encryption cipher mode
";
const HELP_DETACHED: &str = "  detached-header=<bool (on/off)> - Create a detached LUKS header\n";
const HELP_REST: &str = "  \
  hash-alg=<str>         - Name of encryption hash algorithm
  iter-time=<num>        - Time to spend in PBKDF in milliseconds
  ivgen-alg=<str>        - Name of IV generator algorithm
  ivgen-hash-alg=<str>   - Name of IV generator hash algorithm
  key-secret=<str>       - ID of the secret that provides the keyslot passphrase
";
const HELP_PREALLOCATION: &str =
    "  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)\n";
const HELP_SIZE: &str = "  size=<size>            - Virtual disk size\n";
const HELP_MORE: &str = "
The protocol level may support further options.
Specify the target filename to include those options.
";
