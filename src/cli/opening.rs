//! The secret that opens an image, as options: keyslot's `--secret`, and cryptsetup's `--key-file`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::Args;
use keyslot::secret::{LARGEST_SECRET, Passphrase, SecretBytes};
use keyslot::{Error, ErrorKind, Operation, Result};

/// The secret that opens the image
#[derive(Args)]
#[command(group = clap::ArgGroup::new(OPENER).args(["secret", "key_file"]))]
pub struct OpeningArgs {
    /// Secret that opens the image
    #[arg(long, value_name = "SOURCE")]
    pub secret: Option<OsString>,

    /// Read the secret from this file, including any newline at its end; '-' is standard input
    #[arg(short = 'd', long, value_name = "PATH", conflicts_with = "secret")]
    pub key_file: Option<PathBuf>,

    /// Read this many bytes of the key file [default: to its end]
    #[arg(long, value_name = "BYTES", requires = "key_file")]
    pub keyfile_size: Option<u32>,

    /// Skip this many bytes at the start of the key file
    #[arg(long, value_name = "BYTES", requires = "key_file")]
    pub keyfile_offset: Option<u64>,

    /// Number of attempts at typing a passphrase
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub tries: u32,
}

/// Group of the options that give the opening secret
pub const OPENER: &str = "opener";

impl OpeningArgs {
    /// The source of the secret, if one is given.
    pub fn source(&self) -> Option<OsString> {
        let Some(path) = &self.key_file else { return self.secret.clone() };
        Some(if self.is_part() {
            OsString::from_vec([PART, path.as_os_str().as_bytes()].concat())
        } else {
            key_file(path)
        })
    }

    /// Reads the part of the key file, if only a part is asked for.
    pub fn read_part(&self) -> Result<Option<Passphrase>> {
        let Some(path) = self.key_file.as_deref().filter(|_| self.is_part()) else {
            return Ok(None);
        };
        let (file, path) = if path == Path::new("-") {
            let owned = io::stdin().as_fd().try_clone_to_owned();
            (owned.map(File::from), Path::new("standard input"))
        } else {
            (File::open(path), path)
        };
        let file = file.map_err(|error| Error::failed(Operation::Open, "the key file", error));
        let size = self.keyfile_size.map(|size| size as usize);
        let secret = file.and_then(|file| part(file, self.keyfile_offset.unwrap_or(0), size));
        secret.map(Some).map_err(|error| error.with_path(path))
    }

    fn is_part(&self) -> bool {
        self.keyfile_size.is_some() || self.keyfile_offset.is_some()
    }
}

/// Source for a whole key file.
pub fn key_file(path: &Path) -> OsString {
    if path == Path::new("-") {
        return "fd:0".into();
    }
    OsString::from_vec([b"file:", path.as_os_str().as_bytes()].concat())
}

/// Path of a key file of which only a part is the secret. `None` for other sources.
pub fn file_in_part(source: &OsStr) -> Option<&Path> {
    source.as_bytes().strip_prefix(PART).map(|path| Path::new(OsStr::from_bytes(path)))
}

/// Reads `size` bytes at `offset` or, without a size, to the end.
fn part(mut file: File, offset: u64, size: Option<usize>) -> Result<Passphrase> {
    let failed = |error| Error::failed(Operation::Read, "the key file", error);
    let invalid = |text: String| Error::new(ErrorKind::InvalidInput, text);
    if size.is_some_and(|size| size > LARGEST_SECRET) {
        return Err(invalid(format!("a secret has at most {LARGEST_SECRET} bytes")));
    }
    if offset > 0
        && file.seek(SeekFrom::Current(i64::try_from(offset).unwrap_or(i64::MAX))).is_err()
    {
        // A pipe cannot seek, so the skipped bytes are read.
        io::copy(&mut (&mut file).take(offset), &mut io::sink()).map_err(failed)?;
    }
    let mut bytes = SecretBytes::zeroed(size.unwrap_or(LARGEST_SECRET))?;
    let mut len = 0;
    while len < bytes.len() {
        match file.read(&mut bytes.as_mut_slice()[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    match size {
        Some(size) if len < size => {
            return Err(invalid(format!(
                "the key file has {len} bytes from byte {offset} on, not {size}"
            )));
        }
        None if len == LARGEST_SECRET && file.read(&mut [0]).map_err(failed)? > 0 => {
            return Err(invalid(format!(
                "the key file is larger than {} MiB",
                LARGEST_SECRET >> 20
            )));
        }
        _ => {}
    }
    Passphrase::new(&bytes.as_slice()[..len])
}

/// Prefix of a source for a part of a key file. Arguments contain no NUL, so none can begin with
/// it.
const PART: &[u8] = b"\0part:";
