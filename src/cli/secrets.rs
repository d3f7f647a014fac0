//! Where the secrets of a command come from.

use std::ffi::OsString;
use std::io::IsTerminal;

use keyslot::secret::{Passphrase, SecretObjects, Source};
use keyslot::{Error, ErrorKind, Result};

use super::Persona;
use super::prompt::ask;

/// The secret objects of a command line, and what its descriptors hold.
pub struct Secrets {
    pub objects: SecretObjects,
    /// Read before anything is opened: an image might get the number of one that is not there
    descriptors: Vec<(u32, Passphrase)>,
}

impl Secrets {
    /// Creates the objects in their order, and looks at all sources before anything is done.
    pub fn new(objects: &[String], sources: &[&Option<OsString>]) -> Result<Self> {
        let sources = sources.iter().filter_map(|source| source.as_ref()).map(Source::parse);
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let is_stdin = |source: &&Source| matches!(source, Source::Stdin | Source::Fd(0));
        if sources.iter().filter(is_stdin).count() > 1 {
            let text = "standard input can be one secret only";
            return Err(invalid(text));
        }
        let mut secrets = Self { objects: SecretObjects::new(), descriptors: Vec::new() };
        for source in &sources {
            if let Source::Fd(number) = source {
                let mut no_prompt = || Err(invalid("a descriptor is not a prompt"));
                let secret = source.read(&secrets.objects, &mut no_prompt)?;
                secrets.descriptors.push((*number, secret));
            }
        }
        for object in objects {
            secrets.objects.add(object)?;
        }
        Ok(secrets)
    }

    /// The secret that opens an image: the `key-secret` of its options, or what `option` (`--secret`)
    /// names, [not both](not_both).
    pub fn opening(
        &self,
        key_secret: Option<&str>,
        source: Option<&OsString>,
        option: &str,
        what: &str,
        persona: Persona,
    ) -> Result<Passphrase> {
        match key_secret {
            Some(id) => self.objects.passphrase_utf8(id),
            None if source.is_none() && persona == Persona::QemuImg => {
                Err(invalid("Parameter 'key-secret' is required for cipher"))
            }
            None => self.existing(source, option, what),
        }
    }

    /// The secret that `option` (`--secret`) names; asked for as `what` if it names none.
    pub fn existing(
        &self,
        source: Option<&OsString>,
        option: &str,
        what: &str,
    ) -> Result<Passphrase> {
        self.read(source, option, &mut || ask(what))
    }

    /// The same for a new secret: a person types it twice. An empty one opens the image for
    /// everybody, so it has to be forced.
    pub fn new_secret(
        &self,
        source: Option<&OsString>,
        option: &str,
        what: &str,
        force: bool,
    ) -> Result<Passphrase> {
        let secret = self.read(source, option, &mut || {
            let first = ask(what)?;
            if first == ask(&format!("{what}, again"))? {
                Ok(first)
            } else {
                Err(invalid("the two passphrases differ"))
            }
        })?;
        if secret.as_bytes().is_empty() && !force {
            return Err(Error::new(ErrorKind::Refused, "the new secret is empty"));
        }
        Ok(secret)
    }

    fn read(
        &self,
        source: Option<&OsString>,
        option: &str,
        prompt: &mut dyn FnMut() -> Result<Passphrase>,
    ) -> Result<Passphrase> {
        let source = match source {
            Some(source) => Source::parse(source)?,
            None if std::io::stderr().is_terminal() || std::io::stdin().is_terminal() => {
                Source::Prompt
            }
            None => {
                let text = format!("{option} is needed: there is no terminal to ask on");
                return Err(
                    invalid(&text).with_hint("file:PATH, env:NAME, fd:N, stdin or object:ID")
                );
            }
        };
        let is_it = |(number, _): &&(u32, Passphrase)| source == Source::Fd(*number);
        match self.descriptors.iter().find(is_it) {
            Some((_, secret)) => Ok(secret.clone()),
            None => source.read(&self.objects, prompt),
        }
    }
}

/// Refuses two answers to which secret it is.
pub fn not_both(key_secret: Option<&str>, source: Option<&OsString>, option: &str) -> Result<()> {
    match (key_secret, source) {
        (Some(_), Some(_)) => {
            Err(invalid(&format!("{option} must not be given beside a key-secret")))
        }
        _ => Ok(()),
    }
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
