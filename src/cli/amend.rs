//! `keyslot amend`: changes keyslots by QEMU's options, as `qemu-img amend` does.

use std::ffi::OsString;

use clap::Args;
use keyslot::amend::{Change, Request};
use keyslot::qemu::{
    AMEND_HELP, ImageSpec, Options, QCOW2_AMEND_HELP, check_driver, qcow2_amend_options,
};
use keyslot::unlock::wrong_secret;
use keyslot::{Error, ErrorKind, OpenOptions, Override, Result};

use super::amendment::{Amendment, carry_out};
use super::image_spec;
use super::location::LocationArgs;
use super::progress::Percent;
use super::qemu_img::{Images, Side};
use super::report::Failure;
use super::secrets::{Question, Secrets, no_key_secret, not_both};
use super::{
    ChangeArgs, KDF_TWICE, KdfArgs, ObjectArgs, Outcome, Persona, SOURCES, Status, check_cache,
    output,
};

/// Change keyslots by QEMU's options
///
/// Takes the arguments of qemu-img amend. Secrets in -o are IDs of --object; the secret that opens
/// the image is the key-secret of --image-opts, or --secret. To make several changes in one
/// amendment, all of them or none, use -o keys.0.state=...,keys.1.state=...
#[derive(Args)]
#[command(after_help = SOURCES)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct AmendArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    /// The changes: state=active|inactive,new-secret=ID,old-secret=ID,keyslot=N,iter-time=MS
    #[arg(short, long, value_name = "OPTS", action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Secret that opens the image
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    /// Allow an empty new secret, which opens the image to everyone
    #[arg(long)]
    allow_empty_secret: bool,

    #[command(flatten)]
    kdf: KdfArgs,

    /// Overwrite the secret of an active keyslot; that secret is lost
    #[arg(long)]
    overwrite_keyslot: bool,

    /// Overwrite it in place if no keyslot is free; an interruption then loses both secrets
    #[arg(long)]
    in_place: bool,

    /// Erase even the last keyslot that holds a key; data encrypted with that key is lost
    #[arg(long)]
    lose_key: bool,

    /// Also overwrite the areas of inactive keyslots
    #[arg(long)]
    erase_inactive: bool,

    /// Keep tokens that lose their last keyslot, instead of removing them
    #[arg(long)]
    keep_tokens: bool,

    /// IMAGE is a list of QEMU's image options
    #[arg(long)]
    image_opts: bool,

    #[command(flatten)]
    location: LocationArgs,

    /// Format of the image
    #[arg(short, long, value_name = "FMT")]
    format: Option<String>,

    /// QEMU's cache mode, without effect: changes are durable when they are reported
    #[arg(short = 't', long, value_name = "CACHE")]
    cache: Option<String>,

    /// Print a percentage, as qemu-img does
    #[arg(short, long)]
    progress: bool,

    #[command(flatten)]
    pub(super) change: ChangeArgs,

    /// Image, or its options
    #[arg(value_name = "IMAGE")]
    images: Vec<OsString>,
}

impl AmendArgs {
    /// Images that the arguments name.
    pub(super) fn named(&self) -> Images<'_> {
        let (image_opts, format) = (self.image_opts, self.format.as_deref());
        let sides = self.images.iter().map(|name| Side::Existing { name, image_opts, format });
        // All other options change more than the keyslots.
        let is_encrypt = |text: &String| {
            Options::parse(text).is_ok_and(|it| it.keys().all(|key| key.starts_with("encrypt.")))
        };
        Images::new(&self.objects.objects, sides).with_qcow2(self.options.iter().all(is_encrypt))
    }
}

