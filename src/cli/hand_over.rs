//! Hands a command line over to the real qemu-img: `KEYSLOT_QEMU_IMG`, or the next one on PATH.

use std::env;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use keyslot::Error;
use nix::unistd::{AccessFlags, access};

use super::report::{self, Failure, Remedies};
use super::{Output, Persona};

/// Hands the command line over. Returns the exit status if that fails, and `None` if there is no
/// program to hand it over to.
pub fn hand_over(arguments: &[OsString]) -> Option<ExitCode> {
    let failure = Failure::from(RealQemuImg::find()?.run(arguments));
    let remedies = Remedies::default();
    Some(report::failure(Persona::QemuImg, Output::Human, remedies, &failure))
}

/// The real qemu-img.
struct RealQemuImg {
    path: PathBuf,
    /// Every copy of keyslot that has handed this command line over, itself included
    copies: String,
}

impl RealQemuImg {
    /// Looks for the program. `None` if there is none, if `KEYSLOT_QEMU_IMG` is empty, or if this
    /// program was started by the one that it handed the command line over to.
    fn find() -> Option<Self> {
        let own = identity(Path::new("/proc/self/exe"))?;
        let mut copies = env::var(COPIES).unwrap_or_default();
        if is_listed(&copies, &own) {
            return None;
        }
        copies = format!("{copies} {own}");
        let path = match env::var_os(PROGRAM) {
            None => search(OsStr::new("qemu-img"), &copies)?,
            Some(name) if name.is_empty() => return None,
            // An unusable path is an error when it is run.
            Some(path) if path.as_bytes().contains(&b'/') => {
                let path = PathBuf::from(path);
                if identity(&path).is_some_and(|it| is_listed(&copies, &it)) {
                    return None;
                }
                path
            }
            Some(name) => search(&name, &copies)?,
        };
        Some(Self { path, copies })
    }

    /// Replaces this process by the program, with the same arguments and environment. Returns only
    /// if that fails.
    ///
    /// The system makes the process dumpable again. The standard library empties the signal mask and
    /// gives SIGPIPE its default action, which it had changed itself. Open files are inherited: those
    /// of this program are all closed by the system, and those that it was started with may be named
    /// in the arguments.
    fn run(&self, arguments: &[OsString]) -> Error {
        let mut command = Command::new(&self.path);
        if let [name, rest @ ..] = arguments {
            command.arg0(name).args(rest);
        }
        let error = command.env(COPIES, &self.copies).exec();
        Error::io(format_args!("run '{}'", self.path.display()), error)
    }
}

/// First executable of this name on PATH that is not in `copies`. Directories with a relative name
/// are skipped: what is in them depends on where the user happens to be.
fn search(name: &OsStr, copies: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let files = env::split_paths(&path).filter(|it| it.is_absolute()).map(|it| it.join(name));
    let mut files = files.filter(|it| it.is_file() && access(it, AccessFlags::X_OK).is_ok());
    files.find(|it| identity(it).is_some_and(|it| !is_listed(copies, &it)))
}

/// Device and inode of the file that `path` leads to.
fn identity(path: &Path) -> Option<String> {
    let metadata = path.metadata().ok()?;
    Some(format!("{}:{}", metadata.dev(), metadata.ino()))
}

fn is_listed(copies: &str, identity: &str) -> bool {
    copies.split(' ').any(|copy| copy == identity)
}

/// Path or name of the real qemu-img. Empty: there is none.
const PROGRAM: &str = "KEYSLOT_QEMU_IMG";

/// Identities of the copies of keyslot that have handed the command line over. Without it, two
/// copies, or one and a script that calls it, would start each other forever.
const COPIES: &str = "KEYSLOT_HANDED_OVER_BY";

/// Directories that the C library searches if PATH is not set.
const DEFAULT_PATH: &str = "/bin:/usr/bin";
