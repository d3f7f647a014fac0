//! The main job on a real image: create it, add a secret, replace one, erase one, show what is
//! left. `cargo run --release --example tour [IMAGE]`; without IMAGE it is a temporary file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use keyslot::amend::{Change, Request};
use keyslot::crypto::KdfAlg;
use keyslot::kdf::Cost;
use keyslot::{CreateOptions, Done, Image, OpenOptions, Passphrase, Result, Sharing};

fn main() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let image = std::env::args_os().nth(1).map(PathBuf::from);
    if let Err(error) = tour(&image.unwrap_or_else(|| directory.path().join("disk.luks"))) {
        eprintln!("tour: {error}");
        std::process::exit(1);
    }
}

fn tour(path: &Path) -> Result<()> {
    let owner = Passphrase::new(b"correct horse")?;
    let operator = Passphrase::new(b"battery staple")?;
    let successor = Passphrase::new(b"tr0ub4dor")?;
    let cost = Cost::Time(Duration::from_millis(100));

    println!("{}: a LUKS1 image of 64 MiB, as qemu-img makes them", path.display());
    CreateOptions::new()?.cost(cost).create(path, 64 << 20, &owner)?;

    // Nobody else can open the image from here on, neither QEMU nor another keyslot.
    let mut image = OpenOptions::new().sharing(Sharing::Amend).open(path)?;
    let unlocked = image.unlock(&owner)?;
    for (what, change) in [
        ("add the operator's secret", Change::add(&operator, cost)),
        ("replace the owner's by a successor's", Change::replace(&owner, &successor, cost)),
        ("erase the operator's", Change::erase_secret(&operator)),
    ] {
        let plan = image.plan(Request::one(change))?;
        for done in image.amend(&plan, Some(&unlocked))? {
            match done {
                Done::Added { keyslot, kdf: KdfAlg::Pbkdf2 { iterations, .. } }
                | Done::Replaced { keyslot, kdf: KdfAlg::Pbkdf2 { iterations, .. } } => {
                    println!("{what}: keyslot {keyslot}, {iterations} iterations");
                }
                Done::Erased { keyslot } => println!("{what}: keyslot {keyslot}"),
                _ => {}
            }
        }
    }
    drop(image);

    let image = Image::open(path)?;
    for keyslot in image.keyslots() {
        println!(
            "keyslot {}: {}",
            keyslot.index,
            if keyslot.active { "active" } else { "inactive" }
        );
    }
    for (who, secret) in [("owner", owner), ("operator", operator), ("successor", successor)] {
        match image.unlock(&secret) {
            Ok(unlocked) => println!(
                "the {who}'s secret opens keyslot {}",
                unlocked.keyslot().unwrap_or_default()
            ),
            Err(_) => println!("the {who}'s secret opens nothing"),
        }
    }
    Ok(())
}
