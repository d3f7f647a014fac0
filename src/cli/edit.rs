//! `keyslot add`, `erase` and `replace`: keyslots changed by people.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;
use keyslot::amend::{Change, Plan, PlannedChange, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Keyslot, Priority};
use keyslot::keyslot::{Pbkdf, Unlocked, Until};
use keyslot::secret::Passphrase;
use keyslot::{Error, ErrorKind, Image, Result, Sharing};
use serde_json::{Value, json};

use super::progress::Spinner;
use super::qemu_format;
use super::secrets::Secrets;
use super::{
    ChangeArgs, KdfArgs, ObjectArgs, Outcome, Output, Persona, SOURCES, changes, check_count,
    output,
};

/// Add a secret: a new keyslot that opens the image
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct AddArgs {
    /// Secret that opens the image now
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    /// Secret that shall open it too
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    /// Keyslot to put it into [default: the first inactive one]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keyslot: Option<i64>,

    #[command(flatten)]
    kdf: KdfArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    /// Image
    image: PathBuf,
}

/// Erase a secret: its keyslot is made inactive and its key material overwritten
///
/// By index, no secret is needed as long as another keyslot stays active. By secret, every
/// keyslot that it opens is erased.
#[derive(Args)]
#[command(after_help = SOURCES)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true).args(["keyslot", "old_secret"]))]
pub struct EraseArgs {
    /// Keyslot to erase
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keyslot: Option<i64>,

    /// Secret whose keyslots are erased
    #[arg(long, value_name = "SOURCE")]
    old_secret: Option<OsString>,

    /// Secret that must open the image before anything is erased
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    /// Image
    image: PathBuf,
}

/// Replace a secret by another one, in the same keyslot
///
/// The new secret opens the image before the old one is erased: in LUKS1 in a spare keyslot, in LUKS2
/// in another area. So an interruption at any instant leaves an image that opens with one of the
/// two.
#[derive(Args)]
#[command(after_help = SOURCES)]
pub struct ReplaceArgs {
    /// Secret to be replaced, in every keyslot that it opens
    #[arg(long, value_name = "SOURCE")]
    old_secret: Option<OsString>,

    /// Keyslot whose secret is replaced; --secret then says what opens the image
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    keyslot: Option<i64>,

    /// Secret that opens the image [default: the old secret]
    #[arg(long, value_name = "SOURCE")]
    secret: Option<OsString>,

    /// Secret to take its place
    #[arg(long, value_name = "SOURCE")]
    new_secret: Option<OsString>,

    #[command(flatten)]
    kdf: KdfArgs,
    #[command(flatten)]
    objects: ObjectArgs,
    #[command(flatten)]
    pub(super) change: ChangeArgs,

    /// Image
    image: PathBuf,
}

/// Runs `keyslot add`.
pub fn add(args: &AddArgs) -> Outcome {
    let secrets = Secrets::new(&args.objects.objects, &[&args.secret, &args.new_secret])?;
    let pbkdf = args.kdf.pbkdf();
    let job = Job::open(&args.image, &args.change, Persona::Keyslot)?;
    job.check_count(&pbkdf, Some(args.keyslot.unwrap_or(NEW)))?;
    let secret = secrets.existing(args.secret.as_ref(), "--secret", "Passphrase")?;
    let unlocked = job.unlock(&secret)?;
    let new_secret = job.new_secret(&secrets, args.new_secret.as_ref(), args.change.force)?;
    let change = Change::Add { keyslot: args.keyslot, new_secret: Ok(new_secret), pbkdf };
    carry_out(job, Request::one(change), Some(&unlocked), &args.change, true)
}

/// Runs `keyslot erase`.
pub fn erase(args: &EraseArgs) -> Outcome {
    let secrets = Secrets::new(&args.objects.objects, &[&args.secret, &args.old_secret])?;
    let mut job = Job::open(&args.image, &args.change, Persona::Keyslot)?;
    if let Some(source) = &args.secret {
        let secret = secrets.existing(Some(source), "--secret", "Passphrase")?;
        job.unlock(&secret)?;
        job.keep(secret);
    }
    let old_secret = match &args.old_secret {
        Some(source) => {
            Some(Ok(secrets.existing(Some(source), "--old-secret", "Passphrase to erase")?))
        }
        None => None,
    };
    let change = Change::Erase { keyslot: args.keyslot, old_secret };
    carry_out(job, Request::one(change), None, &args.change, true)
}

