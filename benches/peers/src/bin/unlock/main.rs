//! Whole commands: `keyslot check --first` beside `cryptsetup open --test-passphrase`, and `keyslot
//! add` beside `cryptsetup luksAddKey`, on the same images with the same parameters, in turn; and
//! both of keyslot beside `qemu-io` and `qemu-img amend`, on an image of qemu-img's (`slots`).
//!
//! `cargo run --release --bin unlock -- [DIRECTORY [RUNS [kdfs|slots]]]`; by default in `/dev/shm`,
//! medians of five runs, and both parts. The program is `$KEYSLOT`, or else is built first.
//!
//! Argon2 has two lanes and four passes. A keyslot is added to an image whose own takes no time to
//! open, so what is measured is how the new one is made.

mod slots;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use keyslot_peers::{Costs, in_turn, keyslot, remove, run};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "/dev/shm".to_owned());
    let runs = arguments.next().map_or(5, |runs| runs.parse().expect("RUNS is a number"));
    let part = arguments.next();
    let is_wanted = |name| part.as_deref().is_none_or(|part| part == name);

    let directory = tempfile::tempdir_in(directory)?;
    let keyslot = keyslot();
    if is_wanted("kdfs") {
        measure_kdfs(directory.path(), &keyslot, runs)?;
    }
    if is_wanted("slots") {
        slots::measure(directory.path(), &keyslot, runs)?;
    }
    Ok(())
}

/// A keyslot of each kind, opened and added.
fn measure_kdfs(directory: &Path, keyslot: &Path, runs: usize) -> io::Result<()> {
    let files = Files::below(directory)?;
    let programs = [Program::Keyslot(keyslot.to_owned()), Program::Cryptsetup];
    print_header("keyslot check --first", "cryptsetup open --test-passphrase");
    for kdf in KDFS {
        files.format(kdf)?;
        let open = |_, program: &Program| run(&mut program.open(&files.image, &files.secret));
        print_row(kdf, &in_turn(&programs, runs, open)?);
    }
    print_header("keyslot add", "cryptsetup luksAddKey");
    for kdf in KDFS {
        print_row(kdf, &files.measure_add(kdf, &programs, runs)?);
    }
    Ok(())
}

fn print_header(ours: &str, theirs: &str) {
    println!("\n| | {ours}: wall | user + system | {theirs}: wall | user + system | ratio |");
    println!("|---|---:|---:|---:|---:|---:|");
}

/// `costs` are those of keyslot and of cryptsetup.
fn print_row(kdf: Kdf, costs: &[Costs]) {
    print!("| {} |", kdf.name);
    for costs in costs {
        let millis = [costs.wall, costs.user + costs.system].map(|time| time.as_secs_f64() * 1e3);
        print!(" {:.1} ms | {:.1} ms |", millis[0], millis[1]);
    }
    println!(" {:.2} |", costs[1].wall.as_secs_f64() / costs[0].wall.as_secs_f64());
}

/// The parameters of a keyslot and the format that it is in.
#[derive(Clone, Copy)]
struct Kdf {
    name: &'static str,
    format: &'static str,
    hash: &'static str,
    pbkdf: &'static str,
    iterations: u32,
    /// In KiB, of Argon2.
    memory: u32,
}

impl Kdf {
    /// Options that have the same names in both programs.
    fn options(self) -> Vec<String> {
        let mut options = vec!["--pbkdf".to_owned(), self.pbkdf.to_owned()];
        if self.memory > 0 {
            options.extend(["--pbkdf-memory".to_owned(), self.memory.to_string()]);
            options.extend(["--pbkdf-parallel".to_owned(), LANES.to_string()]);
        }
        options
    }
}

const KDFS: [Kdf; 5] = [
    Kdf { memory: 64 << 10, ..Kdf::luks2("LUKS2, argon2id 64 MiB", "sha256", "argon2id", 4) },
    Kdf { memory: 1 << 20, ..Kdf::luks2("LUKS2, argon2id 1 GiB", "sha256", "argon2id", 4) },
    Kdf::luks2("LUKS2, pbkdf2-sha256 1 M", "sha256", "pbkdf2", 1_000_000),
    Kdf::luks2("LUKS2, pbkdf2-sha512 1 M", "sha512", "pbkdf2", 1_000_000),
    Kdf {
        format: "luks1",
        ..Kdf::luks2("LUKS1, pbkdf2-sha256 1 M", "sha256", "pbkdf2", 1_000_000)
    },
];

