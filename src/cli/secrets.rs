//! Sources of the secrets of a command.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::Path;

use keyslot::qemu::SecretObjects;
use keyslot::secret::{Passphrase, Source};
use keyslot::{Error, ErrorKind, Result};

use super::opening::{OpeningArgs, file_in_part};
use super::prompt::ask;
use super::{Persona, output};

/// Secret objects of a command line, and the secrets read from its descriptors.
pub struct Secrets {
    pub objects: SecretObjects,
    /// Read before any file is opened: otherwise a missing descriptor's number could be the image's
    descriptors: Vec<(u32, Passphrase)>,
    /// The part of a key file that is the secret
    part: Option<Passphrase>,
    /// The lines of standard input, if several secrets are read from it
    lines: RefCell<VecDeque<Passphrase>>,
    /// Number of attempts at typing a passphrase
    tries: u32,
}

/// A prompt for a secret.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Option that would give the secret
    pub option: &'static str,
    /// Name of the secret, such as Name of the secret, such as `Passphrase`
    pub what: &'static str,
    /// Image that the secret is for
    pub image: Option<&'a Path>,
}

impl Question<'_> {
    fn text(&self) -> String {
        match self.image {
            Some(image) => format!("{}: {}", image.display(), self.what),
            None => self.what.to_owned(),
        }
    }
}

impl Secrets {
    /// Creates the objects in their order, and checks all sources before any file is opened.
    pub fn new<'a>(
        objects: &[String],
        sources: impl IntoIterator<Item = &'a OsString>,
    ) -> Result<Self> {
        let sources = sources.into_iter().filter(|source| file_in_part(source).is_none());
        let sources = sources.map(Source::parse).collect::<Result<Vec<_>>>()?;
        let count = |wanted: &Source| sources.iter().filter(|source| *source == wanted).count();
        let lines = count(&Source::Stdin);
        if count(&Source::Fd(0)) > 1 || (lines > 0 && count(&Source::Fd(0)) > 0) {
            return Err(invalid("only one secret can be read from standard input")
                .with_hint("use stdin for each secret, and put each on its own line"));
        }
        let is_shared = |it: &&Source| matches!(it, Source::Fd(1..)) && count(it) > 1;
        if let Some(Source::Fd(number)) = sources.iter().find(is_shared) {
            return Err(invalid(&format!("only one secret can be read from fd:{number}"))
                .with_hint("use a descriptor of its own for each secret"));
        }
        let mut secrets = Self {
            objects: SecretObjects::new(),
            descriptors: Vec::new(),
            part: None,
            lines: RefCell::default(),
            tries: 3,
        };
        for source in &sources {
            if let Source::Fd(number) = source {
                let mut no_prompt = || Err(invalid("a descriptor is not a prompt"));
                let secret = source.read(&secrets.objects, &mut no_prompt)?;
                secrets.descriptors.push((*number, secret));
            }
        }
        if lines > 1 {
            secrets.lines = RefCell::new(stdin_lines(lines)?);
        }
        for object in objects {
            secrets.objects.add(object)?;
        }
        Ok(secrets)
    }

    /// Like [`new`](Self::new), with the secret that opens the image as the first source.
    pub fn with_opening<'a>(
        objects: &[String],
        opening: &OpeningArgs,
        sources: impl IntoIterator<Item = &'a OsString>,
    ) -> Result<Self> {
        let first = opening.source();
        let sources: Vec<_> = sources.into_iter().collect();
        let mut secrets = Self::new(objects, first.iter().chain(sources))?;
        secrets.part = opening.read_part()?;
        secrets.tries = opening.tries;
        Ok(secrets)
    }

    /// Whether a person is asked for the secret of this source.
    pub fn asks(source: Option<&OsString>) -> bool {
        match source {
            Some(source) => source == "prompt",
            None => has_terminal(),
        }
    }

    /// Reads an existing secret and passes it to `open`. A person who types a wrong one is asked
    /// again.
    pub fn try_opening<T>(
        &self,
        source: Option<&OsString>,
        question: &Question<'_>,
        mut open: impl FnMut(&Passphrase) -> Result<T>,
    ) -> Result<(Passphrase, T)> {
        let mut tries = if Self::asks(source) { self.tries } else { 1 };
        loop {
            let secret = self.existing(source, question)?;
            tries -= 1;
            match open(&secret) {
                Err(error) if error.kind() == ErrorKind::WrongSecret && tries > 0 => {
                    output::tell(&format!("keyslot: {error}; try again"));
                }
                result => return result.map(|opened| (secret, opened)),
            }
        }
    }

    /// The secret that opens an image: the `key-secret` of its options, or that of a source,
    /// [not both](not_both).
    pub fn opening(
        &self,
        key_secret: Option<&str>,
        source: Option<&OsString>,
        question: &Question<'_>,
        persona: Persona,
    ) -> Result<Passphrase> {
        match key_secret {
            Some(id) => self.objects.passphrase_utf8(id),
            None if source.is_none() && persona == Persona::QemuImg => {
                Err(no_key_secret("key-secret"))
            }
            None => self.existing(source, question),
        }
    }

    /// Reads a secret as [`opening`](Self::opening) does and passes it to `open`. A person who
    /// types a wrong one is asked again.
    pub fn open<T>(
        &self,
        key_secret: Option<&str>,
        source: Option<&OsString>,
        question: &Question<'_>,
        persona: Persona,
        mut open: impl FnMut(&Passphrase) -> Result<T>,
    ) -> Result<T> {
        if key_secret.is_some() || persona == Persona::QemuImg {
            return open(&self.opening(key_secret, source, question, persona)?);
        }
        self.try_opening(source, question, open).map(|(_, opened)| opened)
    }

    /// Reads the secret of this source. Without a source, a person is asked.
    pub fn existing(
        &self,
        source: Option<&OsString>,
        question: &Question<'_>,
    ) -> Result<Passphrase> {
        self.read(source, question, &mut || ask(&question.text()))
    }

    /// Reads a new secret, which a person types twice. An empty one needs `allow_empty`, because it
    /// opens the image to everyone.
    pub fn new_secret(
        &self,
        source: Option<&OsString>,
        question: &Question<'_>,
        allow_empty: bool,
    ) -> Result<Passphrase> {
        let secret = self.read(source, question, &mut || {
            let text = question.text();
            let first = ask(&text)?;
            if first == ask(&format!("{text}, again"))? {
                Ok(first)
            } else {
                Err(invalid("the two passphrases differ"))
            }
        })?;
        check_not_empty(&secret, allow_empty)?;
        Ok(secret)
    }

    fn read(
        &self,
        source: Option<&OsString>,
        question: &Question<'_>,
        prompt: &mut dyn FnMut() -> Result<Passphrase>,
    ) -> Result<Passphrase> {
        let source = match source {
            Some(source) if file_in_part(source).is_some() => {
                return self.part.clone().ok_or_else(|| invalid("the key file was not read"));
            }
            Some(source) => Source::parse(source)?,
            None if has_terminal() => Source::Prompt,
            None => {
                let option = question.option;
                let text = format!("{option} is required without a terminal");
                return Err(
                    invalid(&text).with_hint("use file:PATH, env:NAME, fd:N, stdin or object:ID")
                );
            }
        };
        if source == Source::Stdin
            && let Some(line) = self.lines.borrow_mut().pop_front()
        {
            return Ok(line);
        }
        let is_it = |(number, _): &&(u32, Passphrase)| source == Source::Fd(*number);
        match self.descriptors.iter().find(is_it) {
            Some((_, secret)) => Ok(secret.clone()),
            None => source.read(&self.objects, prompt),
        }
    }
}

