//! Whole commands: `keyslot convert` beside `qemu-img convert` and `cp`, on the same random bytes,
//! in turn.
//!
//! `cargo run --release --bin convert -- [DIRECTORY [MIB]]`; by default in `/dev/shm` with 1024 MiB,
//! of which it takes five times as much. The program is `$KEYSLOT`, or else is built first.
//!
//! Making and opening keyslots takes a time of its own, of qemu-img above all, which measures
//! how many iterations are 10 ms. Therefore 1 MiB is converted too.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keyslot::{OpenOptions, Passphrase, Sharing};
use keyslot_peers::{Costs, in_turn, keyslot, remove, run};

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| "/dev/shm".to_owned());
    let mib = arguments.next().map_or(1024, |mib| mib.parse().expect("MIB is a number"));

    let all = [Program::Keyslot(keyslot()), Program::QemuImg, Program::Cp];
    let (programs, missing): (Vec<_>, Vec<_>) = all.into_iter().partition(Program::is_usable);
    for program in missing {
        println!("There is no `{}`.", program.name());
    }
    let directory = tempfile::tempdir_in(directory)?;
    let files = Files::below(directory.path());
    let small = measure(&files, 1, &programs)?;
    let large = measure(&files, mib, &programs)?;
    print_ratios(&small, &large);
    scan(&files, mib)
}

/// Reads all data of the qcow2 image, by a [`Volume`](keyslot::Volume) on one thread and by qemu-io.
fn scan(files: &Files, mib: u64) -> io::Result<()> {
    let volume_read = || -> keyslot::Result<Duration> {
        let start = Instant::now();
        let image = OpenOptions::new().sharing(Sharing::ReadData).open(&files.qcow2)?;
        let volume = image.volume(&image.unlock(&Passphrase::new(b"hunter0")?)?)?;
        let mut buffer = vec![0; 1 << 20];
        for at in (0..volume.len()).step_by(buffer.len()) {
            volume.read_exact_at(&mut buffer, at)?;
        }
        Ok(start.elapsed())
    };
    let image =
        format!("driver=qcow2,file.filename={},encrypt.key-secret=s", files.qcow2.display());
    let mut qemu_io = Command::new("qemu-io");
    qemu_io.args(["-r", "--object", "secret,id=s,data=hunter0", "--image-opts", &image]);
    for at in 0..mib {
        qemu_io.args(["-c", &format!("read -q {at}M 1M")]);
    }
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        ours.push(volume_read().map_err(io::Error::other)?);
        theirs.push(run(&mut qemu_io)?.wall);
    }
    ours.sort_unstable();
    theirs.sort_unstable();
    let (ours, theirs) = (ours[RUNS / 2], theirs[RUNS / 2]);
    println!("\n| scan of {mib} MiB of qcow2 | keyslot | qemu-io | ratio |\n|---|---:|---:|---:|");
    let ratio = theirs.as_secs_f64() / ours.as_secs_f64();
    println!(
        "| 1 MiB at a time | {} ms | {} ms | {ratio:.1} |",
        ours.as_millis(),
        theirs.as_millis()
    );
    Ok(())
}

/// Converts `mib` MiB there and back; prints a table, and returns its rows.
fn measure(files: &Files, mib: u64, programs: &[Program]) -> io::Result<Vec<Row>> {
    io::copy(&mut File::open("/dev/urandom")?.take(mib << 20), &mut File::create(&files.raw)?)?;
    for (direction, image) in [(RAW_TO_LUKS, &files.luks), (RAW_TO_QCOW2, &files.qcow2)] {
        remove(image);
        run(&mut Program::QemuImg.convert(direction, &files.raw, image))?;
    }

    println!("\n| {mib} MiB | | wall | user | system |\n|---|---|---:|---:|---:|");
    let mut rows = Vec::new();
    for direction in DIRECTIONS {
        for (program, costs) in programs.iter().zip(convert(direction, programs, files)?) {
            let row = Row { direction, program: program.name(), costs };
            print!("| {} | {} |", direction.name(), row.program);
            for time in [costs.wall, costs.user, costs.system] {
                print!(" {:.1} ms |", time.as_secs_f64() * 1e3);
            }
            println!();
            rows.push(row);
        }
    }
    Ok(rows)
}

/// The medians of each program. What its first run made is checked.
fn convert(direction: Direction, programs: &[Program], files: &Files) -> io::Result<Vec<Costs>> {
    let source = if direction.encrypts { &files.raw } else { files.image(direction) };
    let medians = in_turn(programs, RUNS, |turn, program| {
        remove(&files.target);
        let costs = run(&mut program.convert(direction, source, &files.target))?;
        if turn == 0 {
            check(direction, program, files)?;
        }
        Ok(costs)
    });
    remove(&files.target);
    medians
}

/// The target has to be what somebody else would have written, or could read.
fn check(direction: Direction, program: &Program, files: &Files) -> io::Result<()> {
    let (result, expected) = match (program, direction.encrypts) {
        (Program::Cp, false) => (&files.target, files.image(direction)),
        (Program::Cp, true) | (_, false) => (&files.target, files.raw.as_path()),
        (_, true) => {
            let back = Direction { encrypts: false, ..direction };
            run(&mut Program::QemuImg.convert(back, &files.target, &files.back))?;
            (&files.back, files.raw.as_path())
        }
    };
    assert!(same(result, expected)?, "{} {}: other bytes", program.name(), direction.name());
    remove(&files.back);
    Ok(())
}

