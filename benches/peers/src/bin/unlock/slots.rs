//! A LUKS1 image as qemu-img makes it, with one keyslot and with eight: `keyslot check --first`
//! beside `qemu-io` and `cryptsetup open --test-passphrase`, and `keyslot add` beside `qemu-img
//! amend`.
//!
//! Keyslots that keyslot adds have as many iterations as that of qemu-img.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyslot::Image;
use keyslot::crypto::KdfAlg;
use keyslot_peers::{Costs, in_turn, run, run_to_failure};

use super::source;

/// Prints both tables, in medians of `runs` runs.
pub fn measure(directory: &Path, keyslot: &Path, runs: usize) -> io::Result<()> {
    let scene = Scene::below(directory, keyslot)?;
    let iterations = scene.create()?;
    println!("\nLUKS1 of qemu-img, {iterations} iterations:\n");
    println!("| keyslots, secret | keyslot | qemu-io | cryptsetup | to qemu-io | to cryptsetup |");
    println!("|---|---:|---:|---:|---:|---:|");
    let open = |image: &Path, secret: &Path, is_right: bool| {
        in_turn(&[Opener::Keyslot, Opener::QemuIo, Opener::Cryptsetup], runs, |_, opener| {
            let mut command = scene.open(opener, image, secret);
            if is_right { run(&mut command) } else { run_to_failure(&mut command) }
        })
    };
    let secret = |slot| scene.secret(slot);
    print_row("1, in keyslot 0", 0.55, &open(&scene.one, &secret(0), true)?);
    scene.fill(iterations)?;
    print_row("8, in keyslot 0", 0.55, &open(&scene.eight, &secret(0), true)?);
    print_row("8, in keyslot 7", 0.2, &open(&scene.eight, &secret(LAST), true)?);
    print_row("8, wrong", 0.2, &open(&scene.eight, &secret(LAST + 1), false)?);

    println!("\n| | keyslot | qemu-img | to qemu-img |\n|---|---:|---:|---:|");
    let add = |turn, adder: &Adder| {
        fs::copy(&scene.one, &scene.added)?;
        let costs = run(&mut scene.add(adder))?;
        if turn == 0 {
            run(&mut scene.open(&Opener::Cryptsetup, &scene.added, &secret(1)))?;
        }
        Ok(costs)
    };
    let costs = in_turn(&[Adder::Keyslot, Adder::QemuImg], runs, add)?;
    print_row("add, 2000 ms", 0.5, &costs);
    Ok(())
}

/// `costs` are those of keyslot, of QEMU, which `goal` is about, and of others.
fn print_row(name: &str, goal: f64, costs: &[Costs]) {
    print!("| {name} |");
    let seconds: Vec<_> = costs.iter().map(|costs| costs.wall.as_secs_f64()).collect();
    for seconds in &seconds {
        print!(" {seconds:.2} s |");
    }
    for (place, theirs) in seconds[1..].iter().enumerate() {
        let ratio = seconds[0] / theirs;
        if place == 0 {
            let is_met = if ratio <= goal { "met" } else { "missed" };
            print!(" {ratio:.2} (goal {goal}: {is_met}) |");
        } else {
            print!(" {ratio:.2} |");
        }
    }
    println!();
}

enum Opener {
    Keyslot,
    QemuIo,
    Cryptsetup,
}

enum Adder {
    Keyslot,
    QemuImg,
}

struct Scene<'a> {
    keyslot: &'a Path,
    directory: &'a Path,
    /// One keyslot
    one: PathBuf,
    /// Eight
    eight: PathBuf,
    /// One, and the one that is added
    added: PathBuf,
}

impl<'a> Scene<'a> {
    /// Secrets and names of images.
    fn below(directory: &'a Path, keyslot: &'a Path) -> io::Result<Self> {
        let [one, eight, added] = ["one", "eight", "added"].map(|name| directory.join(name));
        let scene = Self { keyslot, directory, one, eight, added };
        // The last one is of no keyslot.
        for slot in 0..=LAST + 1 {
            fs::write(scene.secret(slot), format!("hunter{slot}"))?;
        }
        Ok(scene)
    }

    /// A file with the secret of a keyslot.
    fn secret(&self, slot: usize) -> PathBuf {
        self.directory.join(format!("secret-{slot}"))
    }

    /// `--object` of the secret of a keyslot, as QEMU's programs take it.
    fn object(&self, id: &str, slot: usize) -> [String; 2] {
        ["--object".to_owned(), object(id, &self.secret(slot))]
    }

    /// The image with one keyslot; says how many iterations that takes.
    fn create(&self) -> io::Result<u32> {
        let mut command = Command::new("qemu-img");
        command.args(["create", "-q", "-f", "luks", "-o", "key-secret=s"]);
        run(command.args(self.object("s", 0)).arg(&self.one).arg("32M"))?;
        let image = Image::open(&self.one).map_err(io::Error::other)?;
        match image.keyslots().next().map(|keyslot| keyslot.kdf.alg) {
            Some(KdfAlg::Pbkdf2 { iterations, .. }) => Ok(iterations),
            other => Err(io::Error::other(format!("keyslot 0 of qemu-img has {other:?}"))),
        }
    }

    /// The image with eight.
    fn fill(&self, iterations: u32) -> io::Result<()> {
        fs::copy(&self.one, &self.eight)?;
        for slot in 1..=LAST {
            let mut command = Command::new(self.keyslot);
            command.args(["add", "-q", "--secret", &source(&self.secret(0)), "--new-secret"]);
            command.args([&source(&self.secret(slot)), "--keyslot", &slot.to_string()]);
            run(command.args(["--iterations", &iterations.to_string()]).arg(&self.eight))?;
        }
        Ok(())
    }

    fn open(&self, opener: &Opener, image: &Path, secret: &Path) -> Command {
        match opener {
            Opener::Keyslot => {
                let mut command = Command::new(self.keyslot);
                command.args(["check", "--first", "--secret", &source(secret)]).arg(image);
                command
            }
            Opener::QemuIo => {
                let mut command = Command::new("qemu-io");
                command.args(["-r", "--object", &object("s", secret), "-c", "read 0 512"]);
                command.args(["--image-opts", &luks(image, "s")]);
                command
            }
            Opener::Cryptsetup => {
                let mut command = Command::new("cryptsetup");
                command.args(["open", "--test-passphrase", "--key-file"]).args([secret, image]);
                command
            }
        }
    }

    fn add(&self, adder: &Adder) -> Command {
        match adder {
            Adder::Keyslot => {
                let mut command = Command::new(self.keyslot);
                command.args(["add", "-q", "--secret", &source(&self.secret(0)), "--new-secret"]);
                command.args([&source(&self.secret(1)), "--iter-time", "2000"]).arg(&self.added);
                command
            }
            Adder::QemuImg => {
                let mut command = Command::new("qemu-img");
                command.args(["amend", "-q"]).args(self.object("old", 0));
                command.args(self.object("new", 1));
                command.args(["-o", "state=active,new-secret=new,iter-time=2000"]);
                command.args(["--image-opts", &luks(&self.added, "old")]);
                command
            }
        }
    }
}

fn object(id: &str, secret: &Path) -> String {
    format!("secret,id={id},file={}", secret.display())
}

/// The image as QEMU's programs name it.
fn luks(image: &Path, secret: &str) -> String {
    format!("driver=luks,key-secret={secret},file.filename={}", image.display())
}

/// Of the keyslots of a LUKS1 image.
const LAST: usize = 7;