impl Kdf {
    const fn luks2(
        name: &'static str,
        hash: &'static str,
        pbkdf: &'static str,
        iterations: u32,
    ) -> Self {
        Self { name, format: "luks2", hash, pbkdf, iterations, memory: 0 }
    }

    /// The same format and hash, with a keyslot that is cheap to open.
    fn cheap(self) -> Self {
        Self { pbkdf: "pbkdf2", iterations: 1000, memory: 0, ..self }
    }
}

enum Program {
    Keyslot(PathBuf),
    Cryptsetup,
}

impl Program {
    fn open(&self, image: &Path, secret: &Path) -> Command {
        match self {
            Self::Keyslot(path) => {
                let mut command = Command::new(path);
                command.args(["check", "--first", "--secret", &source(secret)]).arg(image);
                command
            }
            Self::Cryptsetup => {
                let mut command = Command::new("cryptsetup");
                command.args(["open", "--test-passphrase", "--key-file"]).args([secret, image]);
                command
            }
        }
    }

    fn add(&self, kdf: Kdf, files: &Files) -> Command {
        let iterations = kdf.iterations.to_string();
        match self {
            Self::Keyslot(path) => {
                let mut command = Command::new(path);
                command.args(["add", "--secret", &source(&files.secret)]);
                command.args(["--new-secret", &source(&files.new_secret)]);
                // LUKS1 has nothing else than PBKDF2.
                if kdf.format != "luks1" {
                    command.args(kdf.options());
                }
                command.args(["--iterations", &iterations]).arg(&files.image);
                command
            }
            Self::Cryptsetup => {
                let mut command = Command::new("cryptsetup");
                command.args(["luksAddKey", "--batch-mode", "--key-file"]).arg(&files.secret);
                command.args(kdf.options()).args(["--pbkdf-force-iterations", &iterations]);
                command.args(["--hash", kdf.hash]).args([&files.image, &files.new_secret]);
                command
            }
        }
    }
}

/// As keyslot names it.
fn source(secret: &Path) -> String {
    format!("file:{}", secret.display())
}

struct Files {
    secret: PathBuf,
    new_secret: PathBuf,
    image: PathBuf,
    /// The image as it was before a keyslot was added.
    original: PathBuf,
}

impl Files {
    fn below(directory: &Path) -> io::Result<Self> {
        let [secret, new_secret, image, original] =
            ["secret", "new-secret", "image", "original"].map(|name| directory.join(name));
        fs::write(&secret, "hunter0")?;
        fs::write(&new_secret, "hunter1")?;
        Ok(Self { secret, new_secret, image, original })
    }

    /// Makes the image, with one keyslot.
    fn format(&self, kdf: Kdf) -> io::Result<()> {
        remove(&self.image);
        File::create(&self.image)?.set_len(IMAGE_SIZE)?;
        let iterations = kdf.iterations.to_string();
        let mut command = Command::new("cryptsetup");
        command.args(["luksFormat", "--batch-mode", "--type", kdf.format, "--hash", kdf.hash]);
        command.args(kdf.options()).args(["--pbkdf-force-iterations", &iterations]);
        run(command.arg("--key-file").args([&self.secret, &self.image]))?;
        Ok(())
    }

    /// What each program made, cryptsetup has to open.
    fn measure_add(&self, kdf: Kdf, programs: &[Program], runs: usize) -> io::Result<Vec<Costs>> {
        self.format(kdf.cheap())?;
        fs::copy(&self.image, &self.original)?;
        let add = |turn, program: &Program| {
            fs::copy(&self.original, &self.image)?;
            let costs = run(&mut program.add(kdf, self))?;
            if turn == 0 {
                run(&mut Program::Cryptsetup.open(&self.image, &self.new_secret))?;
            }
            Ok(costs)
        };
        in_turn(programs, runs, add)
    }
}

/// Header, keyslots and a little payload.
const IMAGE_SIZE: u64 = 32 << 20;

/// Of Argon2.
const LANES: u32 = 2;
