//! `qemu-img map`: all of a LUKS image is data, at places that QEMU does not tell.

use clap::Args;
use keyslot::qemu::size_argument;
use keyslot::{Error, ErrorKind, Sharing};

use super::super::Output;
use super::super::output::print;
use super::image::ImageArgs;
use super::{Exit, Images, output};

/// Show where the data of an image is
#[derive(Args)]
pub struct MapArgs {
    #[command(flatten)]
    image: ImageArgs,

    /// Output format
    #[arg(long)]
    output: Option<String>,

    /// Start of the range in bytes
    #[arg(short, long, allow_hyphen_values = true)]
    start_offset: Option<String>,

    /// Length of the range in bytes
    #[arg(short = 'l', long, allow_hyphen_values = true)]
    max_length: Option<String>,
}

impl MapArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        self.image.named()
    }
}

/// Runs the command.
pub fn run(args: &MapArgs) -> Exit {
    let output = output(args.output.as_deref(), "map")?;
    let size = |what, text: &Option<String>| {
        text.as_deref().map(|text| size_argument(what, text)).transpose()
    };
    let start = size("start offset", &args.start_offset)?.unwrap_or(0);
    let most = size("max length", &args.max_length)?.unwrap_or(u64::MAX);
    let opened = args.image.open(Sharing::ReadData, "map")?;
    if output == Output::Human {
        print(&format!("{:<16}{:<16}{:<16}{}\n", "Offset", "Length", "Mapped to", "File"))?;
    }
    let (_, volume) = opened.luks()?;
    let length = volume.len().saturating_sub(start).min(most);
    let is_data = length > 0;
    match output {
        Output::Human if is_data => {
            let text = "File contains external, encrypted or compressed clusters.";
            return Err(Error::new(ErrorKind::Unsupported, text).into());
        }
        Output::Human => {}
        Output::Json => {
            // QEMU writes this list by hand, and so not as its other JSON.
            print(&format!(
                "[{{ \"start\": {start}, \"length\": {length}, \"depth\": 0, \"present\": \
                 {is_data}, \"zero\": false, \"data\": {is_data}, \"compressed\": false}}]\n"
            ))?;
        }
    }
    Ok(0)
}
