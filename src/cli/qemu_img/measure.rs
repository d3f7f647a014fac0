//! `qemu-img measure`: how much space a new image takes. Nothing is derived for that, which takes
//! QEMU two seconds.

use std::ffi::OsString;

use clap::Args;
use keyslot::qemu::{Options, size_argument};
use keyslot::{Error, ErrorKind, Sharing};
use serde::Serialize;

use super::super::create::{
    LuksArgs, Version, check_options, create_options, is_detached, new_secret,
};
use super::super::output::print;
use super::super::report::Failure;
use super::super::secrets::{Question, Secrets};
use super::super::{KdfArgs, ObjectArgs, Output, Persona, qemu_format};
use super::image::OpeningArgs;
use super::{Exit, Images, Result, Side, output};

/// Show how much space a new image takes
#[derive(Args)]
pub struct MeasureArgs {
    #[command(flatten)]
    objects: ObjectArgs,

    #[command(flatten)]
    opening: OpeningArgs,

    /// Format of the source
    #[arg(short, long)]
    format: Option<String>,

    /// Format of the new image
    #[arg(short = 'O', long)]
    output_format: Option<String>,

    /// Options of the new image
    #[arg(short, action = clap::ArgAction::Append)]
    options: Vec<String>,

    /// Virtual size of the new image
    #[arg(long, allow_hyphen_values = true)]
    size: Option<String>,

    /// Output format
    #[arg(long)]
    output: Option<String>,

    /// Source
    images: Vec<OsString>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Measured {
    required: u64,
    fully_allocated: u64,
}

impl MeasureArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        let names = self.images.iter();
        let sides = names.map(|name| self.opening.named(name, self.format.as_deref()));
        let target = Side::New { name: None, format: self.target() };
        Images::new(&self.objects.objects, sides.chain([target]))
    }

    fn target(&self) -> &str {
        self.output_format.as_deref().unwrap_or("raw")
    }
}

/// Runs the command.
pub fn run(args: &MeasureArgs) -> Exit {
    let output = output(args.output.as_deref(), "measure")?;
    let secrets = Secrets::new(&args.objects.objects, [])?;
    let mut options = Options::new();
    for text in &args.options {
        options.append(Options::parse(text)?);
    }
    let size = args.size.as_deref().map(|text| size_argument("image size", text)).transpose()?;
    if args.images.len() > 1 {
        return Err(invalid("At most one filename argument is allowed.").into());
    }
    let source = match (args.images.as_slice(), size) {
        ([], Some(_)) => None,
        ([name], None) => Some(name),
        (_, Some(_)) => {
            return Err(invalid("--size N cannot be used together with a filename.").into());
        }
        _ => return Err(invalid("Either --size N or one filename must be specified.").into()),
    };
    if let Err(error) = check_options(&options) {
        // QEMU's second line, in the place of a hint
        return Err(Failure::followed(error, "Invalid options for file format 'luks'"));
    }
    let source = match source {
        Some(name) => {
            let format = args.format.as_deref();
            Some(args.opening.open(name, format, &secrets, Sharing::ReadData)?)
        }
        None => None,
    };
    let size = match &source {
        Some(source) => source.side()?.len(),
        None => size.unwrap_or(0),
    };
    let header = match args.target() {
        "raw" => 0,
        "luks" => header_len(&options, &secrets)?,
        other => return Err(invalid(&format!("Unknown file format '{other}'")).into()),
    };
    let total = header.checked_add(size).ok_or_else(|| invalid("The image size is too large"))?;
    let measured = Measured { required: total, fully_allocated: total };
    print(&match output {
        Output::Human => {
            format!("required size: {total}\nfully allocated size: {total}\n")
        }
        Output::Json => qemu_format::json(&measured)? + "\n",
    })?;
    Ok(0)
}

/// Length of the header of a LUKS1 image with these options.
fn header_len(options: &Options, secrets: &Secrets) -> Result<u64> {
    if is_detached(options) {
        return Err(invalid("Parameter 'detached-header' is unexpected"));
    }
    let (version, persona) = (Version::Luks1, Persona::QemuImg);
    let create = create_options(version, options, &KdfArgs::default(), &LuksArgs::default())?;
    let question = Question { option: "key-secret", what: "Passphrase", image: None };
    new_secret(options, None, secrets, &question, true, persona)?;
    create.header_len()
}

fn invalid(text: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, text)
}