/// What the numbers are for.
fn print_ratios(small: &[Row], large: &[Row]) {
    println!("\n| | user(qemu-img)/user(keyslot) | both less 1 MiB's | wall(keyslot)/wall(cp) |");
    println!("|---|---:|---:|---:|");
    for direction in DIRECTIONS {
        let find = |rows: &[Row], program| {
            let row = |row: &&Row| row.direction == direction && row.program == program;
            rows.iter().find(row).map(|row| row.costs)
        };
        let user = |program| find(large, program).map(|costs| costs.user);
        let data = |program| Some(user(program)?.saturating_sub(find(small, program)?.user));
        let wall = |program| find(large, program).map(|costs| costs.wall);
        print!("| {} |", direction.name());
        for (numerator, denominator) in [
            (user("qemu-img convert"), user("keyslot convert")),
            (data("qemu-img convert"), data("keyslot convert")),
            (wall("keyslot convert"), wall("cp")),
        ] {
            match (numerator, denominator) {
                (Some(a), Some(b)) => print!(" {:.2} |", a.as_secs_f64() / b.as_secs_f64()),
                _ => print!(" - |"),
            }
        }
        println!();
    }
}

struct Row {
    direction: Direction,
    program: &'static str,
    costs: Costs,
}

/// From raw to an encrypted image, or back.
#[derive(Clone, Copy, Eq, PartialEq)]
struct Direction {
    encrypts: bool,
    is_qcow2: bool,
}

const RAW_TO_LUKS: Direction = Direction { encrypts: true, is_qcow2: false };
const RAW_TO_QCOW2: Direction = Direction { encrypts: true, is_qcow2: true };
const DIRECTIONS: [Direction; 4] = [
    RAW_TO_LUKS,
    Direction { encrypts: false, is_qcow2: false },
    RAW_TO_QCOW2,
    Direction { encrypts: false, is_qcow2: true },
];

impl Direction {
    fn name(self) -> &'static str {
        match (self.encrypts, self.is_qcow2) {
            (true, false) => "raw -> luks",
            (false, false) => "luks -> raw",
            (true, true) => "raw -> qcow2",
            (false, true) => "qcow2 -> raw",
        }
    }
}

enum Program {
    Keyslot(PathBuf),
    QemuImg,
    Cp,
}

impl Program {
    fn name(&self) -> &'static str {
        match self {
            Self::Keyslot(_) => "keyslot convert",
            Self::QemuImg => "qemu-img convert",
            Self::Cp => "cp",
        }
    }

    fn is_usable(&self) -> bool {
        let mut command = match self {
            Self::Keyslot(path) => Command::new(path),
            Self::QemuImg => Command::new("qemu-img"),
            Self::Cp => return true,
        };
        let output = command.args(["convert", "--help"]).stderr(Stdio::null()).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// qemu-img's command line is ours. `cp` copies, whatever it is given.
    fn convert(&self, direction: Direction, source: &Path, target: &Path) -> Command {
        let program = match self {
            Self::Keyslot(path) => path,
            Self::QemuImg => Path::new("qemu-img"),
            Self::Cp => {
                let mut command = Command::new("cp");
                command.arg("--reflink=never").args([source, target]);
                return command;
            }
        };
        let mut command = Command::new(program);
        command.args(["convert", "--object", "secret,id=s,data=hunter0"]);
        let source_name = source.display();
        match (direction.encrypts, direction.is_qcow2) {
            (true, false) => command
                .args(["-O", "luks", "-o", "key-secret=s,iter-time=10"])
                .args([source, target]),
            (true, true) => command
                .args(["-O", "qcow2", "-o", "encrypt.format=luks"])
                .args(["-o", "encrypt.key-secret=s,encrypt.iter-time=10"])
                .args([source, target]),
            (false, is_qcow2) => {
                let (driver, prefix) = if is_qcow2 { ("qcow2", "encrypt.") } else { ("luks", "") };
                let image =
                    format!("driver={driver},file.filename={source_name},{prefix}key-secret=s");
                command.args(["-O", "raw", "--image-opts", &image]).arg(target)
            }
        };
        command
    }
}

fn same(one: &Path, other: &Path) -> io::Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut rest = one.metadata()?.len();
    if other.metadata()?.len() != rest {
        return Ok(false);
    }
    while rest > 0 {
        let length = usize::try_from(rest).unwrap_or(usize::MAX).min(left.len());
        one.read_exact(&mut left[..length])?;
        other.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            return Ok(false);
        }
        rest -= length as u64;
    }
    Ok(true)
}

struct Files {
    /// Random bytes.
    raw: PathBuf,
    /// The same, encrypted by qemu-img.
    luks: PathBuf,
    qcow2: PathBuf,
    /// What is being made, and what is read from it by way of check.
    target: PathBuf,
    back: PathBuf,
}

impl Files {
    fn below(directory: &Path) -> Self {
        let [raw, luks, qcow2, target, back] =
            ["raw", "luks", "qcow2", "target", "back"].map(|name| directory.join(name));
        Self { raw, luks, qcow2, target, back }
    }

    /// The encrypted image that is the source of a conversion.
    fn image(&self, direction: Direction) -> &Path {
        if direction.is_qcow2 { &self.qcow2 } else { &self.luks }
    }
}

const RUNS: usize = 5;
