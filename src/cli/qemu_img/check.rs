//! `qemu-img check`: opens the image. LUKS has no other checks in QEMU.

use clap::Args;
use keyslot::Sharing;

use super::super::check_cache;
use super::super::output::tell;
use super::super::report::Failure;
use super::image::ImageArgs;
use super::{Exit, Images, output};

/// Check an image
#[derive(Args)]
pub struct CheckArgs {
    #[command(flatten)]
    image: ImageArgs,

    /// Repair leaks or all
    #[arg(short, long)]
    repair: Option<String>,

    /// Output format
    #[arg(long)]
    output: Option<String>,

    /// Cache mode, without effect
    #[arg(short = 'T', long)]
    source_cache: Option<String>,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

impl CheckArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        self.image.named()
    }
}

/// Runs the command.
pub fn run(args: &CheckArgs) -> Exit {
    output(args.output.as_deref(), "check")?;
    let sharing = match args.repair.as_deref() {
        None => Sharing::ReadData,
        Some("leaks" | "all") => Sharing::WriteData,
        Some(other) => {
            let text = format!("--repair (-r) expects 'leaks' or 'all' not '{other}'");
            return Err(Failure::usage(text, "check"));
        }
    };
    check_cache(args.source_cache.as_ref(), "source cache")?;
    args.image.open(sharing, "check")?.check_not_qcow2()?;
    tell("qemu-img: This image format does not support checks");
    Ok(UNSUPPORTED)
}

/// Exit status if the format has no checks
const UNSUPPORTED: u8 = 63;
