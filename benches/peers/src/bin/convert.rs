//! Whole commands: `keyslot convert` beside `qemu-img convert` and `cp`, on the same random bytes,
//! in turn.
//!
//! `cargo run --release --bin convert -- [DIRECTORY [MIB]]`; by default in `/dev/shm` with 1024 MiB,
//! of which it takes four times as much. The program is `$KEYSLOT`, or else is built first.
//!
//! Making and opening keyslots takes a time of its own, of qemu-img above all, which measures
//! how many iterations are 10 ms. Therefore 1 MiB is converted too.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

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
    Ok(())
}

/// Converts `mib` MiB there and back; prints a table, and returns its rows.
fn measure(files: &Files, mib: u64, programs: &[Program]) -> io::Result<Vec<Row>> {
    io::copy(&mut File::open("/dev/urandom")?.take(mib << 20), &mut File::create(&files.raw)?)?;
    remove(&files.luks);
    run(&mut Program::QemuImg.convert(Direction::Encrypt, &files.raw, &files.luks))?;

    println!("\n| {mib} MiB | | wall | user | system |\n|---|---|---:|---:|---:|");
    let mut rows = Vec::new();
    for direction in [Direction::Encrypt, Direction::Decrypt] {
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
    let source = if direction == Direction::Encrypt { &files.raw } else { &files.luks };
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
    let (result, expected) = match (program, direction) {
        (Program::Cp, Direction::Decrypt) => (&files.target, &files.luks),
        (Program::Cp, _) | (_, Direction::Decrypt) => (&files.target, &files.raw),
        (_, Direction::Encrypt) => {
            run(&mut Program::QemuImg.convert(Direction::Decrypt, &files.target, &files.back))?;
            (&files.back, &files.raw)
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
    for direction in [Direction::Encrypt, Direction::Decrypt] {
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

#[derive(Clone, Copy, Eq, PartialEq)]
enum Direction {
    Encrypt,
    Decrypt,
}

impl Direction {
    fn name(self) -> &'static str {
        match self {
            Self::Encrypt => "raw -> luks",
            Self::Decrypt => "luks -> raw",
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
        match direction {
            Direction::Encrypt => command
                .args(["-O", "luks", "-o", "key-secret=s,iter-time=10"])
                .args([source, target]),
            Direction::Decrypt => {
                let image = format!("driver=luks,file.filename={},key-secret=s", source.display());
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
    /// What is being made, and what is read from it by way of check.
    target: PathBuf,
    back: PathBuf,
}

impl Files {
    fn below(directory: &Path) -> Self {
        let [raw, luks, target, back] =
            ["raw", "luks", "target", "back"].map(|name| directory.join(name));
        Self { raw, luks, target, back }
    }
}

const RUNS: usize = 5;
