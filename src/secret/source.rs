//! Sources of passphrases: `prompt`, `file:PATH`, `env:NAME` and so on.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::libc;
use zeroize::Zeroizing;

use super::{LARGEST_SECRET, Passphrase, SecretBytes};
use crate::error::{Error, ErrorKind, Operation, Result};
use crate::qemu::SecretObjects;

/// A source that a passphrase is read from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    /// A prompt on the terminal.
    Prompt,
    /// The bytes of a file, including a newline at its end.
    File(PathBuf),
    /// The value of an environment variable.
    Env(OsString),
    /// An inherited file descriptor, read to its end.
    Fd(u32),
    /// Standard input, read to its end, without one trailing newline.
    Stdin,
    /// A QEMU secret object, by its id.
    Object(String),
}

impl Source {
    /// Parses `prompt`, `file:PATH`, `env:NAME`, `fd:N`, `stdin` or `object:ID`.
    ///
    /// Errors never repeat the text, because it may be the secret itself.
    pub fn parse(text: impl AsRef<OsStr>) -> Result<Self> {
        let text = text.as_ref();
        let bytes = text.as_bytes();
        match bytes {
            b"prompt" => return Ok(Self::Prompt),
            b"stdin" => return Ok(Self::Stdin),
            _ => {}
        }
        let colon = bytes.iter().position(|byte| *byte == b':').ok_or_else(unknown)?;
        let (scheme, value) = (&bytes[..colon], OsStr::from_bytes(&bytes[colon + 1..]));
        match scheme {
            b"file" if !value.is_empty() => Ok(Self::File(value.into())),
            b"file" => Err(invalid("no path after 'file:'")),
            b"env" if is_variable(value) => Ok(Self::Env(value.into())),
            b"env" => Err(invalid("no variable name after 'env:'")),
            b"fd" => parse_fd(value).ok_or_else(|| invalid("no descriptor number after 'fd:'")),
            b"object" => match value.to_str() {
                Some(id) if !id.is_empty() => Ok(Self::Object(id.to_owned())),
                _ => Err(invalid("no object id after 'object:'")),
            },
            _ => Err(unknown()),
        }
    }

    /// Reads the passphrase. Calls `prompt` only for [`Source::Prompt`].
    pub fn read(
        &self,
        objects: &SecretObjects,
        prompt: &mut dyn FnMut() -> Result<Passphrase>,
    ) -> Result<Passphrase> {
        match self {
            Self::Prompt => prompt(),
            Self::File(path) => read_file(path),
            Self::Env(name) => read_variable(name),
            // Reopening standard input would read it from its beginning.
            Self::Fd(0) => read_stdin().map(Passphrase::from),
            Self::Fd(number) => read_descriptor(*number),
            Self::Stdin => {
                let mut secret = read_stdin()?;
                if !secret.as_slice().ends_with(b"\n") {
                    return Ok(secret.into());
                }
                secret.truncate(secret.len() - 1);
                Ok(Passphrase::from(secret).without_newline())
            }
            Self::Object(id) => objects.passphrase(id),
        }
    }
}

const FORMS: &str = "use one of prompt, file:PATH, env:NAME, fd:N, stdin, object:ID";

fn unknown() -> Error {
    invalid("secrets are not accepted as arguments; say where to read it").with_hint(FORMS)
}

fn is_variable(name: &OsStr) -> bool {
    !name.is_empty() && !name.as_bytes().iter().any(|byte| b"=\0".contains(byte))
}

fn parse_fd(value: &OsStr) -> Option<Source> {
    let digits = value.to_str()?;
    // `parse` accepts a sign, which a descriptor cannot have.
    let number: i32 = digits.parse().ok().filter(|_| !digits.starts_with(['+', '-']))?;
    u32::try_from(number).ok().map(Source::Fd)
}

fn read_file(path: &Path) -> Result<Passphrase> {
    let file =
        File::open(path).map_err(|error| Error::failed(Operation::Open, "the secret", error));
    file.and_then(read_open).map(Passphrase::from).map_err(|error| error.with_path(path))
}

/// Opens another descriptor of the same file and continues at the offset of the first.
fn read_descriptor(number: u32) -> Result<Passphrase> {
    let path = format!("/proc/self/fd/{number}");
    let failed = |error| Error::failed(Operation::Open, "the secret", error).with_path(&path);
    let about = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).map_err(failed)?;
    let field = |name| about.lines().find_map(|line: &str| line.strip_prefix(name)).map(str::trim);
    let flags = field("flags:").and_then(|flags| i32::from_str_radix(flags, 8).ok());
    if flags.is_some_and(|flags| flags & libc::O_ACCMODE == libc::O_WRONLY) {
        return Err(invalid("the descriptor is not open for reading").with_path(path));
    }
    let mut file = File::open(&path).map_err(failed)?;
    if let Some(position) = field("pos:").and_then(|position| position.parse().ok())
        && file.metadata().map_err(failed)?.is_file()
    {
        file.seek(SeekFrom::Start(position)).map_err(failed)?;
    }
    read_open(file).map(Passphrase::from).map_err(|error| error.with_path(path))
}