/// Runs `keyslot replace`.
pub fn replace(args: &ReplaceArgs) -> Outcome {
    let secrets =
        Secrets::new(&args.objects.objects, &[&args.old_secret, &args.secret, &args.new_secret])?;
    let pbkdf = args.kdf.pbkdf();
    let job = Job::open(&args.image, &args.change, Persona::Keyslot)?;
    job.check_count(&pbkdf, args.keyslot)?;
    let by_secret = args.keyslot.is_none() || args.old_secret.is_some();
    let old_secret = if by_secret {
        let source = args.old_secret.as_ref();
        Some(secrets.existing(source, "--old-secret", "Passphrase to replace")?)
    } else {
        None
    };
    let opener = match (&args.secret, &old_secret) {
        (None, Some(old_secret)) => old_secret.clone(),
        (source, _) => secrets.existing(source.as_ref(), "--secret", "Passphrase")?,
    };
    let unlocked = match job.unlock_for(&opener, args.keyslot) {
        Err(error) if args.secret.is_none() && error.kind() == ErrorKind::WrongSecret => {
            job.unlock_ignored(&opener).ok_or(error)?
        }
        result => result?,
    };
    let new_secret = job.new_secret(&secrets, args.new_secret.as_ref(), args.change.force)?;
    let change = Change::Replace {
        keyslot: args.keyslot,
        old_secret: old_secret.map(Ok),
        new_secret: Ok(new_secret),
        pbkdf,
    };
    carry_out(job, Request::one(change), Some(&unlocked), &args.change, true)
}

/// An image, opened to be changed.
pub struct Job {
    image: Image,
    path: PathBuf,
    quiet: bool,
    /// Must still open the image after an erase
    kept: Option<Passphrase>,
}

impl Job {
    /// Reads the header, and makes sure that the image is free. It is locked when all keys are derived.
    pub fn open(path: &Path, change: &ChangeArgs, persona: Persona) -> Result<Self> {
        let options = change.open_options().sharing(Sharing::None).write(true);
        let image = options.open(path)?;
        image.check_free()?;
        persona.admit(&image)?;
        image.check_amendable()?;
        Ok(Self { image, path: path.to_owned(), quiet: change.quiet, kept: None })
    }

    /// Has every erase refused, unless forced, that leaves no keyslot which this secret opens.
    pub fn keep(&mut self, secret: Passphrase) {
        self.kept = Some(secret);
    }

