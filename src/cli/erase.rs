//! `keyslot erase`: erases keyslots by number, by secret, or all of them.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::IsTerminal;

use clap::Args;
use keyslot::amend::{Change, Request};
use keyslot::header::Leftover;
use keyslot::secret::Passphrase;
use keyslot::{Error, ErrorKind, Override, Result};

use super::amendment::{Amendment, carry_out};
use super::location::ImageArgs;
use super::opening::OpeningArgs;
use super::secrets::Secrets;
use super::{ChangeArgs, ObjectArgs, Outcome, SOURCES, prompt};

/// Erase keyslots: make them inactive and overwrite their key material
///
/// Erasing by index needs no secret as long as another keyslot stays active. Erasing by secret
/// erases every keyslot that the secret opens. Several keyslots or secrets are erased in one
/// amendment, all of them or none. A secret given by --secret must open a keyslot that stays.
#[derive(Args)]
#[command(after_help = SOURCES)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["keyslot", "old_secret", "all"]))]
#[allow(clippy::struct_excessive_bools, reason = "each is an option")]
pub struct EraseArgs {
    /// Keyslot to erase; may be given several times
    #[arg(short = 'S', long, visible_alias = "key-slot", value_name = "N", allow_negative_numbers = true, action = clap::ArgAction::Append)]
    keyslot: Vec<i64>,

    /// Secret whose keyslots are erased; may be given several times. With --keyslot, it must open
    /// each of those keyslots
    #[arg(long, value_name = "SOURCE", action = clap::ArgAction::Append)]
    old_secret: Vec<OsString>,

    /// Erase all keyslots; no secret opens the image afterwards
    #[arg(long, conflicts_with_all = ["keyslot", "old_secret", "secret", "key_file"])]
    all: bool,

    /// Erase even the last keyslot that holds a key; data encrypted with that key is lost
    #[arg(long)]
    lose_key: bool,

    /// Also overwrite the areas of inactive keyslots
    #[arg(long, conflicts_with = "if_present")]
    erase_inactive: bool,

    /// Skip inactive keyslots
    #[arg(long)]
    if_present: bool,

    /// Keep tokens that lose their last keyslot, instead of removing them
    #[arg(long)]
    keep_tokens: bool,

    #[command(flatten)]
    opening: OpeningArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    #[command(flatten)]
    image: ImageArgs,
}

/// Runs `keyslot erase`.
pub fn erase(args: &EraseArgs) -> Outcome {
    if !args.keyslot.is_empty() && args.old_secret.len() > 1 {
        let text = "--old-secret can be given only once with --keyslot";
        return Err(Error::new(ErrorKind::InvalidInput, text).into());
    }
    let secrets = Secrets::with_opening(&args.objects.objects, &args.opening, &args.old_secret)?;
    let mut amendment = Amendment::open(&args.image, &args.change)?;
    let keyslots = args.keyslots(&amendment);
    let overrides = args.change.overrides(&[
        (Override::LoseKey, args.lose_key || args.all),
        (Override::EraseInactive, args.erase_inactive || args.all),
    ]);
    let request =
        |changes| Request::new(changes).overrides(overrides).keep_tokens(args.keep_tokens);
    let by_index = |old_secret: Option<&Passphrase>| -> Vec<_> {
        let old_secret = |_: &i64| old_secret.map(|secret| Ok(secret.clone()));
        keyslots
            .iter()
            .map(|keyslot| Change::Erase {
                keyslot: Some(*keyslot),
                old_secret: old_secret(keyslot),
            })
            .collect()
    };
    let source = args.opening.source();
    if args.all && !args.change.dry_run && !args.change.force {
        confirm_all(args.image.path())?;
    } else if source.iter().chain(&args.old_secret).any(|it| Secrets::asks(Some(it))) {
        amendment.check(request(by_index(None)))?;
    }
    if source.is_some() {
        let question = amendment.question("--secret", "Passphrase");
        let (secret, _) =
            secrets.try_opening(source.as_ref(), &question, |secret| amendment.unlock(secret))?;
        amendment.keep(secret);
    }
    let mut old_secrets: Vec<Passphrase> = Vec::new();
    for source in &args.old_secret {
        let question = amendment.question("--old-secret", "Passphrase to erase");
        let is_typed = Secrets::asks(Some(source));
        let check =
            |secret: &Passphrase| if is_typed { amendment.must_open_any(secret) } else { Ok(()) };
        let (secret, ()) = secrets.try_opening(Some(source), &question, check)?;
        if !old_secrets.contains(&secret) {
            old_secrets.push(secret);
        }
    }
    let changes = if args.keyslot.is_empty() && !args.all {
        old_secrets.iter().map(Change::erase_secret).collect()
    } else {
        by_index(old_secrets.first())
    };
    carry_out(amendment, &request(changes), None, &args.change, true)
}

impl EraseArgs {
    /// Keyslots to erase by index, each once.
    fn keyslots(&self, amendment: &Amendment) -> Vec<i64> {
        let occupants = amendment.image().header().occupants();
        let is_active =
            |index: i64| usize::try_from(index).ok().and_then(|it| occupants.get(it)).copied();
        if self.all {
            let all = 0..i64::try_from(occupants.len()).unwrap_or(0);
            return all.filter(|&index| is_active(index).flatten().is_some()).collect();
        }
        let leftovers = amendment.image().header().leftovers();
        let is_left = |index: i64| {
            leftovers.iter().any(|it| matches!(it, Leftover::Wipe { keyslot } | Leftover::Replace { keyslot, .. } if i64::try_from(*keyslot) == Ok(index)))
        };
        let keyslots: BTreeSet<_> = self.keyslot.iter().copied().collect();
        // An index out of range is an error even with --if-present.
        let is_kept = |index: &i64| {
            !self.if_present || is_left(*index) || is_active(*index).is_none_or(|it| it.is_some())
        };
        keyslots.into_iter().filter(is_kept).collect()
    }
}

/// Asks for confirmation before all keyslots are erased.
fn confirm_all(image: &std::path::Path) -> Result<()> {
    let failed =
        |kind, text: &str, hint: &str| Err(Error::new(kind, text).with_path(image).with_hint(hint));
    if !std::io::stderr().is_terminal() && !std::io::stdin().is_terminal() {
        let text = "not confirmed: no terminal";
        return failed(
            ErrorKind::Refused,
            text,
            "use --force to erase all keyslots without asking",
        );
    }
    let question =
        format!("Erase all keyslots of {}, so that no secret opens it?", image.display());
    if prompt::confirm(&question)? {
        return Ok(());
    }
    let text = "not confirmed: nothing has changed";
    failed(ErrorKind::Cancelled, text, "type 'yes' in full")
}
