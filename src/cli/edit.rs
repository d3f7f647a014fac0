//! `keyslot add` and `replace`: new secrets for keyslots.

use std::ffi::OsString;

use clap::Args;
use keyslot::amend::{Change, Request};
use keyslot::crypto::HashAlg;
use keyslot::kdf::Pbkdf;
use keyslot::secret::Passphrase;
use keyslot::{Error, ErrorKind, Override, Result};

use super::amendment::{Amendment, carry_out};
use super::location::ImageArgs;
use super::opening::OpeningArgs;
use super::secrets::Secrets;
use super::{ChangeArgs, KdfArgs, ObjectArgs, Outcome, SOURCES};

/// Add a secret that opens the image, in a new keyslot
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct AddArgs {
    #[command(flatten)]
    opening: OpeningArgs,

    /// New secret to add
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    /// Keyslot to put the new secret into [default: the first inactive one]; with --new-keyslot,
    /// the keyslot to unlock with
    #[arg(
        short = 'S',
        long,
        visible_alias = "key-slot",
        value_name = "N",
        allow_negative_numbers = true
    )]
    keyslot: Option<i64>,

    /// Overwrite the secret of an active keyslot; that secret is lost
    #[arg(long)]
    overwrite_keyslot: bool,

    /// Overwrite it in place if no keyslot is free; an interruption then loses both secrets
    #[arg(long)]
    in_place: bool,

    /// Keyslot to put the new secret into
    #[arg(long, visible_alias = "new-key-slot", value_name = "N", allow_negative_numbers = true)]
    new_keyslot: Option<i64>,

    #[command(flatten)]
    new: NewArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Replace a secret with a new one, in the same keyslot
///
/// The new secret opens the image before the old one is erased: LUKS1 uses a spare keyslot, LUKS2 a
/// free area. An interruption at any instant leaves an image that opens with one of the two.
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct ReplaceArgs {
    /// Secret to replace, in every keyslot that it opens
    #[arg(long, value_name = "SOURCE")]
    old_secret: Option<OsString>,

    /// Keyslot whose secret is replaced; --secret then opens the image
    #[arg(
        short = 'S',
        long,
        visible_alias = "key-slot",
        value_name = "N",
        allow_negative_numbers = true
    )]
    keyslot: Option<i64>,

    // Without --secret, the old secret opens the image.
    #[command(flatten)]
    opening: OpeningArgs,

    /// Replace in place if no keyslot is free; an interruption then loses both secrets
    #[arg(long)]
    in_place: bool,

    /// Keep tokens that lose their last keyslot, instead of removing them
    #[arg(long)]
    keep_tokens: bool,

    /// New secret
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    #[command(flatten)]
    new: NewArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Runs `keyslot add`.
pub fn add(args: &AddArgs) -> Outcome {
    let secrets = Secrets::with_opening(&args.objects.objects, &args.opening, &args.new_secret)?;
    let pbkdf = args.new.pbkdf()?;
    // As with cryptsetup, --keyslot names the new keyslot unless --new-keyslot does.
    let (opener, keyslot) = match args.new_keyslot {
        Some(keyslot) => (args.keyslot, Some(keyslot)),
        None => (None, args.keyslot),
    };
    let amendment = Amendment::open(&args.image, &args.change)?;
    amendment.check_openable()?;
    amendment.check_count(&pbkdf, Some(keyslot.unwrap_or(NEW)))?;
    let source = args.opening.source();
    let overrides = args.change.overrides(&[
        (Override::OverwriteKeyslot, args.overwrite_keyslot),
        (Override::InPlace, args.in_place),
    ]);
    let add = |new_secret| Change::Add { keyslot, new_secret: Ok(new_secret), pbkdf };
    if Secrets::asks(source.as_ref()) || Secrets::asks(args.new_secret.as_ref()) {
        amendment.check(Request::one(add(placeholder()?)).overrides(overrides))?;
    }
    let question = amendment.question("--secret", "Passphrase");
    let (_, unlocked) = secrets
        .try_opening(source.as_ref(), &question, |secret| amendment.unlock_at(opener, secret))?;
    let new_secret =
        amendment.new_secret(&secrets, args.new_secret.as_ref(), args.new.allow_empty_secret)?;
    let request = Request::one(add(new_secret)).overrides(overrides);
    carry_out(amendment, &request, Some(&unlocked), &args.change, true)
}