/// Refuses an empty new secret, unless `allow_empty`.
pub fn check_not_empty(secret: &Passphrase, allow_empty: bool) -> Result<()> {
    if allow_empty || !secret.as_bytes().is_empty() {
        return Ok(());
    }
    let hint = "use --allow-empty-secret to let everyone open the image";
    Err(Error::new(ErrorKind::Refused, "the new secret is empty").with_hint(hint))
}

/// Warning about a new secret that ends in a newline or carriage return, as no typed one does.
pub fn line_end_warning(secret: &Passphrase) -> Option<String> {
    let end = match secret.as_bytes().last()? {
        b'\n' => "newline",
        b'\r' => "carriage return",
        _ => return None,
    };
    Some(format!("the new secret ends in a {end}, which is part of it and cannot be typed"))
}

/// Reads `count` secrets from standard input, one per line.
fn stdin_lines(count: usize) -> Result<VecDeque<Passphrase>> {
    let mut no_prompt = || Err(invalid("standard input is not a prompt"));
    let all = Source::Stdin.read(&SecretObjects::new(), &mut no_prompt)?;
    let lines: VecDeque<_> = all.as_bytes().split(|&byte| byte == b'\n').collect();
    if lines.len() != count {
        let text = format!("{} lines: expected {count}, one per secret", lines.len());
        return Err(invalid(&text).with_path("standard input"));
    }
    lines.into_iter().map(Passphrase::new).collect()
}

fn has_terminal() -> bool {
    std::io::stderr().is_terminal() || std::io::stdin().is_terminal()
}

/// QEMU's error for an image without the option that names its secret.
pub fn no_key_secret(option: &str) -> Error {
    invalid(&format!("Parameter '{option}' is required for cipher"))
}

/// Refuses a secret that is given both as `key-secret` and by an option.
pub fn not_both(key_secret: Option<&str>, source: Option<&OsString>, option: &str) -> Result<()> {
    match (key_secret, source) {
        (Some(_), Some(_)) => Err(invalid(&format!("{option} cannot be used with a key-secret"))),
        _ => Ok(()),
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
