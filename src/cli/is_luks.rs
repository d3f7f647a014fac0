//! `keyslot is-luks`: a question for scripts, answered by the exit status.

use clap::{Args, ValueEnum};
use keyslot::ErrorKind;

use super::location::ImageArgs;
use super::{Outcome, Status};

/// Tell by the exit status whether a file is a LUKS image: 0 if it is, 1 if not
///
/// Nothing is printed, unless the file cannot be read.
#[derive(Args)]
pub struct IsLuksArgs {
    /// Version of LUKS that is required [default: any]
    #[arg(short = 'M', long = "type", value_enum, value_name = "TYPE")]
    kind: Option<Kind>,

    #[command(flatten)]
    image: ImageArgs,
}

/// A version of LUKS, by cryptsetup's name
#[derive(Clone, Copy, Eq, PartialEq, ValueEnum)]
enum Kind {
    Luks,
    Luks1,
    Luks2,
}

/// Runs the command.
pub fn run(args: &IsLuksArgs) -> Outcome {
    let is_luks2 = match args.image.open() {
        Ok(image) => image.header().luks2().is_some(),
        Err(error) => match error.kind() {
            ErrorKind::NotLuks | ErrorKind::Corrupt | ErrorKind::Unsupported => {
                return Ok(Status::Failed);
            }
            _ => return Err(error.into()),
        },
    };
    Ok(match args.kind {
        None | Some(Kind::Luks) => Status::Done,
        Some(kind) if (kind == Kind::Luks2) == is_luks2 => Status::Done,
        Some(_) => Status::Failed,
    })
}
