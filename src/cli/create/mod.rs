//! `keyslot create`: a new image, with qemu-img's options.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use keyslot::crypto::{Cipher, CipherMode, CipherSpec, HashAlg, IvGen};
use keyslot::keyslot::Cost;
use keyslot::options::{Options, boolean, image_size, number, size};
use keyslot::{CreateOptions, Error, ErrorKind, Passphrase, Preallocation, Result};
use serde_json::json;

use super::progress::Spinner;
use super::qemu_format;
use super::report::Failure;
use super::secrets::{Secrets, not_both};
use super::{KDF_TWICE, KdfArgs, ObjectArgs, Outcome, Output, Persona, SOURCES, limits, output};

/// Create an image with one keyslot
///
/// Takes the arguments of qemu-img create for LUKS1. An existing file is not replaced without
/// --force, and then only when the new image is complete.
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct CreateArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// Format of the image: luks
    #[arg(short, long, value_name = "FMT")]
    format: String,

    /// QEMU's options; -o help lists them
    #[arg(short, long, value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Secret that shall open the image
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    #[command(flatten)]
    kdf: KdfArgs,

    /// Replace an existing file
    #[arg(long)]
    force: bool,

    /// How the result is printed
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// Image, and the size of its payload in bytes (or with K, M, G, T)
    #[arg(value_names = ["IMAGE", "SIZE"])]
    operands: Vec<OsString>,
}

/// Runs the command.
pub fn run(args: &CreateArgs, persona: Persona) -> Outcome {
    let secrets = Secrets::new(&args.objects.objects, &[&args.new_secret])?;
    let mut options = Options::new();
    for text in &args.options {
        options.append(Options::parse(text)?);
    }
    if options.asks_help() {
        return Ok(output::print(&help(!args.operands.is_empty()))?);
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
    let path = PathBuf::from(image);
    let shown = image.to_string_lossy();
    let creating = Failure::creating(&shown);
    let named = |error: Error| creating(error.with_path(&path));
    check_format(&args.format).map_err(named)?;

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
        output::print(&format!("Formatting '{shown}', fmt=luks size={size}{options}\n"))?;
    }
    if options.last("iter-time").is_some() && args.kdf.is_given() {
        return Err(named(invalid(KDF_TWICE)));
    }
    let create = create_options(&options, &args.kdf, args.force).map_err(named)?;
    let secret = new_secret(&options, args.new_secret.as_ref(), &secrets, args.force, persona)
        .map_err(named)?;
    if !args.quiet {
        warn_of(&secret, &shown);
    }
    {
        let _spinner = Spinner::start("creating the image", args.quiet);
        create.create(&path, size, &secret).map_err(named)?;
    }
    if args.output == Output::Json {
        let result = json!({
            "filename": shown,
            "format": "luks",
            "virtual-size": size.next_multiple_of(512),
        });
        output::print_done(&qemu_format::json_line(&result))?;
    } else if !args.quiet && persona == Persona::Keyslot {
        output::print_done(&format!(
            "{shown}: LUKS1 image of {} created, its secret is in keyslot 0\n",
            qemu_format::size(size.next_multiple_of(512))
        ))?;
    }
    Ok(())
}

/// The secret that shall open a new image: the `key-secret` among its options, or `--new-secret`.
pub(super) fn new_secret(
    options: &Options,
    source: Option<&OsString>,
    secrets: &Secrets,
    force: bool,
    persona: Persona,
) -> Result<Passphrase> {
    let id = options.last("key-secret");
    not_both(id, source, "--new-secret")?;
    match id {
        Some(id) => secrets.objects.passphrase_utf8(id),
        None if persona == Persona::QemuImg => {
            Err(invalid("Parameter 'key-secret' is required for cipher"))
        }
        None => secrets.new_secret(source, "--new-secret", "New passphrase", force),
    }
}

/// Says that QEMU will not open what this secret opens, if that is so.
pub(super) fn warn_of(secret: &Passphrase, shown: &str) {
    if !secret.is_qemu_compatible() {
        output::tell(&format!(
            "warning: {shown}: QEMU cannot use the secret: it is not UTF-8 text without NUL"
        ));
    }
}

