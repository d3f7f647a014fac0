//! `keyslot create`: creates an image, with qemu-img's options or cryptsetup's.

mod cipher;
mod luks;
mod options;
mod qcow2;
mod report;
mod target;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use keyslot::header::Header;
use keyslot::qemu::{Options, image_size, size};
use keyslot::storage::Place;
use keyslot::{Error, ErrorKind, Format, Passphrase, Result};

pub use self::luks::{LuksArgs, Version};
use self::options::echo;
pub use self::options::{check_options, create_options, help, is_detached, preallocation};
pub use self::qcow2::Qcow2Create;
use self::report::CreateReport;
pub use self::report::WrittenImage;
use self::target::Target;
use super::location::LocationArgs;
use super::opening::key_file;
use super::progress::Spinner;
use super::qemu_img::{Images, Side};
use super::report::{Failure, Remedies};
use super::secrets::{
    Question, Secrets, check_not_empty, line_end_warning, no_key_secret, not_both,
};
use super::{
    KDF_TWICE, KdfArgs, ObjectArgs, Outcome, Output, Persona, SOURCES, Status, image_spec, limits,
    output,
};

/// Create an image with one keyslot
///
/// Takes the arguments of qemu-img create, for LUKS1 and LUKS2; the defaults of LUKS2 are those of
/// cryptsetup luksFormat. The file holds the header and SIZE bytes of payload. An existing file is
/// replaced only with --overwrite, once the new image is complete.
#[derive(Args)]
#[command(after_help = SOURCES)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct CreateArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// Format of the image: luks (which is LUKS1), luks2, or qcow2 with LUKS1
    #[arg(short, long, visible_alias = "type", value_name = "FMT")]
    format: String,

    /// QEMU's options; -o help lists them
    #[arg(short, long, value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Secret to put into keyslot 0
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    #[command(flatten)]
    kdf: KdfArgs,

    #[command(flatten)]
    luks: LuksArgs,

    #[command(flatten)]
    location: LocationArgs,

    /// Read the new secret from this file, including any newline at its end; '-' is standard input
    #[arg(short = 'd', long, value_name = "PATH", conflicts_with = "new_secret")]
    key_file: Option<PathBuf>,

    /// Replace an existing file
    #[arg(long, visible_alias = "force")]
    overwrite: bool,

    /// Allow an empty new secret, which opens the image to everyone
    #[arg(long)]
    allow_empty_secret: bool,

    /// Ignore the limits on iteration counts and memory of keyslots
    #[arg(long)]
    ignore_limits: bool,

    /// Backing file of a qcow2 image, relative to the image
    #[arg(short = 'b', long = "backing", value_name = "FILE")]
    backing: Option<String>,

    /// Format of the backing file
    #[arg(short = 'F', long, value_name = "FMT")]
    backing_format: Option<String>,

    /// Do not open the backing file
    #[arg(short = 'u', long = "backing-unsafe")]
    unsafe_backing: bool,

    /// Output format
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
    let options = parse(&args.options)?;
    if options.asks_help() {
        let version = Version::of(&args.format, persona)?;
        output::print(&help(version, !args.operands.is_empty()))?;
        return Ok(Status::Done);
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
    let qcow2 = args.qcow2(version, &options, persona).map_err(named)?;
    let options = qcow2.as_ref().map_or(options, |it| it.luks.clone());
    check_options(&options).map_err(named)?;
    let size = match (&size_operand, options.last("size")) {
        (Some(_), Some(_)) => {
            return Err(named(invalid("The image size must be specified only once")));
        }
        (Some(text), _) => Some(image_size(text)?),
        (None, Some(text)) => Some(size("size", text).map_err(named)?),
        (None, None) => None,
    };
    let size = match &qcow2 {
        Some(qcow2) if !args.unsafe_backing => size.or(qcow2.backing_size(&path).map_err(named)?),
        _ => size,
    };
    let target = Target::new(&path, size, is_detached(&options), &args.location).map_err(named)?;
    // qemu-img announces the image before it is created; keyslot reports it afterwards.
    if !args.quiet && persona == Persona::QemuImg {
        let size = target.size().unwrap_or(0);
        let line = match &qcow2 {
            Some(qcow2) => format!("Formatting '{shown}', fmt=qcow2{}", qcow2.echo(size)),
            None => format!("Formatting '{shown}', fmt=luks size={size}{}", echo(&options)),
        };
        output::print(&(output::foreign(&line) + "\n"))?;
    }
    if options.last("iter-time").is_some() && args.kdf.is_given() {
        return Err(named(invalid(KDF_TWICE)));
    }
    let create = create_options(version, &options, &args.kdf, &args.luks).map_err(named)?;
    let overwrite = persona.overwrites(args.overwrite);
    let create = match &qcow2 {
        Some(qcow2) => create.format(Format::Qcow2(qcow2.options().map_err(named)?)),
        None => create,
    };
    let create = create.limits(limits(args.ignore_limits)).overwrite(overwrite);
    let create = create.keep_file(persona == Persona::QemuImg);
    if let Some(size) = target.size() {
        create.check(size).map_err(named)?;
    }
    let source = new_secret_source.as_ref();
    if Secrets::asks(source) {
        let file = target.new_file().map(|path| Place::new(path, overwrite));
        drop(file.transpose().map_err(named)?);
    }
    if let (Some(qcow2), Persona::QemuImg, None) = (&qcow2, persona, source)
        && qcow2.luks.last("key-secret").is_none()
    {
        return Err(named(no_key_secret("encrypt.key-secret")));
    }
    let question = Question { option: "--new-secret", what: "New passphrase", image: Some(&path) };
    let empty = args.allow_empty_secret;
    let secret =
        new_secret(&options, source, &secrets, &question, empty, persona).map_err(named)?;
    if !args.quiet && persona == Persona::Keyslot {
        warn_of(&secret, version, &shown);
    }
    let created = {
        let _spinner = Spinner::start("creating the image", args.quiet);
        let space = preallocation(&options).map_err(named)?;
        target.make(create, &args.location, space, &secret).map_err(named)?
    };
    let header = created.header();
    if !args.quiet && persona == Persona::Keyslot {
        warn_of_cipher(header, &shown);
    }
    let report = CreateReport {
        image: WrittenImage::new(
            shown.clone().into_owned(),
            created.payload_len(),
            Some((header, created.keyslot())),
        ),
        header: target.header_file().map(output::filename),
        version,
        is_detached: header.is_detached(),
    };
    Ok(output::report(&report, args.output, args.quiet || persona == Persona::QemuImg)?)
}

