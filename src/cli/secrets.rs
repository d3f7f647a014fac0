//! Where the secrets of a command come from.

use std::ffi::OsString;
use std::io::IsTerminal;

use keyslot::secret::{Passphrase, SecretObjects, Source};
use keyslot::{Error, ErrorKind, Result};

use super::prompt::ask;

/// The secret objects of a command line.
pub struct Secrets {
    pub objects: SecretObjects,
}

impl Secrets {
    /// Creates the objects in their order, and looks at all sources before anything is done.
    pub fn new(objects: &[String], sources: &[&Option<OsString>]) -> Result<Self> {
        let sources = sources.iter().filter_map(|source| source.as_ref()).map(Source::parse);
        let sources = sources.collect::<Result<Vec<_>>>()?;
        let is_stdin = |source: &&Source| matches!(source, Source::Stdin | Source::Fd(0));
        if sources.iter().filter(is_stdin).count() > 1 {
            let text = "standard input can be one secret only";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        let mut secrets = Self { objects: SecretObjects::new() };
        for object in objects {
            secrets.objects.add(object)?;
        }
        Ok(secrets)
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

    /// The same for a new secret: a person types it twice.
    pub fn new_secret(
        &self,
        source: Option<&OsString>,
        option: &str,
        what: &str,
    ) -> Result<Passphrase> {
        self.read(source, option, &mut || {
            let first = ask(what)?;
            if first == ask(&format!("{what}, again"))? {
                Ok(first)
            } else {
                Err(Error::new(ErrorKind::InvalidInput, "the two passphrases differ"))
            }
        })
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
                return Err(Error::new(ErrorKind::InvalidInput, text)
                    .with_hint("file:PATH, env:NAME, fd:N, stdin or object:ID"));
            }
        };
        source.read(&self.objects, prompt)
    }
}