pub(super) fn check_format(format: &str) -> Result<()> {
    let unsupported = match format {
        "luks" => return Ok(()),
        "luks2" | "qcow2" => {
            let text = format!("creating {format} images is not supported yet");
            return Err(Error::new(ErrorKind::Unsupported, text));
        }
        other => format!("Unknown file format '{other}'"),
    };
    Err(invalid(unsupported))
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
    options: &Options,
    kdf: &KdfArgs,
    force: bool,
) -> Result<CreateOptions> {
    if options.last("detached-header").is_some_and(|value| boolean("", value).unwrap_or(true)) {
        let text = "creating a detached header is not supported yet";
        return Err(Error::new(ErrorKind::Unsupported, text));
    }
    let cost = match options.last("iter-time") {
        Some(text) => {
            let ms = number("iter-time", text)?;
            Cost::Time(std::time::Duration::from_millis(ms.cast_unsigned()))
        }
        None => kdf.cost()?,
    };
    let hash = |key: &str| options.last(key).map(|name| hash(key, name)).transpose();
    let preallocation = preallocation(options)?;
    Ok(CreateOptions::new()?
        .cipher(cipher(options, hash("ivgen-hash-alg")?)?)
        .hash(hash("hash-alg")?.unwrap_or(HashAlg::Sha256))
        .cost(cost)
        .preallocation(preallocation)
        .limits(limits(force))
        .overwrite(force))
}

pub(super) fn preallocation(options: &Options) -> Result<Preallocation> {
    match options.last("preallocation") {
        None | Some("off" | "metadata") => Ok(Preallocation::Off),
        Some("falloc") => Ok(Preallocation::Falloc),
        Some("full") => Ok(Preallocation::Full),
        Some(other) => Err(invalid(format!("invalid parameter value: {other}"))),
    }
}

fn cipher(options: &Options, ivgen_hash: Option<HashAlg>) -> Result<CipherSpec> {
    let mode = match options.last("cipher-mode") {
        None | Some("xts") => CipherMode::Xts,
        Some("cbc") => CipherMode::Cbc,
        Some("ctr") => CipherMode::Ctr,
        Some("ecb") => CipherMode::Ecb,
        Some(other) => return Err(not_accepted("cipher-mode", other)),
    };
    let ivgen = match options.last("ivgen-alg") {
        None | Some("plain64") => IvGen::Plain64,
        Some("plain") => IvGen::Plain,
        Some("plain64be") => IvGen::Plain64be,
        Some("essiv") => IvGen::Essiv(ivgen_hash.unwrap_or(HashAlg::Sha256)),
        Some(other) => return Err(not_accepted("ivgen-alg", other)),
    };
    let name = options.last("cipher-alg").unwrap_or("aes-256");
    let (cipher, key_size) = CIPHERS
        .iter()
        .find_map(|&cipher| {
            let bits =
                name.strip_prefix(cipher.name())?.strip_prefix('-')?.parse::<usize>().ok()?;
            cipher.key_sizes().contains(&(bits / 8)).then_some((cipher, bits / 8))
        })
        .ok_or_else(|| match name {
            "des" | "3des" | "sm4" => invalid(format!("Algorithm '{name}' not supported")),
            _ => not_accepted("cipher-alg", name),
        })?;
    let halves = if mode == CipherMode::Xts { 2 } else { 1 };
    CipherSpec::new(cipher, mode, ivgen, ivgen_hash, key_size * halves)
        .map_err(|error| invalid(error.message()))
}

fn hash(key: &str, name: &str) -> Result<HashAlg> {
    // Those that QEMU knows: what others are for is in images of cryptsetup.
    let hash = HashAlg::parse(name).ok().filter(|hash| QEMU_HASHES.contains(hash));
    hash.ok_or_else(|| not_accepted(key, name))
}

fn not_accepted(key: &str, value: &str) -> Error {
    invalid(format!("Parameter '{key}' does not accept value '{value}'"))
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}

const CIPHERS: [Cipher; 5] =
    [Cipher::Aes, Cipher::Camellia, Cipher::Cast5, Cipher::Serpent, Cipher::Twofish];

const QEMU_HASHES: [HashAlg; 8] = [
    HashAlg::Md5,
    HashAlg::Ripemd160,
    HashAlg::Sha1,
    HashAlg::Sha224,
    HashAlg::Sha256,
    HashAlg::Sha384,
    HashAlg::Sha512,
    HashAlg::Sm3,
];

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
pub(super) fn help(names_a_file: bool) -> String {
    if names_a_file {
        format!("Supported options:\n{HELP}{HELP_PREALLOCATION}{HELP_SIZE}")
    } else {
        format!("Supported luks options:\n{HELP}{HELP_SIZE}{HELP_MORE}")
    }
}

const HELP: &str = "  \
  cipher-alg=<str>       - Name of encryption cipher algorithm
  cipher-mode=<str>      - Name of encryption cipher mode
  detached-header=<bool (on/off)> - Create a detached LUKS header
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