impl CreateArgs {
    /// Options of the command that lift a refusal, and whether they were given.
    pub(super) fn remedies(&self) -> Remedies {
        let (overwrite, limits) = (Some(self.overwrite), Some(self.ignore_limits));
        Remedies { overwrite, limits, ..Remedies::default() }
    }

    /// Image that the arguments name.
    pub(super) fn named(&self) -> Images<'_> {
        let name = self.operands.first().map(OsString::as_os_str);
        let options = parse(&self.options);
        let side = Side::New { name, format: self.format.as_str() };
        let is_luks = options.as_ref().is_ok_and(are_known);
        let has_backing = self.backing.is_some() || self.backing_format.is_some();
        let qcow2 = options.and_then(|it| Qcow2Create::new(&it, Persona::QemuImg));
        let is_qcow2 = qcow2.is_ok_and(|it| it.is_served() && are_known(&it.luks) && !has_backing);
        let is_served = if self.format == "qcow2" { is_qcow2 } else { is_luks };
        let sides = Some(side).filter(|_| is_served);
        Images::new(&self.objects.objects, sides).with_qcow2(true)
    }

    /// The options of a qcow2 image, if one is to be created.
    fn qcow2(
        &self,
        version: Version,
        options: &Options,
        persona: Persona,
    ) -> Result<Option<Qcow2Create>> {
        let (backing, format) = (self.backing.as_deref(), self.backing_format.as_deref());
        if version != Version::Qcow2 {
            return match backing.or(format) {
                Some(_) => Err(invalid("a backing file applies only to qcow2")),
                None => Ok(None),
            };
        }
        self.location.check_none("a new qcow2 image")?;
        Ok(Some(Qcow2Create::new(options, persona)?.with_backing(backing, format)))
    }

    /// The source of the new secret, if one is given.
    fn new_source(&self) -> Option<OsString> {
        self.new_secret.clone().or_else(|| self.key_file.as_deref().map(key_file))
    }
}

/// Parses the options of a new image, which may be given in several lists.
fn parse(lists: &[String]) -> Result<Options> {
    let mut options = Options::new();
    for text in lists {
        options.append(Options::parse(text)?);
    }
    Ok(options)
}

/// Whether keyslot knows all options of a new image, and their values. QEMU also has those of the file
/// that the image is in.
pub(super) fn are_known(options: &Options) -> bool {
    !options.asks_help() && check_options(options).is_ok() && preallocation(options).is_ok()
}

/// Reads the secret of a new image: the `key-secret` in its options, or `--new-secret`.
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
        None if persona == Persona::QemuImg => Err(no_key_secret("key-secret")),
        None => secrets.new_secret(source, question, allow_empty),
    }
}

/// Warns of a secret that cannot be typed, or that QEMU cannot use. QEMU opens no LUKS2 image, so
/// the latter is about LUKS1.
pub(super) fn warn_of(secret: &Passphrase, version: Version, shown: &str) {
    if let Some(warning) = line_end_warning(secret) {
        output::tell(&format!("warning: {shown}: {warning}"));
    }
    if version == Version::Luks1 && !secret.is_qemu_compatible() {
        output::tell(&format!(
            "warning: {shown}: QEMU cannot use the secret: it contains NUL or is not valid UTF-8"
        ));
    }
}

/// Warns of weaknesses of the cipher, as `check` does.
pub(super) fn warn_of_cipher(header: &Header, shown: &str) {
    for weakness in header.weaknesses() {
        output::tell(&format!("warning: {shown}: {weakness}"));
    }
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
