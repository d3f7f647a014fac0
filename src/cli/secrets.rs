//! Where the secrets of a command come from.

use std::ffi::OsString;
use std::io::IsTerminal;

use keyslot::secret::{Passphrase, SecretObjects, Source};
use keyslot::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

/// The secret objects of a command line, and its standard input while it is unread.
pub struct Secrets {
    pub objects: SecretObjects,
    stdin_used: bool,
}

impl Secrets {
    /// Creates the objects in their order.
    pub fn new(objects: &[String]) -> Result<Self> {
        let mut secrets = Self { objects: SecretObjects::new(), stdin_used: false };
        for object in objects {
            secrets.objects.add(object)?;
        }
        Ok(secrets)
    }

    /// The secret that `option` (`--secret`) names; asked for as `what` if it names none.
    pub fn existing(
        &mut self,
        source: Option<&OsString>,
        option: &str,
        what: &str,
    ) -> Result<Passphrase> {
        self.read(source, option, &mut || ask(what))
    }

    /// The same for a new secret: a person types it twice.
    pub fn new_secret(
        &mut self,
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
        &mut self,
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
        if source == Source::Stdin && std::mem::replace(&mut self.stdin_used, true) {
            let text = "standard input can be one secret only";
            return Err(Error::new(ErrorKind::InvalidInput, text));
        }
        source.read(&self.objects, prompt)
    }
}

fn ask(what: &str) -> Result<Passphrase> {
    let typed = rpassword::prompt_password(format!("{what}: "))
        .map_err(|e| Error::io("read a passphrase from the terminal", e))?;
    Passphrase::new(Zeroizing::new(typed).as_bytes())
}
