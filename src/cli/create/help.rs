//! What `-o help` prints.

use super::Version;

/// As in qemu-img, what is an option of the file and not of the format needs a file's name.
pub fn help(version: Version, names_a_file: bool) -> String {
    let (format, detached) = match version {
        Version::Luks1 => ("luks", HELP_DETACHED),
        Version::Luks2 => ("luks2", ""),
    };
    if names_a_file {
        format!("Supported options:\n{HELP}{detached}{HELP_REST}{HELP_PREALLOCATION}{HELP_SIZE}")
    } else {
        format!("Supported {format} options:\n{HELP}{detached}{HELP_REST}{HELP_SIZE}{HELP_MORE}")
    }
}

const HELP: &str = "  \
  cipher-alg=<str>       - Name of encryption cipher algorithm
  cipher-mode=<str>      - Name of encryption cipher mode
";
const HELP_DETACHED: &str = "  detached-header=<bool (on/off)> - Create a detached LUKS header\n";
const HELP_REST: &str = "  \
  hash-alg=<str>         - Name of encryption hash algorithm
  iter-time=<num>        - Time to spend in PBKDF in milliseconds
  ivgen-alg=<str>        - Name of IV generator algorithm
  ivgen-hash-alg=<str>   - Name of IV generator hash algorithm
  key-secret=<str>       - ID of the secret that provides the keyslot passphrase
";
const HELP_PREALLOCATION: &str =
    "  preallocation=<str>    - Preallocation mode (allowed values: off, falloc, full)\n";
const HELP_SIZE: &str = "  size=<size>            - Virtual disk size\n";
const HELP_MORE: &str = "
The protocol level may support further options.
Specify the target filename to include those options.
";
