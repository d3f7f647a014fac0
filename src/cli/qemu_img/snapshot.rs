//! `qemu-img snapshot -l`: opens the image. LUKS has no snapshots, so the list is empty.

use clap::Args;
use keyslot::Sharing;

use super::image::ImageArgs;
use super::{Exit, Images};

/// List the snapshots of an image
#[derive(Args)]
pub struct SnapshotArgs {
    #[command(flatten)]
    image: ImageArgs,

    /// List the snapshots, which is the default
    #[arg(short, long)]
    list: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,
}

impl SnapshotArgs {
    /// Images that the arguments name.
    pub fn named(&self) -> Images<'_> {
        self.image.named()
    }
}

/// Runs the command.
pub fn run(args: &SnapshotArgs) -> Exit {
    args.image.open(Sharing::ReadData, "snapshot")?.check_not_qcow2()?;
    Ok(0)
}