/// Runs the command.
pub fn run(args: &AmendArgs, persona: Persona) -> Outcome {
    let secrets = Secrets::new(&args.objects.objects, &args.secret)?;
    if args.options.is_empty() {
        return Err(Failure::usage("Must specify options (-o)", "amend"));
    }
    let mut options = Options::new();
    for text in &args.options {
        options.append(Options::parse(text)?);
    }
    if options.asks_help() {
        return help(args.format.as_deref());
    }
    let [image] = args.images.as_slice() else {
        return Err(invalid("Expecting one image file name").into());
    };
    check_cache(args.cache.as_ref(), "cache")?;
    let pbkdf = args.kdf.pbkdf();
    let progress = Percent::new(args.progress && !args.change.quiet, args.change.output);

    let spec = image_spec::parse(image, args.image_opts, args.format.as_deref(), persona)?;
    let opening = |error: Error| Failure::amending(&spec.shown)(error.with_path(&spec.file.path));
    image_spec::check_persona(&spec, persona).map_err(opening)?;
    if spec.force_share && !spec.read_only {
        return Err(opening(invalid("force-share=on can only be used with read-only images")));
    }
    if spec.is_unlocked() {
        return Err(opening(invalid("file.locking=off is refused: the image is always locked")));
    }
    let (path, format) = (&spec.file.path, spec.driver.as_deref());
    if spec.key_secret.is_none()
        && persona.guesses_raw(&located(args, &spec).and_then(|it| it.open(path)), format)
    {
        let path = path.display();
        output::tell(&format!(
            "WARNING: Image format was not specified for '{path}' and probing guessed raw."
        ));
        RAW_IS_DANGEROUS.iter().copied().for_each(output::tell);
        return Err(not_amendable().into());
    }
    let place = args.location.apply_with(&spec, args.change.open_options()).map_err(opening)?;
    let amendment = match Amendment::open_with(&spec.file.path, place, &args.change, persona) {
        _ if spec.driver.as_deref() == Some("raw") => return Err(not_amendable().into()),
        Err(error) if !waits_for_secret(&error, &spec, persona) => return Err(opening(error)),
        amendment => amendment,
    };
    let (id, source) = (spec.key_secret.as_deref(), args.secret.as_ref());
    not_both(id, source, "--secret")?;
    let overrides = args.change.overrides(&[
        (Override::OverwriteKeyslot, args.overwrite_keyslot),
        (Override::InPlace, args.in_place),
        (Override::LoseKey, args.lose_key),
        (Override::EraseInactive, args.erase_inactive),
    ]);
    let is_qcow2 = amendment.as_ref().is_ok_and(|it| it.image().qcow2().is_some());
    let request = || {
        let options = keyslot_options(&options, is_qcow2, persona);
        options
            .and_then(|it| Request::from_options(&it, &secrets.objects, pbkdf, overrides))
            .map_err(|error| error.with_path(path))
    };
    let question = Question { option: "--secret", what: "Passphrase", image: Some(path) };
    let (amendment, unlocked) = if id.is_none() && persona == Persona::Keyslot {
        let mut amendment = amendment.map_err(opening)?;
        check_writable(&spec).map_err(opening)?;
        if Secrets::asks(source) {
            request()?;
        }
        let opened = secrets.try_opening(source, &question, |secret| amendment.unlock(secret));
        let (secret, unlocked) = opened.map_err(opening)?;
        amendment.keep(secret);
        (amendment, unlocked)
    } else {
        if id.is_none() && source.is_none() && is_qcow2 {
            return Err(opening(no_key_secret("encrypt.key-secret")));
        }
        // QEMU's order: the secret is looked up before the header is read. The secret is not kept,
        // because QEMU allows an erase if any other keyslot stays active.
        let secret = secrets.opening(id, source, &question, persona).map_err(opening)?;
        let amendment = amendment.map_err(opening)?;
        check_writable(&spec).map_err(opening)?;
        // QEMU reports an image without active keyslots as a wrong password.
        let unlocked = match amendment.image().header().check_openable() {
            Ok(()) => amendment.unlock(&secret),
            Err(_) => Err(wrong_secret(INVALID, &secret).with_path(&spec.file.path)),
        };
        (amendment, unlocked.map_err(opening)?)
    };
    let request = request()?;
    if persona == Persona::Keyslot {
        for change in &request.changes {
            if let Change::Add { new_secret: Ok(secret), .. }
            | Change::Replace { new_secret: Ok(secret), .. } = change
            {
                amendment.check_new(secret, args.allow_empty_secret)?;
            }
        }
    }
    if args.kdf.is_given() {
        check_kdf(&options, &request).map_err(|error| error.with_path(path))?;
    }
    progress.begin();
    // qemu-img prints nothing on success.
    let request = request.keep_tokens(args.keep_tokens);
    carry_out(amendment, &request, Some(&unlocked), &args.change, persona == Persona::Keyslot)
        .map_err(|failure| failure.while_amending(&spec.shown))
}

/// The options without qcow2's prefix.
fn keyslot_options(options: &Options, is_qcow2: bool, persona: Persona) -> Result<Options> {
    if is_qcow2 {
        return qcow2_amend_options(options, persona == Persona::QemuImg);
    }
    Ok(options.clone())
}

/// Refuses options of a KDF that do not apply to the request.
fn check_kdf(options: &Options, request: &Request) -> Result<()> {
    if options.keys().any(|key| key.ends_with("iter-time")) {
        return Err(invalid(KDF_TWICE));
    }
    if request.changes.iter().any(|it| matches!(it, Change::Add { .. })) {
        return Ok(());
    }
    Err(invalid("'iter-time' must not be given when erasing keyslots"))
}

/// Open options that locate the image.
fn located(args: &AmendArgs, spec: &ImageSpec) -> Result<OpenOptions> {
    args.location.apply_with(spec, OpenOptions::new())
}

fn check_writable(spec: &ImageSpec) -> Result<()> {
    if spec.read_only { Err(invalid("Block node is read-only")) } else { Ok(()) }
}

/// Whether the error is reported only after the secret is looked up: QEMU looks it up before it
/// reads the header. Not if the format of a non-LUKS image was left open, and not if a person would
/// be asked in vain.
fn waits_for_secret(error: &Error, spec: &ImageSpec, persona: Persona) -> bool {
    match error.kind() {
        _ if spec.key_secret.is_none() && persona == Persona::Keyslot => false,
        ErrorKind::NotLuks => spec.driver.is_some(),
        ErrorKind::Corrupt | ErrorKind::Unsupported => true,
        _ => false,
    }
}

/// Prints the options of a format, by default those of LUKS.
fn help(format: Option<&str>) -> Outcome {
    match format {
        Some("raw") => return Err(not_amendable().into()),
        Some("qcow2") => output::print(QCOW2_AMEND_HELP)?,
        Some(other) if check_driver(Some(other)).is_err() => {
            return Err(invalid(format!("Unknown file format '{other}'")).into());
        }
        _ => output::print(AMEND_HELP)?,
    }
    Ok(Status::Done)
}

/// Second and third line of QEMU's warning
const RAW_IS_DANGEROUS: [&str; 2] = [
    "         Automatically detecting the format is dangerous for raw images, write operations on block 0 will be restricted.",
    "         Specify the 'raw' format explicitly to remove the restrictions.",
];
const INVALID: &str = "Invalid password, cannot unlock any keyslot";

fn not_amendable() -> Error {
    let text = "Format driver 'raw' does not support option amendment";
    Error::new(ErrorKind::Unsupported, text)
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