    /// Refuses to erase the last keyslot that the secret to be [kept](Self::keep) opens. A change
    /// that puts a new secret in leaves one that is known.
    fn check_kept(&self, plan: &Plan) -> Result<()> {
        let erased: Option<Vec<_>> = plan.changes().iter().map(erased).collect();
        let (Some(secret), Some(erased)) = (&self.kept, erased) else { return Ok(()) };
        let stays = |it: &Keyslot<'_>| {
            it.is_bound && it.priority != Priority::Ignore && !erased.contains(&it.index)
        };
        let active = self.image.keyslots().filter(|it| it.active);
        let staying: Vec<_> = active.filter(stays).map(|it| it.index).collect();
        let _spinner = Spinner::start("looking for the secret's keyslots", self.quiet);
        let mut failed = None;
        for outcome in self.image.try_keyslots(&staying, secret, Until::First).into_iter().flatten()
        {
            match outcome {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let text = "the secret given to open the image opens only what would be erased";
        let error = Error::new(ErrorKind::Refused, text).with_path(&self.path);
        Err(error.with_hint("give a secret that opens another keyslot, or use --force"))
    }

    /// The secret that a keyslot is to open with.
    fn new_secret(
        &self,
        secrets: &Secrets,
        source: Option<&OsString>,
        force: bool,
    ) -> Result<Passphrase> {
        let secret = secrets.new_secret(source, "--new-secret", "New passphrase", force);
        secret.map_err(|error| error.with_path(&self.path))
    }

    /// The plan of a request, if everything that it needs is there.
    fn plan(&self, request: Request, args: &ChangeArgs, is_unlocked: bool) -> Result<Plan> {
        let plan = {
            let _spinner = Spinner::start("looking for the secret's keyslots", self.quiet);
            self.image.plan(request)?
        };
        if !args.force {
            self.check_kept(&plan)?;
        }
        for change in plan.changes() {
            if let PlannedChange::Add { keyslot, pbkdf, .. }
            | PlannedChange::Replace { keyslot, pbkdf, .. } = change
            {
                let default = self.image.header().template(*keyslot)?.kdf;
                check_count(pbkdf, default).map_err(|error| error.with_path(&self.path))?;
            }
        }
        if plan.needs_volume_key() && !is_unlocked {
            return Err(Error::new(ErrorKind::InvalidInput, "a secret is needed"));
        }
        Ok(plan)
    }

    /// Whether the path still leads to the opened file.
    fn is_at_path(&self) -> bool {
        self.image.file().is_some_and(|file| file.is_file(file.path()).unwrap_or(false))
    }

    /// The volume key.
    pub fn unlock(&self, secret: &Passphrase) -> Result<Unlocked> {
        let _spinner = Spinner::start("unlocking", self.quiet);
        self.image.unlock(secret)
    }

    /// Refuses a count that no keyslot here can have, before anybody is asked for a secret.
    fn check_count(&self, pbkdf: &Pbkdf, keyslot: Option<i64>) -> Result<()> {
        let header = self.image.header();
        let index = keyslot.map(|keyslot| usize::try_from(keyslot).unwrap_or(usize::MAX));
        let mut kinds = match index {
            Some(index) => {
                vec![header.template(index).map_err(|error| error.with_path(&self.path))?.kdf]
            }
            None => header.keyslots().map(|keyslot| keyslot.kdf.alg.kind()).collect(),
        };
        // Argon2 admits more than PBKDF2 does.
        kinds.sort_by_key(|&kind| kind == KdfKind::Pbkdf2);
        let checked = kinds.first().map_or(Ok(()), |&kind| check_count(pbkdf, kind));
        checked.map_err(|error| error.with_path(&self.path))
    }

    /// The volume key out of a keyslot that is to be ignored, but is the one to be replaced.
    fn unlock_ignored(&self, secret: &Passphrase) -> Option<Unlocked> {
        let is_it = |it: &Keyslot<'_>| it.is_bound && it.priority == Priority::Ignore;
        let mut ignored = self.image.keyslots().filter(is_it);
        ignored.find_map(|it| self.image.unlock_keyslot(it.index, secret).ok())
    }

    /// The key that a keyslot to be replaced holds: the volume key, or, if it is unbound, its own.
    fn unlock_for(&self, secret: &Passphrase, keyslot: Option<i64>) -> Result<Unlocked> {
        let index = keyslot.and_then(|keyslot| usize::try_from(keyslot).ok());
        let keyslot = index.and_then(|index| self.image.header().keyslot(index));
        let _spinner = Spinner::start("unlocking", self.quiet);
        match keyslot {
            Some(keyslot) if !keyslot.is_bound => self.image.unlock_keyslot(keyslot.index, secret),
            Some(keyslot) => match self.image.unlock(secret) {
                // One that is to be ignored opens where it is named.
                Err(error) if error.kind() == ErrorKind::WrongSecret => {
                    self.image.unlock_keyslot(keyslot.index, secret).map_err(|_| error)
                }
                result => result,
            },
            None => self.image.unlock(secret),
        }
    }
}

/// Plans the request, and unless it is a dry run does it. If it is to `tell`, warns before and
/// prints what came of it.
///
/// Keys are derived while the image is free to others. If they change its header meanwhile, the
/// request is planned again.
pub fn carry_out(
    mut job: Job,
    request: Request,
    unlocked: Option<&Unlocked>,
    args: &ChangeArgs,
    tell: bool,
) -> Outcome {
    let request = Request { force: args.force, ..request };
    let mut told = HashSet::new();
    let mut attempts = 1..=ATTEMPTS;
    let (plan, changes) = loop {
        let is_last = attempts.next().is_none_or(|attempt| attempt == ATTEMPTS);
        let plan = job.plan(request.clone(), args, unlocked.is_some())?;
        if tell && !args.quiet {
            let damage = job.image.header().warning().map(str::to_owned);
            for warning in damage.iter().chain(plan.warnings()) {
                if told.insert(warning.clone()) {
                    output::tell(&format!("warning: {}: {warning}", job.path.display()));
                }
            }
        }
        if args.dry_run {
            let changes: Vec<Value> = plan.changes().iter().map(changes::planned).collect();
            break (plan, changes);
        }
        let _spinner = Spinner::start("writing keyslots", job.quiet);
        match job.image.amend(&plan, unlocked) {
            Err(error) if error.kind() == ErrorKind::Changed && !is_last && job.is_at_path() => {}
            result => {
                let changes = result?.iter().map(changes::done).collect();
                break (plan, changes);
            }
        }
    };
    let text = if args.output == Output::Json {
        let result = json!({
            "filename": job.path.to_string_lossy(),
            "dry-run": args.dry_run,
            "changes": changes,
            "warnings": plan.warnings(),
        });
        qemu_format::json_line(&result)
    } else if (tell || args.dry_run) && !args.quiet {
        changes::describe(&plan, &changes, args.dry_run)
    } else {
        return Ok(());
    };
    let print = if args.dry_run { output::print } else { output::print_done };
    Ok(print(&text)?)
}

/// The keyslot that a change erases, if it does nothing else.
fn erased(change: &PlannedChange) -> Option<usize> {
    match change {
        PlannedChange::Erase { keyslot } => Some(*keyslot),
        _ => None,
    }
}

/// No keyslot that there is
const NEW: i64 = i64::MAX;

/// How often a request is planned before it is given up because others keep changing the header.
const ATTEMPTS: usize = 16;