/// Reads the descriptor directly, because [`io::Stdin`] would keep a copy in its buffer.
fn read_stdin() -> Result<SecretBytes> {
    let owned = io::stdin().as_fd().try_clone_to_owned();
    let file = owned.map_err(|error| Error::failed(Operation::Open, "standard input", error));
    file.and_then(|file| read_open(file.into())).map_err(|error| error.with_path("standard input"))
}

fn read_open(mut file: File) -> Result<SecretBytes> {
    SecretBytes::read_to_end(&mut file, LARGEST_SECRET).map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            invalid(format!("the secret is larger than {} MiB", LARGEST_SECRET >> 20))
        }
        _ => Error::failed(Operation::Read, "the secret", error),
    })
}

fn read_variable(name: &OsStr) -> Result<Passphrase> {
    let value = env::var_os(name).ok_or_else(|| {
        invalid(format!("the environment variable '{}' is not set", name.display()))
    })?;
    Passphrase::new(&Zeroizing::new(value.into_vec()))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidInput, message)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(source: &str) -> Result<Passphrase> {
        let mut objects = SecretObjects::new();
        objects.add("secret,id=sec0,data=from object")?;
        let mut prompt = || Passphrase::new(b"from prompt");
        Source::parse(source)?.read(&objects, &mut prompt)
    }

    #[test]
    fn parses() {
        for (text, source) in [
            ("prompt", Source::Prompt),
            ("stdin", Source::Stdin),
            ("file:a:b", Source::File("a:b".into())),
            ("env:A", Source::Env("A".into())),
            ("fd:3", Source::Fd(3)),
            ("object:sec0", Source::Object("sec0".into())),
        ] {
            assert_eq!(Source::parse(text).unwrap(), source);
        }
        let path = OsStr::from_bytes(b"file:\xff");
        assert_eq!(Source::parse(path).unwrap(), Source::File(OsStr::from_bytes(b"\xff").into()));
    }

    #[test]
    fn refuses_without_repeating_what_may_be_the_secret() {
        for text in [
            "",
            "hunter2",
            "hunter2:x",
            "Prompt",
            "prompt:hunter2",
            "file:",
            "env:",
            "env:a=hunter2",
            "fd:",
            "fd:-1",
            "fd:+1",
            "fd:hunter2",
            "fd:2147483648",
            "object:",
            ":",
        ] {
            let error = Source::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        assert_eq!(Source::parse("hunter2").unwrap_err().hint(), Some(FORMS));
    }

    #[test]
    fn reads_verbatim() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, b"\xff\0hunter2\n").unwrap();
        let source = format!("file:{}", path.display());
        assert_eq!(read(&source).unwrap().as_bytes(), b"\xff\0hunter2\n");
        assert_eq!(read("object:sec0").unwrap().as_bytes(), b"from object");
        assert_eq!(read("prompt").unwrap().as_bytes(), b"from prompt");
        let home = env::var_os("PATH").unwrap();
        assert_eq!(read("env:PATH").unwrap().as_bytes(), home.as_bytes());
    }

    #[test]
    fn reads_a_pipe_by_its_descriptor() {
        use std::io::Write;
        use std::os::fd::AsRawFd;

        let (reader, mut writer) = io::pipe().unwrap();
        writer.write_all(b"hunter2\n").unwrap();
        drop(writer);
        let secret = read(&format!("fd:{}", reader.as_raw_fd())).unwrap();
        assert_eq!(secret.as_bytes(), b"hunter2\n");
    }

    #[test]
    fn reads_a_descriptor_from_where_it_is() {
        use std::os::fd::AsRawFd;

        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, b"line\nhunter2").unwrap();
        let mut file = File::open(&path).unwrap();
        file.seek(SeekFrom::Start(5)).unwrap();
        assert_eq!(read(&format!("fd:{}", file.as_raw_fd())).unwrap().as_bytes(), b"hunter2");

        // Reading it would block for ever.
        let (_reader, writer) = io::pipe().unwrap();
        let error = read(&format!("fd:{}", writer.as_raw_fd())).unwrap_err();
        assert!(error.message().contains("not open for reading"), "{error}");
    }

    #[test]
    fn says_which_file_or_variable() {
        let error = read("file:/nonexistent").unwrap_err();
        assert_eq!(error.to_string(), "/nonexistent: cannot open the secret");
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(read("file:/").unwrap_err().to_string(), "/: cannot read the secret");
        let error = read("env:KEYSLOT_NOT_SET").unwrap_err();
        assert_eq!(error.to_string(), "the environment variable 'KEYSLOT_NOT_SET' is not set");
        let error = read("object:nosuch").unwrap_err();
        assert_eq!(error.to_string(), "No secret with id 'nosuch'");
        let error = read("fd:987654").unwrap_err();
        assert_eq!(error.to_string(), "/proc/self/fd/987654: cannot open the secret");
        let error = read("file:/dev/zero").unwrap_err();
        assert_eq!(error.to_string(), "/dev/zero: the secret is larger than 8 MiB");
    }
}