/// Runs `keyslot replace`.
pub fn replace(args: &ReplaceArgs) -> Outcome {
    let sources = args.old_secret.iter().chain(&args.new_secret);
    let secrets = Secrets::with_opening(&args.objects.objects, &args.opening, sources)?;
    let pbkdf = args.new.pbkdf()?;
    let amendment = Amendment::open(&args.image, &args.change)?;
    let keyslot = args.keyslot;
    let overrides = args.change.overrides(&[(Override::InPlace, args.in_place)]);
    let request = |change| Request::one(change).overrides(overrides).keep_tokens(args.keep_tokens);
    if keyslot.is_none() {
        amendment.check_openable()?;
    }
    amendment.check_count(&pbkdf, keyslot)?;
    let (mut opener, mut old) = (args.opening.source(), args.old_secret.clone());
    if keyslot.is_none() && old.is_none() && args.opening.key_file.is_some() {
        // As with cryptsetup, the key file then is the secret to replace.
        old = opener.take();
    }
    let is_asked = [&opener, &old, &args.new_secret].into_iter();
    if keyslot.is_some() && is_asked.map(Option::as_ref).any(Secrets::asks) {
        let new_secret = Ok(placeholder()?);
        amendment.check(request(Change::Replace {
            keyslot,
            old_secret: None,
            new_secret,
            pbkdf,
        }))?;
    }
    let by_secret = keyslot.is_none() || old.is_some();
    let mut unlocked = None;
    if opener.is_some() || !by_secret {
        let question = amendment.question("--secret", "Passphrase");
        let opened = secrets.try_opening(opener.as_ref(), &question, |secret| {
            amendment.unlock_for(secret, keyslot)
        })?;
        unlocked = Some(opened.1);
    }
    let mut old_secret = None;
    if by_secret {
        let question = amendment.question("--old-secret", "Passphrase to replace");
        let is_typed = Secrets::asks(old.as_ref());
        let (secret, opened) =
            secrets.try_opening(old.as_ref(), &question, |secret| match &unlocked {
                None => match amendment.unlock_for(secret, keyslot) {
                    Err(error) if error.kind() == ErrorKind::WrongSecret => {
                        amendment.unlock_ignored(secret).map(Some).ok_or(error)
                    }
                    result => result.map(Some),
                },
                Some(_) if is_typed => amendment.must_open_any(secret).map(|()| None),
                Some(_) => Ok(None),
            })?;
        old_secret = Some(Ok(secret));
        unlocked = unlocked.or(opened);
    }
    let new_secret =
        amendment.new_secret(&secrets, args.new_secret.as_ref(), args.new.allow_empty_secret)?;
    let change = Change::Replace { keyslot, old_secret, new_secret: Ok(new_secret), pbkdf };
    carry_out(amendment, &request(change), unlocked.as_ref(), &args.change, true)
}

/// Empty secret, for checks that do not depend on the secret.
fn placeholder() -> Result<Passphrase> {
    Passphrase::new(b"")
}

/// Index beyond all keyslots, for a keyslot that is not chosen yet
const NEW: i64 = i64::MAX;

/// Options of the new keyslot
#[derive(Args)]
struct NewArgs {
    /// Allow an empty new secret, which opens the image to everyone
    #[arg(long)]
    allow_empty_secret: bool,

    /// Hash of PBKDF2 and of the anti-forensic split [default: unchanged; for a new keyslot sha256]
    #[arg(long, value_name = "HASH")]
    hash: Option<String>,

    #[command(flatten)]
    kdf: KdfArgs,
}

impl NewArgs {
    fn pbkdf(&self) -> Result<Pbkdf> {
        let named = |error: Error| Error::new(ErrorKind::InvalidInput, error.message());
        let hash = self.hash.as_deref().map(HashAlg::parse).transpose().map_err(named)?;
        Ok(self.kdf.pbkdf().hash(hash))
    }
}
