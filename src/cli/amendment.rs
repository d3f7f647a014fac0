//! Opens an image to be changed, unlocks it and carries out an amendment.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use keyslot::amend::{Plan, PlannedChange, Request};
use keyslot::crypto::KdfKind;
use keyslot::header::{Keyslot, Priority};
use keyslot::kdf::Pbkdf;
use keyslot::qemu::words::amend_error;
use keyslot::secret::Passphrase;
use keyslot::unlock::{Unlocked, Until};
use keyslot::{Error, ErrorKind, Image, OpenOptions, Override, Result, Sharing};

use super::changes::{AmendmentReport, KeyslotChange};
use super::check::opens_nothing;
use super::location::ImageArgs;
use super::progress::Spinner;
use super::secrets::{Question, Secrets, check_not_empty, line_end_warning};
use super::{ChangeArgs, Outcome, Persona, check_count, output};

/// An image, opened to be changed.
pub struct Amendment {
    image: Image,
    path: PathBuf,
    quiet: bool,
    /// Secret that must still open the image after an erase
    kept: Option<Passphrase>,
}

impl Amendment {
    /// Reads the header and checks that no other program has the image open. The image is locked
    /// later, once all keys are derived.
    pub fn open(image: &ImageArgs, change: &ChangeArgs) -> Result<Self> {
        let options = image.apply(change.open_options());
        Self::open_with(image.path(), options, change, Persona::Keyslot)
    }

    /// Opens the image at `path` with these options, like [`open`](Self::open).
    pub fn open_with(
        path: &Path,
        options: OpenOptions,
        change: &ChangeArgs,
        persona: Persona,
    ) -> Result<Self> {
        let image = options.sharing(Sharing::None).write(true).open(path)?;
        image.check_free()?;
        persona.admit(&image)?;
        image.check_amendable()?;
        Ok(Self { image, path: path.to_owned(), quiet: change.quiet, kept: None })
    }

    /// Refuses an image that no keyslot opens.
    pub fn check_openable(&self) -> Result<()> {
        self.image.header().check_openable().map_err(|error| error.with_path(&self.path))
    }

    /// Refuses later erases that leave no keyslot which this secret opens, unless overridden.
    pub fn keep(&mut self, secret: Passphrase) {
        self.kept = Some(secret);
    }

    /// Refuses to erase the last keyslot that the secret to be [kept](Self::keep) opens. A plan
    /// that also adds or replaces a secret passes, because the new secret is known.
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
        let text = "the secret that opened the image opens only keyslots that would be erased";
        let error = Error::new(ErrorKind::Refused, text).with_path(&self.path);
        Err(error.with_hint("give a secret that opens another keyslot, or use --lose-key"))
    }

    /// The opened image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Prompt for a secret of this image.
    pub fn question(&self, option: &'static str, what: &'static str) -> Question<'_> {
        Question { option, what, image: Some(&self.path) }
    }

    /// Reads a new secret and [checks](Self::check_new) it.
    pub fn new_secret(
        &self,
        secrets: &Secrets,
        source: Option<&OsString>,
        allow_empty: bool,
    ) -> Result<Passphrase> {
        let question = self.question("--new-secret", "New passphrase");
        let secret = secrets.new_secret(source, &question, allow_empty);
        let secret = secret.map_err(|error| error.with_path(&self.path))?;
        self.check_new(&secret, allow_empty)?;
        Ok(secret)
    }

    /// Refuses an empty new secret, unless it is allowed, and warns of one that ends in a newline
    /// or carriage return.
    pub fn check_new(&self, secret: &Passphrase, allow_empty: bool) -> Result<()> {
        check_not_empty(secret, allow_empty).map_err(|error| error.with_path(&self.path))?;
        if let Some(warning) = line_end_warning(secret).filter(|_| !self.quiet) {
            output::tell(&format!("warning: {}: {warning}", self.path.display()));
        }
        Ok(())
    }

    /// Refuses a request that no secret could make valid, before a person is asked for secrets.
    pub fn check(&self, request: Request) -> Result<()> {
        self.image.plan(request).map(drop).map_err(amend_error)
    }

    /// Refuses a secret that opens no keyslot at all.
    pub fn must_open_any(&self, secret: &Passphrase) -> Result<()> {
        let keyslots: Vec<_> = self.image.keyslots().map(|it| it.index).collect();
        let _spinner = Spinner::start("looking for the secret's keyslots", self.quiet);
        let outcomes = self.image.try_keyslots(&keyslots, secret, Until::All);
        for outcome in outcomes.into_iter().flatten() {
            if outcome? {
                return Ok(());
            }
        }
        Err(opens_nothing(secret).with_path(&self.path))
    }

    /// Unlocks the volume key from `keyslot`, or from the first keyslot that opens.
    pub fn unlock_at(&self, keyslot: Option<i64>, secret: &Passphrase) -> Result<Unlocked> {
        let Some(keyslot) = keyslot else { return self.unlock(secret) };
        let _spinner = Spinner::start("unlocking", self.quiet);
        self.image.unlock_keyslot(usize::try_from(keyslot).unwrap_or(usize::MAX), secret)
    }

    /// Plans a request. Refuses a plan that loses the kept secret, has too low an iteration count,
    /// or needs a secret that was not given.
    fn plan(&self, request: Request, is_unlocked: bool) -> Result<Plan> {
        let overrides = request.overrides;
        let plan = {
            let _spinner = Spinner::start("looking for the secret's keyslots", self.quiet);
            self.image.plan(request).map_err(amend_error)?
        };
        if !overrides.has(Override::LoseKey) {
            self.check_kept(&plan)?;
        }
        for change in plan.changes() {
            if let PlannedChange::Add { keyslot, new, .. }
            | PlannedChange::Replace { keyslot, new, .. } = change
            {
                let default = self.image.header().template(*keyslot)?.kdf;
                check_count(&new.pbkdf, default).map_err(|error| error.with_path(&self.path))?;
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

    /// Unlocks the volume key from the first keyslot that opens.
    pub fn unlock(&self, secret: &Passphrase) -> Result<Unlocked> {
        let _spinner = Spinner::start("unlocking", self.quiet);
        self.image.unlock(secret)
    }

    /// Refuses an iteration count that is too low for all keyslots concerned, before a person is
    /// asked for a secret.
    pub fn check_count(&self, pbkdf: &Pbkdf, keyslot: Option<i64>) -> Result<()> {
        let header = self.image.header();
        let index = keyslot.map(|keyslot| usize::try_from(keyslot).unwrap_or(usize::MAX));
        let mut kinds = match index {
            Some(index) => {
                vec![header.template(index).map_err(|error| error.with_path(&self.path))?.kdf]
            }
            None => header.keyslots().map(|keyslot| keyslot.kdf.alg.kind()).collect(),
        };
        // An Argon2 keyslot decides, because its minimum is lower.
        kinds.sort_by_key(|&kind| kind == KdfKind::Pbkdf2);
        let checked = kinds.first().map_or(Ok(()), |&kind| check_count(pbkdf, kind));
        checked.map_err(|error| error.with_path(&self.path))
    }

    /// Unlocks the volume key from a keyslot of priority `ignore`, which [`unlock`](Self::unlock)
    /// skips.
    pub fn unlock_ignored(&self, secret: &Passphrase) -> Option<Unlocked> {
        let is_it = |it: &Keyslot<'_>| it.is_bound && it.priority == Priority::Ignore;
        let mut ignored = self.image.keyslots().filter(is_it);
        ignored.find_map(|it| self.image.unlock_keyslot(it.index, secret).ok())
    }

    /// Unlocks the key in the keyslot to be replaced: the volume key or, if unbound, its own.
    pub fn unlock_for(&self, secret: &Passphrase, keyslot: Option<i64>) -> Result<Unlocked> {
        let index = keyslot.and_then(|keyslot| usize::try_from(keyslot).ok());
        let keyslot = index.and_then(|index| self.image.header().keyslot(index));
        let _spinner = Spinner::start("unlocking", self.quiet);
        match keyslot {
            Some(keyslot) if !keyslot.is_bound => self.image.unlock_keyslot(keyslot.index, secret),
            Some(keyslot) => match self.image.unlock(secret) {
                // A keyslot of priority `ignore` is tried only where it is named.
                Err(error) if error.kind() == ErrorKind::WrongSecret => {
                    self.image.unlock_keyslot(keyslot.index, secret).map_err(|_| error)
                }
                result => result,
            },
            None => self.image.unlock(secret),
        }
    }
}

/// Plans the request and, unless it is a dry run, carries it out. With `tell`, prints warnings
/// before and the report after.
///
/// Keys are derived before the image is locked. If another program changes the header meanwhile,
/// the request is planned again.
pub fn carry_out(
    mut amendment: Amendment,
    request: &Request,
    unlocked: Option<&Unlocked>,
    args: &ChangeArgs,
    tell: bool,
) -> Outcome {
    let mut told = HashSet::new();
    let mut attempts = ATTEMPTS;
    let (changes, warnings) = loop {
        attempts -= 1;
        let plan = amendment.plan(request.clone(), unlocked.is_some())?;
        let damage = amendment.image.header().warning().map(str::to_owned).into_iter();
        let warnings: Vec<_> = damage.chain(plan.warnings().iter().cloned()).collect();
        for warning in warnings.iter().filter(|_| tell && !args.quiet) {
            if told.insert(warning.clone()) {
                output::tell(&format!("warning: {}: {warning}", amendment.path.display()));
            }
        }
        if args.dry_run || plan.changes().is_empty() {
            break (plan.changes().iter().filter_map(KeyslotChange::planned).collect(), warnings);
        }
        let _spinner = Spinner::start("writing keyslots", amendment.quiet);
        match amendment.image.amend(&plan, unlocked) {
            Err(error)
                if error.kind() == ErrorKind::Changed && attempts > 0 && amendment.is_at_path() => {
            }
            result => {
                break (result?.iter().filter_map(KeyslotChange::done).collect(), warnings);
            }
        }
    };
    let filename = output::filename(&amendment.path);
    let report = AmendmentReport { filename, dry_run: args.dry_run, changes, warnings };
    let quiet = args.quiet || !(tell || args.dry_run);
    Ok(output::report(&report, args.output, quiet)?)
}

/// The keyslot that a change erases, if it does nothing else.
fn erased(change: &PlannedChange) -> Option<usize> {
    match change {
        PlannedChange::Erase { keyslot } => Some(*keyslot),
        _ => None,
    }
}

/// Number of times a request is planned while other programs keep changing the header.
const ATTEMPTS: usize = 16;
